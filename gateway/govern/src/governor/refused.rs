//! A refusal's line in the audit: who was told no, by which rule.

use serde_json::json;

use super::Governor;
use crate::ledger::writer::Note;
use crate::policy::{Label, check};
use crate::{Ask, Denied, Principal};

impl Governor {
    /// As [`Governor::label`], for whoever only wants to know: a refusal is none, and is not noted.
    ///
    /// # Errors
    /// The first rule that says no.
    pub fn would_label(&self, principal: &Principal, ask: &Ask) -> Result<Label, Denied> {
        Ok(check::request(&principal.layers(), ask)?.label)
    }

    /// Counts that somebody was told no who was not let in at all.
    pub fn told_no(&self, denied: &Denied) {
        self.shared.figures.denied(denied);
    }

    /// Writes down that a request was refused.
    pub(super) fn refused(&self, principal: &Principal, ask: &Ask, denied: &Denied) {
        self.shared.figures.denied(denied);
        let id = |id: Option<&crate::Id>| id.map(ToString::to_string);
        let body = json!({
            "rule": denied.rule.name(),
            "why": denied.message,
            "team": id(principal.team.as_ref().map(|team| &team.id)),
            "project": id(principal.project.as_ref().map(|project| &project.id)),
            "user": id(principal.user.as_ref().map(|user| &user.id)),
            "key": id(principal.key.as_ref().map(|key| &key.id)),
            "model": ask.model,
            "surface": ask.surface,
            "input_tokens": ask.input_tokens,
            "request_id": ask.request_id,
            "source": ask.source,
        });
        self.note(Note {
            at: self.now(),
            kind: "refusal".to_owned(),
            organisation: principal.organisation.id.to_string(),
            body: body.to_string(),
        });
    }
}
