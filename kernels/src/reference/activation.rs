//! The functions inside an MLP, on one row.

use crate::compute::Activation;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The normal distribution below x: its series near 0, and the continued fraction of its tail.
fn normal_cdf(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-18 {
            n += 2.0;
            term *= x * x / n;
            sum += term;
        }
        return 0.5 + density * sum;
    }
    let fraction = (1..=100).rev().fold(x.abs(), |below, k| x.abs() + f64::from(k) / below);
    let tail = density / fraction;
    if x < 0.0 { tail } else { 1.0 - tail }
}

fn plain(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => x * normal_cdf(x),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            // (1 + tanh u) / 2, which cancels for negative u.
            x * sigmoid(2.0 * u)
        }
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Clamped { alpha, limit } => {
            let gate = x.min(f64::from(limit));
            gate * sigmoid(f64::from(alpha) * gate)
        }
    }
}

/// `f(x)` of a row, or `f(gate) * up` of a row `[gate | up]`.
#[must_use]
pub fn activate(f: Activation, gated: bool, x: &[f32]) -> Vec<f32> {
    if !gated {
        return x.iter().map(|&x| plain(f, f64::from(x)) as f32).collect();
    }
    let (gate, up) = x.split_at(x.len() / 2);
    let factor = |up: f64| match f {
        Activation::Clamped { limit, .. } => up.clamp(f64::from(-limit), f64::from(limit)) + 1.0,
        _ => up,
    };
    let pairs = gate.iter().zip(up);
    pairs.map(|(&g, &u)| (plain(f, f64::from(g)) * factor(f64::from(u))) as f32).collect()
}

/// `x * sigmoid(gate)` of a row.
#[must_use]
pub fn gate(x: &[f32], gate: f32) -> Vec<f32> {
    x.iter().map(|&x| (f64::from(x) * sigmoid(f64::from(gate))) as f32).collect()
}

/// `cap(scale * x)` of a row.
#[must_use]
pub fn cap(x: &[f32], scale: f32, soft_cap: Option<f32>) -> Vec<f32> {
    let one = |&x: &f32| {
        let x = f64::from(x) * f64::from(scale);
        soft_cap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh()) as f32
    };
    x.iter().map(one).collect()
}
