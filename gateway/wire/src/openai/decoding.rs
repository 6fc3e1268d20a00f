//! The fields that say how tokens are drawn, when a choice ends and what is reported: the same
//! for chat and plain completions but for `logprobs`.

use serde_json::Value;

use super::structured;
use crate::fields::{Fault, Fields, Parsed, bound, integer, number, token};
use crate::limits::Limits;
use crate::request::{Decoding, StreamOptions};

/// Reads all shared fields. `max_tokens` and `logprobs` are left to the caller, whose routes
/// name them differently.
pub(crate) fn parse(fields: Fields<'_>, limits: &Limits) -> Parsed<Decoding> {
    let choices = fields.natural("n", 1..=limits.choices_max)?.unwrap_or(1);
    let best_of = fields.natural("best_of", 1..=limits.choices_max)?;
    if best_of.is_some_and(|best| best != choices) {
        return Err(Fault::unsupported("best_of", "it must be equal to 'n'; all are returned"));
    }
    let decoding = Decoding {
        choices,
        max_tokens: None,
        min_tokens: fields.natural("min_tokens", 0..=u32::MAX)?.unwrap_or(0),
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", 0.0..=1.0)?,
        typical_p: fields.number("typical_p", 0.0..=1.0)?,
        repetition_penalty: fields.number("repetition_penalty", 0.01..=100.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
        logit_bias: logit_bias(fields, limits)?,
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
        stop: stop(fields, limits)?,
        stop_token_ids: fields.each("stop_token_ids", limits.stop_tokens_max, token)?,
        include_stop: fields.boolean("include_stop_str_in_output", false)?,
        skip_special_tokens: fields.boolean("skip_special_tokens", true)?,
        ignore_eos: fields.boolean("ignore_eos", false)?,
        logprobs: None,
        prompt_logprobs: fields.natural("prompt_logprobs", 0..=limits.top_logprobs_max)?,
        return_token_ids: fields.boolean("return_token_ids", false)?,
        priority: fields
            .integer("priority", i64::from(i8::MIN)..=i64::from(i8::MAX))?
            .and_then(|p| i8::try_from(p).ok())
            .unwrap_or(0),
        flex: flex(fields)?,
        cache_salt: salt(fields)?,
        structured: structured::parse(fields, limits)?,
        stream: stream(fields)?,
    };
    if decoding.prompt_logprobs.is_some() && decoding.stream.is_some() {
        let why = "it cannot be combined with 'stream'";
        return Err(Fault::unsupported("prompt_logprobs", why));
    }
    if decoding.flex && decoding.priority != 0 {
        return Err(Fault::unsupported("priority", "the service tier 'flex' comes last"));
    }
    if let Some(structured) = decoding.structured.as_ref().filter(|_| decoding.ignore_eos) {
        let why = format!("the shape in '{}' says where the answer ends", structured.field);
        return Err(Fault::unsupported("ignore_eos", why));
    }
    Ok(decoding)
}

/// `min_tokens` against the limit that was found.
pub(crate) fn check_lengths(decoding: &Decoding) -> Parsed<()> {
    match decoding.max_tokens {
        Some(max) if decoding.min_tokens > max => {
            Err(Fault::value("min_tokens", format!("it is greater than the limit of {max} tokens")))
        }
        _ => Ok(()),
    }
}

/// OpenAI's service tiers. Those that are sold dearer are not there, and nothing is served faster
/// for their names.
pub(crate) fn flex(fields: Fields<'_>) -> Parsed<bool> {
    match fields.string("service_tier")? {
        None | Some("auto" | "default") => Ok(false),
        Some("flex") => Ok(true),
        Some(_) => {
            let why = "the service tiers are 'auto', 'default' and 'flex'";
            Err(Fault::unsupported("service_tier", why))
        }
    }
}

/// -1 and 0 both keep all.
fn top_k(fields: Fields<'_>) -> Parsed<Option<u32>> {
    let k = fields.integer("top_k", -1..=i64::from(u32::MAX))?;
    Ok(k.map(|k| u32::try_from(k).unwrap_or(0)))
}

fn salt(fields: Fields<'_>) -> Parsed<Option<String>> {
    match fields.string("cache_salt")? {
        Some("") => Err(Fault::value("cache_salt", "it must not be empty")),
        salt => Ok(salt.map(str::to_owned)),
    }
}

fn logit_bias(fields: Fields<'_>, limits: &Limits) -> Parsed<Vec<(u32, f64)>> {
    let Some(map) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (key, value) in map.entries() {
        let inside = |fault: Fault| fault.under(key).under("logit_bias");
        let id: u32 = key
            .parse()
            .map_err(|_| Fault::value("logit_bias", "its keys must be token ids as strings"))?;
        let bias = number(value, &(-100.0..=100.0)).map_err(inside)?;
        out.push((id, bias));
    }
    bound(out.len(), limits.logit_bias_max).map_err(|f| f.under("logit_bias"))?;
    // The same id may be spelt twice ("7" and "07"): which one counts must not be chance.
    out.sort_by_key(|(id, _)| *id);
    match out.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            Err(Fault::value("logit_bias", format!("token {} is named twice", pair[0].0)))
        }
        None => Ok(out),
    }
}

fn stop(fields: Fields<'_>, limits: &Limits) -> Parsed<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(s) if s.is_empty() => {
            Err(Fault::value("", "a stop string must not be empty"))
        }
        Value::String(s) if s.len() > limits.stop_bytes_max => {
            let why = format!("a stop string has at most {} bytes", limits.stop_bytes_max);
            Err(Fault::range("", why, "string_above_max_length"))
        }
        Value::String(s) => Ok(s.clone()),
        other => Err(Fault::kind("", "a string", other)),
    };
    match fields.get("stop") {
        None => Ok(Vec::new()),
        Some(text @ Value::String(_)) => Ok(vec![one(text).map_err(|f| f.under("stop"))?]),
        Some(Value::Array(_)) => fields.each("stop", limits.stops_max, one),
        Some(other) => Err(Fault::kind("stop", "a string or an array of strings", other)),
    }
}

fn stream(fields: Fields<'_>) -> Parsed<Option<StreamOptions>> {
    let on = fields.boolean("stream", false)?;
    let Some(options) = fields.object("stream_options")? else {
        return Ok(on.then(StreamOptions::default));
    };
    if !on {
        return Err(Fault::value("stream_options", "it is only allowed with 'stream': true"));
    }
    let known = ["include_usage", "include_obfuscation", "continuous_usage_stats"];
    let read = || {
        options.only(&known)?;
        // Obfuscation pads events against observers of sizes; its absence changes no answer.
        options.boolean("include_obfuscation", false)?;
        Ok(StreamOptions {
            include_usage: options.boolean("include_usage", false)?,
            continuous_usage: options.boolean("continuous_usage_stats", false)?,
        })
    };
    read().map(Some).map_err(|f: Fault| f.under("stream_options"))
}

/// Reads an alternatives count of the legacy form: an integer, where chat has a boolean.
pub(crate) fn legacy_logprobs(fields: Fields<'_>, limits: &Limits) -> Parsed<Option<u32>> {
    let Some(value) = fields.get("logprobs") else { return Ok(None) };
    let range = 0..=i64::from(limits.top_logprobs_max);
    let k = integer(value, &range).map_err(|f| f.under("logprobs"))?;
    Ok(u32::try_from(k).ok())
}
