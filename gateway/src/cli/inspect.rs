//! `hearth inspect MODEL`: what a model is and what it will take, on one screen.

use serde_json::Value;

use super::exit::{self, Outcome};
use crate::config::values::show_size;
use crate::config::{Config, source};
use crate::wiring;

/// Flags of `hearth inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a .gguf file, `demo`, or the name of a model in the cache
    #[arg(value_name = "MODEL")]
    name: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the description.
///
/// # Errors
/// The model is not here, or its files cannot be used.
pub fn run(args: &Args) -> Outcome {
    let choice = source::model(&args.name).map_err(exit::usage)?;
    let config = Config::defaults();
    let device = wiring::Target::choose(&config)?;
    let mut found = wiring::inspect::inspect(&config, &device, &choice)?;
    found["device"] = device.to_string().into();
    if args.json {
        if let Some(fields) = found.as_object_mut() {
            fields.remove("plan_table");
        }
        return exit::print(&format!("{found}\n"));
    }
    exit::print(&screen(&found))
}

fn screen(found: &Value) -> String {
    let mut out = String::new();
    let mut line = |what: &str, text: String| out.push_str(&format!("{what:<12}{text}\n"));
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |name: &str| found[name].as_u64().unwrap_or(0);
    line("model", format!("{}  ({})", words(&found["model"]), words(&found["path"])));
    let task = found["task"].as_str().map_or(String::new(), |task| format!(", {task}"));
    line("family", format!("{}{task}", words(&found["family"])));
    let (all, active) = (number("parameters"), number("parameters_active"));
    let active = if active == all { String::new() } else { format!(", {} active", count(active)) };
    line("parameters", format!("{}{active}", count(all)));
    line("weights", weights(found));
    let heads = (number("heads"), number("kv_heads"), number("head_dim"));
    line(
        "shape",
        format!(
            "{} layers, {} wide, {} heads of {} ({} for keys), {} tokens in the vocabulary",
            number("layers"),
            number("hidden"),
            heads.0,
            heads.2,
            heads.1,
            number("vocabulary"),
        ),
    );
    line("context", format!("{} tokens, {}", number("context"), words(&found["positions"])));
    if let Some(window) = found["windows"].as_object() {
        let (tokens, layers) = (&window["tokens"], &window["layers"]);
        line("windows", format!("{tokens} tokens in {layers} of {} layers", number("layers")));
    }
    if let Some(experts) = found["experts"].as_object() {
        let shared = if experts["shared"] == true { ", and a shared one" } else { "" };
        let (chosen, count) = (&experts["chosen"], &experts["count"]);
        line(
            "experts",
            format!("{chosen} of {count} per token, {} wide{shared}", experts["width"]),
        );
    }
    line("tokenizer", tokenizer(&found["tokenizer"]));
    line("chat", chat(&found["chat"]));
    line("sampling", sampling(&found["defaults"]));
    let adapters = if found["adapters"] == true { "can be loaded" } else { "none for this model" };
    line("adapters", adapters.to_owned());
    for note in found["notes"].as_array().into_iter().flatten() {
        line("note", words(note));
    }
    line("device", words(&found["device"]));
    match found["plan_refused"].as_str() {
        Some(why) => line("REFUSED", why.to_owned()),
        None => out.push_str(&words(&found["plan_table"])),
    }
    out
}

/// A count for people: `596 M`, `1.24 B`.
fn count(count: u64) -> String {
    let number = count as f64;
    match count {
        0..1_000_000 => count.to_string(),
        1_000_000..10_000_000 => format!("{:.2} M", number / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} M", number / 1e6),
        _ => format!("{:.2} B", number / 1e9),
    }
}

fn weights(found: &Value) -> String {
    let size = |value: &Value| show_size(value.as_u64().unwrap_or(0));
    let formats = found["formats"].as_array().into_iter().flatten().map(|format| {
        let (name, bytes) = (format["format"].as_str().unwrap_or_default(), size(&format["bytes"]));
        format!("{name} {bytes} in {} tensors", format["tensors"])
    });
    let formats: Vec<_> = formats.collect();
    format!("{}: {}", size(&found["weight_bytes"]), formats.join(", "))
}

fn tokenizer(found: &Value) -> String {
    let token = |token: &Value| token["text"].as_str().unwrap_or_default().to_owned();
    let ends: Vec<_> = found["ends"].as_array().into_iter().flatten().map(token).collect();
    let begin = match &found["begin"] {
        Value::Null => "no token begins a text".to_owned(),
        begin => format!("begins with {}", token(begin)),
    };
    let ends = if ends.is_empty() { "no token".to_owned() } else { ends.join(" ") };
    let kind = found["kind"].as_str().unwrap_or_default();
    format!("{kind}, {} tokens, {begin}, ends with {ends}", found["tokens"])
}

fn chat(found: &Value) -> String {
    if let Some(why) = found["refused"].as_str() {
        return format!("off: {why}");
    }
    if found["template"] != true {
        return "no template; completions only".to_owned();
    }
    let tools = found["tool_format"].as_str().unwrap_or_default();
    let thoughts = match (&found["thinks"], found["thinking_switch"].as_str()) {
        (Value::Bool(true), Some(switch)) => format!("thoughts, steered by {switch}"),
        (Value::Bool(true), None) => "thoughts, bounded by a budget".to_owned(),
        _ => "no thoughts".to_owned(),
    };
    format!("template, tool calls as {tools}, {thoughts}")
}

fn sampling(found: &Value) -> String {
    let set: Vec<_> = found
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| match value.as_f64() {
            // f32 numbers of the file, without the digits that widening adds.
            Some(number) => format!("{name} {}", number as f32),
            None => format!("{name} {value}"),
        })
        .collect();
    if set.is_empty() { "the author states none".to_owned() } else { set.join(", ") }
}
