//! What steps drew and scored, between the kernels and the caller: laid out while the step is
//! recorded, copied to the host in one piece.
//!
//! In the order of the calls: 4 bytes for each token drawn, then, aligned to 8, a score of 16
//! bytes and 8 for each alternative for each row that asked. So a step copies what it asked for.

use kernels::Error;
use kernels::compute::{Drawn, Scored};

use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Pinned};

/// Alternatives of a row at most: `TOP_MAX` of score.cu.
pub(super) const TOP_MAX: usize = 128;
const SCORE_BYTES: usize = 16;
const PAIR_BYTES: usize = 8;
/// No token: `NO_TOKEN` of row.cuh.
const NO_TOKEN: u32 = u32::MAX;

/// Bytes of a turn: a token for each row, a score for each row and for each slot.
pub(super) fn bytes(config: &CudaConfig) -> usize {
    let scores = config.rows_max + config.slots.min(config.rows_max);
    // A call's tokens may have to be aligned.
    let tokens = 8 * config.rows_max;
    (tokens + scores * (SCORE_BYTES + PAIR_BYTES * TOP_MAX)).next_multiple_of(256)
}

struct Token {
    slot: u32,
    at: usize,
}

struct Score {
    slot: u32,
    position: u32,
    top: usize,
    at: usize,
}

/// Results of one turn.
pub(super) struct Results {
    device: Address,
    pinned: Pinned,
    used: usize,
    tokens: Vec<Token>,
    scores: Vec<Score>,
}

impl Results {
    /// Results that are at `device` until they are copied.
    pub(super) fn new<G: Gpu>(
        gpu: &mut G,
        config: &CudaConfig,
        device: Address,
    ) -> Result<Self, Error> {
        Ok(Self {
            device,
            pinned: gpu.pinned(bytes(config))?,
            used: 0,
            tokens: Vec::with_capacity(config.rows_max),
            scores: Vec::with_capacity(config.rows_max + config.slots),
        })
    }

    /// Starts anew.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.tokens.clear();
        self.scores.clear();
    }

    pub(super) fn device(&self) -> Address {
        self.device
    }

    /// Where a token of `slot` goes.
    pub(super) fn token(&mut self, slot: u32) -> u32 {
        let at = self.claim(4, 4);
        self.tokens.push(Token { slot, at });
        at as u32
    }

    /// Where a score with `top` alternatives goes.
    pub(super) fn score(&mut self, slot: u32, position: u32, top: usize) -> u32 {
        assert!(top <= TOP_MAX, "{top} alternatives");
        let at = self.claim(SCORE_BYTES + PAIR_BYTES * top, 8);
        self.scores.push(Score { slot, position, top, at });
        at as u32
    }

    fn claim(&mut self, bytes: usize, align: usize) -> usize {
        let at = self.used.next_multiple_of(align);
        self.used = at + bytes;
        let room = self.pinned.bytes().len();
        assert!(self.used <= room, "results of {} bytes, {room} claimed", self.used);
        at
    }

    /// Queues the copy to the host.
    pub(super) fn download<G: Gpu>(&mut self, gpu: &mut G) {
        if self.used > 0 {
            gpu.download(self.device, self.used, &mut self.pinned, 0);
        }
    }

    /// Overwrites `out`; `spare` keeps reports that are not needed now.
    pub(super) fn read(&self, out: &mut Drawn, spare: &mut Vec<Scored>) {
        let bytes = self.pinned.bytes();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        out.tokens.clear();
        out.tokens.extend(self.tokens.iter().map(|token| {
            let drawn = word(token.at);
            (token.slot, (drawn != NO_TOKEN).then_some(drawn))
        }));
        spare.extend(out.logprobs.drain(self.scores.len().min(out.logprobs.len())..));
        out.logprobs.resize_with(self.scores.len(), || spare.pop().unwrap_or_default());
        for (score, scored) in self.scores.iter().zip(&mut out.logprobs) {
            (scored.slot, scored.position) = (score.slot, score.position);
            (scored.token, scored.rank) = (word(score.at), word(score.at + 4));
            scored.logprob = f32::from_bits(word(score.at + 8));
            scored.top.clear();
            if scored.rank > 0 {
                let pairs = (0..score.top).map(|i| score.at + SCORE_BYTES + PAIR_BYTES * i);
                scored.top.extend(pairs.map(|at| (word(at), f32::from_bits(word(at + 4)))));
            }
        }
    }
}
