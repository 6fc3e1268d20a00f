//! A stream that somebody else has begun and that is gone on with in the middle: what was passed
//! on of it, read as far as its end has to repeat it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Ids;
use super::echo::Echo;
use super::output::{Body, Item, Part, State};
use super::response::{Response, Status};
use super::stream::{Open, Writer};
use crate::answer::Head;
use crate::piece::Broken;
use crate::provider;

/// Items and parts that are remembered of one answer, and bytes of those that are whole.
const ITEMS_MAX: usize = 256;
const ITEM_BYTES_MAX: usize = 4 << 20;

/// Reads a stream that is passed on, and writes the rest of it.
#[derive(Debug, Default)]
pub struct Begun {
    /// Events so far, which is the number of the next one.
    number: u64,
    response: Option<(Head, Echo)>,
    items: Vec<Item>,
    item_bytes: usize,
    under_way: UnderWay,
}

/// What of the last item is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum UnderWay {
    #[default]
    Nothing,
    /// Thoughts, which nobody can go on with but who has them.
    Thoughts,
    /// A message between its parts.
    Message,
    /// A text of it, which began behind so many bytes of the answer's text.
    Text(usize),
    /// Such a text that is done, though its part is not.
    Said(usize),
}

/// What events that are not a piece of a text say.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    sequence_number: Option<u64>,
    output_index: Option<usize>,
    item: Option<Map<String, Value>>,
    part: Option<Map<String, Value>>,
    response: Option<Map<String, Value>>,
}

/// Where an answer stands that others may go on with.
#[derive(Debug, Clone)]
pub struct Place {
    number: u64,
    response: Response,
    open: Open,
}

fn unknown(what: &str) -> Broken {
    Broken(format!("nobody can go on with {what}"))
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

impl Begun {
    /// Takes note of an event; before it, so many bytes of text were handed out.
    ///
    /// # Errors
    /// It says something that nobody else can go on with.
    pub fn event(&mut self, data: &str, handed: usize) -> Result<(), Broken> {
        // Nearly all of them. A name that stands in a text has its quotes escaped.
        if data.contains("\"response.output_text.delta\"") {
            self.number += 1;
            let is_open = matches!(self.under_way, UnderWay::Text(_));
            return is_open.then_some(()).ok_or_else(|| unknown("a text that was not announced"));
        }
        let event: Event = provider::json(data)?;
        self.number = event.sequence_number.map_or(self.number, |own| own) + 1;
        let Event { kind, output_index, item, part, response, .. } = event;
        match (&*kind, self.under_way) {
            ("response.created" | "response.queued" | "response.in_progress", _) => {
                self.begin(response.unwrap_or_default())
            }
            ("response.output_item.added", UnderWay::Nothing) => {
                if output_index != Some(self.items.len()) {
                    return Err(unknown("items that are not told in their order"));
                }
                self.add(&item.unwrap_or_default())
            }
            ("response.output_item.done", UnderWay::Message | UnderWay::Thoughts) => {
                let item = item.ok_or_else(|| unknown("an item that is not shown"))?;
                self.item_bytes += data.len();
                if self.item_bytes > ITEM_BYTES_MAX {
                    return Err(unknown("so much"));
                }
                if let Some(last) = self.items.last_mut() {
                    last.body = Body::Given(item);
                }
                self.under_way = UnderWay::Nothing;
                Ok(())
            }
            ("response.content_part.added", UnderWay::Message) => {
                self.part(&part.unwrap_or_default(), handed)
            }
            ("response.output_text.done", UnderWay::Text(from)) => {
                self.under_way = UnderWay::Said(from);
                Ok(())
            }
            ("response.content_part.done", UnderWay::Text(_) | UnderWay::Said(_)) => {
                let part = part.unwrap_or_default();
                if let Some(Body::Message(parts)) = self.items.last_mut().map(|i| &mut i.body)
                    && let Some(Part::Text { text: own, .. }) = parts.last_mut()
                {
                    text(&part, "text").clone_into(own);
                }
                self.under_way = UnderWay::Message;
                Ok(())
            }
            ("keepalive", _) => Ok(()),
            (kind, UnderWay::Thoughts) if kind.starts_with("response.reasoning") => Ok(()),
            ("response.content_part.added" | "response.content_part.done", UnderWay::Thoughts) => {
                Ok(())
            }
            _ => Err(unknown(&kind)),
        }
    }

    fn begin(&mut self, mut fields: Map<String, Value>) -> Result<(), Broken> {
        let head = Head {
            id: text(&fields, "id").to_owned(),
            created: fields.get("created_at").and_then(Value::as_u64).unwrap_or_default(),
            model: text(&fields, "model").to_owned(),
            service_tier: None,
        };
        if head.id.is_empty() {
            return Err(unknown("a response without an id"));
        }
        ["id", "object", "created_at", "status"].iter().for_each(|name| {
            fields.shift_remove(*name);
        });
        self.response = Some((head, Echo::given(fields)));
        Ok(())
    }

    fn add(&mut self, item: &Map<String, Value>) -> Result<(), Broken> {
        if self.items.len() >= ITEMS_MAX {
            return Err(unknown("so many items"));
        }
        self.under_way = match text(item, "type") {
            "message" => UnderWay::Message,
            "reasoning" => UnderWay::Thoughts,
            other => return Err(unknown(other)),
        };
        let (id, body) = (text(item, "id").to_owned(), Body::Message(Vec::new()));
        self.items.push(Item { id, state: State::Begun, body });
        Ok(())
    }

    fn part(&mut self, part: &Map<String, Value>, handed: usize) -> Result<(), Broken> {
        if text(part, "type") != "output_text" {
            return Err(unknown("a part that is no text"));
        }
        match self.items.last_mut().map(|item| &mut item.body) {
            Some(Body::Message(parts)) if parts.len() < ITEMS_MAX => parts.push(Part::text("")),
            _ => return Err(unknown("so many parts")),
        }
        self.under_way = UnderWay::Text(handed);
        Ok(())
    }

    /// Where it stands, after this text in all; `None`: nobody can go on there.
    #[must_use]
    pub fn place(&self, handed: &str) -> Option<Place> {
        let (head, echo) = self.response.clone()?;
        let mut items = self.items.clone();
        let open = match self.under_way {
            UnderWay::Nothing => Open::Nothing,
            UnderWay::Thoughts => return None,
            UnderWay::Message => Open::Item,
            UnderWay::Text(from) | UnderWay::Said(from) => {
                let said = handed.get(from..)?;
                let Some(Body::Message(parts)) = items.last_mut().map(|item| &mut item.body) else {
                    return None;
                };
                *parts.last_mut()? = Part::text(said);
                match self.under_way {
                    UnderWay::Said(_) => Open::Said,
                    _ => Open::Text,
                }
            }
        };
        let mut response = Response::bare(head, echo, Status::InProgress);
        response.items = items;
        Some(Place { number: self.number, response, open })
    }
}

impl Place {
    /// The rest of the stream.
    #[must_use]
    pub fn writer(self, ids: Box<Ids<'static>>, now: Box<dyn Fn() -> u64 + Send>) -> Writer {
        let Self { number, response, open } = self;
        Writer::rest(response, (number, open), ids, now)
    }
}
