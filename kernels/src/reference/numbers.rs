//! Numbers for tests of the ops on any device: they look random and are the same in every run.

use crate::compute::{Sampler, mask_words};

/// The upper bits of a linear congruential generator.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 32) as u32
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    /// Uniform in -1..1.
    pub fn unit(&mut self) -> f32 {
        self.bits() as f32 / 2_147_483_648.0 - 1.0
    }

    /// About normal, standard deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() / 2.0
    }

    /// `n` normal numbers of deviation `scale`.
    pub fn list(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.normal() * scale).collect()
    }
}

/// A sampler in which each parameter is on with a chance of a third; its tokens are below `vocab`.
pub fn sampler(numbers: &mut Numbers, vocab: usize) -> Sampler {
    let mut pick = |off: f32, on: &[f32]| match numbers.below(3) {
        0 => on[numbers.below(on.len())],
        _ => off,
    };
    let (top_p, min_p) = (pick(1.0, &[0.1, 0.5, 0.9, 0.99, 1e-6]), pick(0.0, &[0.01, 0.2, 1.0]));
    let (typical_p, top_k) = (pick(1.0, &[0.2, 0.9]), pick(0.0, &[1.0, 2.0, 7.0, 40.0, 700.0]));
    let temperature = pick(1.0, &[0.0, 0.3, 1.7, 1e-30]);
    let repetition_penalty = pick(1.0, &[1.3, 0.8]);
    let (presence_penalty, frequency_penalty) = (pick(0.0, &[0.7]), pick(0.0, &[0.3, -0.3]));
    let mut tokens = |n: usize| -> Vec<u32> {
        (0..numbers.below(n)).map(|_| numbers.below(vocab) as u32).collect()
    };
    let (biased, banned) = (tokens(4), tokens(3));
    Sampler {
        temperature,
        top_p,
        top_k: top_k as u32,
        min_p,
        typical_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        logit_bias: biased.into_iter().zip([1.5, -3.0, f32::NEG_INFINITY]).collect(),
        seed: u64::from(numbers.bits()),
        banned,
        banned_until: 3,
    }
}

/// A mask over `vocab` tokens: about half of them, a few, one, none, or all, by `kind`. Bits behind
/// the last token mean nothing.
pub fn mask(numbers: &mut Numbers, vocab: usize, kind: usize) -> Vec<u32> {
    let mut mask: Vec<u32> = match kind % MASK_KINDS {
        0 => (0..mask_words(vocab)).map(|_| numbers.bits()).collect(),
        4 => vec![u32::MAX; mask_words(vocab)],
        _ => vec![0; mask_words(vocab)],
    };
    let few = [0, 5, 1, 0, 0][kind % MASK_KINDS];
    for _ in 0..few {
        let token = numbers.below(vocab);
        mask[token / 32] |= 1 << (token % 32);
    }
    mask
}

/// Kinds of [`mask`].
pub const MASK_KINDS: usize = 5;
