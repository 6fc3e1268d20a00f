//! Answers of gpt-oss: see [`crate::tools::Layout::Channels`].
//!
//! The prompt ends with `<|start|>assistant`. Messages follow; all but the last end with
//! `<|end|><|start|>assistant`, the last with a token that ends the answer. The model names a
//! function in two ways, behind the channel and, in messages after the first, behind the role.

use super::calls::Calls;
use super::source::Source;
use super::{Content, WriteError};
use crate::TextModel;
use crate::grammar::lark;

/// Any text; special tokens are none.
const TEXT: &str = "/(?s:.*)/";

/// The spellings that calls begin with, up to the name.
const RECIPIENT: &str = " to=functions.";

/// See the module.
pub(super) struct Channels {
    start: String,
    channel: String,
    message: String,
    end: String,
    /// What says that a body is JSON; optional.
    json: String,
}

impl Channels {
    pub(super) fn new(text: &TextModel, source: &mut Source) -> Self {
        let token = |spelled| lark::expression(&lark::literal(text, spelled));
        let json = [
            "\"\"".to_owned(),
            "\" json\"".to_owned(),
            format!("\" \"? {} \"json\"", token("<|constrain|>")),
        ];
        Self {
            start: format!("{} \"assistant\"", token("<|start|>")),
            channel: token("<|channel|>"),
            message: token("<|message|>"),
            end: token("<|end|>"),
            json: source.either(&json),
        }
    }

    /// What a call begins with, as streams; the second form only behind another message.
    pub(super) fn openings(text: &TextModel) -> Vec<Vec<u8>> {
        let begin = ["<|channel|>commentary", "<|start|>assistant"];
        begin.map(|begin| lark::literal(text, &format!("{begin}{RECIPIENT}"))).to_vec()
    }

    /// A call that was opened: what [`Self::openings`] says, and the rest.
    ///
    /// # Errors
    /// [`WriteError::Schema`].
    pub(super) fn opened(
        &self,
        source: &mut Source,
        calls: &Calls<'_>,
    ) -> Result<String, WriteError> {
        let (by_channel, by_role) = self.calls(source, calls)?;
        Ok(source.rule(format!("{by_channel} | {} {by_role}", self.start)))
    }

    /// A whole answer.
    ///
    /// # Errors
    /// [`WriteError::Schema`].
    pub(super) fn whole(
        &self,
        source: &mut Source,
        calls: &Calls<'_>,
    ) -> Result<String, WriteError> {
        let wanted = calls.wanted;
        let next = format!("{} {}", self.end, self.start);
        let said = |channel: &str, text: &str| {
            format!("{} \"{channel}\" {} {text} {next}", self.channel, self.message)
        };
        let mut last = Vec::new();
        let mut behind = Vec::new();
        if !wanted.forced {
            let body = match &wanted.content {
                Some(Content::Expression(expression)) => format!("({expression})"),
                Some(Content::Grammar(grammar)) => super::nested(grammar),
                Some(Content::Tags { .. }) | None => TEXT.to_owned(),
            };
            let (channel, message) = (&self.channel, &self.message);
            last.push(format!("{channel} \"final\" {} {message} {body}", self.json));
        }
        if !wanted.tools.is_empty() {
            let (by_channel, by_role) = self.calls(source, calls)?;
            last.push(by_channel);
            behind.push(by_role);
        }
        let last = source.either(&last);
        behind.push(last.clone());
        let behind = behind.join(" | ");
        let preamble = source.rule(said("commentary", TEXT));
        let thought = match wanted.budget {
            Some(budget) => source.bounded(TEXT.to_owned(), budget),
            None => TEXT.to_owned(),
        };
        let thought = source.rule(said("analysis", &thought));
        let more = source.recursive("", |more| match wanted.budget {
            // All thoughts are one message: a budget holds for one.
            Some(_) => format!("{behind} | {preamble} {more}"),
            None => format!("{behind} | {preamble} {more} | {thought} {more}"),
        });
        Ok(format!("{last} | {preamble} {more} | {thought} {more}"))
    }

    /// A call that names its function behind the channel, and one that does so behind the role.
    fn calls(
        &self,
        source: &mut Source,
        calls: &Calls<'_>,
    ) -> Result<(String, String), WriteError> {
        let (mut by_channel, mut by_role) = (Vec::new(), Vec::new());
        let (channel, message, json) = (&self.channel, &self.message, &self.json);
        for (at, offer) in calls.wanted.tools.iter().enumerate() {
            let arguments = calls.arguments(source, at, offer)?;
            let name = lark::string(offer.name);
            let body = source.rule(format!("{json} {message} {arguments}"));
            by_channel.push(source.rule(format!("{name} {body}")));
            by_role.push(source.rule(format!("{name} {channel} \"commentary\" {body}")));
        }
        let (by_channel, by_role) = (source.either(&by_channel), source.either(&by_role));
        let named = lark::string(&format!("commentary{RECIPIENT}"));
        let by_channel = source.rule(format!("{channel} {named} {by_channel}"));
        let by_role = source.rule(format!("{} {by_role}", lark::string(RECIPIENT)));
        Ok((by_channel, by_role))
    }
}
