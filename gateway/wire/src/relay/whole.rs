//! A whole answer that is passed on as it was written, and read once for what it says of itself.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::numbers::Numbers;
use super::{is_flex, merge};
use crate::answer::Usage;
use crate::dialect::Dialect;

/// What a whole answer says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Whole {
    /// What was used.
    pub usage: Option<Usage>,
    /// It was served as a batch.
    pub flex: bool,
}

/// Reads a whole answer that is passed on as it was written.
///
/// # Errors
/// It is no JSON, or an error: some providers say that they failed with a status of 200.
pub fn whole(dialect: Dialect, body: &[u8]) -> Result<Whole, &'static str> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        error: Option<IgnoredAny>,
        #[serde(borrow)]
        usage: Option<Numbers<'a>>,
        #[serde(rename = "usageMetadata", borrow)]
        usage_metadata: Option<Numbers<'a>>,
        meta: Option<Value>,
        service_tier: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Bare {
        error: Option<IgnoredAny>,
    }
    let text = std::str::from_utf8(body).map_err(|_| "its answer is not UTF-8")?;
    let Ok(answer) = serde_json::from_str::<Answer<'_>>(text) else {
        // One that says its usage twice is still an answer, and has not said it.
        return match serde_json::from_str(text) {
            Ok(Bare { error: None }) => Ok(Whole::default()),
            Ok(Bare { error: Some(_) }) => Err("its answer is an error"),
            Err(_) => Err("its answer is not JSON"),
        };
    };
    if answer.error.is_some() {
        return Err("its answer is an error");
    }
    let said = match dialect {
        Dialect::Cohere => answer.meta.as_ref().and_then(billed),
        _ => {
            let said = answer.usage.or(answer.usage_metadata);
            said.map(|said| merge(dialect, None, &said))
        }
    };
    Ok(Whole { usage: said, flex: is_flex(answer.service_tier.as_ref()) })
}

/// Usage as Cohere tells it.
fn billed(meta: &Value) -> Option<Usage> {
    let places = ["tokens", "billed_units"].into_iter();
    let mut tokens = places.filter_map(|place| meta.get(place)?.get("input_tokens"));
    let prompt_tokens = tokens.find_map(Value::as_u64)?;
    Some(Usage { prompt_tokens, ..Usage::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_read_once() {
        let read = |text: &str| whole(Dialect::Chat, text.as_bytes());
        let used = |text: &str| read(text).map(|it| it.usage.map(|usage| usage.prompt_tokens));
        assert_eq!(used(r#"{"error":null,"usage":{"prompt_tokens":3}}"#), Ok(Some(3)));
        assert_eq!(used(r#"{"usage":null}"#), Ok(None));
        assert_eq!(used(r#"{"usage":{"prompt_tokens":3},"usage":{}}"#), Ok(None), "said twice");
        let error = Err("its answer is an error");
        assert_eq!(read(r#"{"error":{},"usage":{}}"#), error);
        assert_eq!(read(r#"{"usage":1,"usage":1,"error":"x"}"#), error);
        assert_eq!(read(r#"{"usage":"#), Err("its answer is not JSON"));
        assert_eq!(whole(Dialect::Chat, b"{\"a\":\"\xff\"}"), Err("its answer is not UTF-8"));
    }

    #[test]
    fn how_it_was_served_is_told() {
        let flex = |body: &str| whole(Dialect::Chat, body.as_bytes()).expect("one").flex;
        assert!(flex(r#"{"service_tier":"flex"}"#));
        assert!(!flex(r#"{"usage":{"service_tier":"flex"}}"#));
    }
}
