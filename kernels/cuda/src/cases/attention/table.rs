//! Which kinds of attention are checked, over which steps.

use kernels::{CacheElement, Precision};

use CacheElement::{Bf16, F8E4M3, F16, F32};

/// Positions `first..first + len` of a slot; late if it is one whose token only the device knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) slot: usize,
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) late: bool,
}

/// One kind of attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) precision: Precision,
    pub(super) element: CacheElement,
    pub(super) window: Option<u32>,
    pub(super) soft_cap: Option<f32>,
    pub(super) causal: bool,
    pub(super) sinks: bool,
    /// Values are the first so many elements of keys.
    pub(super) values: Option<usize>,
    pub(super) steps: &'static [&'static [Part]],
}

const fn part(slot: usize, first: usize, len: usize) -> Part {
    Part { slot, first, len, late: false }
}

const fn late(slot: usize, first: usize) -> Part {
    Part { slot, first, len: 1, late: true }
}

/// Prompts of several tiles and of one position, chunks that go on, decode beside them; each
/// step is checked. Contexts are odd and cross pages.
const RAGGED: &[&[Part]] = &[
    &[part(0, 0, 19), part(1, 0, 91), part(2, 0, 1), part(3, 0, 5)],
    &[part(0, 19, 1), part(1, 91, 38), part(2, 1, 3), late(3, 5)],
    &[late(0, 20), late(1, 129), late(2, 4)],
];
/// As above with shorter prompts, for kernels that take every position by itself.
const SHORT: &[&[Part]] = &[
    &[part(0, 0, 19), part(1, 0, 35), part(2, 0, 1)],
    &[part(0, 19, 1), part(1, 35, 6), late(2, 1), part(3, 0, 3)],
    &[late(0, 20), late(1, 41), late(3, 3)],
];
/// A long context: 301 positions, then decode.
const LONG: &[&[Part]] = &[
    &[part(0, 300, 1), part(1, 7, 1), part(2, 252, 3)],
    &[late(3, 255), late(0, 301), late(1, 8)],
];
/// Whole sequences.
const WHOLE: &[&[Part]] = &[&[part(0, 0, 33), part(2, 0, 70), part(1, 0, 1), part(3, 0, 8)]];

/// More heads than a tile has rows.
const SMALL: &[&[Part]] = &[&[part(3, 0, 9), part(1, 0, 2)], &[late(1, 2), part(3, 9, 3)]];

const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    precision: Precision::Bfloat16,
    element: Bf16,
    window: None,
    soft_cap: None,
    causal: true,
    sinks: false,
    values: None,
    steps: RAGGED,
};
const EXACT: Case = Case { precision: Precision::Float32, element: F32, steps: SHORT, ..PLAIN };
const HALF: Case = Case { precision: Precision::Float16, element: F16, ..PLAIN };

const fn of(case: Case, heads: usize, kv_heads: usize, head_dim: usize) -> Case {
    Case { heads, kv_heads, head_dim, ..case }
}

/// Values in the keys: a key and its value, and one key/value head.
const fn latent(case: Case, heads: usize, head_dim: usize, value: usize) -> Case {
    Case { values: Some(value), ..of(case, heads, 1, head_dim) }
}

pub(super) fn all() -> Vec<Case> {
    let both = |case: Case| [Case { steps: RAGGED, ..case }, Case { steps: LONG, ..case }];
    let mut all = vec![
        PLAIN,
        HALF,
        EXACT,
        of(PLAIN, 2, 2, 64),
        of(PLAIN, 7, 1, 80),
        of(HALF, 3, 1, 96),
        of(PLAIN, 8, 1, 128),
        of(HALF, 16, 1, 128),
        of(PLAIN, 4, 1, 192),
        of(PLAIN, 2, 1, 256),
        of(PLAIN, 20, 1, 64),
        Case { steps: SMALL, ..of(HALF, 70, 1, 64) },
        Case { steps: SHORT, ..of(PLAIN, 3, 3, 40) },
        Case { steps: SHORT, ..of(HALF, 2, 1, 72) },
        of(EXACT, 5, 1, 33),
        of(EXACT, 1, 1, 1),
        of(EXACT, 2, 1, 128),
        of(EXACT, 20, 2, 7),
        Case { element: F16, steps: SHORT, ..PLAIN },
        Case { element: F32, steps: SHORT, ..HALF },
        Case { element: F8E4M3, ..EXACT },
        Case { steps: WHOLE, causal: false, ..PLAIN },
        Case { steps: WHOLE, causal: false, window: Some(9), sinks: true, ..of(PLAIN, 6, 2, 64) },
        Case { steps: WHOLE, causal: false, window: Some(40), ..of(HALF, 2, 2, 80) },
        Case { steps: WHOLE, causal: false, window: Some(1), ..EXACT },
    ];
    for window in [1, 5, 40] {
        all.extend(both(Case { window: Some(window), ..PLAIN }));
    }
    all.extend([
        Case { soft_cap: Some(2.0), sinks: true, ..EXACT },
        Case { soft_cap: Some(30.0), window: Some(20), ..HALF },
        Case { sinks: true, window: Some(70), ..of(PLAIN, 8, 1, 64) },
        Case { element: F8E4M3, ..of(PLAIN, 8, 2, 64) },
        Case { element: F8E4M3, ..of(HALF, 4, 1, 80) },
        Case { element: F8E4M3, ..of(HALF, 4, 1, 96) },
        Case { element: F8E4M3, soft_cap: Some(5.0), ..of(PLAIN, 4, 1, 128) },
        Case { element: F8E4M3, ..of(PLAIN, 2, 1, 192) },
        Case { element: F8E4M3, ..of(PLAIN, 2, 1, 256) },
        latent(EXACT, 3, 21, 17),
        latent(EXACT, 18, 40, 32),
        Case { sinks: true, steps: LONG, ..latent(PLAIN, 5, 192, 128) },
        Case { steps: LONG, ..latent(HALF, 17, 576, 512) },
        Case { element: F8E4M3, steps: LONG, ..latent(PLAIN, 2, 640, 640) },
    ]);
    all
}

/// Contexts that can be cut.
#[cfg(test)]
pub(super) fn long() -> Vec<Case> {
    let long = |case: Case| Case { steps: LONG, ..case };
    vec![
        long(PLAIN),
        long(EXACT),
        long(of(PLAIN, 8, 1, 128)),
        long(of(HALF, 7, 1, 80)),
        long(of(PLAIN, 20, 1, 64)),
        long(Case { window: Some(150), sinks: true, ..PLAIN }),
        long(Case { element: F8E4M3, sinks: true, soft_cap: Some(9.0), ..of(HALF, 3, 1, 96) }),
        long(Case { element: F8E4M3, ..of(PLAIN, 2, 1, 256) }),
        long(of(PLAIN, 2, 2, 192)),
        long(latent(EXACT, 18, 40, 32)),
    ]
}

/// Decode of two rows over contexts that are cut into more ranges from step to step.
#[cfg(test)]
pub(super) fn decode() -> Vec<Case> {
    const STEPS: &[&[Part]] = &[
        &[late(0, 120), late(2, 3)],
        &[late(0, 121), late(2, 4)],
        &[part(0, 260, 1), late(2, 5)],
        &[late(0, 261), part(1, 400, 1)],
    ];
    let steps = |case: Case| Case { steps: STEPS, ..case };
    vec![steps(of(PLAIN, 4, 1, 64)), steps(of(EXACT, 3, 1, 24))]
}
