//! The two sides of a pair: the dialect that a caller speaks, and the dialect or flavour that a
//! provider speaks. Each is used here as the gateway uses it.

use serde_json::Value;
use wire::gemini::Framing;
use wire::openai::Flavor;
use wire::openai::stream::Kind;
use wire::responses::Echo;
use wire::{
    Answer, ApiError, Broken, ChatRequest, Choice, Dialect, Head, Limits, Lost, Reader,
    StreamOptions, Usage, Writer, converse, gemini, messages, openai, responses, sse,
};

use crate::{chat_client, completions_client, gemini_client, messages_client, responses_client};

/// What a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum In {
    Chat,
    Responses,
    Messages,
    Gemini,
    /// Plain completions, whose callers have prompts and no chats.
    Completions,
}

/// What a provider speaks, as far as its answers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum From {
    Chat,
    Responses,
    Messages,
    Gemini,
    Converse,
}

/// What a provider is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    OpenAi,
    Plain,
    Extended,
    Responses,
    Messages,
    Gemini,
    Converse,
}

/// Bytes of an event.
pub(crate) const LIMIT: usize = 1 << 20;

/// New tokens where the caller says nothing and the provider must be told.
const MAX_TOKENS: u32 = 4096;

impl To {
    pub(crate) const ALL: [Self; 7] = [
        Self::OpenAi,
        Self::Plain,
        Self::Extended,
        Self::Responses,
        Self::Messages,
        Self::Gemini,
        Self::Converse,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "chat (OpenAI)",
            Self::Plain => "chat (plain)",
            Self::Extended => "chat (engines)",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::Converse => "converse",
        }
    }

    /// A model of such a provider: what may be said depends on it.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Responses => "gpt-5.1",
            Self::Plain => "mistral-large",
            Self::Extended => "qwen3",
            Self::Messages => "claude-opus-4-6",
            Self::Gemini => "gemini-3-flash",
            Self::Converse => "anthropic.claude-opus-4-6",
        }
    }

    /// How its answers come.
    pub(crate) fn from(self) -> From {
        match self {
            Self::OpenAi | Self::Plain | Self::Extended => From::Chat,
            Self::Responses => From::Responses,
            Self::Messages => From::Messages,
            Self::Gemini => From::Gemini,
            Self::Converse => From::Converse,
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::OpenAi | Self::Plain | Self::Extended => Dialect::Chat,
            Self::Responses => Dialect::Responses,
            Self::Messages => Dialect::Messages,
            Self::Gemini => Dialect::Gemini,
            Self::Converse => Dialect::Converse,
        }
    }

    pub(crate) fn render(self, chat: &ChatRequest, lost: &mut Lost) -> Value {
        match self {
            Self::OpenAi => openai::render(chat, Flavor::OpenAi, lost),
            Self::Plain => openai::render(chat, Flavor::Plain, lost),
            Self::Extended => openai::render(chat, Flavor::Extended, lost),
            Self::Responses => responses::render(chat, true, lost),
            Self::Messages => messages::render(chat, MAX_TOKENS, lost),
            Self::Gemini => gemini::render(chat, lost),
            Self::Converse => converse::render(chat, lost),
        }
    }
}

impl From {
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Responses, Self::Messages, Self::Gemini, Self::Converse];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::Converse => "converse",
        }
    }

    pub(crate) fn read(self, body: &[u8]) -> Result<Answer, Broken> {
        match self {
            Self::Chat => openai::read_answer(body),
            Self::Responses => responses::read_answer(body),
            Self::Messages => messages::read_answer(body),
            Self::Gemini => gemini::read_answer(body),
            Self::Converse => converse::read_answer(body),
        }
    }

    pub(crate) fn reader(self) -> Box<dyn Reader> {
        match self {
            Self::Chat => Box::new(openai::Reader::new()),
            Self::Responses => Box::new(responses::Reader::new()),
            Self::Messages => Box::new(messages::Reader::default()),
            Self::Gemini => Box::new(gemini::Reader::new()),
            Self::Converse => Box::new(converse::Reader::new()),
        }
    }

    pub(crate) fn frames(self) -> Frames {
        match self {
            Self::Converse => Frames::Aws(converse::Frames::new(LIMIT)),
            _ => Frames::Sse(sse::Events::new(LIMIT)),
        }
    }
}

/// How a stream is cut into events.
pub(crate) enum Frames {
    Sse(sse::Events),
    Aws(converse::Frames),
}

impl Frames {
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(&str, &str) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        match self {
            Self::Sse(events) => events.push(bytes, each),
            Self::Aws(frames) => frames.push(bytes, each),
        }
    }
}

impl In {
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Responses, Self::Messages, Self::Gemini, Self::Completions];
    /// Those of chats.
    pub(crate) const CHATS: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Gemini];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            chat => chat.from().name(),
        }
    }

    /// The dialect of a provider that is read alike.
    pub(crate) fn from(self) -> From {
        match self {
            Self::Chat | Self::Completions => From::Chat,
            Self::Responses => From::Responses,
            Self::Messages => From::Messages,
            Self::Gemini => From::Gemini,
        }
    }

    /// Parses a request that goes on to another dialect, or, `strict`, is answered here.
    pub(crate) fn parse(self, body: &Value, strict: bool) -> Result<ChatRequest, ApiError> {
        let (limits, mut ids) = (&Limits::default(), ids());
        let mut body = body.clone();
        let bytes = |body: &Value| body.to_string().into_bytes();
        match (self, strict) {
            (Self::Chat, false) => openai::parse_chat_forward(&bytes(&body), limits),
            (Self::Chat, true) => openai::parse_chat(&bytes(&body), limits),
            (Self::Completions, _) => {
                assert!(!strict, "no chat is made of what is answered here");
                openai::parse_completion_forward(&bytes(&body), limits).map(|(chat, _)| chat)
            }
            (Self::Messages, false) => messages::parse_forward(&bytes(&body), limits),
            (Self::Messages, true) => messages::parse(&bytes(&body), limits),
            (Self::Responses, false) => {
                responses::parse_forward(&bytes(&body), limits, &mut ids).map(|all| all.chat)
            }
            (Self::Responses, true) => {
                responses::parse(&bytes(&body), limits, &mut ids).map(|all| all.chat)
            }
            (Self::Gemini, _) => {
                // Whether it is a stream is in the path.
                let fields = body.as_object_mut().expect("an object");
                let stream = fields.remove("stream").is_some();
                let parse = if strict { gemini::parse } else { gemini::parse_forward };
                parse("m", stream, &bytes(&body), limits)
            }
        }
    }

    pub(crate) fn head(self) -> Head {
        let id = match self {
            Self::Chat => "chatcmpl-1",
            Self::Completions => "cmpl-1",
            Self::Responses => "resp_1",
            Self::Messages => "msg_1",
            Self::Gemini => "1",
        };
        Head { id: id.into(), created: 7, model: "m".into(), service_tier: None }
    }

    /// A whole answer.
    pub(crate) fn write(self, choices: &[Choice], usage: &Usage) -> Vec<u8> {
        let head = self.head();
        match self {
            Self::Chat => openai::answer::chat(&head, choices, usage),
            Self::Completions => openai::answer::completion(&head, choices, usage),
            Self::Messages => messages::answer(&head, choices, usage),
            Self::Gemini => gemini::answer(&head, choices, usage),
            Self::Responses => {
                responses::answer(head, echo(), &choices[0], usage, &mut ids(), 9).to_bytes()
            }
        }
    }

    /// One request may ask for several answers.
    pub(crate) fn asks_for_several(self) -> bool {
        matches!(self, Self::Chat | Self::Gemini | Self::Completions)
    }

    /// What its callers read of a body, where that is written in words of their own.
    pub(crate) fn read(self, body: &[u8]) -> Result<Answer, Broken> {
        match self {
            Self::Completions => self.from().read(&completions_client::scores_of_chat(body)),
            _ => self.from().read(body),
        }
    }

    /// The writer of a stream. Callers of OpenAI's dialects have asked for usage.
    pub(crate) fn writer(self, choices: usize) -> Box<dyn Writer> {
        let head = self.head();
        match self {
            Self::Chat | Self::Completions => {
                let options = StreamOptions { include_usage: true, continuous_usage: false };
                let kind = if self == Self::Chat { Kind::Chat } else { Kind::Completion };
                Box::new(openai::stream::Writer::new(kind, &head, options, choices))
            }
            Self::Messages => Box::new(messages::Writer::new(&head, "req_1")),
            Self::Gemini => Box::new(gemini::Writer::new(Framing::Events, &head, choices)),
            Self::Responses => {
                Box::new(responses::Writer::new(head, echo(), Box::new(ids()), Box::new(|| 9)))
            }
        }
    }
}

/// Ids in the order in which they are made: `msg_1`, `fc_2`, ...
fn ids() -> impl FnMut(&str) -> String + Send + 'static {
    let mut made = 0;
    move |prefix| {
        made += 1;
        format!("{prefix}_{made}")
    }
}

/// Of a request that wants its thoughts sealed, as clients do that send them back.
fn echo() -> Echo {
    let body = br#"{"model":"m","input":"Hi","include":["reasoning.encrypted_content"]}"#;
    responses::parse(body, &Limits::default(), &mut ids()).expect("accepted").echo
}

/// Panics where a client of this dialect would fail. Whether the stream has ended well.
#[track_caller]
pub(crate) fn well_nested(side: In, bytes: &[u8]) -> bool {
    match side {
        In::Chat => chat_client::check(bytes),
        In::Completions => completions_client::check(bytes),
        In::Messages => messages_client::Client::read(bytes).whole,
        In::Responses => {
            let last = responses_client::read(bytes).last;
            last.is_some_and(|last| last["status"] != "failed")
        }
        In::Gemini => {
            let (_, end) = gemini_client::check(Framing::Events, bytes).expect("sound");
            end == gemini_client::End::Whole
        }
    }
}
