//! The plan for people (a small table) and for programs (one flat JSON object).

use std::fmt;

use kernels::{CacheElement, Precision};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Plan;

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Float32 => "float32",
        Precision::Bfloat16 => "bfloat16",
        Precision::Float16 => "float16",
    }
}

fn element_name(element: CacheElement) -> &'static str {
    match element {
        CacheElement::F32 => "f32",
        CacheElement::Bf16 => "bf16",
        CacheElement::F16 => "f16",
        CacheElement::F8E4M3 => "f8_e4m3",
    }
}

/// A size with three digits: `9.45 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if size < 10.0 => format!("{size:.2} {unit}"),
        _ if size < 100.0 => format!("{size:.1} {unit}"),
        _ => format!("{size:.0} {unit}"),
    }
}

pub(super) fn context_advice(context_max: usize) -> String {
    match context_max {
        0 => "not even 16 tokens fit".to_owned(),
        tokens => format!("the longest context that fits is {tokens} tokens"),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = &self.cache;
        let tokens = self.cache_tokens();
        let line = |f: &mut fmt::Formatter<'_>, what: &str, size: u64, note: String| {
            writeln!(f, "{}", format!("{what:<12}{:>10}  {note}", bytes(size)).trim_end())
        };
        let precision = precision_name(self.precision);
        // On a CPU quantized weights meet 8-bit activations, unless float32 was asked for.
        let quantized = match self.precision {
            Precision::Bfloat16 | Precision::Float16 if !self.gpu => {
                " (quantized ones in 8-bit integers)"
            }
            _ => "",
        };
        line(f, "weights", self.weight_bytes, format!("computed in {precision}{quantized}"))?;
        let pool = format!(
            "{} pages of {} tokens in {}: {tokens} tokens, {:.1} full contexts",
            cache.pages,
            cache.page_tokens,
            element_name(cache.element),
            tokens as f64 / self.context as f64
        );
        line(f, "KV cache", self.cache_bytes, pool)?;
        let step = format!("{} tokens a step", self.step_tokens_max);
        line(f, "activations", self.activation_bytes, step)?;
        let mut served = format!("context {} tokens, {} rows at once", self.context, self.rows_max);
        if !self.gpu {
            served.push_str(&format!(", {} threads", self.threads));
        }
        line(f, "total", self.total_bytes(), served)
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("Plan", 14)?;
        out.serialize_field("precision", precision_name(self.precision))?;
        out.serialize_field("context", &self.context)?;
        out.serialize_field("rows_max", &self.rows_max)?;
        out.serialize_field("step_tokens_max", &self.step_tokens_max)?;
        out.serialize_field("threads", &self.threads)?;
        out.serialize_field("gpu", &self.gpu)?;
        out.serialize_field("weight_bytes", &self.weight_bytes)?;
        out.serialize_field("cache_bytes", &self.cache_bytes)?;
        out.serialize_field("activation_bytes", &self.activation_bytes)?;
        out.serialize_field("total_bytes", &self.total_bytes())?;
        out.serialize_field("cache_element", element_name(self.cache.element))?;
        out.serialize_field("cache_pages", &self.cache.pages)?;
        out.serialize_field("cache_page_tokens", &self.cache.page_tokens)?;
        out.serialize_field("cache_tokens", &self.cache_tokens())?;
        out.end()
    }
}
