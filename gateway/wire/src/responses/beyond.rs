//! What of a request goes beyond the internal model. A request that is answered here is refused
//! for it; of one that is passed on it is kept under its path, for the other side may know it.

use serde_json::{Map, Value};

use crate::fields::{Fault, Fields, Parsed};
use crate::openai::policy::{self, Rule};

/// `None`: everything must be honoured.
pub(super) struct Beyond(Option<Map<String, Value>>);

impl Beyond {
    pub(super) fn refused() -> Self {
        Self(None)
    }

    pub(super) fn kept() -> Self {
        Self(Some(Map::new()))
    }

    pub(super) fn is_strict(&self) -> bool {
        self.0.is_none()
    }

    /// What was kept.
    pub(super) fn into_kept(self) -> Map<String, Value> {
        self.0.unwrap_or_default()
    }

    /// A value that cannot be honoured, and why.
    pub(super) fn value(&mut self, path: &str, value: &Value, fault: Fault) -> Parsed<()> {
        if self.is_strict() {
            return Err(fault);
        }
        self.keep(path, value.clone());
        Ok(())
    }

    /// A value that is kept where anything is.
    pub(super) fn keep(&mut self, path: &str, value: Value) {
        if let Some(kept) = &mut self.0 {
            kept.insert(path.to_owned(), value);
        }
    }

    /// Holds an object's fields against a table. `at` is the object's path, empty for the body.
    pub(super) fn fields(
        &mut self,
        fields: Fields<'_>,
        at: &str,
        table: &[(&str, Rule)],
    ) -> Parsed<()> {
        let Some(kept) = &mut self.0 else { return policy::apply(fields, &[table]) };
        let dot = if at.is_empty() { "" } else { "." };
        let more = policy::beyond(fields, &[table]);
        kept.extend(more.into_iter().map(|(name, value)| (format!("{at}{dot}{name}"), value)));
        Ok(())
    }
}
