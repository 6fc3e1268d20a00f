//! Where parts go. Keeps what belongs together in one part, and the parts of a call in order.

use serde_json::Value;

use super::json::escape;
use super::stream::{Held, Unit};
use super::{Part, Reading};

/// See the module.
pub(super) struct Output<'a> {
    reading: &'a Reading,
    calls: &'a mut u32,
    inside: &'a mut bool,
    parts: &'a mut Vec<Part>,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        reading: &'a Reading,
        calls: &'a mut u32,
        inside: &'a mut bool,
        parts: &'a mut Vec<Part>,
    ) -> Self {
        Self { reading, calls, inside, parts }
    }

    pub(super) fn content(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Content(last)) => last.push_str(text),
            _ => self.parts.push(Part::Content(text.to_owned())),
        }
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Reasoning(last)) => last.push_str(text),
            _ => self.parts.push(Part::Reasoning(text.to_owned())),
        }
    }

    /// Begins a call.
    pub(super) fn call(&mut self, name: &str) {
        self.end_call();
        self.parts.push(Part::CallStart { index: *self.calls, name: name.to_owned() });
        *self.calls += 1;
        *self.inside = true;
    }

    /// More arguments of the call that was begun last.
    pub(super) fn arguments(&mut self, more: &str) {
        let call = self.calls.saturating_sub(1);
        match self.parts.last_mut() {
            _ if more.is_empty() || !*self.inside => {}
            Some(Part::Arguments { text, .. }) => text.push_str(more),
            _ => self.parts.push(Part::Arguments { index: call, text: more.to_owned() }),
        }
    }

    /// More arguments: text as it stands in a JSON string.
    pub(super) fn escaped(&mut self, text: &Held) {
        let mut json = String::new();
        for character in text.units().filter_map(Unit::character) {
            escape(character, &mut json);
        }
        self.arguments(&json);
    }

    /// Ends the call that is not over, if there is one.
    pub(super) fn end_call(&mut self) {
        if std::mem::take(self.inside) {
            self.parts.push(Part::CallEnd { index: self.calls.saturating_sub(1) });
        }
    }

    /// A call without arguments.
    pub(super) fn empty_call(&mut self, name: &str) {
        self.call(name);
        self.arguments("{}");
        self.end_call();
    }

    /// Calls begun so far.
    pub(super) fn calls(&self) -> u32 {
        *self.calls
    }

    /// Calls `with` with the text that a unit shows, if it shows any.
    pub(super) fn shown(&mut self, unit: Unit, with: impl FnOnce(&mut Self, &str)) {
        match unit {
            Unit::Text(character) => with(self, character.encode_utf8(&mut [0; 4])),
            Unit::Special(id) => {
                if let Some(spelled) = self.reading.shown.get(&id) {
                    with(self, spelled);
                }
            }
        }
    }

    /// Whether a tool of this name is on offer.
    pub(super) fn offers(&self, name: &str) -> bool {
        self.reading.tools.iter().any(|(tool, _)| tool == name)
    }

    /// The parameters of the tool of this name.
    pub(super) fn parameters(&self, name: &str) -> Option<&'a Value> {
        let tool = self.reading.tools.iter().find(|(tool, _)| tool == name);
        tool.and_then(|(_, parameters)| parameters.as_ref())
    }
}
