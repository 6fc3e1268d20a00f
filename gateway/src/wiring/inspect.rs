//! `hearth inspect` in the engine's words: what a model's files say, as one JSON object. Weights
//! are looked up, not read.

use std::path::Path;

use engine::ModelFiles;
use engine::spec::{LayerSpec, MlpSpec, ModelSpec, Role};
use serde_json::{Value, json};
use text::tools::{Format, Switch, Thoughts};

use super::{Target, WiringError, only_gguf, plan_files};
use crate::config::{Config, ModelChoice, ModelSource};
use crate::pull::Hub;

/// Describes a model that is here; nothing is fetched.
///
/// # Errors
/// It is not here, or its files cannot be used: the file and the reason.
pub fn inspect(
    config: &Config,
    target: &Target,
    choice: &ModelChoice,
) -> Result<Value, WiringError> {
    let path = match &choice.source {
        ModelSource::Demo => None,
        ModelSource::Path(path) => Some(path.clone()),
        ModelSource::Hub { repo, revision } => {
            let hub = Hub::from_env(|name| std::env::var(name).ok());
            let snapshot = hub.cached(repo, revision).ok_or_else(|| {
                let problem = "is not in the cache, and there is no such file or folder";
                WiringError::Files(format!("{repo}: {problem}; `hearth pull {repo}` fetches it"))
            })?;
            Some(only_gguf(&snapshot).unwrap_or(snapshot))
        }
    };
    let path = path.as_deref();
    let files = open(path)?;
    let mut out = describe(&files);
    out["model"] = choice.id.clone().into();
    match plan_files(config, target, choice.clone(), path) {
        Ok(planned) => {
            out["task"] = planned.task().into();
            out["plan"] = planned.json();
            out["plan_table"] = planned.table().into();
        }
        Err(error) => out["plan_refused"] = error.to_string().into(),
    }
    Ok(out)
}

fn open(path: Option<&Path>) -> Result<ModelFiles, WiringError> {
    match path {
        None => Ok(engine::open_demo()),
        Some(path) => engine::open(path).map_err(|error| WiringError::Files(error.to_string())),
    }
}

fn describe(files: &ModelFiles) -> Value {
    let spec = &files.spec;
    let (parameters, active) = parameters(spec);
    json!({
        "path": files.path.display().to_string(),
        "family": spec.family,
        "parameters": parameters,
        "parameters_active": active,
        "weight_bytes": files.weight_bytes,
        "formats": formats(files),
        "layers": spec.layers.len(),
        "hidden": spec.hidden,
        "heads": spec.layers.first().map(|layer| layer.attention.heads),
        "kv_heads": spec.layers.first().map(|layer| layer.attention.cache_heads()),
        "head_dim": spec.layers.first().map(|layer| layer.attention.head_dim),
        "context": spec.context,
        "causal": spec.causal,
        "positions": positions(spec),
        "windows": windows(spec),
        "experts": spec.layers.iter().find_map(experts),
        "vocabulary": spec.vocab,
        "tokenizer": words(files),
        "chat": chat(&files.text),
        "defaults": defaults(files),
        "adapters": files.adapter_base.is_some() && spec.causal,
        "notes": files.notes,
    })
}

/// Numbers in all tensors, and in those that one token meets.
fn parameters(spec: &ModelSpec) -> (u64, u64) {
    let (mut all, mut active) = (0, 0);
    for need in spec.tensors() {
        let size = need.rows as u64 * need.cols as u64;
        all += size;
        active += match need.role {
            Role::Expert(layer, expert, _) => match &spec.layers[layer].mlp {
                MlpSpec::Experts(experts) if expert >= experts.top_k => 0,
                _ => size,
            },
            _ => size,
        };
    }
    (all, active)
}

/// Bytes and tensors by format, the largest share first.
fn formats(files: &ModelFiles) -> Vec<Value> {
    let mut found: Vec<(&str, u64, u64)> = Vec::new();
    for need in files.spec.tensors() {
        let Ok(look) = files.weights.look(need.role, need.rows, need.cols) else { continue };
        let name = look.format.name();
        match found.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, bytes, count)) => (*bytes, *count) = (*bytes + look.bytes, *count + 1),
            None => found.push((name, look.bytes, 1)),
        }
    }
    found.sort_by_key(|(_, bytes, _)| std::cmp::Reverse(*bytes));
    let shown =
        |(format, bytes, tensors)| json!({"format": format, "bytes": bytes, "tensors": tensors});
    found.into_iter().map(shown).collect()
}

fn positions(spec: &ModelSpec) -> String {
    if let Some(table) = spec.embedding.positions {
        return format!("a learned table of {}", table.rows);
    }
    let Some(rope) = spec.ropes.first() else { return "none".to_owned() };
    let turned = 2 * rope.inv_freq.len();
    let mut out = format!("rotary over {turned} elements");
    // A frequency that falls in even steps is not stretched.
    let ratio = |at: usize| f64::from(rope.inv_freq[at]) / f64::from(rope.inv_freq[at + 1]);
    let count = rope.inv_freq.len();
    let even = count < 3 || (ratio(0) / ratio(count - 2) - 1.0).abs() < 1e-3;
    if rope.beyond.is_some() {
        out.push_str(", others for long sequences");
    } else if !even || (rope.magnitude - 1.0).abs() > 0.0 || rope.inv_freq[0] < 0.999 {
        out.push_str(", stretched");
    }
    if let [_, others @ ..] = &spec.ropes[..]
        && !others.is_empty()
    {
        out.push_str(", another for layers with windows");
    }
    let bare = spec.layers.iter().filter(|layer| layer.attention.rope.is_none()).count();
    if bare > 0 {
        out.push_str(&format!(", {bare} layers without"));
    }
    out
}

fn windows(spec: &ModelSpec) -> Value {
    let windows: Vec<u32> = spec.layers.iter().filter_map(|layer| layer.attention.window).collect();
    match windows.first() {
        None => Value::Null,
        Some(tokens) => json!({"tokens": tokens, "layers": windows.len()}),
    }
}

fn experts(layer: &LayerSpec) -> Option<Value> {
    let MlpSpec::Experts(experts) = &layer.mlp else { return None };
    let shared = experts.shared.is_some();
    let (count, chosen, width) = (experts.count, experts.top_k, experts.width);
    Some(json!({"count": count, "chosen": chosen, "width": width, "shared": shared}))
}

fn words(files: &ModelFiles) -> Value {
    let text = &files.text;
    let token = |id: u32| json!({"id": id, "text": text.token_text(id)});
    json!({
        "kind": text.kind(),
        "tokens": text.vocab_size(),
        "begin": text.bos().map(token),
        "ends": files.eos.iter().map(|&id| token(id)).collect::<Vec<_>>(),
    })
}

/// Whether there is a chat template, how calls are written and how thoughts are marked.
fn chat(text: &text::TextModel) -> Value {
    if let Some(error) = text.chat_template_error() {
        return json!({"template": false, "refused": error.to_string()});
    }
    let format = Format::of(text);
    let thoughts = Thoughts::of(text, format);
    let switch =
        thoughts.as_ref().and_then(|thoughts| thoughts.switch).map(|switch| match switch {
            Switch::Flag(name) | Switch::Effort(name) => name,
        });
    let template = text.has_chat_template();
    json!({
        "template": template,
        "tool_format": format.unwrap_or_else(Format::generic).name,
        "thinks": thoughts.is_some(),
        "thinking_switch": switch,
    })
}

fn defaults(files: &ModelFiles) -> Value {
    let author = &files.defaults;
    let all = [
        ("temperature", author.temperature.map(Value::from)),
        ("top_p", author.top_p.map(Value::from)),
        ("top_k", author.top_k.map(Value::from)),
        ("min_p", author.min_p.map(Value::from)),
        ("typical_p", author.typical_p.map(Value::from)),
        ("repetition_penalty", author.repetition_penalty.map(Value::from)),
        ("max_new_tokens", author.max_new_tokens.map(Value::from)),
        ("do_sample", author.do_sample.map(Value::from)),
    ];
    let set = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect())
}
