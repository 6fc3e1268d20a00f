//! The gated activation of one row.

/// `silu(gate) * up` of a row `[gate | up]`.
#[must_use]
pub fn silu_mul(gate_up: &[f32]) -> Vec<f32> {
    let (gate, up) = gate_up.split_at(gate_up.len() / 2);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    gate.iter().zip(up).map(|(&g, &u)| (silu(f64::from(g)) * f64::from(u)) as f32).collect()
}
