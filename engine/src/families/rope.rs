//! Rotary frequencies: the plain geometric series and its published stretchings.
//!
//! Computed in f32 in the order of operations that the transformers library uses, since the
//! models were trained with those very numbers. `rope_read` finds the parameters in a file.

use kernels::{Beyond, Rope};

/// The base of the original paper (arXiv 2104.09864) and of every config that names none.
pub(super) const THETA_DEFAULT: f64 = 10_000.0;
/// Bases beyond this are not numbers that a model was trained with.
pub(super) const THETA_MAX: f64 = 1e15;
/// Published stretching factors end at 64.
pub(super) const FACTOR_MAX: f64 = 1e6;

pub(super) use super::rope_read::{Base, from_config, latent_scale, local, reach};

/// `theta^(2i / dim)` for i below `dim / 2`.
fn powers(theta: f64, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim / 2).map(move |i| (theta as f32).powf((2 * i) as f32 / dim as f32))
}

/// `theta^(-2i / dim)` for i below `dim / 2`.
pub(super) fn plain(theta: f64, dim: usize) -> Rope {
    let inv_freq = powers(theta, dim).map(f32::recip).collect();
    Rope { inv_freq, magnitude: 1.0, interleaved: false, beyond: None }
}

/// Positions divided by `factor` (arXiv 2306.15595).
pub(super) fn linear(mut rope: Rope, factor: f64) -> Rope {
    for freq in &mut rope.inv_freq {
        *freq /= factor as f32;
    }
    rope
}

/// Llama 3.1's parameters.
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) original: f64,
}

/// Long wavelengths are stretched by the factor, short ones kept, and those between are blended.
pub(super) fn llama3(mut rope: Rope, by: &Llama3) -> Rope {
    let [factor, low, high, original] =
        [by.factor, by.low, by.high, by.original].map(|number| number as f32);
    let (low_wavelength, high_wavelength) = (original / low, original / high);
    for freq in &mut rope.inv_freq {
        let wavelength = 2.0 * std::f32::consts::PI / *freq;
        if wavelength > low_wavelength {
            *freq /= factor;
        } else if wavelength >= high_wavelength {
            let smooth = (original / wavelength - low) / (high - low);
            *freq = (1.0 - smooth) * *freq / factor + smooth * *freq;
        }
    }
    rope
}

/// yarn's parameters (arXiv 2309.00071).
pub(super) struct Yarn {
    pub(super) theta: f64,
    pub(super) dim: usize,
    pub(super) factor: f64,
    /// Tokens that the model was trained with before it was stretched.
    pub(super) original: f64,
    pub(super) beta_fast: f64,
    pub(super) beta_slow: f64,
    /// The borders of the ramp are rounded outwards.
    pub(super) truncate: bool,
    pub(super) magnitude: f64,
}

/// Frequencies that turn often within the original length are kept, those that hardly turn are
/// divided by the factor, and a ramp lies between.
pub(super) fn yarn(by: &Yarn) -> Rope {
    let dim = by.dim as f64;
    let border = |turns: f64| {
        let log = (by.original / (turns * 2.0 * std::f64::consts::PI)).ln();
        dim * log / (2.0 * by.theta.ln())
    };
    let (mut low, mut high) = (border(by.beta_fast), border(by.beta_slow));
    if by.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low.total_cmp(&high).is_eq() {
        high += 0.001;
    }
    let factor = by.factor as f32;
    let freq = |(i, power): (usize, f32)| {
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let kept = 1.0 - ramp;
        (factor * power).recip() * (1.0 - kept) + power.recip() * kept
    };
    Rope {
        inv_freq: powers(by.theta, by.dim).enumerate().map(freq).collect(),
        magnitude: by.magnitude as f32,
        interleaved: false,
        beyond: None,
    }
}

/// What yarn multiplies cos and sin by: `0.1 * scale * ln(factor) + 1`.
pub(super) fn yarn_magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

/// longrope's parameters (arXiv 2402.13753); each frequency has its own factor.
pub(super) struct Long {
    pub(super) theta: f64,
    pub(super) dim: usize,
    /// Factors of sequences up to `limit` tokens.
    pub(super) short: Vec<f32>,
    /// Factors of longer ones.
    pub(super) long: Vec<f32>,
    pub(super) limit: u32,
    pub(super) magnitude: f64,
}

/// Frequencies divided by factors of their own.
pub(super) fn long(by: &Long) -> Rope {
    let divided = |factors: &[f32]| -> Vec<f32> {
        factors.iter().zip(powers(by.theta, by.dim)).map(|(f, p)| (f * p).recip()).collect()
    };
    Rope {
        inv_freq: divided(&by.short),
        magnitude: by.magnitude as f32,
        interleaved: false,
        beyond: Some(Beyond::Long { limit: by.limit, inv_freq: divided(&by.long) }),
    }
}

/// What longrope multiplies cos and sin by, for a context stretched by `factor`.
pub(super) fn long_magnitude(factor: f64, original: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() }
}
