//! Which kinds of attention are tested.

use crate::compute::{CacheElement, HeadNorm, NormKind};

use CacheElement::{Bf16, F16, F32};

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norms {
    pub(super) reach: HeadNorm,
    pub(super) kind: NormKind,
    /// Each head has weights of its own.
    pub(super) own: bool,
    pub(super) bias: bool,
}

/// One kind of attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) element: CacheElement,
    pub(super) window: Option<u32>,
    pub(super) soft_cap: Option<f32>,
    /// Rotated dimensions, interleaved.
    pub(super) rope: (usize, bool),
    pub(super) norms: Option<Norms>,
    pub(super) causal: bool,
    pub(super) sinks: bool,
    /// Latent attention: unrotated elements of a query head, and elements of the latent; the
    /// head size is the latent's and the rotated.
    pub(super) latent: Option<(usize, usize)>,
}

pub(super) const PLAIN: Case = Case {
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    element: F32,
    window: None,
    soft_cap: None,
    rope: (64, false),
    norms: None,
    causal: true,
    sinks: false,
    latent: None,
};

const EACH: Norms = Norms { reach: HeadNorm::Each, kind: NormKind::Rms, own: false, bias: false };

fn plain(heads: usize, kv_heads: usize, head_dim: usize, rotated: usize) -> Case {
    Case { heads, kv_heads, head_dim, rope: (rotated, false), ..PLAIN }
}

fn latent(heads: usize, plain: usize, latent: usize, rotated: usize) -> Case {
    Case {
        heads,
        kv_heads: 1,
        head_dim: latent + rotated,
        rope: (rotated, true),
        latent: Some((plain, latent)),
        ..PLAIN
    }
}

pub(super) fn cases() -> Vec<Case> {
    let norms = Some(EACH);
    let own = Some(Norms { own: true, bias: true, kind: NormKind::Layer, ..EACH });
    let whole = Some(Norms { reach: HeadNorm::Whole, own: true, ..EACH });
    vec![
        PLAIN,
        Case { element: Bf16, ..PLAIN },
        Case { element: F16, ..PLAIN },
        Case { window: Some(1), ..PLAIN },
        Case { window: Some(5), ..PLAIN },
        Case { window: Some(16), element: Bf16, ..PLAIN },
        Case { window: Some(33), ..PLAIN },
        Case { soft_cap: Some(2.0), norms, ..PLAIN },
        Case { soft_cap: Some(30.0), window: Some(20), element: F16, ..PLAIN },
        Case { norms, rope: (32, true), ..PLAIN },
        Case { norms: own, rope: (32, false), ..PLAIN },
        Case { norms: whole, ..PLAIN },
        Case { norms: own.map(|n| Norms { reach: HeadNorm::Whole, ..n }), ..plain(5, 1, 9, 4) },
        Case { sinks: true, ..PLAIN },
        Case { sinks: true, window: Some(7), element: Bf16, ..plain(8, 1, 20, 20) },
        Case { sinks: true, soft_cap: Some(5.0), ..plain(6, 3, 11, 0) },
        Case { causal: false, ..PLAIN },
        Case { causal: false, window: Some(9), sinks: true, ..plain(6, 2, 24, 24) },
        Case { causal: false, window: Some(1), element: F16, ..plain(3, 3, 16, 0) },
        plain(1, 1, 1, 0),
        plain(3, 1, 2, 2),
        plain(7, 1, 15, 14),
        plain(14, 2, 17, 0),
        plain(5, 5, 80, 20),
        Case { element: F16, norms, ..plain(9, 3, 120, 120) },
        Case { element: Bf16, ..plain(8, 1, 128, 128) },
        Case { element: Bf16, ..plain(13, 13, 33, 32) },
        plain(2, 1, 256, 64),
        plain(2, 1, 512, 512),
        plain(1, 1, 640, 2),
        plain(64, 1, 16, 16),
        Case { sinks: true, ..plain(67, 1, 8, 8) },
        plain(260, 2, 3, 2),
        latent(3, 5, 17, 4),
        Case { rope: (2, false), sinks: true, ..latent(1, 0, 1, 2) },
        Case { element: Bf16, ..latent(5, 16, 128, 64) },
        Case { element: F16, window: Some(19), ..latent(16, 8, 512, 64) },
        latent(128, 2, 48, 8),
    ]
}
