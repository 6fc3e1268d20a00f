//! Where what lies in the journal's file, byte by byte.
//!
//! ```text
//! head    4096 bytes
//!   0     u32 CRC-32 of bytes 4..16, u32 0, u64: up to this sequence the database has all entries
//! block   36864 bytes: 32 tails, then the 32 slots that they belong to
//! slot    1024 bytes
//!   0     u32 CRC-32 of bytes 4..16+length, u32 length, u64 sequence
//!   16    u64 attempt, let in at, input; u8 label, u8 service tier, then each text of the entry
//!         behind its length as u16
//! tail    128 bytes
//!   0     u32 CRC-32 of bytes 4..96, u8 ended, u8 outcome, u8 service tier, u8 0, u64 sequence
//!   16    u64 output, thoughts, read from a cache, input, written into a cache
//!   56    i64 cost, settled at, duration, first token; u64 device time
//! ```
//!
//! In the other file an entry that has ended is its slot, as far as that says anything, and its
//! tail behind it.
//!
//! Numbers are little-endian. A tail says something of the entry that has its sequence: what was
//! handed out so far or, once it has ended, all that was not known when it began.

use std::sync::Arc;

use super::{JournalError, SLOTS_MAX};
use crate::ledger::{Entry, Outcome, ServiceTier, Tokens};
use crate::policy::Label;
use crate::{Id, Money};

const SLOT: usize = 1024;
const NAMED: usize = 16;
const TAIL: usize = 128;
/// Bytes of a tail that say something.
pub(super) const TAIL_USED: usize = 96;

/// Bytes before the first block.
pub(super) const HEAD: usize = 4096;
/// Slots of a block.
pub(super) const TOGETHER: usize = 32;
/// Tails stand together, so that those of requests that end together lie in few pages.
const TAILS: usize = TAIL * TOGETHER;
/// Bytes of a block.
pub(super) const BLOCK: usize = TAILS + SLOT * TOGETHER;

/// Slots of a file of so many bytes, a block that is not whole among them.
pub(super) fn slots_in(bytes: u64) -> u32 {
    let blocks = bytes.saturating_sub(HEAD as u64).div_ceil(BLOCK as u64);
    u32::try_from(blocks * TOGETHER as u64).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
}

/// Where a slot begins.
pub(super) fn place(at: u32) -> u64 {
    block_of(at) + (TAILS + within(at) * SLOT) as u64
}

/// Where a slot's tail begins.
pub(super) fn tail_place(at: u32) -> u64 {
    block_of(at) + (within(at) * TAIL) as u64
}

fn block_of(at: u32) -> u64 {
    (HEAD + at as usize / TOGETHER * BLOCK) as u64
}

fn within(at: u32) -> usize {
    at as usize % TOGETHER
}

/// What stands at the start of the file.
pub(super) fn done(sequence: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&sequence.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// See [`done`].
pub(super) fn read_done(head: &[u8]) -> Option<u64> {
    let bytes = head.get(..16)?;
    is_sealed(bytes).then(|| u64_at(bytes, 8)).flatten()
}

/// A slot's bytes, as far as they say anything: what is known of an entry that begins.
pub(super) fn slot(sequence: u64, entry: &Entry) -> Result<Vec<u8>, JournalError> {
    let mut bytes = Vec::with_capacity(SLOT);
    bytes.extend([0; 8]);
    let numbers = [entry.attempt, entry.admitted_at].map(i64::cast_unsigned);
    for number in [sequence, numbers[0], numbers[1], entry.tokens.input] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([entry.label as u8, entry.service_tier as u8]);
    let texts: [&str; 14] = [
        entry.operation.as_str(),
        &entry.gateway,
        &entry.organisation,
        &entry.team,
        &entry.project,
        &entry.user,
        &entry.key,
        &entry.model,
        &entry.backend,
        &entry.surface,
        &entry.price,
        &entry.request_id,
        &entry.source,
        &entry.arm,
    ];
    for text in texts {
        let length = u16::try_from(text.len()).map_err(|_| JournalError::TooLong)?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    if bytes.len() > SLOT {
        return Err(JournalError::TooLong);
    }
    let length = u32::try_from(bytes.len() - NAMED).unwrap_or(u32::MAX);
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    seal(&mut bytes);
    Ok(bytes)
}

/// See [`slot`]. `bytes`: what lies behind its head.
fn read_slot(bytes: &[u8]) -> Option<Entry> {
    let signed = |at: usize| u64_at(bytes, at).map(u64::cast_signed);
    let [label, tier] = *bytes.get(24..26)?.as_array()?;
    let mut rest = bytes.get(26..)?;
    let rest = &mut rest;
    Some(Entry {
        operation: Id::of(&text(rest)?)?,
        attempt: signed(0)?,
        admitted_at: signed(8)?,
        tokens: Tokens { input: u64_at(bytes, 16)?, ..Tokens::default() },
        label: *Label::ALL.get(usize::from(label))?,
        service_tier: *ServiceTier::ALL.get(usize::from(tier))?,
        gateway: text(rest)?,
        organisation: text(rest)?,
        team: text(rest)?,
        project: text(rest)?,
        user: text(rest)?,
        key: text(rest)?,
        model: text(rest)?,
        backend: text(rest)?,
        surface: text(rest)?,
        price: text(rest)?,
        request_id: text(rest)?,
        source: text(rest)?,
        // Earlier versions wrote none.
        arm: if rest.is_empty() { Arc::default() } else { text(rest)? },
        ..Entry::default()
    })
}

/// The next text of a slot.
fn text(rest: &mut &[u8]) -> Option<Arc<str>> {
    let (length, behind) = rest.split_first_chunk()?;
    let (text, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = behind;
    std::str::from_utf8(text).ok().map(Arc::<str>::from)
}

/// A tail that says what was handed out.
pub(super) fn note(sequence: u64, tokens: Tokens) -> [u8; TAIL_USED] {
    tail(sequence, [0; 4], tokens, [0; 5])
}

/// A tail that says how an entry has ended.
pub(super) fn end(sequence: u64, entry: &Entry) -> [u8; TAIL_USED] {
    let Entry { cost, settled_at, duration_ms, first_token_ms, device_us, .. } = entry;
    let kinds = [1, entry.outcome as u8, entry.service_tier as u8, 0];
    let times = [cost.0, *settled_at, *duration_ms, *first_token_ms].map(i64::cast_unsigned);
    let [cost, settled, duration, first] = times;
    tail(sequence, kinds, entry.tokens, [cost, settled, duration, first, *device_us])
}

fn tail(sequence: u64, kinds: [u8; 4], tokens: Tokens, rest: [u64; 5]) -> [u8; TAIL_USED] {
    let Tokens { input, cache_read, cache_write, output, reasoning } = tokens;
    let numbers = [sequence, output, reasoning, cache_read, input, cache_write];
    let mut bytes = [0; TAIL_USED];
    bytes[4..8].copy_from_slice(&kinds);
    for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers.into_iter().chain(rest)) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    seal(&mut bytes);
    bytes
}

/// The entries in a block's bytes, with their sequences, slot by slot; `None` where there is none,
/// or it is damaged.
pub(super) fn entries(block: &[u8]) -> impl Iterator<Item = Option<(u64, Entry)>> {
    let (tails, slots) = block.split_at(TAILS);
    tails.chunks_exact(TAIL).zip(slots.chunks_exact(SLOT)).map(|(tail, slot)| {
        let (slot, _) = sealed_slot(slot)?;
        let sequence = u64_at(slot, 8)?;
        let mut entry = read_slot(&slot[NAMED..])?;
        // Unless its tail says more.
        entry.outcome = Outcome::Recovered;
        let tail = tail.get(..TAIL_USED)?;
        if is_sealed(tail) && u64_at(tail, 8)? == sequence {
            read_tail(tail, &mut entry)?;
        }
        Some((sequence, entry))
    })
}

/// All that is to be known of an entry that has ended.
pub(super) fn record(sequence: u64, entry: &Entry) -> Result<Vec<u8>, JournalError> {
    let mut bytes = slot(sequence, entry)?;
    bytes.extend(end(sequence, entry));
    Ok(bytes)
}

/// The records in a block's bytes, up to the first that is damaged.
pub(super) fn records(block: &[u8]) -> impl Iterator<Item = (u64, Entry)> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let (sequence, entry, length) = read_record(rest)?;
        rest = &rest[length..];
        Some((sequence, entry))
    })
}

fn read_record(bytes: &[u8]) -> Option<(u64, Entry, usize)> {
    let (slot, behind) = sealed_slot(bytes)?;
    let tail = behind.get(..TAIL_USED)?;
    let sequence = u64_at(slot, 8)?;
    if !is_sealed(tail) || u64_at(tail, 8)? != sequence {
        return None;
    }
    let mut entry = read_slot(&slot[NAMED..])?;
    read_tail(tail, &mut entry)?;
    Some((sequence, entry, slot.len() + TAIL_USED))
}

/// A slot as far as it says anything, and what lies behind it.
fn sealed_slot(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 4)?).ok()?;
    let (slot, behind) = bytes.split_at_checked(NAMED.checked_add(length)?)?;
    (length > 0 && is_sealed(slot)).then_some((slot, behind))
}

/// The highest sequence of any tail in a block's bytes.
pub(super) fn newest_tail(block: &[u8]) -> u64 {
    let tails = block[..TAILS].chunks_exact(TAIL).map(|tail| &tail[..TAIL_USED]);
    let sequences = tails.filter(|tail| is_sealed(tail)).filter_map(|tail| u64_at(tail, 8));
    sequences.max().unwrap_or(0)
}

fn read_tail(tail: &[u8], entry: &mut Entry) -> Option<()> {
    let signed = |at: usize| u64_at(tail, at).map(u64::cast_signed);
    let [ended, outcome, tier, _] = *tail.get(4..8)?.as_array()?;
    entry.tokens.output = u64_at(tail, 16)?;
    entry.tokens.reasoning = u64_at(tail, 24)?;
    entry.tokens.cache_read = u64_at(tail, 32)?;
    if ended == 1 {
        entry.tokens.input = u64_at(tail, 40)?;
        entry.tokens.cache_write = u64_at(tail, 48)?;
        entry.outcome = *Outcome::ALL.get(usize::from(outcome))?;
        entry.service_tier = *ServiceTier::ALL.get(usize::from(tier))?;
        entry.cost = Money(signed(56)?);
        entry.settled_at = signed(64)?;
        entry.duration_ms = signed(72)?;
        entry.first_token_ms = signed(80)?;
        entry.device_us = u64_at(tail, 88)?;
    }
    Some(())
}

/// Whether an entry lies in these bytes as earlier versions wrote them: slots of 2048 bytes from
/// the start of the file on, with JSON behind a sum and a length.
pub(super) fn is_older(block: &[u8]) -> bool {
    block.chunks_exact(2048).any(|slot| {
        let length = u32_at(slot, 4).and_then(|length| usize::try_from(length).ok());
        let sealed = length.filter(|length| *length > 0).and_then(|length| slot.get(..8 + length));
        sealed.is_some_and(|sealed| is_sealed(sealed) && sealed[8] == b'{')
    })
}

/// Writes the sum of what follows into the first four bytes.
fn seal(bytes: &mut [u8]) {
    let sum = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    u32_at(bytes, 0) == bytes.get(4..).map(crc32fast::hash)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..at + 4)?.as_array()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..at + 8)?.as_array()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose source takes up a slot but for so many bytes.
    fn entry(room: usize) -> Entry {
        let mut entry = Entry {
            operation: Id::of("op_0k3v8w2n5q7r1s4t6x9z").expect("a name"),
            attempt: 3,
            gateway: "gateway-1".into(),
            admitted_at: -5,
            organisation: "org_1".into(),
            team: "team_1".into(),
            project: "project_1".into(),
            user: "".into(),
            key: "key_1".into(),
            model: "Größe".into(),
            backend: "local".into(),
            surface: "chat".into(),
            label: Label::ALL[Label::ALL.len() - 1],
            price: "prices_1".into(),
            tokens: Tokens { input: 500, ..Tokens::default() },
            request_id: "req_\"1\"".into(),
            service_tier: ServiceTier::Flex,
            arm: "b".into(),
            ..Entry::default()
        };
        let used = slot(0, &entry).expect("a slot").len();
        entry.source = "x".repeat(SLOT - used - room).into();
        entry
    }

    #[test]
    fn what_begins_is_read_back() {
        for room in [0, 1, 700] {
            let entry = entry(room);
            let bytes = slot(7, &entry).expect("a slot");
            assert_eq!((bytes.len(), u64_at(&bytes, 8)), (SLOT - room, Some(7)));
            assert_eq!(read_slot(&bytes[NAMED..]).as_ref(), Some(&entry));
            // Without an arm it is one of an earlier version.
            let older = bytes.len() - 3;
            for cut in NAMED..bytes.len() {
                let expect = (cut == older).then(|| Entry { arm: "".into(), ..entry.clone() });
                assert_eq!(read_slot(&bytes[NAMED..cut]), expect, "{cut} bytes of it");
            }
        }
        let mut long = entry(0);
        long.user = "u".into();
        assert!(matches!(slot(7, &long), Err(JournalError::TooLong)));
        long.user = "u".repeat(1 << 16).into();
        assert!(matches!(slot(7, &long), Err(JournalError::TooLong)));
    }

    #[test]
    fn numbers_of_kinds_are_their_places() {
        assert!(Label::ALL.into_iter().enumerate().all(|(at, label)| label as usize == at));
        assert!(Outcome::ALL.into_iter().enumerate().all(|(at, outcome)| outcome as usize == at));
        assert!(ServiceTier::ALL.into_iter().enumerate().all(|(at, tier)| tier as usize == at));
    }
}
