//! What becomes of things in a request that the internal model has no words for: a request that
//! is answered here is refused for them, one that is passed on keeps them under their path.

use serde_json::{Map, Value};

use crate::fields::{Fault, Fields, Parsed};
use crate::openai::policy::{Rule, apply, beyond};

/// `Some`: the request is passed on, and this is what was put aside.
pub(super) struct Aside(Option<Map<String, Value>>);

impl Aside {
    /// Reads a request's own fields.
    pub(super) fn new(
        fields: Fields<'_>,
        tables: &[&[(&str, Rule)]],
        forward: bool,
    ) -> Parsed<Self> {
        if forward {
            return Ok(Self(Some(beyond(fields, tables))));
        }
        apply(fields, tables)?;
        Ok(Self(None))
    }

    /// The request is passed on.
    pub(super) fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Something was put aside whose path begins like this.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.keys().any(|key| key.starts_with(path)))
    }

    /// Something as a whole, refused by `fault` where it cannot be kept.
    pub(super) fn whole(
        &mut self,
        path: impl FnOnce() -> String,
        value: &Value,
        fault: Fault,
    ) -> Parsed<()> {
        let Some(kept) = &mut self.0 else { return Err(fault) };
        kept.insert(path(), value.clone());
        Ok(())
    }

    /// Those fields of an object that its table does not honour.
    pub(super) fn fields(
        &mut self,
        path: impl FnOnce() -> String,
        fields: Fields<'_>,
        table: &[(&str, Rule)],
    ) -> Parsed<()> {
        let Some(kept) = &mut self.0 else { return apply(fields, &[table]) };
        let found = beyond(fields, &[table]);
        if !found.is_empty() {
            let path = path();
            kept.extend(found.into_iter().map(|(name, value)| (format!("{path}.{name}"), value)));
        }
        Ok(())
    }

    /// All that was put aside.
    pub(super) fn into_extra(self) -> Map<String, Value> {
        self.0.unwrap_or_default()
    }
}
