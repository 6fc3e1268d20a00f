//! A rotation's frequencies, written as a GGUF header spells them: a base, and where they are
//! stretched a factor for all or one for each.

use kernels::{Beyond, Rope};

use super::writer::Value;

/// Tensors and keys of a rotation.
pub(super) struct Written {
    pub(super) base: f32,
    pub(super) keys: Vec<(String, Value)>,
    pub(super) tensors: Vec<(&'static str, Vec<f32>)>,
}

/// `theta^(2i / dim)`, in the order of operations of the readers.
fn powers(theta: f64, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim / 2).map(move |i| (theta as f32).powf((2 * i) as f32 / dim as f32))
}

/// The base of frequencies that are not stretched.
pub(super) fn base(inv_freq: &[f32]) -> Option<f64> {
    let dim = 2 * inv_freq.len();
    let (last, frequency) =
        inv_freq.iter().enumerate().next_back().filter(|(last, _)| *last > 0)?;
    let near = f64::from(*frequency).powf(-(inv_freq.len() as f64) / last as f64);
    // Bases are round numbers; the last frequency tells them to seven digits.
    let digits = (2..8).map(|digits| {
        let unit = 10_f64.powi(near.log10().floor() as i32 + 1 - digits);
        (near / unit).round() * unit
    });
    let mut candidates = digits.chain((-2..=2).map(|step| near.round() + f64::from(step)));
    candidates.find(|&base| powers(base, dim).map(f32::recip).eq(inv_freq.iter().copied()))
}

/// The factor f near `guess` for which `of(f)` is `wanted`, or `guess` if rounding allows none.
fn exactly(guess: f32, wanted: f32, of: impl Fn(f32) -> f32) -> f32 {
    let near = [guess, guess.next_up(), guess.next_down()];
    near.into_iter().find(|&factor| of(factor).to_bits() == wanted.to_bits()).unwrap_or(guess)
}

/// Writes a rotation; `stated` is the base that the source names, needed where it is stretched.
///
/// # Errors
/// It is stretched in a way that these keys cannot say.
pub(super) fn write(rope: &Rope, stated: Option<f64>, by_tensor: bool) -> Result<Written, String> {
    let dim = 2 * rope.inv_freq.len();
    let plain = rope.magnitude == 1.0 && rope.beyond.is_none();
    let nothing = |base: f64| Written { base: base as f32, keys: vec![], tensors: vec![] };
    if let Some(base) = base(&rope.inv_freq).filter(|_| plain) {
        return Ok(nothing(base));
    }
    let base = stated.unwrap_or(10_000.0);
    let mut out = nothing(base);
    let mut key = |name: &str, value| out.keys.push((format!("rope.scaling.{name}"), value));
    if let Some(Beyond::Long { limit, inv_freq }) = &rope.beyond {
        let factors = |freq: &[f32]| -> Vec<f32> {
            let factor = |(freq, power): (&f32, f32)| {
                exactly((freq * power).recip(), *freq, |f| (f * power).recip())
            };
            freq.iter().zip(powers(base, dim)).map(factor).collect()
        };
        key("attn_factor", Value::Number(rope.magnitude));
        key("original_context_length", Value::Count(*limit));
        out.tensors.push(("rope_factors_long.weight", factors(inv_freq)));
        out.tensors.push(("rope_factors_short.weight", factors(&rope.inv_freq)));
        return Ok(out);
    }
    if !plain {
        return Err("yarn and dynamic stretching of positions are not written yet".to_owned());
    }
    let unstretched: Vec<f32> = powers(base, dim).map(f32::recip).collect();
    let factors: Vec<f32> = unstretched
        .iter()
        .zip(&rope.inv_freq)
        .map(|(plain, freq)| exactly(plain / freq, *freq, |factor| plain / factor))
        .collect();
    let first = (factors[0] * 1e4).round() / 1e4;
    let linear = unstretched.iter().zip(&rope.inv_freq).all(|(plain, freq)| plain / first == *freq);
    if linear {
        key("type", Value::Text("linear".to_owned()));
        key("factor", Value::Number(first));
    } else if by_tensor {
        out.tensors.push(("rope_freqs.weight", factors));
    } else {
        return Err("files of this family have no place for stretched positions".to_owned());
    }
    Ok(out)
}

/// The base that a config.json names, at whichever place.
pub(super) fn stated(config: &serde_json::Value) -> Option<f64> {
    let places = ["", "/text_config"].iter().flat_map(|outer| {
        ["", "/rope_parameters", "/rope_parameters/full_attention", "/rope_scaling"]
            .map(|inner| format!("{outer}{inner}/rope_theta"))
    });
    places.into_iter().find_map(|place| config.pointer(&place)?.as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_found_again() {
        for theta in [1e4, 5e5, 1e6, 150_000.0, 8e6, 1e7, 10_000.5, 2e6, 123_456.0, 5e9] {
            for dim in [16, 64, 80, 96, 128, 256] {
                let freq: Vec<f32> = powers(theta, dim).map(f32::recip).collect();
                let found = base(&freq).unwrap_or_else(|| panic!("{theta} at {dim}"));
                assert!(powers(found, dim).eq(powers(theta, dim)), "{theta} at {dim}: {found}");
            }
        }
    }
}
