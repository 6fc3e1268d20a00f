//! The rotation of a `config.json`: `rope_theta` with `rope_scaling`, or `rope_parameters`, whole
//! or one for each type of layer.
//!
//! An option that a kind of stretching does not have is refused: it may change the computation.

use kernels::{Beyond, Rope};

use super::decoder::{CONTEXT_MAX, HEAD_DIM_MAX};
use super::rope::{
    FACTOR_MAX, Llama3, Long, THETA_MAX, Yarn, linear, llama3, long, long_magnitude, plain, yarn,
    yarn_magnitude,
};
use crate::config::Fields;
use crate::weights::{LoadError, shown};

/// Length before stretching, beside a description or in it.
const ORIGINAL: &str = "original_max_position_embeddings";

/// What a rotation stretches, and the family's defaults.
#[derive(Clone, Copy)]
pub(super) struct Base {
    /// Elements of a head.
    pub(super) head_dim: usize,
    /// `rope_theta`.
    pub(super) theta: f64,
    /// `partial_rotary_factor`.
    pub(super) rotary: f64,
    /// `max_position_embeddings`.
    pub(super) context: usize,
}

/// The object that describes the rotation, in whichever spelling.
fn parameters(config: &Fields) -> Result<Option<Fields>, LoadError> {
    let old = config.object("rope_scaling")?;
    let new = config.object("rope_parameters")?;
    if old.is_some() && new.is_some() && config.get("rope_scaling") != config.get("rope_parameters")
    {
        return Err(config.wrong("rope_scaling", "contradicts rope_parameters; keep one of them"));
    }
    Ok(new.or(old))
}

/// Reads the one rotation of a file, or, where it describes each type of layer by itself, that of
/// `full_attention`.
pub(super) fn from_config(config: &Fields, base: &Base) -> Result<Rope, LoadError> {
    let all = parameters(config)?;
    match all.as_ref().map(|all| all.object("full_attention")).transpose()?.flatten() {
        Some(full) => stretched(config, "rope_theta", Some(&full), base),
        None => stretched(config, "rope_theta", all.as_ref(), base),
    }
}

/// Reads the rotation of the layers with windows, for a family that describes it by itself. In
/// the older spelling it is never stretched, and its base stands in the field `theta`.
pub(super) fn local(config: &Fields, theta: &str, base: &Base) -> Result<Rope, LoadError> {
    let all = parameters(config)?;
    let own = all.as_ref().map(|all| all.object("sliding_attention")).transpose()?.flatten();
    stretched(config, theta, own.as_ref(), base)
}

/// Longest sequence after stretching. `max_position_embeddings` is the length before it with
/// dynamic NTK, and in files to which an operator has added yarn.
pub(super) fn reach(config: &Fields, context: usize) -> Result<usize, LoadError> {
    let Some(rope) = parameters(config)? else { return Ok(context) };
    let kind = rope.word("rope_type")?.or(rope.word("type")?);
    let factor = rope.number("factor", 1.0, FACTOR_MAX)?.unwrap_or(1.0);
    let original = match kind {
        Some("dynamic") => context as f64,
        Some("yarn") => {
            let inner = rope.number(ORIGINAL, 2.0, CONTEXT_MAX as f64)?;
            let outer = config.number(ORIGINAL, 2.0, CONTEXT_MAX as f64)?;
            outer.or(inner).unwrap_or(context as f64)
        }
        _ => return Ok(context),
    };
    Ok(context.max((original * factor) as usize).min(CONTEXT_MAX))
}

/// What DeepSeek's yarn multiplies the scale of scores by.
pub(super) fn latent_scale(config: &Fields) -> Result<f32, LoadError> {
    let Some(rope) = parameters(config)? else { return Ok(1.0) };
    let all = rope.number("mscale_all_dim", 0.0, FACTOR_MAX)?.unwrap_or(0.0);
    let factor = rope.number("factor", 1.0, FACTOR_MAX)?.unwrap_or(1.0);
    let kind = rope.word("rope_type")?.or(rope.word("type")?).unwrap_or("default");
    let scale = if kind == "default" || all <= 0.0 { 1.0 } else { yarn_magnitude(factor, all) };
    Ok((scale * scale) as f32)
}

/// One description being read.
struct Reader<'a> {
    config: &'a Fields,
    rope: &'a Fields,
    theta: f64,
    /// Elements of a head that turn.
    dim: usize,
    context: usize,
}

fn stretched(
    config: &Fields,
    theta: &str,
    rope: Option<&Fields>,
    base: &Base,
) -> Result<Rope, LoadError> {
    // A description that names no base takes the family's field beside it.
    let inner = rope.map_or(Ok(None), |rope| rope.number("rope_theta", 1.0, THETA_MAX))?;
    let outer = config.number(theta, 1.0, THETA_MAX)?;
    contradiction(rope, theta, outer, inner)?;
    let theta = inner.or(outer).unwrap_or(base.theta);
    const ROTARY: &str = "partial_rotary_factor";
    let inner = rope.map_or(Ok(None), |rope| rope.number(ROTARY, 0.0, 1.0))?;
    let outer = config.number(ROTARY, 0.0, 1.0)?;
    contradiction(rope, ROTARY, outer, inner)?;
    let rotary = inner.or(outer);
    let dim = (base.head_dim as f64 * rotary.unwrap_or(base.rotary)) as usize;
    if dim == 0 || !dim.is_multiple_of(2) || dim > HEAD_DIM_MAX {
        let problem = format!("turns {dim} of {} elements, which needs pairs", base.head_dim);
        return Err(config.wrong("partial_rotary_factor", &problem));
    }
    let Some(rope) = rope else { return Ok(plain(theta, dim)) };
    Reader { config, rope, theta, dim, context: base.context }.read()
}

/// A number may stand in the description, or beside it, or in both places alike.
fn contradiction(
    rope: Option<&Fields>,
    key: &str,
    outer: Option<f64>,
    inner: Option<f64>,
) -> Result<(), LoadError> {
    match (rope, outer, inner) {
        (Some(rope), Some(outer), Some(inner)) if (outer - inner).abs() > 0.0 => {
            Err(rope.wrong(key, &format!("{inner} contradicts {key} {outer}")))
        }
        _ => Ok(()),
    }
}

impl Reader<'_> {
    fn read(&self) -> Result<Rope, LoadError> {
        let rope = self.rope;
        let kind = match (rope.word("rope_type")?, rope.word("type")?) {
            (Some(new), Some(old)) if new != old => {
                let problem = format!("{} contradicts rope_type {}", shown(old), shown(new));
                return Err(rope.wrong("type", &problem));
            }
            (new, old) => new.or(old).unwrap_or("default"),
        };
        let read = match kind {
            "default" => plain(self.theta, self.dim),
            "linear" => linear(plain(self.theta, self.dim), self.factor()?),
            "dynamic" => self.dynamic()?,
            "llama3" => self.llama3()?,
            "yarn" => self.yarn()?,
            "longrope" | "su" => self.longrope()?,
            other => {
                let problem = format!(
                    "{} is not supported; default, linear, dynamic, llama3, yarn and longrope are",
                    shown(other)
                );
                return Err(rope.wrong("rope_type", &problem));
            }
        };
        // `finetuned` tells how a model was made. The plain kind is written with the fields of
        // the kind that it once had, all of them without effect.
        if let Some((key, _)) = rope.unasked().into_iter().find(|(key, _)| *key != "finetuned") {
            let problem = format!("is not an option of rope type {kind}");
            return Err(rope.wrong(&shown(key), &problem));
        }
        Ok(read)
    }

    fn need(&self, key: &str, least: f64, most: f64) -> Result<f64, LoadError> {
        self.rope.number(key, least, most)?.ok_or_else(|| self.rope.wrong(key, "is missing"))
    }

    fn factor(&self) -> Result<f64, LoadError> {
        self.need("factor", 1.0, FACTOR_MAX)
    }

    /// Length before stretching: beside the description, in it, or the whole context.
    fn original(&self) -> Result<f64, LoadError> {
        let (least, most) = (2.0, CONTEXT_MAX as f64);
        let inner = self.rope.number(ORIGINAL, least, most)?;
        let original = self.config.number(ORIGINAL, least, most)?.or(inner);
        Ok(original.unwrap_or(self.context as f64))
    }

    fn dynamic(&self) -> Result<Rope, LoadError> {
        let mut rope = plain(self.theta, self.dim);
        rope.beyond = Some(Beyond::Dynamic {
            limit: self.context as u32,
            theta: self.theta as f32,
            factor: self.factor()? as f32,
        });
        if self.dim <= 2 {
            let problem = "dynamic stretching needs heads of more than two turning elements";
            return Err(self.rope.wrong("rope_type", problem));
        }
        Ok(rope)
    }

    fn llama3(&self) -> Result<Rope, LoadError> {
        let by = Llama3 {
            factor: self.factor()?,
            low: self.need("low_freq_factor", 1e-3, FACTOR_MAX)?,
            high: self.need("high_freq_factor", 1e-3, FACTOR_MAX)?,
            original: self.original()?,
        };
        if by.low >= by.high {
            let problem = format!("{} is not below high_freq_factor, {}", by.low, by.high);
            return Err(self.rope.wrong("low_freq_factor", &problem));
        }
        Ok(llama3(plain(self.theta, self.dim), &by))
    }

    fn yarn(&self) -> Result<Rope, LoadError> {
        let number = |key| self.rope.number(key, 0.0, FACTOR_MAX);
        // Zero means unset for these, as it does where they come from.
        let set = |key| Ok::<_, LoadError>(number(key)?.filter(|&number| number > 0.0));
        let factor = self.factor()?;
        let (one, all) = (set("mscale")?, set("mscale_all_dim")?);
        let magnitude = match (number("attention_factor")?, one, all) {
            (Some(stated), _, _) => stated,
            (None, Some(one), Some(all)) => {
                yarn_magnitude(factor, one) / yarn_magnitude(factor, all)
            }
            _ => yarn_magnitude(factor, 1.0),
        };
        if self.theta <= 1.0 {
            return Err(self.config.wrong("rope_theta", "yarn needs a base above 1"));
        }
        Ok(yarn(&Yarn {
            theta: self.theta,
            dim: self.dim,
            factor,
            original: self.original()?,
            beta_fast: set("beta_fast")?.unwrap_or(32.0),
            beta_slow: set("beta_slow")?.unwrap_or(1.0),
            truncate: self.rope.flag("truncate")?.unwrap_or(true),
            magnitude,
        }))
    }

    fn longrope(&self) -> Result<Rope, LoadError> {
        let original = self.original()?;
        let factor = self.rope.number("factor", 1e-3, FACTOR_MAX)?;
        let factor = factor.unwrap_or(self.context as f64 / original);
        let stated = self.rope.number("attention_factor", 0.0, FACTOR_MAX)?;
        Ok(long(&Long {
            theta: self.theta,
            dim: self.dim,
            short: self.factors("short_factor")?,
            long: self.factors("long_factor")?,
            limit: original as u32,
            magnitude: stated.unwrap_or_else(|| long_magnitude(factor, original)),
        }))
    }

    /// One factor for each frequency.
    fn factors(&self, key: &str) -> Result<Vec<f32>, LoadError> {
        let factors = self.rope.numbers(key, 1e-3, FACTOR_MAX)?;
        let factors = factors.ok_or_else(|| self.rope.wrong(key, "is missing"))?;
        if factors.len() != self.dim / 2 {
            let problem = format!("has {} entries, wanted {}", factors.len(), self.dim / 2);
            return Err(self.rope.wrong(key, &problem));
        }
        Ok(factors.into_iter().map(|factor| factor as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(json: &str, head_dim: usize) -> Result<Rope, String> {
        let config = Fields::parse(Path::new("config.json"), json.as_bytes()).unwrap();
        let base = Base { head_dim, theta: 10_000.0, rotary: 1.0, context: 4096 };
        from_config(&config, &base).map_err(|e| e.problem)
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
        for kind in ["mrope", "proportional"] {
            let text = problem(&format!(r#"{{"type": "{kind}", "factor": 2.0}}"#));
            assert!(text.contains(kind) && text.contains("rope_scaling"), "{text}");
        }
        assert!(problem(r#"{"type": "linear", "factor": 0.5}"#).contains("factor"));
        assert!(problem(r#"{"type": "linear"}"#).contains("factor: is missing"));
        assert!(problem(r#"{"type": "linear", "factor": 2, "beta": 1}"#).contains("beta"));
        assert!(problem(r#"{"type": "default", "rope_type": "linear"}"#).contains("contradicts"));
        let long = r#"{"type": "su", "long_factor": [1.0], "short_factor": [1.0, 2.0]}"#;
        assert!(problem(long).contains("short_factor: has 2 entries, wanted 32"));
    }
}
