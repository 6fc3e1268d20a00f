//! What a request says of where it and its response are kept.

use serde_json::Value;

use crate::fields::{Fault, Fields, Parsed};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeping {
    /// The response is kept.
    pub store: bool,
    /// `previous_response_id`: the response that this one goes on with.
    pub previous: Option<String>,
    /// The conversation that it belongs to.
    pub conversation: Option<String>,
    /// It is made while nobody waits.
    pub background: bool,
}

impl Keeping {
    pub(super) fn read(fields: Fields<'_>) -> Parsed<Self> {
        let keeping = Self {
            store: fields.boolean("store", true)?,
            previous: fields.string("previous_response_id")?.map(str::to_owned),
            conversation: conversation(fields)?,
            background: fields.boolean("background", false)?,
        };
        if keeping.previous.is_some() && keeping.conversation.is_some() {
            let why = "it cannot be combined with 'previous_response_id'";
            return Err(Fault::value("conversation", why));
        }
        if keeping.background && !keeping.store {
            return Err(Fault::value("background", "it needs 'store': true"));
        }
        Ok(keeping)
    }

    /// It goes on with a response or a conversation.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.previous.is_some() || self.conversation.is_some()
    }
}

fn conversation(fields: Fields<'_>) -> Parsed<Option<String>> {
    match fields.get("conversation") {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.clone())),
        Some(_) => {
            let inner = fields.object("conversation")?.ok_or_else(|| Fault::missing("id"));
            let id = inner.and_then(|inner| {
                inner.only(&["id"])?;
                inner.required_string("id")
            });
            id.map(|id| Some(id.to_owned())).map_err(|fault| fault.under("conversation"))
        }
    }
}
