//! What a request says of what is kept, without the rest of it.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::seal;

/// What a request says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outline {
    /// It says that nothing is to be kept.
    pub forgets: bool,
    /// It is to be made while nobody waits.
    pub background: bool,
    /// `previous_response_id`.
    pub previous: Option<Value>,
    /// `conversation`.
    pub conversation: Option<Value>,
    /// Ids of items that it refers to.
    pub references: Vec<String>,
    /// Ids of thoughts that it has without their seals.
    pub thoughts: Vec<String>,
    /// It has thoughts that were sealed here.
    pub ours: bool,
}

#[derive(Deserialize)]
struct Request<'a> {
    store: Option<Value>,
    background: Option<Value>,
    previous_response_id: Option<Value>,
    conversation: Option<Value>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    role: Option<IgnoredAny>,
    result: Option<IgnoredAny>,
    #[serde(borrow)]
    encrypted_content: Option<Cow<'a, str>>,
}

impl Outline {
    /// Of a request; `None`: it cannot be read in one way alone, which its parser will find.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        // A list would be read as the fields in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let request: Request<'_> = serde_json::from_slice(body).ok()?;
        let mut outline = Self {
            forgets: request.store == Some(Value::Bool(false)),
            background: request.background == Some(Value::Bool(true)),
            previous: request.previous_response_id.filter(|said| !said.is_null()),
            conversation: request.conversation.filter(|said| !said.is_null()),
            ..Self::default()
        };
        let input = request.input.map_or("", RawValue::get);
        if input.starts_with('[') {
            for item in serde_json::from_str::<Vec<&RawValue>>(input).ok()? {
                outline.item(serde_json::from_str(item.get()).ok()?);
            }
        }
        Some(outline)
    }

    fn item(&mut self, item: Item<'_>) {
        let sealed = item.encrypted_content.filter(|text| !text.is_empty());
        let id = item.id.map(Cow::into_owned);
        match item.kind.as_deref() {
            Some("item_reference") => self.references.push(id.unwrap_or_default()),
            Some("image_generation_call") if item.result.is_none() => self.references.extend(id),
            // One with an id and nothing else is a reference that does not say so.
            None if item.role.is_none() => self.references.extend(id),
            Some("reasoning") if sealed.is_none() => self.thoughts.extend(id),
            _ => {}
        }
        self.ours |= sealed.is_some_and(|text| seal::is_ours(&text));
    }

    /// It goes on with something, or names something, that may be kept.
    #[must_use]
    pub fn names(&self) -> bool {
        self.goes_on() || !self.references.is_empty()
    }

    /// It goes on with a response or a conversation.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.previous.is_some() || self.conversation.is_some()
    }

    /// Nothing of it or of what it says has to do with what is kept.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        let Self { forgets, background, thoughts, ours, .. } = self;
        *forgets && !background && !self.names() && thoughts.is_empty() && !ours
    }
}
