//! A chat request, from bytes to typed. What is not on the list below is refused by its name:
//! mistralrs ignores what it does not know, and an ignored field is a wrong answer. Knows no
//! model: whether it can see images, and how long it can write, is asked later.

use serde_json::{Map, Value};

use crate::error::Failure;
use crate::parts;

/// Fields that are honoured.
const HONOURED: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "n",
    "stream",
    "stream_options",
];
/// Why some well-known fields are not.
const REFUSED: &[(&str, &str)] = &[
    ("seed", "mistralrs draws all requests from one generator, so no seed can be kept"),
    ("tools", "this node has no tool calls"),
    ("response_format", "this node has no structured output"),
    ("logprobs", "this node gives no log-probabilities"),
];
const STOPS_MAX: usize = 4;

/// What to write, and how.
#[derive(Debug, PartialEq)]
pub(crate) struct Ask {
    pub(crate) messages: Vec<Message>,
    /// Encoded images of all messages, in order.
    pub(crate) images: Vec<Vec<u8>>,
    pub(crate) tokens_max: Option<usize>,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) top_k: Option<usize>,
    pub(crate) min_p: f64,
    pub(crate) stop: Vec<String>,
    pub(crate) stream: bool,
    /// Whether a stream ends with its usage.
    pub(crate) stream_usage: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
}

/// One turn. Its images come before its text, as mistralrs has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) text: String,
    /// How many of the request's images are its own.
    pub(crate) images: usize,
}

type Object = Map<String, Value>;

/// Reads the body of a chat request for the model `served`.
///
/// # Errors
/// Names the field that is missing, wrong or not honoured.
pub(crate) fn parse(body: &[u8], served: &str) -> Result<Ask, Failure> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::request(format!("The body is no JSON: {error}.")))?;
    let Value::Object(mut body) = value else {
        return Err(Failure::request("The body is no JSON object."));
    };
    // Clients send null for what they leave open.
    body.retain(|_, value| !value.is_null());
    if let Some(name) = body.keys().find(|name| !HONOURED.contains(&name.as_str())) {
        let known = REFUSED.iter().find(|(known, _)| known == name);
        let short: String = name.chars().take(64).collect();
        return Err(Failure::unsupported(short, known.map_or("it is not honoured here", |r| r.1)));
    }
    let model = string(&body, "model")?;
    if model != served {
        return Err(Failure::no_model(model, served));
    }
    if number(&body, "n", 1.0, |n| n == 1.0, "expected 1")? != 1.0 {
        return Err(Failure::invalid("n", "expected 1"));
    }
    let stream = flag(&body, "stream")?;
    let mut images = Vec::new();
    Ok(Ask {
        messages: messages(&body, &mut images)?,
        images,
        tokens_max: tokens_max(&body)?,
        temperature: number(
            &body,
            "temperature",
            1.0,
            |t| (0.0..=2.0).contains(&t),
            "expected 0 to 2",
        )?,
        top_p: number(
            &body,
            "top_p",
            1.0,
            |p| p > 0.0 && p <= 1.0,
            "expected more than 0, at most 1",
        )?,
        top_k: count(&body, "top_k")?,
        min_p: number(
            &body,
            "min_p",
            0.0,
            |p| (0.0..1.0).contains(&p),
            "expected at least 0, less than 1",
        )?,
        stop: stop(&body)?,
        stream,
        stream_usage: stream_usage(&body, stream)?,
    })
}

fn string<'a>(object: &'a Object, name: &str) -> Result<&'a str, Failure> {
    let value = object.get(name).and_then(Value::as_str);
    value.ok_or_else(|| Failure::invalid(name, "expected a string"))
}

fn flag(object: &Object, name: &str) -> Result<bool, Failure> {
    let value = object.get(name).map_or(Some(false), Value::as_bool);
    value.ok_or_else(|| Failure::invalid(name, "expected true or false"))
}

fn number(
    object: &Object,
    name: &str,
    default: f64,
    fits: impl Fn(f64) -> bool,
    why: &str,
) -> Result<f64, Failure> {
    let value = object.get(name).map_or(Some(default), Value::as_f64);
    value.filter(|value| fits(*value)).ok_or_else(|| Failure::invalid(name, why))
}

fn count(object: &Object, name: &str) -> Result<Option<usize>, Failure> {
    let Some(value) = object.get(name) else { return Ok(None) };
    let value = value.as_u64().and_then(|value| u32::try_from(value).ok());
    let value = value.filter(|value| *value > 0).map(|value| value as usize);
    value.map(Some).ok_or_else(|| Failure::invalid(name, "expected a whole number from 1"))
}

fn tokens_max(body: &Object) -> Result<Option<usize>, Failure> {
    let old = count(body, "max_tokens")?;
    match (old, count(body, "max_completion_tokens")?) {
        (Some(a), Some(b)) if a != b => {
            Err(Failure::invalid("max_tokens", "'max_completion_tokens' says something else"))
        }
        (a, b) => Ok(b.or(a)),
    }
}

fn stop(body: &Object) -> Result<Vec<String>, Failure> {
    let why = "expected a text, or up to four, none of them empty";
    let list = match body.get("stop") {
        None => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(all)) => all.iter().map(|s| s.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    let list = list.filter(|list| list.len() <= STOPS_MAX && list.iter().all(|s| !s.is_empty()));
    list.ok_or_else(|| Failure::invalid("stop", why))
}

fn stream_usage(body: &Object, stream: bool) -> Result<bool, Failure> {
    let Some(options) = body.get("stream_options") else { return Ok(false) };
    if !stream {
        return Err(Failure::invalid("stream_options", "it needs 'stream': true"));
    }
    let options = object(options, "stream_options", &["include_usage"])?;
    flag(options, "include_usage").map_err(|failure| failure.under("stream_options"))
}

/// An object with no other fields than these.
fn object<'a>(value: &'a Value, path: &str, fields: &[&str]) -> Result<&'a Object, Failure> {
    let Value::Object(object) = value else {
        return Err(Failure::invalid(path, "expected an object"));
    };
    match object.iter().find(|(name, v)| !v.is_null() && !fields.contains(&name.as_str())) {
        Some((name, _)) => {
            let short: String = name.chars().take(64).collect();
            Err(Failure::unsupported(short, "it is not honoured here").under(path))
        }
        None => Ok(object),
    }
}

fn messages(body: &Object, images: &mut Vec<Vec<u8>>) -> Result<Vec<Message>, Failure> {
    let list = body.get("messages").and_then(Value::as_array).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Failure::invalid("messages", "expected a list of messages"))?;
    let mut out = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let path = format!("messages[{at}]");
        let fields = object(value, &path, &["role", "content"])?;
        out.push(message(fields, images).map_err(|failure| failure.under(&path))?);
    }
    Ok(out)
}

fn message(fields: &Object, images: &mut Vec<Vec<u8>>) -> Result<Message, Failure> {
    let role = match string(fields, "role")? {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return Err(Failure::invalid("role", "expected system, user or assistant")),
    };
    let before = images.len();
    let text = content(fields.get("content"), role, images)?;
    Ok(Message { role, text, images: images.len() - before })
}

/// The text of a message; its images are added to the list.
fn content(
    value: Option<&Value>,
    role: Role,
    images: &mut Vec<Vec<u8>>,
) -> Result<String, Failure> {
    let list = match value {
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(list)) if !list.is_empty() => list,
        _ => return Err(Failure::invalid("content", "expected a text or a list of parts")),
    };
    let mut text = String::new();
    for (at, value) in list.iter().enumerate() {
        let path = format!("content[{at}]");
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "text" => {
                let fields = object(value, &path, &["type", "text"])?;
                text += string(fields, "text").map_err(|failure| failure.under(&path))?;
            }
            "image_url" if role == Role::User => {
                if images.len() == parts::IMAGES_MAX {
                    return Err(Failure::invalid(path, "the request has too many images"));
                }
                images.push(image(value, &path)?);
            }
            "image_url" => {
                return Err(Failure::unsupported(path, "only a user's message has images"));
            }
            _ => {
                let path = format!("{path}.type");
                return Err(Failure::unsupported(path, "parts are 'text' or 'image_url' here"));
            }
        }
    }
    Ok(text)
}

fn image(value: &Value, path: &str) -> Result<Vec<u8>, Failure> {
    let fields = object(value, path, &["type", "image_url"])?;
    let path = format!("{path}.image_url");
    let inner = object(fields.get("image_url").unwrap_or(&Value::Null), &path, &["url", "detail"])?;
    // mistralrs scales an image as the model's own processor says, which is what "auto" means.
    if inner.get("detail").is_some_and(|detail| !detail.is_null() && detail != "auto") {
        let failure = Failure::unsupported("detail", "only \"auto\": the model's own size is used");
        return Err(failure.under(&path));
    }
    string(inner, "url").and_then(parts::bytes).map_err(|failure| failure.under(&path))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values, used once")]
mod tests;
