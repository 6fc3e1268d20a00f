//! What makes two requests the same, and which ones can be answered twice alike.

use std::fmt;

use govern::policy::Label;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::envelope::Caller;
use super::super::forward::Inbound;
use super::super::surface::Surface;

/// A SHA-256 of all that an answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Key(pub(super) [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Whether the same request asks for the same answer, and leaves nothing else behind. What is only
/// read always does: there is nothing to draw.
pub(super) fn repeats(inbound: &Inbound, any: bool) -> bool {
    if matches!(inbound.surface, Surface::Pooled(_)) {
        return true;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(&inbound.body) else { return false };
    let said = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let keeps = match inbound.surface {
        // Kept unless it says otherwise.
        Surface::Responses => {
            said("store") != Some(&Value::Bool(false))
                || said("previous_response_id").is_some()
                || said("conversation").is_some()
                || said("background").is_some_and(|value| *value != Value::Bool(false))
        }
        _ => said("store").is_some_and(|value| *value != Value::Bool(false)),
    };
    let sampling = match inbound.surface {
        Surface::Gemini { .. } => {
            let config = said("generationConfig").or(said("generation_config"));
            config.and_then(Value::as_object)
        }
        _ => Some(&fields),
    };
    let number = |name: &str| sampling.and_then(|fields| fields.get(name)?.as_f64());
    let drawn = number("temperature") != Some(0.0) && number("seed").is_none();
    !keeps && (any || !drawn)
}

impl Key {
    /// Of a request that policy judges so: its label, and most new tokens.
    pub(super) fn of(caller: &Caller, inbound: &Inbound, (label, most): (Label, u32)) -> Self {
        let mut digest = Sha256::new();
        // Each with its length, so that no two parts run into each other.
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(b"hearth answer 1");
        match &caller.who {
            Some(who) => {
                let project = who.principal.project.as_ref().map_or("", |p| p.id.as_str());
                part(who.principal.organisation.id.as_str().as_bytes());
                part(project.as_bytes());
            }
            None => part(&caller.key.to_be_bytes()),
        }
        part(label.name().as_bytes());
        part(&most.to_be_bytes());
        // The dialect, and what of the request stands in its path.
        part(format!("{:?}", inbound.surface).as_bytes());
        for (name, value) in &inbound.headers {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
        part(&canonical(&inbound.body));
        Self(digest.finalize().into())
    }
}

/// A body without white space, its fields in alphabetical order. Below the first level the order
/// stays: models read the fields of a schema as they stand.
fn canonical(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(mut fields)) => {
            fields.sort_keys();
            Value::Object(fields).to_string().into_bytes()
        }
        _ => body.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_is_what_means_the_same() {
        let same = |a: &str, b: &str| canonical(a.as_bytes()) == canonical(b.as_bytes());
        assert!(same(r#"{"a":1,"b":[1, 2]}"#, r#" { "b" : [1,2], "a": 1 } "#));
        assert!(same(r#"{"a":"\u0041"}"#, r#"{"a":"A"}"#));
        assert!(!same(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(!same(r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"y":2,"x":1}}"#), "schemas have an order");
        assert!(!same(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#));
        assert!(!same(r#"{"a":null}"#, "{}"), "what is said is not what is left out");
    }
}
