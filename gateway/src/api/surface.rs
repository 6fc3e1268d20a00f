//! The routes that models answer, and the dialects in which they are answered. A request that
//! generates is parsed into one form, whatever it came in; its answer is written from one form,
//! whatever made it. Those that make numbers have forms of their own.

use std::sync::Arc;

use bytes::Bytes;
use wire::gemini::Framing;
use wire::openai::answer;
use wire::openai::stream::{Kind, Writer as OpenAi};
use wire::responses::{self, Echo};
use wire::{
    ApiError, Back, ChatRequest, Choice, Dialect, Finish, Head, Limits, StreamOptions, Usage,
    Writer, gemini, messages, openai,
};

use super::generate::now;
use super::ids;
use super::kept::{self, Keep};
use super::pooled::Pooled;

/// A route that models answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Surface {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's plain completions.
    Completion,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Google's generateContent; the model and how it answers are in the path.
    Gemini { model: String, stream: bool, framing: Framing },
    /// Those that make numbers in place of text.
    Pooled(Pooled),
}

/// Who has no page.
const NUMBERS: &str = "routes that make numbers write their own answers";

/// A chat as it came by some route.
pub(super) struct Parsed {
    pub(super) chat: ChatRequest,
    pub(super) page: Page,
    /// What belongs to a request of Responses beside the chat.
    pub(super) responses: Option<Box<responses::Request>>,
}

/// How an answer is written.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) surface: Surface,
    /// What a response repeats of its request.
    echo: Option<Box<Echo>>,
    request_id: Arc<str>,
    /// The prompt of a plain completion, in front of an answer that a chat makes of it.
    repeated: Option<Box<str>>,
    /// What of a provider's answer is told, and by which names.
    pub(super) back: Back,
    /// How the response is kept, where it is.
    pub(super) keep: Option<Arc<Keep>>,
}

impl Surface {
    /// Its dialect.
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Chat => Dialect::Chat,
            Self::Completion => Dialect::Completions,
            Self::Responses => Dialect::Responses,
            Self::Messages => Dialect::Messages,
            Self::Gemini { .. } => Dialect::Gemini,
            Self::Pooled(pooled) => pooled.dialect(),
        }
    }

    /// Its word in the ledger.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini { .. } => "gemini",
            Self::Pooled(pooled) => pooled.name(),
        }
    }

    /// How its streams' chunks are told apart.
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Gemini { framing, .. } => *framing,
            _ => Framing::Events,
        }
    }

    /// What kind of content its streams are.
    pub(super) fn stream_type(&self) -> &'static str {
        match self.framing() {
            Framing::Array => "application/json",
            Framing::Events => "text/event-stream; charset=utf-8",
        }
    }

    /// Parses a chat. `forward`: it is passed on in another dialect, as plain completions can be
    /// too.
    ///
    /// # Errors
    /// The field at fault.
    ///
    /// # Panics
    /// It is a route of no chat.
    pub(super) fn parse(
        &self,
        body: &[u8],
        limits: &Limits,
        forward: bool,
        request_id: &Arc<str>,
    ) -> Result<Parsed, ApiError> {
        let mut made = responses_id;
        let (mut responses, mut repeated) = (None, None);
        let chat = match (self, forward) {
            (Self::Chat, false) => openai::parse_chat(body, limits)?,
            (Self::Chat, true) => openai::parse_chat_forward(body, limits)?,
            (Self::Messages, false) => messages::parse(body, limits)?,
            (Self::Messages, true) => messages::parse_forward(body, limits)?,
            (Self::Responses, forward) => {
                let request = if forward {
                    responses::parse_forward(body, limits, &mut made)?
                } else {
                    responses::parse(body, limits, &mut made)?
                };
                let chat = request.chat.clone();
                responses = Some(Box::new(request));
                chat
            }
            (Self::Gemini { model, stream, .. }, false) => {
                gemini::parse(model, *stream, body, limits)?
            }
            (Self::Gemini { model, stream, .. }, true) => {
                gemini::parse_forward(model, *stream, body, limits)?
            }
            (Self::Completion, true) => {
                let (chat, prompt) = openai::parse_completion_forward(body, limits)?;
                repeated = prompt.map(Into::into);
                chat
            }
            (Self::Completion, false) | (Self::Pooled(_), _) => {
                unreachable!("{self:?} is no chat")
            }
        };
        let echo = responses.as_ref().map(|request| Box::new(request.echo.clone()));
        let (request_id, back) = (Arc::clone(request_id), Back::default());
        let page = Page { surface: self.clone(), echo, request_id, repeated, back, keep: None };
        Ok(Parsed { chat, page, responses })
    }
}

/// An id that begins with this and `_`.
pub(super) fn responses_id(prefix: &str) -> String {
    ids::named(&format!("{prefix}_"))
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    now(String::new(), "").created
}

impl Parsed {
    /// It was read to be passed on, and is answered here after all.
    pub(super) fn here(&mut self) {
        if let Some(own) = &mut self.responses {
            own.here();
            self.page.echo = Some(Box::new(own.echo.clone()));
        }
    }
}

impl Page {
    /// Of plain completions that are answered here.
    pub(super) fn completion() -> Self {
        let (request_id, back) = ("".into(), Back::default());
        let surface = Surface::Completion;
        Self { surface, echo: None, request_id, repeated: None, back, keep: None }
    }

    /// The head of an answer that is made now.
    pub(super) fn head(&self, model: &str) -> Head {
        let prefix = match self.surface {
            Surface::Chat => "chatcmpl-",
            Surface::Completion => "cmpl-",
            Surface::Responses => "resp_",
            Surface::Messages => "msg_",
            Surface::Gemini { .. } | Surface::Pooled(_) => "",
        };
        now(ids::named(prefix), model)
    }

    /// What is known of the prompt stands in a stream's first event.
    pub(super) fn begins_with_usage(&self) -> bool {
        !matches!(self.surface, Surface::Chat | Surface::Completion)
    }

    /// Keeps a response that is whole; `false`: it could not be kept.
    pub(super) async fn keep(&self, response: Option<serde_json::Value>) -> bool {
        match (&self.keep, response) {
            // Boxed: few are, and each stream would keep room for it.
            (Some(keep), Some(response)) => Box::pin(kept::keep(keep, response)).await,
            _ => true,
        }
    }

    /// A whole answer, and what is to be kept of it.
    pub(super) fn whole(
        &self,
        head: &Head,
        choices: &[Choice],
        usage: &Usage,
    ) -> (Bytes, Option<serde_json::Value>) {
        let mut stored = None;
        let bytes = match &self.surface {
            Surface::Chat => answer::chat(head, choices, usage),
            Surface::Completion => match &self.repeated {
                None => answer::completion(head, choices, usage),
                Some(prompt) => {
                    let mut choices = choices.to_vec();
                    choices.iter_mut().for_each(|choice| choice.text.insert_str(0, prompt));
                    answer::completion(head, &choices, usage)
                }
            },
            Surface::Messages => messages::answer(head, choices, usage),
            Surface::Gemini { .. } => gemini::answer(head, choices, usage),
            Surface::Responses => {
                let nothing = Choice::text(0, "", Finish::Stop);
                let choice = choices.first().unwrap_or(&nothing);
                let mut ids = kept::ids_of(&head.id);
                let (head, echo) = (head.clone(), self.echo());
                let made = responses::answer(head, echo, choice, usage, &mut ids, seconds());
                stored = self.keep.is_some().then(|| made.to_stored());
                made.to_bytes()
            }
            Surface::Pooled(_) => unreachable!("{NUMBERS}"),
        };
        (bytes.into(), stored)
    }

    /// The writer of a stream.
    pub(super) fn writer(
        &self,
        head: &Head,
        options: StreamOptions,
        choices: usize,
    ) -> Box<dyn Writer> {
        match &self.surface {
            Surface::Chat => Box::new(OpenAi::new(Kind::Chat, head, options, choices)),
            Surface::Completion => {
                let writer = OpenAi::new(Kind::Completion, head, options, choices);
                Box::new(writer.repeating(self.repeated.as_deref()))
            }
            Surface::Messages => Box::new(messages::Writer::new(head, &self.request_id)),
            Surface::Gemini { framing, .. } => {
                Box::new(gemini::Writer::new(*framing, head, choices))
            }
            Surface::Responses => {
                let (ids, now) = (Box::new(kept::ids_of(&head.id)), Box::new(seconds));
                Box::new(responses::Writer::new(head.clone(), self.echo(), ids, now))
            }
            Surface::Pooled(_) => unreachable!("{NUMBERS}"),
        }
    }

    fn echo(&self) -> Echo {
        self.echo.as_deref().cloned().expect("a request of Responses has its echo")
    }
}
