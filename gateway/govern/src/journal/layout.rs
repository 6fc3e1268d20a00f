//! Where what lies in the journal's file, byte by byte.
//!
//! ```text
//! block   69632 bytes: 32 tails, then the 32 slots that they belong to
//! slot    2048 bytes
//!   0     u32 CRC-32 of bytes 4..16+length, u32 length, u64 sequence, entry as JSON
//! tail    128 bytes
//!   0     u32 CRC-32 of bytes 4..96, u8 ended, u8 outcome, u8 service tier, u8 0, u64 sequence
//!   16    u64 output, thoughts, read from a cache, input, written into a cache
//!   56    i64 cost, settled at, duration, first token; u64 device time
//! ```
//!
//! Numbers are little-endian. A tail says something of the entry that has its sequence: what was
//! handed out so far or, once it has ended, all that was not known when it began.

use super::{JournalError, SLOTS_MAX, Slot};
use crate::Money;
use crate::ledger::{Entry, Outcome, ServiceTier, Tokens};

const SLOT: usize = 2048;
const HEAD: usize = 16;
const TAIL: usize = 128;
const TAIL_USED: usize = 96;

/// Slots of a block.
pub(super) const TOGETHER: u32 = 32;
/// Tails stand together, so that those of requests that end together lie in few pages.
const TAILS: usize = TAIL * TOGETHER as usize;
/// Bytes of a block.
pub(super) const BLOCK: usize = TAILS + SLOT * TOGETHER as usize;

pub(super) fn blocks(slots: u32) -> u32 {
    slots.div_ceil(TOGETHER)
}

/// Slots of so many bytes, a block that is not whole among them.
pub(super) fn slots_in(bytes: u64) -> u32 {
    let blocks = bytes.div_ceil(BLOCK as u64);
    u32::try_from(blocks * u64::from(TOGETHER)).unwrap_or(SLOTS_MAX).min(SLOTS_MAX)
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
    u64::from(at / TOGETHER) * BLOCK as u64
}

fn within(at: u32) -> usize {
    (at % TOGETHER) as usize
}

/// A slot's bytes, as far as they say anything.
pub(super) fn slot(sequence: u64, json: &str) -> Result<Vec<u8>, JournalError> {
    if json.len() > SLOT - HEAD {
        return Err(JournalError::TooLong);
    }
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD + json.len());
    bytes.extend([0; 4]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(json.as_bytes());
    seal(&mut bytes);
    Ok(bytes)
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

/// The entries in a block's bytes, with their slots; what is damaged is left out. `first`: the
/// block's first slot.
pub(super) fn entries(block: &[u8], first: u32) -> impl Iterator<Item = (Slot, Entry)> {
    (0..TOGETHER).filter_map(move |at| {
        let slot = block.get(TAILS + within(at) * SLOT..)?.get(..SLOT)?;
        let tail = block.get(within(at) * TAIL..)?.get(..TAIL_USED)?;
        let length = usize::try_from(u32_at(slot, 4)?).ok()?;
        if length == 0 || !is_sealed(slot.get(..HEAD.checked_add(length)?)?) {
            return None;
        }
        let sequence = u64_at(slot, 8)?;
        let mut entry: Entry = serde_json::from_slice(&slot[HEAD..HEAD + length]).ok()?;
        // Unless its tail says more.
        entry.outcome = Outcome::Recovered;
        if is_sealed(tail) && u64_at(tail, 8)? == sequence {
            read_tail(tail, &mut entry)?;
        }
        Some((Slot { at: first + at, sequence }, entry))
    })
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

/// Whether an entry lies in these bytes as earlier versions wrote them: slots of 2048 bytes from the
/// start of the file on, without a sequence.
pub(super) fn is_older(block: &[u8]) -> bool {
    block.chunks_exact(SLOT).any(|slot| {
        let length = u32_at(slot, 4).and_then(|length| usize::try_from(length).ok());
        let sealed = length.filter(|length| *length > 0).and_then(|length| slot.get(..8 + length));
        sealed.is_some_and(is_sealed)
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
