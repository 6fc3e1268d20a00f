//! A glance at a request that is passed on in its own dialect: what the gateway needs to know of
//! it, and where that stands in the bytes. The rest is not parsed into anything, so that it
//! arrives as it was written, unknown fields among it, and costs next to nothing.

mod found;
mod scan;
mod shape;
mod texts;
mod tools;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use self::found::Found;
use self::texts::{notes, text_of};
use crate::error::{ApiError, ErrorKind};
use crate::fields::short;

/// Bytes of JSON per token, on the safe side: prose has four, other scripts and code about three.
const BYTES_PER_TOKEN: u64 = 3;

/// What an image, or another file, is taken for until the provider says what it was.
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
    service_tier: Option<Value>,
    truncation: Option<Value>,
    user: Option<Value>,
    safety_identifier: Option<Value>,
    prompt_cache_key: Option<Value>,
    conversation: Option<Value>,
    metadata: Option<Value>,
    /// Google's word for it.
    labels: Option<Value>,
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
    /// Choices, of all prompts together.
    pub choices: u32,
    /// It may be served as a batch.
    pub flex: bool,
    /// What is too long may be cut (Responses).
    pub truncates: bool,
    /// Names of the tools on offer. Each tool has one at least: those of a provider's own the name
    /// of their kind, and what nobody can read an empty one.
    pub tools: Vec<String>,
    /// It offers tools.
    pub offers_tools: bool,
    /// Images lie in it.
    pub images: u64,
    /// Files that are neither texts nor images lie in it: documents, sound, films.
    pub files: u64,
    /// The answer is held to a shape.
    pub structured: bool,
    /// The caller's own user: `user`, `safety_identifier`, or the `user_id` of its notes.
    pub user: Option<String>,
    /// What is the same in all requests of a conversation: its name, or `prompt_cache_key`.
    pub session: Option<String>,
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
        let found = Found::of(text, named.is_some());
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
            choices: choices(&found)?,
            flex: flex(raw.service_tier.as_ref())?,
            truncates: raw.truncation.is_some_and(|said| said == "auto"),
            offers_tools: !found.tools.is_empty(),
            images: found.images,
            files: found.files,
            structured: found.structured,
            user: text_of([
                raw.user.as_ref(),
                raw.safety_identifier.as_ref(),
                raw.metadata.as_ref().and_then(|notes| notes.get("user_id")),
            ]),
            session: text_of([
                raw.conversation.as_ref().map(|own| own.get("id").unwrap_or(own)),
                raw.prompt_cache_key.as_ref(),
            ]),
            metadata: notes(if named.is_some() { &raw.labels } else { &raw.metadata }.as_ref()),
            input_estimate: tokens(text, &found),
            tools: found.tools,
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

/// How many answers are asked for, each of which may be as long as all others.
fn choices(found: &Found) -> Result<u32, ApiError> {
    if let Some(field) = found.odd {
        let message = format!("Invalid type for '{field}': expected a whole number.");
        let error = ApiError::new(ErrorKind::Invalid, "invalid_type", message);
        return Err(error.with_param(field));
    }
    let all = found.choices.max(1).saturating_mul(found.prompts.max(1));
    Ok(u32::try_from(all).unwrap_or(u32::MAX))
}

/// Tokens of a request to Google's dialect of which nothing but its bytes is known.
#[must_use]
pub fn estimate(body: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(body);
    tokens(&text, &Found::of(&text, true))
}

/// Tokens of a list of items of Responses, as JSON.
#[must_use]
pub fn estimate_items(items: &str) -> u64 {
    let text = format!("{{\"input\":{items}}}");
    tokens(&text, &Found::of(&text, false))
}

/// Tokens of a text, from its bytes; a file counts as one, not as its bytes.
fn tokens(text: &str, found: &Found) -> u64 {
    let words = u64::try_from(text.len().saturating_sub(found.data)).unwrap_or(u64::MAX);
    words / BYTES_PER_TOKEN + (found.images + found.files) * IMAGE_TOKENS + 1
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
        assert_eq!((glance.user.as_deref(), glance.session), (Some("u"), None));
        let body = br#"{"model":"a","user":"","metadata":{"user_id":"v"},
            "conversation":{"id":"conv_1"},"prompt_cache_key":"k"}"#;
        let glance = Glance::of(body).expect("a request");
        let said = (glance.user.as_deref(), glance.session.as_deref());
        assert_eq!(said, (Some("v"), Some("conv_1")));
    }

    /// Each made as many answers as it liked for the price of one.
    #[test]
    fn choices_of_all_kinds() {
        let check = |google: bool, rest: &str, expect: Option<u32>| {
            let body = format!(r#"{{"model":"m",{rest}}}"#);
            let glance = match google {
                true => Glance::named(body.as_bytes(), "m", false),
                false => Glance::of(body.as_bytes()),
            };
            assert_eq!(glance.ok().map(|glance| glance.choices), expect, "{rest}");
        };
        for (rest, expect) in [
            (r#""n":3"#, Some(3)),
            (r#""n":null"#, Some(1)),
            (r#""n":0"#, Some(1)),
            (r#""n":99999999999"#, Some(u32::MAX)),
            (r#""n":"3""#, None),
            (r#""n":3.0"#, None),
            (r#""n":-3"#, None),
            (r#""n":1,"n":3"#, Some(3)),
            (r#""n":2,"best_of":5"#, Some(5)),
            (r#""prompt":"a","n":3"#, Some(3)),
            (r#""prompt":[1,2,3]"#, Some(1)),
            (r#""prompt":["a","b"],"n":3"#, Some(6)),
            (r#""prompt":[[1,2],[3]]"#, Some(2)),
            (r#""prompt":{"id":"p"}"#, Some(1)),
            (r#""generationConfig":{"candidateCount":3}"#, Some(1)),
        ] {
            check(false, rest, expect);
        }
        for (rest, expect) in [
            (r#""generationConfig":{"topK":1,"candidateCount":3}"#, Some(3)),
            (r#""generation_config":{"candidate_count":3}"#, Some(3)),
            (r#""generationConfig":{"candidateCount":null}"#, Some(1)),
            (r#""generationConfig":null"#, Some(1)),
            (r#""generationConfig":{"candidateCount":"3"}"#, None),
            (r#""n":3"#, Some(1)),
        ] {
            check(true, rest, expect);
        }
    }

    #[test]
    fn tools_of_all_dialects() {
        let google = br#"{"tools":[{"functionDeclarations":[{"name":"rm"}]},{"googleSearch":{}}]}"#;
        let glance = Glance::named(google, "m", false).expect("a request");
        assert!(glance.offers_tools);
        assert_eq!(glance.tools, ["rm", "googleSearch"]);
        let check = |rest: &str, expect: &[&str]| {
            let body = format!(r#"{{"model":"m",{rest}}}"#);
            let glance = Glance::of(body.as_bytes()).expect("a request");
            assert_eq!(glance.tools, expect, "{rest}");
            assert_eq!(glance.offers_tools, !expect.is_empty(), "{rest}");
        };
        check(r#""tools":[],"functions":null,"mcp_servers":[]"#, &[]);
        check(r#""functions":[{"name":"rm"}]"#, &["rm"]);
        check(r#""mcp_servers":[{"name":"ok"}]"#, &["mcp_servers"]);
        check(r#""web_search_options":{}"#, &["web_search_options"]);
        check(r#""tool\u0073":[{"name":"rm"}]"#, &["rm"]);
        check(r#""tools":[{"type":"mcp"},{}]"#, &["mcp", ""]);
    }

    /// A picture of Anthropic's or Google's was as many tokens as a book.
    #[test]
    fn files_are_no_words() {
        let data = "A".repeat(3_000_000);
        let source = format!(r#"{{"type":"base64","media_type":"image/png","data":"{data}"}}"#);
        let block = format!(r#"{{"type":"image","source":{source}}}"#);
        let messages =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{block}]}}]}}"#);
        let part = format!(r#"{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}"#);
        let contents = format!(r#"{{"contents":[{{"parts":[{part}]}}]}}"#);
        let messages = Glance::of(messages.as_bytes()).expect("a request");
        let google = Glance::named(contents.as_bytes(), "m", false).expect("a request");
        assert_eq!(google.input_estimate, estimate(contents.as_bytes()));
        for glance in [messages, google] {
            assert_eq!((glance.images, glance.files), (1, 0));
            assert!((1_600..1_700).contains(&glance.input_estimate), "{}", glance.input_estimate);
        }
        let item = serde_json::json!([{"type": "message", "role": "user", "content": [
            {"type": "input_image", "image_url": format!("data:image/png;base64,{data}")}]}]);
        assert!((1_600..1_700).contains(&estimate_items(&item.to_string())));
        // What only looks like one is as long as it is.
        let text = format!(r#"{{"model":"m","messages":[{{"content":"data:a;base64,{data}"}}]}}"#);
        let glance = Glance::of(text.as_bytes()).expect("a request");
        assert!(glance.input_estimate > 1_000_000 && glance.images == 0);
    }
}
