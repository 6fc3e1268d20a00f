//! Random answers, as a writer is told them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::{Delta, Finish, Piece, Remark, SealRef, Usage};

use crate::frame::frame;
use crate::side::{From, In};

/// An answer in the making.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

/// One thing that is said.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Thought(String),
    Seal(String),
    Text(String),
    Call { id: String, name: String, arguments: Vec<String> },
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

/// An object of arguments, compact.
pub(crate) fn arguments() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[{}\\[\\]\"\\\\a\u{e9}]{0,6}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(2, 6, 3, |inner| vec(inner, 0..3).prop_map(Value::from));
    vec((text(), value), 0..3)
        .prop_map(|all| Value::Object(all.into_iter().collect::<Map<_, _>>()).to_string())
}

/// A text in pieces.
pub(crate) fn cut(text: &str, at: &[usize]) -> Vec<String> {
    let (mut out, mut rest) = (Vec::new(), text);
    for at in at {
        let (one, two) = rest.split_at(rest.floor_char_boundary(*at));
        out.push(one.to_owned());
        rest = two;
    }
    out.push(rest.to_owned());
    out
}

fn step() -> impl Strategy<Value = Step> {
    let call = ("[a-z]{1,6}", option::weighted(0.9, arguments()), vec(0..9_usize, 0..4));
    prop_oneof![
        text().prop_map(Step::Thought),
        "[a-zA-Z]{1,8}".prop_map(Step::Seal),
        text().prop_map(Step::Text),
        call.prop_map(|(name, arguments, at)| {
            let arguments = arguments.map_or_else(Vec::new, |text| cut(&text, &at));
            Step::Call { id: String::new(), name, arguments }
        }),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    let number = || prop_oneof![0..50_u64, 0..u64::from(u32::MAX)];
    (number(), number(), number(), number(), number()).prop_map(|(a, b, c, d, e)| Usage {
        prompt_tokens: a + b + c,
        cached_tokens: b,
        cache_write_tokens: c,
        completion_tokens: d + e,
        reasoning_tokens: e,
    })
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    (vec(step(), 0..8), 0..4_usize, usage()).prop_map(|(mut steps, end, usage)| {
        let mut calls = 0;
        for step in &mut steps {
            if let Step::Call { id, .. } = step {
                *id = format!("call_{calls}");
                calls += 1;
            }
        }
        let natural = if calls > 0 { Finish::ToolCalls } else { Finish::Stop };
        let finish = [natural, natural, Finish::Length, Finish::Refused][end];
        Plan { steps, finish, usage }
    })
}

impl Plan {
    pub(crate) fn text(&self) -> String {
        let text = |step: &Step| match step {
            Step::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.steps.iter().filter_map(text).collect()
    }

    pub(crate) fn words(&self) -> String {
        let text = |step: &Step| match step {
            Step::Thought(text) => Some(text.clone()),
            _ => None,
        };
        self.steps.iter().filter_map(text).collect()
    }

    /// Ids, names and arguments.
    pub(crate) fn calls(&self) -> Vec<(String, String, String)> {
        let call = |step: &Step| match step {
            Step::Call { id, name, arguments } => {
                Some((id.clone(), name.clone(), whole(&arguments.concat())))
            }
            _ => None,
        };
        self.steps.iter().filter_map(call).collect()
    }

    /// What a provider would send.
    pub(crate) fn sent(&self, from: From) -> Vec<u8> {
        let side = In::CHATS.into_iter().find(|side| side.from() == from);
        side.map_or_else(|| self.converse(), |side| self.written(side).0)
    }

    /// What is counted by who sends it in one dialect and reads it in another.
    pub(crate) fn counted(&self, from: From, caller: In) -> Usage {
        let mut usage = self.usage;
        // Google has no count of what is written to a cache, Amazon none of thoughts.
        if from == From::Gemini || caller == In::Gemini {
            usage.cache_write_tokens = 0;
        }
        if from == From::Converse {
            usage.reasoning_tokens = 0;
        }
        usage
    }

    /// What Bedrock would send, in its frames.
    fn converse(&self) -> Vec<u8> {
        let mut out = frame("messageStart", br#"{"role":"assistant"}"#);
        let (mut block, mut open) = (0, "");
        for step in &self.steps {
            let kind = match step {
                Step::Thought(_) | Step::Seal(_) => "thought",
                Step::Text(_) => "text",
                Step::Call { .. } => "call",
            };
            let mut say = |block: u32, name: &str, mut fields: Value| {
                fields["contentBlockIndex"] = json!(block);
                out.extend(frame(name, fields.to_string().as_bytes()));
            };
            if !open.is_empty() && (open != kind || kind == "call") {
                say(block, "contentBlockStop", json!({}));
                block += 1;
            }
            let mut delta =
                |delta: Value| say(block, "contentBlockDelta", json!({ "delta": delta }));
            match step {
                Step::Thought(text) => delta(json!({"reasoningContent": {"text": text}})),
                Step::Seal(text) => delta(json!({"reasoningContent": {"signature": text}})),
                Step::Text(text) => delta(json!({ "text": text })),
                Step::Call { id, name, arguments } => {
                    let call = json!({"toolUseId": id, "name": name});
                    say(block, "contentBlockStart", json!({"start": {"toolUse": call}}));
                    for text in arguments {
                        let input = json!({"delta": {"toolUse": {"input": text}}});
                        say(block, "contentBlockDelta", input);
                    }
                }
            }
            open = kind;
            // One thought has one signature.
            if matches!(step, Step::Seal(_)) {
                say(block, "contentBlockStop", json!({}));
                (block, open) = (block + 1, "");
            }
        }
        if !open.is_empty() {
            let stop = json!({ "contentBlockIndex": block }).to_string();
            out.extend(frame("contentBlockStop", stop.as_bytes()));
        }
        self.converse_end(&mut out);
        out
    }

    fn converse_end(&self, out: &mut Vec<u8>) {
        let reason = match self.finish {
            Finish::Stop => "end_turn",
            Finish::ToolCalls => "tool_use",
            Finish::Length => "max_tokens",
            Finish::Refused => "guardrail_intervened",
        };
        let Usage { prompt_tokens, cached_tokens, cache_write_tokens, .. } = self.usage;
        let usage = json!({"inputTokens": prompt_tokens - cached_tokens - cache_write_tokens,
            "cacheReadInputTokens": cached_tokens, "cacheWriteInputTokens": cache_write_tokens,
            "outputTokens": self.usage.completion_tokens});
        out.extend(frame("messageStop", json!({ "stopReason": reason }).to_string().as_bytes()));
        out.extend(frame("metadata", json!({ "usage": usage }).to_string().as_bytes()));
    }

    /// What a provider of this dialect would send, and where its end begins.
    pub(crate) fn written(&self, side: In) -> (Vec<u8>, usize) {
        let mut writer = side.writer(1);
        let (mut out, mut call) = (Vec::new(), 0);
        let prompt = Usage { completion_tokens: 0, reasoning_tokens: 0, ..self.usage };
        writer.start(&mut out, &Piece { usage: Some(prompt), ..Piece::default() });
        for step in &self.steps {
            let mut say = |delta| {
                writer.piece(&mut out, &Piece { delta, ..Piece::default() });
                writer.ping(&mut out);
            };
            match step {
                Step::Thought(text) => say(Delta::Reasoning(text)),
                Step::Seal(text) => say(Delta::Seal(SealRef::Signature(text))),
                Step::Text(text) => say(Delta::Content(text)),
                Step::Call { id, name, arguments } => {
                    say(Delta::CallStart { index: call, id, name });
                    arguments.iter().for_each(|text| say(Delta::Arguments { index: call, text }));
                    call += 1;
                }
            }
        }
        let end = out.len();
        writer.piece(&mut out, &Piece { finish: Some(self.finish), ..Piece::default() });
        writer.end(&mut out, &self.usage, &Remark::default());
        (out, end)
    }
}

/// No arguments are an empty object.
pub(crate) fn whole(arguments: &str) -> String {
    if arguments.is_empty() { "{}".into() } else { arguments.into() }
}
