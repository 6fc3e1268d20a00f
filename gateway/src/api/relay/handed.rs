//! What a caller has been handed of an answer, as far as somebody else could go on with it. Pieces
//! say it where a stream is translated; where it is passed on, what leaves is read beside it.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use wire::openai::stream::{Kind, Writer as OpenAi};
use wire::{
    Broken, Delta, Dialect, Head, Piece, Reader, Said, StreamOptions, Writer, gemini, messages,
    openai, responses, sse,
};

use super::super::surface::{Surface, responses_id, seconds};
use super::EVENT_BYTES_MAX;

/// Bytes of text that are kept: far more than what models make in one answer.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What was handed out.
#[derive(Debug, Default)]
pub(super) struct Handed {
    text: String,
    /// The last of it were thoughts, which nobody can go on with but who had them.
    thinks: bool,
    /// There is something that nobody can go on with.
    lost: bool,
}

impl Handed {
    /// Takes note of a piece that is handed out.
    pub(super) fn piece(&mut self, piece: &Piece<'_>) {
        match piece.delta {
            Delta::None => {}
            Delta::Content(text) => {
                self.thinks = false;
                self.text.push_str(text);
            }
            Delta::Reasoning(_) | Delta::Seal(_) => self.thinks = true,
            Delta::Refusal(_) | Delta::CallStart { .. } | Delta::Arguments { .. } => self.lose(),
        }
        if piece.finish.is_some() || piece.index != 0 || self.text.len() > TEXT_BYTES_MAX {
            self.lose();
        }
    }

    fn lose(&mut self) {
        (self.lost, self.text) = (true, String::new());
    }

    /// The text, where somebody could go on with it.
    pub(super) fn text(&self) -> Option<&str> {
        (!self.lost && !self.thinks).then_some(&*self.text)
    }
}

/// Reads a stream that is passed on.
pub(super) struct Listener {
    events: sse::Events,
    reader: Box<dyn Reader>,
    handed: Handed,
    place: Place,
}

/// What the next event of a stream must know of those before it.
#[derive(Debug)]
pub(super) enum Spot {
    /// What all chunks share.
    OpenAi(Kind, Head),
    /// Blocks so far, and whether the last one is under way.
    Messages(u32, bool),
    Responses(Box<responses::Place>),
    /// What all chunks share.
    Gemini(Head),
}

/// Where a stream stands.
enum Place {
    /// What all chunks share; `None`: none has come.
    OpenAi(Kind, Option<Head>),
    /// Blocks so far, and what is under way; `None`: the message has not begun.
    Messages(Option<(u32, Open)>),
    Responses(Box<responses::Begun>),
    Gemini(Option<Head>),
}

/// A block under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    /// One that somebody else cannot end.
    Thoughts,
}

impl Listener {
    /// Of a dialect whose streams can be gone on with in the middle.
    pub(super) fn new(dialect: Dialect) -> Option<Self> {
        let openai = || Box::new(openai::Reader::new());
        let (reader, place): (Box<dyn Reader>, _) = match dialect {
            Dialect::Chat => (openai(), Place::OpenAi(Kind::Chat, None)),
            Dialect::Completions => (openai(), Place::OpenAi(Kind::Completion, None)),
            Dialect::Messages => (Box::new(messages::Reader::default()), Place::Messages(None)),
            Dialect::Responses => {
                (Box::new(responses::Reader::new()), Place::Responses(Box::default()))
            }
            Dialect::Gemini => (Box::new(gemini::Reader::new()), Place::Gemini(None)),
            _ => return None,
        };
        let events = sse::Events::new(EVENT_BYTES_MAX);
        Some(Self { events, reader, handed: Handed::default(), place })
    }

    /// Takes what leaves.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        let Self { events, reader, handed, place } = self;
        if handed.lost {
            return;
        }
        let heard = events.push(bytes, &mut |name, data| {
            place.event(data, handed.text.len())?;
            reader.event(name, data, &mut |said| match said {
                Said::Piece(piece) => handed.piece(&piece),
                Said::Failed(_) | Said::Done => handed.lose(),
                Said::Begun { .. } | Said::Usage(_) => {}
            })
        });
        if heard.is_err() {
            handed.lose();
        }
    }

    /// What was handed out, and what the next event must know; `None`: nobody can go on with it.
    pub(super) fn told(&self) -> Option<(&str, Spot)> {
        let text = self.handed.text()?;
        let spot = match &self.place {
            Place::OpenAi(kind, head) => Spot::OpenAi(*kind, head.clone()?),
            Place::Messages(place) => match (*place)? {
                (_, Open::Thoughts) => return None,
                (blocks, open) => Spot::Messages(blocks, open == Open::Text),
            },
            Place::Responses(begun) => Spot::Responses(Box::new(begun.place(text)?)),
            Place::Gemini(head) => Spot::Gemini(head.clone()?),
        };
        Some((text, spot))
    }
}

/// The fields of a chunk that all chunks share.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    id: String,
    #[serde(default)]
    created: u64,
    #[serde(default)]
    model: String,
}

/// The fields that say how blocks follow each other.
#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    index: Option<u32>,
    content_block: Option<Content>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "type")]
    kind: String,
}

/// The fields of Google's chunk that all chunks share, and what its parts are.
#[derive(Deserialize)]
struct GoogleChunk {
    #[serde(default, rename = "responseId")]
    id: String,
    #[serde(default, rename = "modelVersion")]
    model: String,
    #[serde(default)]
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    content: Option<Parts>,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    parts: Vec<HashMap<String, IgnoredAny>>,
}

/// What a part may have that is text, or thoughts.
const TEXT_FIELDS: [&str; 3] = ["text", "thought", "thoughtSignature"];

impl Place {
    /// Takes note of an event; before it, so many bytes of text were handed out.
    fn event(&mut self, data: &str, handed: usize) -> Result<(), Broken> {
        let broken = |_| Broken("an event that says nothing".to_owned());
        match self {
            // Azure begins with a chunk of its own, without an id.
            Self::OpenAi(_, Some(head)) if !head.id.is_empty() => {}
            // The last event is no chunk.
            Self::OpenAi(..) if data.trim() == "[DONE]" => {}
            Self::OpenAi(_, head) => {
                let Chunk { id, created, model } = serde_json::from_str(data).map_err(broken)?;
                *head = Some(Head { id, created, model, service_tier: None });
            }
            // Nearly all of them.
            Self::Messages(_) if data.contains("\"content_block_delta\"") => {}
            Self::Messages(place) => {
                let block: Block = serde_json::from_str(data).map_err(broken)?;
                match (&*block.kind, block.index, place) {
                    ("message_start", _, place) => *place = Some((0, Open::Nothing)),
                    ("content_block_start", Some(index), Some(place)) => {
                        let kind = block.content_block.map(|content| content.kind);
                        let open = match kind.as_deref() {
                            Some("text") => Open::Text,
                            Some("thinking" | "redacted_thinking") => Open::Thoughts,
                            _ => return Err(Broken("a block that is not known".to_owned())),
                        };
                        *place = (index.saturating_add(1), open);
                    }
                    ("content_block_stop", _, Some((_, open))) => *open = Open::Nothing,
                    _ => {}
                }
            }
            Self::Responses(begun) => begun.event(data, handed)?,
            Self::Gemini(head) => {
                let GoogleChunk { id, model, candidates } =
                    serde_json::from_str(data).map_err(broken)?;
                let contents = candidates.into_iter().filter_map(|candidate| candidate.content);
                let mut parts = contents.flat_map(|content| content.parts);
                if !parts.all(|part| part.keys().all(|name| TEXT_FIELDS.contains(&&**name))) {
                    return Err(Broken("a part that is no text".to_owned()));
                }
                *head = Some(Head { id, created: 0, model, service_tier: None });
            }
        }
        Ok(())
    }
}

impl Spot {
    /// Writes the rest of the stream.
    pub(super) fn writer(
        self,
        options: StreamOptions,
        (surface, request_id): (&Surface, &str),
    ) -> Box<dyn Writer> {
        match self {
            Self::OpenAi(kind, head) => Box::new(OpenAi::new(kind, &head, options, 1)),
            Self::Messages(blocks, open) => {
                Box::new(messages::Writer::rest(blocks, open, request_id))
            }
            Self::Responses(place) => {
                Box::new(place.writer(Box::new(responses_id), Box::new(seconds)))
            }
            Self::Gemini(head) => Box::new(gemini::Writer::rest(surface.framing(), &head)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(dialect: Dialect, events: &[&str]) -> Option<String> {
        let mut listener = Listener::new(dialect).expect("a dialect that can be gone on with");
        for event in events {
            // In any pieces.
            for half in [&event[..event.len() / 2], &event[event.len() / 2..], "\n\n"] {
                listener.hear(half.as_bytes());
            }
        }
        listener.told().map(|(text, spot)| format!("{text} {spot:?}"))
    }

    const START: &str = r#"data: {"type":"message_start","message":{"id":"m"}}"#;
    const TEXT: &str = r#"data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":"a"}}"#;
    const MORE: &str = r#"data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"b"}}"#;

    #[test]
    fn text_is_gone_on_with_where_it_stands() {
        let chunk = |delta: &str| {
            format!(r#"data: {{"id":"c","created":7,"model":"m","choices":[{{"delta":{delta}}}]}}"#)
        };
        let role = chunk(r#"{"role":"assistant","content":""}"#);
        let said = told(Dialect::Chat, &[": ping", &role, &chunk(r#"{"content":"Hi"}"#)]);
        assert!(said.expect("text").starts_with("Hi OpenAi(Chat, Head { id: \"c\", created: 7"));
        assert!(told(Dialect::Chat, &[": ping"]).is_none(), "no chunk, no head");

        let said = |events: &[&str]| told(Dialect::Messages, events);
        assert_eq!(said(&[START]).as_deref(), Some(" Messages(0, false)"));
        assert_eq!(said(&[START, TEXT, MORE]).as_deref(), Some("ab Messages(2, true)"));
        let stop = r#"data: {"type":"content_block_stop","index":1}"#;
        let stopped = said(&[START, TEXT, stop]);
        assert_eq!(stopped.as_deref(), Some("a Messages(2, false)"));
    }

    #[test]
    fn what_is_not_text_is_not_gone_on_with() {
        for delta in [
            r#""delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f"}}]}"#,
            r#""delta":{"refusal":"no"}"#,
            r#""delta":{"reasoning_content":"hm"}"#,
            r#""delta":{},"finish_reason":"stop""#,
            r#""index":1,"delta":{"content":"b"}"#,
        ] {
            let chunk = format!(r#"data: {{"id":"c","choices":[{{{delta}}}]}}"#);
            assert!(told(Dialect::Chat, &[&chunk]).is_none(), "{delta}");
        }
        for kind in ["tool_use", "server_tool_use", "of_tomorrow"] {
            let block = format!(
                r#"data: {{"type":"content_block_start","index":2,"content_block":{{"type":"{kind}"}}}}"#
            );
            assert!(told(Dialect::Messages, &[START, TEXT, MORE, &block]).is_none(), "{kind}");
        }
        let thinks = |words: &str| {
            let block = format!(r#"{{"type":"thinking","thinking":"{words}"}}"#);
            format!(r#"data: {{"type":"content_block_start","index":0,"content_block":{block}}}"#)
        };
        assert!(told(Dialect::Messages, &[START, &thinks("")]).is_none());
        let thinks = thinks("hm");
        assert!(told(Dialect::Messages, &[START, &thinks]).is_none());
        // Behind thoughts that are over, the text says all.
        let said = told(Dialect::Messages, &[START, &thinks, TEXT]);
        assert_eq!(said.as_deref(), Some("a Messages(2, true)"));
        let end = r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#;
        assert!(told(Dialect::Messages, &[START, TEXT, end]).is_none());
        assert!(told(Dialect::Chat, &["data: {oops"]).is_none());
    }

    #[test]
    fn bounded() {
        let mut handed = Handed::default();
        let text = "x".repeat(TEXT_BYTES_MAX);
        handed.piece(&Piece { delta: Delta::Content(&text), ..Piece::default() });
        assert_eq!(handed.text().map(str::len), Some(TEXT_BYTES_MAX));
        handed.piece(&Piece { delta: Delta::Content("x"), ..Piece::default() });
        assert!(handed.text().is_none() && handed.text.capacity() == 0);
        for other in [Dialect::Converse, Dialect::Embeddings] {
            assert!(Listener::new(other).is_none(), "{other:?}");
        }
    }
}
