//! A grammar in Lark as it is put together: rules and terminals that are alike are written once,
//! so a hundred tools with like arguments stay small and compile fast.

use std::collections::HashMap;
use std::fmt::Write;

/// See the module.
#[derive(Default)]
pub(super) struct Source {
    lines: String,
    /// Names of rules and terminals by their kind and what they say.
    known: HashMap<(String, String), String>,
    names: usize,
}

impl Source {
    /// The name of a rule for this expression.
    pub(super) fn rule(&mut self, expression: String) -> String {
        self.named("r", "", expression)
    }

    /// The name of a rule that holds for one of the expressions.
    pub(super) fn either(&mut self, expressions: &[String]) -> String {
        self.rule(expressions.join(" | "))
    }

    /// The name of a terminal for this expression.
    pub(super) fn terminal(&mut self, expression: String) -> String {
        self.named("T", "", expression)
    }

    /// The name of a rule that at most `tokens` tokens are for; what it holds is a terminal's.
    pub(super) fn bounded(&mut self, expression: String, tokens: u32) -> String {
        self.named("r", &format!("[max_tokens={tokens}]"), expression)
    }

    fn named(&mut self, kind: &str, with: &str, expression: String) -> String {
        let key = (format!("{kind}{with}"), expression);
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let name = self.fresh(kind);
        let _ = writeln!(self.lines, "{name}{with}: {}", key.1);
        self.known.insert(key, name.clone());
        name
    }

    /// A rule that speaks of itself.
    pub(super) fn recursive(&mut self, with: &str, body: impl FnOnce(&str) -> String) -> String {
        let name = self.fresh("r");
        let body = body(&name);
        let _ = writeln!(self.lines, "{name}{with}: {body}");
        name
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    /// The whole grammar.
    pub(super) fn finish(self, start: &str) -> String {
        format!("start: {start}\n{}", self.lines)
    }
}
