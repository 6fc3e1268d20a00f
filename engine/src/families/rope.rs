//! Rotary frequencies: the plain geometric series and its published stretchings.
//!
//! Computed in f32 in the order of operations that the transformers library uses, since the
//! models were trained with those very numbers. yarn, longrope and dynamic are refused by name.

use kernels::Rope;

use crate::config::Fields;
use crate::weights::{LoadError, shown};

/// The base of the original paper (arXiv 2104.09864) and of every config that names none.
pub(super) const THETA_DEFAULT: f64 = 10_000.0;
/// Bases beyond this are not numbers that a model was trained with.
pub(super) const THETA_MAX: f64 = 1e15;
/// Published stretching factors end at 64.
pub(super) const FACTOR_MAX: f64 = 1e6;

/// `theta^(-2i / dim)` for i below `dim / 2`.
pub(super) fn plain(theta: f64, dim: usize) -> Rope {
    let inv_freq = (0..dim / 2).map(|i| {
        let exponent = (2 * i) as f32 / dim as f32;
        (theta as f32).powf(exponent).recip()
    });
    Rope { inv_freq: inv_freq.collect(), magnitude: 1.0, interleaved: false }
}

/// Positions divided by `factor` (arXiv 2306.15595).
pub(super) fn linear(mut rope: Rope, factor: f64) -> Rope {
    for freq in &mut rope.inv_freq {
        *freq /= factor as f32;
    }
    rope
}

/// Reads the rotation of a config.json in both spellings: `rope_theta` with `rope_scaling`, and
/// `rope_parameters`.
pub(super) fn from_config(config: &Fields, head_dim: usize) -> Result<Rope, LoadError> {
    let old = config.object("rope_scaling")?;
    let new = config.object("rope_parameters")?;
    if old.is_some() && new.is_some() && config.get("rope_scaling") != config.get("rope_parameters")
    {
        return Err(config.wrong("rope_scaling", "contradicts rope_parameters; keep one of them"));
    }
    let top_theta = config.number("rope_theta", 1.0, THETA_MAX)?;
    let Some(rope) = new.or(old) else {
        return Ok(plain(top_theta.unwrap_or(THETA_DEFAULT), head_dim));
    };
    let inner_theta = rope.number("rope_theta", 1.0, THETA_MAX)?;
    if let (Some(top), Some(inner)) = (top_theta, inner_theta)
        && (top - inner).abs() > 0.0
    {
        return Err(rope.wrong("rope_theta", &format!("{inner} contradicts rope_theta {top}")));
    }
    let theta = inner_theta.or(top_theta).unwrap_or(THETA_DEFAULT);
    stretched(&rope, plain(theta, head_dim))
}

fn stretched(rope: &Fields, base: Rope) -> Result<Rope, LoadError> {
    let kind = match (rope.word("rope_type")?, rope.word("type")?) {
        (Some(new), Some(old)) if new != old => {
            let problem = format!("{} contradicts rope_type {}", shown(old), shown(new));
            return Err(rope.wrong("type", &problem));
        }
        (new, old) => new.or(old).unwrap_or("default"),
    };
    let known: &[&str] = match kind {
        "default" => &[],
        "linear" => &["factor"],
        "llama3" => {
            &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
        }
        other => {
            let problem =
                format!("{} is not supported; default, linear and llama3 are", shown(other));
            return Err(rope.wrong("rope_type", &problem));
        }
    };
    for key in rope.keys() {
        let common = ["rope_type", "type", "rope_theta"].contains(&key);
        let neutral = key == "partial_rotary_factor"
            && rope.get(key).and_then(serde_json::Value::as_f64) == Some(1.0);
        if !common && !neutral && !known.contains(&key) {
            let problem = format!("is not an option of rope type {kind}");
            return Err(rope.wrong(&shown(key), &problem));
        }
    }
    match kind {
        "linear" => Ok(linear(base, need(rope, "factor", 1.0, FACTOR_MAX)?)),
        "llama3" => llama3(rope, base),
        _ => Ok(base),
    }
}

fn need(rope: &Fields, key: &str, least: f64, most: f64) -> Result<f64, LoadError> {
    rope.number(key, least, most)?.ok_or_else(|| rope.wrong(key, "is missing"))
}

/// Llama 3.1: long wavelengths are stretched by the factor, short ones kept, and those between
/// are blended.
fn llama3(rope: &Fields, mut base: Rope) -> Result<Rope, LoadError> {
    let factor = need(rope, "factor", 1.0, FACTOR_MAX)? as f32;
    let low = need(rope, "low_freq_factor", 1e-3, FACTOR_MAX)? as f32;
    let high = need(rope, "high_freq_factor", 1e-3, FACTOR_MAX)? as f32;
    if low >= high {
        let problem = format!("{low} is not below high_freq_factor, {high}");
        return Err(rope.wrong("low_freq_factor", &problem));
    }
    let original = need(rope, "original_max_position_embeddings", 1.0, 1e9)? as f32;
    let (low_wavelength, high_wavelength) = (original / low, original / high);
    for freq in &mut base.inv_freq {
        let wavelength = 2.0 * std::f32::consts::PI / *freq;
        if wavelength > low_wavelength {
            *freq /= factor;
        } else if wavelength >= high_wavelength {
            let smooth = (original / wavelength - low) / (high - low);
            *freq = (1.0 - smooth) * *freq / factor + smooth * *freq;
        }
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(json: &str, head_dim: usize) -> Result<Rope, String> {
        let config = Fields::parse(Path::new("config.json"), json.as_bytes()).unwrap();
        from_config(&config, head_dim).map_err(|e| e.problem)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let old = r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}"#;
        let new = r#"{"rope_parameters":
            {"rope_theta": 500000, "rope_type": "linear", "factor": 4}}"#;
        assert_eq!(read(old, 64).unwrap(), read(new, 64).unwrap());
        let rope = read(old, 4).unwrap();
        assert_eq!(rope.inv_freq, [0.25, 5e5_f32.sqrt().recip() / 4.0]);
    }

    /// Expected values were computed by hand from the published rule for theta 10000, dim 8:
    /// wavelengths 6.28, 62.8, 628 and 6283 against limits of 100 (low) and 25 (high).
    #[test]
    fn llama3_keeps_blends_and_stretches() {
        let json = r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 100}}"#;
        let freqs = read(json, 8).unwrap().inv_freq;
        let smooth = (100.0 / (2.0 * std::f32::consts::PI / 0.1) - 1.0) / 3.0;
        let blended = (1.0 - smooth) * 0.1 / 8.0 + smooth * 0.1;
        for (found, wanted) in freqs.iter().zip([1.0, blended, 0.01 / 8.0, 0.001 / 8.0]) {
            assert!((found / wanted - 1.0).abs() < 1e-6, "{freqs:?}");
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        let problem =
            |scaling: &str| read(&format!(r#"{{"rope_scaling": {scaling}}}"#), 64).unwrap_err();
        for kind in ["dynamic", "yarn", "longrope", "su"] {
            let text = problem(&format!(r#"{{"type": "{kind}", "factor": 2.0}}"#));
            assert!(text.contains(kind) && text.contains("rope_scaling"), "{text}");
        }
        assert!(problem(r#"{"type": "linear", "factor": 0.5}"#).contains("factor"));
        assert!(problem(r#"{"type": "linear"}"#).contains("factor: is missing"));
        assert!(problem(r#"{"type": "linear", "factor": 2, "beta": 1}"#).contains("beta"));
        assert!(problem(r#"{"type": "default", "rope_type": "linear"}"#).contains("contradicts"));
    }
}
