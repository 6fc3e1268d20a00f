//! The rotation of a GGUF header: base, share of a head that turns, and the stretchings that its
//! keys and tensors describe.

use kernels::Rope;

use super::decoder::{CONTEXT_MAX, HEAD_DIM_MAX};
use super::header::Header;
use super::rope::{self, FACTOR_MAX, Long, THETA_DEFAULT, THETA_MAX, Yarn};
use crate::weights::{LoadError, shown};

/// Reads the rotation of heads of `head_dim` elements.
pub(super) fn read(
    header: &Header<'_>,
    head_dim: usize,
    context: usize,
    truncate: bool,
) -> Result<Rope, LoadError> {
    let dim = header.count("rope.dimension_count", HEAD_DIM_MAX)?.unwrap_or(head_dim);
    if dim > head_dim || !dim.is_multiple_of(2) {
        let problem = format!("{dim} of {head_dim} elements cannot be turned in pairs");
        return Err(header.wrong("rope.dimension_count", &problem));
    }
    let theta = header.number("rope.freq_base", 1.0, THETA_MAX)?.unwrap_or(THETA_DEFAULT);
    let original = header.some("rope.scaling.original_context_length", CONTEXT_MAX)?;
    let original = original.unwrap_or(context);
    let kind = header.text("rope.scaling.type")?;
    let factor = factor(header)?;
    let mut read = match kind {
        Some("none") => rope::plain(theta, dim),
        None | Some("linear" | "longrope") => rope::linear(rope::plain(theta, dim), factor),
        Some("yarn") => {
            let original = original.max(2) as f64;
            // The rest is read from the header.
            let (beta_fast, beta_slow, magnitude) = (32.0, 1.0, 1.0);
            let rule =
                Yarn { theta, dim, factor, original, beta_fast, beta_slow, truncate, magnitude };
            yarn(header, rule)?
        }
        Some(other) => {
            let problem =
                format!("{} is not supported; none, linear, yarn and longrope are", shown(other));
            return Err(header.wrong("rope.scaling.type", &problem));
        }
    };
    // Llama 3.1 and later: the converter stores what the llama3 rule divides each frequency by.
    if let Some(factors) = header.factors("rope_freqs.weight", dim / 2)? {
        for (freq, factor) in read.inv_freq.iter_mut().zip(factors) {
            *freq /= factor;
        }
    }
    if let Some(long) = long(header, theta, dim, original)? {
        read = long;
    }
    Ok(read)
}

/// The older key came without a type and means linear. Converters write 0 or 1 for "not scaled".
fn factor(header: &Header<'_>) -> Result<f64, LoadError> {
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        let factor = header.number(name, 0.0, FACTOR_MAX)?;
        let Some(factor) = factor.filter(|&factor| factor > 0.0) else { continue };
        if factor < 1.0 {
            return Err(header.wrong(name, &format!("{factor} is below 1")));
        }
        return Ok(factor);
    }
    Ok(1.0)
}

fn yarn(header: &Header<'_>, mut rule: Yarn) -> Result<Rope, LoadError> {
    let number = |name: &str| header.number(name, 0.0, FACTOR_MAX);
    if number("rope.scaling.yarn_ext_factor")?.is_some_and(|ext| (ext - 1.0).abs() > 0.0) {
        let problem = "values other than 1 are not supported";
        return Err(header.wrong("rope.scaling.yarn_ext_factor", problem));
    }
    if rule.theta <= 1.0 {
        return Err(header.wrong("rope.freq_base", "yarn needs a base above 1"));
    }
    let stated = number("rope.scaling.yarn_attn_factor")?;
    let extra = number("rope.scaling.attn_factor")?.unwrap_or(1.0);
    rule.magnitude = extra * stated.unwrap_or(rope::yarn_magnitude(rule.factor, 1.0));
    let set = |name: &str| Ok::<_, LoadError>(number(name)?.filter(|&beta| beta > 0.0));
    rule.beta_fast = set("rope.scaling.yarn_beta_fast")?.unwrap_or(rule.beta_fast);
    rule.beta_slow = set("rope.scaling.yarn_beta_slow")?.unwrap_or(rule.beta_slow);
    Ok(rope::yarn(&rule))
}

/// longrope is told by its two tensors.
fn long(
    header: &Header<'_>,
    theta: f64,
    dim: usize,
    original: usize,
) -> Result<Option<Rope>, LoadError> {
    let factors = |name| header.factors(name, dim / 2);
    let short = factors("rope_factors_short.weight")?;
    let long = factors("rope_factors_long.weight")?;
    let (Some(short), Some(long)) = (short, long) else { return Ok(None) };
    let magnitude = header.number("rope.scaling.attn_factor", 0.0, FACTOR_MAX)?.unwrap_or(1.0);
    let limit = original as u32;
    Ok(Some(rope::long(&Long { theta, dim, short, long, limit, magnitude })))
}

/// The rotation of layers with windows, which is never stretched; `theta` where the header has no
/// base for them.
pub(super) fn local(header: &Header<'_>, head_dim: usize, theta: f64) -> Result<Rope, LoadError> {
    let stated = header.number("rope.freq_base_swa", 1.0, THETA_MAX)?;
    Ok(rope::plain(stated.unwrap_or(theta), head_dim))
}
