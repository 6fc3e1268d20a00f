//! The answer to a request that was passed on, on its way to the caller: as its provider wrote it,
//! but for what it says of where it is kept. Only the few events are read that show the response,
//! or thoughts that the caller did not ask to see sealed.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Map, Value, json};

use super::items::prefix;
use super::seal;
use crate::json;
use crate::piece::Broken;
use crate::provider;
use crate::relay;

/// What a response says of where it is kept.
type Says = [(&'static str, Value); 5];

/// See the module.
#[derive(Debug, Clone)]
pub struct Passed {
    says: Says,
    /// Who makes it.
    provider: String,
    /// The caller sees sealed thoughts.
    sealed: bool,
    /// It is kept.
    keeps: bool,
    whole: Option<Value>,
}

/// Events that show the response.
const SHOW: [&str; 7] = [
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancelled",
];

impl Passed {
    pub(super) fn new(says: Says, provider: &str, (sealed, keeps): (bool, bool)) -> Self {
        Self { says, provider: provider.to_owned(), sealed, keeps, whole: None }
    }

    /// A whole answer as its caller reads it.
    ///
    /// # Errors
    /// It is no response.
    pub fn answer(&mut self, body: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut response: Map<String, Value> = provider::json(provider::utf8(body)?)?;
        // It is all that will come.
        response.entry("status").or_insert_with(|| json!("completed"));
        self.response(&mut response);
        Ok(Value::Object(response).to_string().into_bytes())
    }

    /// Whole events of a stream as their caller reads them.
    pub fn events(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        static RESPONSE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"response\""));
        static SEALED: LazyLock<Finder<'static>> =
            LazyLock::new(|| Finder::new("\"encrypted_content\""));
        let mut from = 0;
        while let Some(end) = relay::boundary(bytes, from) {
            let event = &bytes[from..end];
            let shows = RESPONSE.find(event).is_some() || SEALED.find(event).is_some();
            match shows.then(|| self.event(event)).flatten() {
                Some(event) => {
                    let name = event.get("type").and_then(Value::as_str).unwrap_or_default();
                    relay::event(out, name, &event);
                }
                None => out.extend_from_slice(event),
            }
            from = end;
        }
        out.extend_from_slice(&bytes[from..]);
    }

    /// An event as its caller reads it; `None`: as it is.
    fn event(&mut self, event: &[u8]) -> Option<Value> {
        let mut event = json::parse(relay::data(event)).ok()?;
        let kind = event.get("type")?.as_str()?;
        if SHOW.contains(&kind) {
            self.response(event.get_mut("response")?.as_object_mut()?);
        } else if self.sealed {
            return None;
        } else {
            unseal(event.get_mut("item")?);
        }
        Some(event)
    }

    fn response(&mut self, response: &mut Map<String, Value>) {
        for (name, value) in &self.says {
            // Who does not know of conversations need not hear of none.
            if !value.is_null() || response.contains_key(*name) {
                response.insert((*name).to_owned(), value.clone());
            }
        }
        let status = response.get("status").and_then(Value::as_str);
        if self.keeps && matches!(status, Some("completed" | "incomplete")) {
            self.name(response);
            let mut whole = response.clone();
            items(&mut whole).for_each(|item| tag(item, &self.provider));
            self.whole = Some(Value::Object(whole));
        }
        if !self.sealed {
            items(response).for_each(unseal);
        }
    }

    /// Items of which others are to be told apart need names: some providers give none.
    fn name(&self, response: &mut Map<String, Value>) {
        let number = self.says[0].1.as_str().unwrap_or_default().trim_start_matches("resp_");
        for (at, item) in items(response).enumerate() {
            let kind = item.get("type").and_then(Value::as_str).unwrap_or_default();
            let is_named = item.get("id").and_then(Value::as_str).is_some_and(|id| !id.is_empty());
            let id = format!("{}_{number}{at:04x}", prefix(kind));
            if let Some(item) = item.as_object_mut().filter(|_| !is_named) {
                item.insert("id".into(), json!(id));
            }
        }
    }

    /// What is to be kept of it, once, when it has come to its end.
    pub fn finished(&mut self) -> Option<Value> {
        self.whole.take()
    }
}

fn items(response: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    response.get_mut("output").and_then(Value::as_array_mut).into_iter().flatten()
}

fn is_thought(item: &Value) -> bool {
    item.get("type").and_then(Value::as_str) == Some("reasoning")
}

fn unseal(item: &mut Value) {
    if is_thought(item) {
        item.as_object_mut().map(|item| item.shift_remove("encrypted_content"));
    }
}

/// Notes whose seal it is: nobody else can open it.
fn tag(item: &mut Value, provider: &str) {
    let words = super::read::words(item);
    let text = |name: &str| item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(content), Some(id)) = (text("encrypted_content"), text("id")) else { return };
    if is_thought(item) && !seal::is_ours(content) {
        item["encrypted_content"] = json!(seal::by(provider, id, &words, content));
    }
}
