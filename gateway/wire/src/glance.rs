//! A glance at a request that is passed on in its own dialect: what the gateway needs to know of
//! it, and where that stands in the bytes. The rest is not parsed into anything, so that it
//! arrives as it was written, unknown fields among it, and costs next to nothing.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{ApiError, ErrorKind};
use crate::fields::short;

/// Bytes of JSON per token, on the safe side: prose has four, other scripts and code about three.
const BYTES_PER_TOKEN: u64 = 3;

/// What an image is taken for until the provider says what it was.
const IMAGE_TOKENS: u64 = 1_600;

/// Service tiers that are no batch: OpenAI's, and Anthropic's.
const KNOWN_TIERS: [&str; 3] = ["auto", "default", "standard_only"];

/// Raw values of the fields that matter. A field that stands twice is refused: two readers of one
/// request must not see two different models.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_output_tokens: Option<&'a RawValue>,
    /// Google's place for the bound on new tokens.
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "generationConfig",
        alias = "generation_config"
    )]
    generation: Option<&'a RawValue>,
    n: Option<Value>,
    service_tier: Option<Value>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    user: Option<Value>,
    metadata: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Generation<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "maxOutputTokens",
        alias = "max_output_tokens"
    )]
    most: Option<&'a RawValue>,
}

/// A field that is there, be it `null`: what is written over it must not stand beside it.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a request says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// The model's name.
    pub model: String,
    /// The answer is to be a stream.
    pub stream: bool,
    /// The caller wants the usage at a stream's end (OpenAI's chat).
    pub include_usage: bool,
    /// Most new tokens: the highest where several fields say so.
    pub max_tokens: Option<u32>,
    /// Choices.
    pub choices: u32,
    /// It may be served as a batch.
    pub flex: bool,
    /// Names of the tools on offer.
    pub tools: Vec<String>,
    /// It says more of tools than their names: some are not functions of the caller.
    pub offers_tools: bool,
    /// Images lie in it.
    pub images: u64,
    /// The caller's own user.
    pub user: Option<String>,
    /// The caller's notes: names to texts.
    pub metadata: Vec<(String, String)>,
    /// Tokens of its prompt, estimated from its bytes.
    pub input_estimate: u64,
    /// Where the values of `model` and `stream_options` stand.
    model_at: Option<(usize, usize)>,
    options_at: Option<(usize, usize)>,
    /// Of all fields that bound new tokens.
    max_at: Vec<(usize, usize)>,
    /// Of Google's configuration, in requests of that dialect: where it stands, if anywhere.
    generation: Option<Option<(usize, usize)>>,
}

/// A bound on new tokens, and the field that says so where the request has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// The field.
    pub field: &'static str,
    /// The bound.
    pub tokens: u32,
}

impl Glance {
    /// Looks at a body.
    ///
    /// # Errors
    /// It is not a JSON object, names no model, or says a field that matters twice.
    pub fn of(body: &[u8]) -> Result<Self, ApiError> {
        Self::read(body, None)
    }

    /// As [`Glance::of`], where the model and whether the answer is a stream stand elsewhere.
    ///
    /// # Errors
    /// It is not a JSON object, or says a field that matters twice.
    pub fn named(body: &[u8], model: &str, stream: bool) -> Result<Self, ApiError> {
        Self::read(body, Some((model, stream)))
    }

    fn read(body: &[u8], named: Option<(&str, bool)>) -> Result<Self, ApiError> {
        let invalid = |why: String| ApiError::new(ErrorKind::Invalid, "invalid_json", why);
        let text = std::str::from_utf8(body)
            .map_err(|e| invalid(format!("The body is not valid UTF-8: {e}.")))?;
        let raw: Raw<'_> = serde_json::from_str(text)
            .map_err(|e| invalid(format!("The body is not valid JSON: {}.", told(&e))))?;
        let at = |raw: &RawValue| {
            // A raw value is a part of the text that it was read from.
            let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
            (start, start + raw.get().len())
        };
        let (model, model_at, stream) = match named {
            Some((model, stream)) => (model.to_owned(), None, stream),
            None => {
                let (model, raw_model) = model(raw.model)?;
                (model, Some(at(raw_model)), streams(raw.stream)?)
            }
        };
        let options: Option<Value> =
            raw.stream_options.map(|raw| serde_json::from_str(raw.get())).transpose().map_err(
                |e| invalid(format!("Invalid value for 'stream_options': {}.", told(&e))),
            )?;
        let include_usage = options.as_ref().and_then(|o| o.get("include_usage"));
        let images = count(text, &DATA).max(count(text, &IMAGE_URL));
        let number = |value: &Option<Value>| {
            let number = value.as_ref().and_then(Value::as_u64);
            number.map(|n| u32::try_from(n).unwrap_or(u32::MAX))
        };
        let generation = raw.generation.filter(|_| named.is_some());
        let inner: Option<Option<Generation<'_>>> = generation
            .map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|e| invalid(format!("Invalid value for 'generationConfig': {}.", told(&e))))?;
        let max: Vec<&RawValue> = match named {
            Some(_) => inner.flatten().unwrap_or_default().most.into_iter().collect(),
            None => [raw.max_completion_tokens, raw.max_tokens, raw.max_output_tokens]
                .into_iter()
                .flatten()
                .collect(),
        };
        let max_tokens = most(&max)?;
        Ok(Self {
            stream,
            include_usage: include_usage == Some(&Value::Bool(true)),
            max_tokens,
            max_at: max.into_iter().map(at).collect(),
            generation: named.map(|_| generation.map(at)),
            choices: number(&raw.n).unwrap_or(1).max(1),
            flex: flex(raw.service_tier.as_ref())?,
            tools: raw.tools.map(names).unwrap_or_default(),
            offers_tools: raw.tools.is_some_and(|raw| !matches!(raw.get(), "[]" | "null")),
            images,
            user: raw.user.as_ref().and_then(Value::as_str).map(str::to_owned),
            metadata: notes(raw.metadata.as_ref()),
            input_estimate: tokens(text, images),
            model_at,
            options_at: raw.stream_options.map(at),
            model,
        })
    }

    /// Where the prompt begins, as far as a glance tells: behind the model's name or at the start.
    #[must_use]
    pub fn prompt_at(&self, body: &[u8]) -> usize {
        let find = |what: &[u8]| body.windows(what.len()).position(|window| window == what);
        let names = [&b"\"messages\""[..], b"\"input\"", b"\"contents\"", b"\"prompt\""];
        names.into_iter().filter_map(find).min().unwrap_or(0)
    }

    /// The same request for another model; with `usage`, one whose stream ends with the usage;
    /// with `most`, for no more new tokens than that.
    #[must_use]
    pub fn rewrite(&self, body: &[u8], model: &str, usage: bool, most: Option<Most>) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + model.len() + 64);
        let own = self.model_at.map(|at| (at, Value::from(model).to_string()));
        let mut cuts: Vec<_> = own.into_iter().collect();
        if usage && self.stream && !self.include_usage {
            match self.options_at {
                Some(at) => {
                    let mut options: Value =
                        serde_json::from_slice(&body[at.0..at.1]).unwrap_or_default();
                    if !options.is_object() {
                        options = Value::Object(serde_json::Map::new());
                    }
                    options["include_usage"] = true.into();
                    cuts.push((at, options.to_string()));
                }
                None => {
                    let open = body.iter().position(|byte| *byte == b'{').unwrap_or(0) + 1;
                    let field = "\"stream_options\":{\"include_usage\":true},".to_owned();
                    cuts.push(((open, open), field));
                }
            }
        }
        if let Some(most) = most {
            self.bound(body, most, &mut cuts);
        }
        cuts.sort_by_key(|(at, _)| *at);
        let mut from = 0;
        for ((start, end), text) in cuts {
            out.extend_from_slice(&body[from..start]);
            out.extend_from_slice(text.as_bytes());
            from = end;
        }
        out.extend_from_slice(&body[from..]);
        out
    }

    /// Writes a bound on new tokens over all that the request says of it.
    fn bound(&self, body: &[u8], most: Most, cuts: &mut Vec<((usize, usize), String)>) {
        let Most { field, tokens } = most;
        if !self.max_at.is_empty() {
            cuts.extend(self.max_at.iter().map(|at| (*at, tokens.to_string())));
            return;
        }
        let open = body.iter().position(|byte| *byte == b'{').unwrap_or(0) + 1;
        let comma = if body[open..].trim_ascii_start().starts_with(b"}") { "" } else { "," };
        match self.generation {
            None => cuts.push(((open, open), format!("\"{field}\":{tokens}{comma}"))),
            Some(None) => {
                let limit = format!("{{\"maxOutputTokens\":{tokens}}}");
                cuts.push(((open, open), format!("\"generationConfig\":{limit}{comma}")));
            }
            Some(Some((start, end))) => {
                let inner = body[start..end].trim_ascii().strip_prefix(b"{").unwrap_or_default();
                let more = if inner.trim_ascii_start().starts_with(b"\"") {
                    String::from_utf8_lossy(inner).into_owned()
                } else {
                    "}".to_owned()
                };
                let comma = if more == "}" { "" } else { "," };
                let config = format!("{{\"maxOutputTokens\":{tokens}{comma}{more}");
                cuts.push(((start, end), config));
            }
        }
    }
}

/// What a parser says, which may repeat a value of any length.
fn told(error: &serde_json::Error) -> String {
    error.to_string().chars().take(200).collect()
}

/// The model's name, and where it stands.
fn model(raw: Option<&RawValue>) -> Result<(String, &RawValue), ApiError> {
    let refuse = |code, message: &str| {
        Err(ApiError::new(ErrorKind::Invalid, code, message).with_param("model"))
    };
    let Some(raw) = raw else {
        return refuse("missing_required_parameter", "Missing required parameter: 'model'.");
    };
    match serde_json::from_str(raw.get()) {
        Ok(model) => Ok((model, raw)),
        Err(_) => refuse("invalid_type", "Invalid type for 'model': expected a string."),
    }
}

/// Whether the answer is to be a stream.
fn streams(raw: Option<&RawValue>) -> Result<bool, ApiError> {
    match raw.map_or("null", RawValue::get) {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        other => {
            let message =
                format!("Invalid type for 'stream': expected a boolean, not {}.", short(other));
            let error = ApiError::new(ErrorKind::Invalid, "invalid_type", message);
            Err(error.with_param("stream"))
        }
    }
}

/// Whether it may be served as a batch. What is sold dearer than a price sheet says is refused.
fn flex(tier: Option<&Value>) -> Result<bool, ApiError> {
    match tier {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(tier)) if tier == "flex" => Ok(true),
        Some(Value::String(tier)) if KNOWN_TIERS.contains(&tier.as_str()) => Ok(false),
        Some(_) => {
            let message = "Unsupported parameter: 'service_tier': the service tiers are 'auto', \
                           'default' and 'flex'.";
            let error = ApiError::new(ErrorKind::Invalid, "unsupported_parameter", message);
            Err(error.with_param("service_tier"))
        }
    }
}

/// The largest of the bounds on new tokens that a request has.
fn most(bounds: &[&RawValue]) -> Result<Option<u32>, ApiError> {
    let mut max_tokens = None;
    for raw in bounds {
        let tokens: Option<u64> = serde_json::from_str(raw.get()).map_err(|_| {
            let message = "Invalid type for the most new tokens: expected a whole number.";
            ApiError::new(ErrorKind::Invalid, "invalid_type", message).with_param("max_tokens")
        })?;
        max_tokens = max_tokens.max(tokens.map(|most| u32::try_from(most).unwrap_or(u32::MAX)));
    }
    Ok(max_tokens)
}

/// Tokens of a request of which nothing but its bytes is known.
#[must_use]
pub fn estimate(body: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(body);
    tokens(&text, count(&text, &DATA))
}

/// Tokens of a text, from its bytes; an image counts as one, not as its bytes.
fn tokens(text: &str, images: u64) -> u64 {
    let all = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let mut pictures = 0;
    let mut rest = text;
    while let Some(at) = DATA.find(rest.as_bytes()) {
        rest = &rest[at..];
        let end = rest.find('"').unwrap_or(rest.len());
        pictures += u64::try_from(end).unwrap_or(u64::MAX);
        rest = &rest[end..];
    }
    all.saturating_sub(pictures) / BYTES_PER_TOKEN + images * IMAGE_TOKENS + 1
}

/// Where the bytes of a picture begin, and where its address does.
static DATA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(";base64,"));
static IMAGE_URL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"image_url\":"));

fn count(text: &str, what: &Finder<'_>) -> u64 {
    u64::try_from(what.find_iter(text.as_bytes()).count()).unwrap_or(u64::MAX)
}

/// Names of tools, in any dialect: their own, or their function's.
fn names(raw: &RawValue) -> Vec<String> {
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
        function: Option<Inner>,
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    #[derive(Deserialize)]
    struct Inner {
        name: Option<String>,
    }
    let tools: Vec<Named> = serde_json::from_str(raw.get()).unwrap_or_default();
    let name = |tool: Named| tool.name.or(tool.function.and_then(|f| f.name)).or(tool.kind);
    tools.into_iter().filter_map(name).collect()
}

fn notes(metadata: Option<&Value>) -> Vec<(String, String)> {
    let map = metadata.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(body: &str, usage: bool) -> String {
        let glance = Glance::of(body.as_bytes()).expect("a request");
        String::from_utf8(glance.rewrite(body.as_bytes(), "b\"", usage, None)).expect("UTF-8")
    }

    #[test]
    fn all_but_the_model_stays_as_it_was() {
        let body = r#"{ "x":1e400, "model" : "a", "stream":true,"ünknown": [ 1 ,2] }"#;
        let expect = r#"{ "x":1e400, "model" : "b\"", "stream":true,"ünknown": [ 1 ,2] }"#;
        assert_eq!(rewrite(body, false), expect);
    }

    #[test]
    fn service_tiers() {
        let tier = |tier: &str| {
            let body = format!("{{\"model\":\"m\",\"service_tier\":{tier}}}");
            Glance::of(body.as_bytes()).map(|glance| glance.flex)
        };
        assert!(tier("\"flex\"").expect("known"));
        for known in ["\"auto\"", "\"default\"", "\"standard_only\"", "null"] {
            assert!(!tier(known).expect("known"), "{known}");
        }
        for wrong in ["\"priority\"", "\"\"", "5", "{}"] {
            let param = tier(wrong).expect_err("refused").param;
            assert_eq!(param.as_deref(), Some("service_tier"), "{wrong}");
        }
    }

    #[test]
    fn a_bound_stands_alone() {
        let chat = |body: &str| {
            let glance = Glance::of(body.as_bytes()).expect("a request");
            let most = Most { field: "max_tokens", tokens: 5 };
            String::from_utf8(glance.rewrite(body.as_bytes(), "m", false, Some(most))).unwrap()
        };
        assert_eq!(chat(r#"{"model":"m"}"#), r#"{"max_tokens":5,"model":"m"}"#);
        assert_eq!(chat(r#"{"model":"m","max_tokens":9}"#), r#"{"model":"m","max_tokens":5}"#);
        let null = r#"{"model":"m","max_tokens": null }"#;
        assert_eq!(chat(null), r#"{"model":"m","max_tokens": 5 }"#);
        assert_eq!(
            chat(r#"{"max_completion_tokens":1,"model":"m","max_tokens":9}"#),
            r#"{"max_completion_tokens":5,"model":"m","max_tokens":5}"#
        );
        let google = |body: &str| {
            let glance = Glance::named(body.as_bytes(), "m", false).expect("a request");
            let most = Most { field: "max_tokens", tokens: 5 };
            String::from_utf8(glance.rewrite(body.as_bytes(), "m", false, Some(most))).unwrap()
        };
        let bound = r#"{"generationConfig":{"maxOutputTokens":5},"x":1}"#;
        assert_eq!(google(r#"{"x":1}"#), bound);
        for config in ["null", "{}", "{ }", r#"{"maxOutputTokens":9}"#] {
            let body = format!(r#"{{"generationConfig":{config},"x":1}}"#);
            assert_eq!(google(&body), bound, "{config}");
        }
        assert_eq!(
            google(r#"{"generation_config":{"top_k": 1, "max_output_tokens":null}}"#),
            r#"{"generation_config":{"top_k": 1, "max_output_tokens":5}}"#
        );
        assert_eq!(
            google(r#"{"generation_config": {"top_k": {}}}"#),
            r#"{"generation_config": {"maxOutputTokens":5,"top_k": {}}}"#
        );
        let most = |body: &str| Glance::of(body.as_bytes()).expect("a request").max_tokens;
        assert_eq!(most(r#"{"model":"m","max_completion_tokens":1,"max_tokens":9}"#), Some(9));
        assert_eq!(most(r#"{"model":"m","max_tokens":null}"#), None);
    }

    #[test]
    fn usage_is_asked_for_once() {
        let field = "\"stream_options\":{\"include_usage\":true}";
        let plain = r#"{"model":"a","stream":true}"#;
        assert_eq!(
            rewrite(plain, true),
            format!("{{{field},\"model\":\"b\\\"\",\"stream\":true}}")
        );
        let off = r#"{"stream_options":{"include_usage":false,"x":1},"model":"a","stream":true}"#;
        let on = r#"{"stream_options":{"include_usage":true,"x":1},"model":"b\"","stream":true}"#;
        assert_eq!(rewrite(off, true), on);
        let whole = r#"{"model":"a"}"#;
        assert_eq!(rewrite(whole, true), r#"{"model":"b\""}"#);
    }

    #[test]
    fn what_is_said_twice_is_refused() {
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"model":"a","stream":true,"stream":false}"#,
            r#"{"model":7}"#,
            r#"{"model":"a","max_tokens":1e9}"#,
            r#"{"model":"a","max_tokens":"9"}"#,
            r#"{"model":"a","max_tokens":-1}"#,
            r#"{"model":"a","stream":"yes"}"#,
            r#"["model"]"#,
            r#"{}"#,
            "",
        ] {
            assert!(Glance::of(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_it_says_of_itself() {
        let body = r#"{"model":"a","max_completion_tokens":7,"n":2,"user":"u","metadata":{"k":"v"},
            "tools":[{"type":"function","function":{"name":"f"}},{"name":"g"},{"type":"web"}],
            "messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AAAA"}}]}]}"#;
        let glance = Glance::of(body.as_bytes()).expect("a request");
        assert_eq!(glance.max_tokens, Some(7));
        assert_eq!((glance.choices, glance.images), (2, 1));
        assert_eq!(glance.tools, ["f", "g", "web"]);
        assert_eq!(glance.metadata, [("k".to_owned(), "v".to_owned())]);
    }
}
