//! Device memory of the emulator: host memory between pages that nobody may touch.
//!
//! Why mapped one by one: an access behind a claim, or far in front of it, then faults at the
//! instruction that does it. Claims start at multiples of 256 bytes, as a GPU's do; the few bytes
//! between a claim's end and its page's are checked after each launch. This module knows no queue.

use std::collections::BTreeMap;

use super::library::runtime;
use crate::gpu::Address;

/// Claims start at multiples of this.
const ALIGNMENT: usize = 256;
/// What unwritten memory holds: NaN in every floating-point format.
const POISON: u8 = 0xff;
static PAGE: [u8; 4096] = [POISON; 4096];
/// Bytes in front of a claim that are looked at after each launch.
const FRONT: usize = 256;

/// One claim.
#[derive(Debug)]
struct Claim {
    what: &'static str,
    bytes: usize,
    /// Start and bytes of the mapping that it ends.
    mapped: (*mut u8, usize),
}

impl Claim {
    /// Whether `bytes` bytes from `from`, all in the mapping, are still as they were.
    fn untouched(from: *const u8, bytes: usize) -> bool {
        // SAFETY: in a mapping that is ours; kernels run on this thread, so none is writing.
        let bytes = unsafe { std::slice::from_raw_parts(from, bytes) };
        // Slices compare fast in a debug build too.
        bytes.chunks(PAGE.len()).all(|part| part == &PAGE[..part.len()])
    }

    /// Checks the bytes around a claim at `at`, up to `front` in front of it.
    fn check(&self, at: Address, front: usize) -> Result<(), String> {
        let start = at as *const u8;
        let (mapping, mapped) = self.mapped;
        let before = start as usize - mapping as usize;
        let behind = mapped - before - self.bytes;
        let front = front.min(before);
        if !Self::untouched(start.wrapping_sub(front), front) {
            return Err(format!("writes in front of `{}`", self.what));
        }
        if !Self::untouched(start.wrapping_add(self.bytes), behind) {
            return Err(format!("writes behind `{}` ({} bytes)", self.what, self.bytes));
        }
        Ok(())
    }
}

/// All claims.
#[derive(Debug, Default)]
pub(super) struct Memory {
    claims: BTreeMap<Address, Claim>,
    claimed: u64,
}

impl Memory {
    /// Bytes in claims.
    pub(super) fn claimed(&self) -> u64 {
        self.claimed
    }

    /// A new claim, filled with poison; `None` when the host has no memory for it.
    pub(super) fn claim(&mut self, what: &'static str, bytes: usize) -> Option<Address> {
        // An empty claim has an address too.
        let room = bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let mapped = room.next_multiple_of(4096);
        // SAFETY: `map` has no conditions.
        let mapping = unsafe { (runtime().map)(mapped as u64) };
        if mapping.is_null() {
            return None;
        }
        // SAFETY: the mapping has at least that many bytes.
        unsafe { mapping.write_bytes(POISON, mapped) };
        let at = mapping.wrapping_add(mapped - room) as Address;
        self.claims.insert(at, Claim { what, bytes, mapped: (mapping, mapped) });
        self.claimed += bytes as u64;
        Some(at)
    }

    /// Gives a claim back; an error when something was written around it.
    ///
    /// # Panics
    /// `at` is no claim.
    pub(super) fn release(&mut self, at: Address) -> Result<(), String> {
        let claim = self.claims.remove(&at).unwrap_or_else(|| panic!("{at:#x} is not claimed"));
        self.claimed -= claim.bytes as u64;
        let whole = claim.check(at, usize::MAX);
        // SAFETY: mapped by `claim`, and no longer listed.
        unsafe { (runtime().unmap)(claim.mapped.0, claim.mapped.1 as u64) };
        whole
    }

    /// Whether `bytes` bytes from `at` lie in one claim.
    pub(super) fn holds(&self, at: Address, bytes: usize) -> bool {
        self.claims.range(..=at).next_back().is_some_and(|(start, claim)| {
            let from = (at - start) as usize;
            from <= claim.bytes && bytes <= claim.bytes - from
        })
    }

    /// Looks for writes near claims, as far in front of them as they are mapped if `all`.
    pub(super) fn check(&self, all: bool) -> Result<(), String> {
        let front = if all { usize::MAX } else { FRONT };
        self.claims.iter().try_for_each(|(at, claim)| claim.check(*at, front))
    }

    /// Where an address lies, in words.
    pub(super) fn describe(&self, address: Address) -> String {
        let before = self.claims.range(..=address).next_back();
        let after = self.claims.range(address..).next();
        if let Some((start, claim)) = before
            && address - start < claim.bytes as u64
        {
            return format!("byte {} of `{}` ({} bytes)", address - start, claim.what, claim.bytes);
        }
        let behind = before.map(|(start, claim)| {
            (address - start - claim.bytes as u64, "behind the end of", claim)
        });
        let front = after.map(|(start, claim)| (start - address, "in front of", claim));
        match behind.into_iter().chain(front).min_by_key(|(distance, ..)| *distance) {
            Some((distance, side, claim)) if distance < 1 << 20 => {
                format!("{distance} bytes {side} `{}` ({} bytes)", claim.what, claim.bytes)
            }
            _ => "near no claim".to_owned(),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for claim in self.claims.values() {
            // SAFETY: mapped by `claim`; nothing refers to it any more.
            unsafe { (runtime().unmap)(claim.mapped.0, claim.mapped.1 as u64) };
        }
    }
}
