//! An answer of gpt-oss: messages, each with a header that names its channel and, for a call, the
//! function. `analysis` holds thoughts, `final` and `commentary` content.
//!
//! Two messages of one kind are set apart by an empty line, for their borders are not shown.

use super::output::Output;
use super::pattern::NAME_BYTES_MAX;
use super::stream::{Held, Unit};
use crate::TextModel;
use crate::grammar::lark;
use crate::grammar::watch::{Markers, Watch};

/// More of a header is not kept.
const HEADER_BYTES_MAX: usize = 1024;

/// Leads a function's name in a header.
const RECIPIENT: &str = "to=functions.";

/// Markers as they are spelled, in the order of [`Sign`].
const SPELLED: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
];

#[derive(Debug, Clone, Copy)]
enum Sign {
    Start,
    Channel,
    Constrain,
    Message,
    /// Any of the three that end a message.
    End,
}

/// The markers as this model writes them.
#[derive(Debug)]
pub(super) struct Signs(Markers);

impl Signs {
    pub(super) fn new(text: &TextModel) -> Self {
        Self(Markers::new(SPELLED.map(|sign| lark::literal(text, sign)), false))
    }

    fn get(at: usize) -> Sign {
        match at {
            0 => Sign::Start,
            1 => Sign::Channel,
            2 => Sign::Constrain,
            3 => Sign::Message,
            _ => Sign::End,
        }
    }
}

/// Where an answer stands.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    watch: Watch,
    /// What may begin a marker.
    held: Held,
    phase: Phase,
    /// There was content; there were thoughts.
    said: [bool; 2],
    /// The message has shown nothing yet.
    fresh: bool,
}

#[derive(Debug, Clone)]
enum Phase {
    /// At the answer's start. The prompt ended in a header, so this may be more of it, or in a
    /// message, so it may be text.
    Start(String),
    /// In no message.
    Outside,
    Header(Header),
    Thoughts,
    Content,
    Arguments {
        begun: bool,
        /// White space that is given out if more comes.
        space: String,
    },
}

#[derive(Debug, Clone, Default)]
struct Header {
    text: String,
    /// Where in it the channel's name begins.
    channel: Option<usize>,
}

impl Channels {
    pub(super) fn new(signs: &Signs, open: bool) -> Self {
        let phase = if open { Phase::Thoughts } else { Phase::Start(String::new()) };
        let (watch, held) = (signs.0.watch(), Held::default());
        Self { watch, held, phase, said: [false; 2], fresh: true }
    }

    pub(super) fn is_thinking(&self) -> bool {
        matches!(self.phase, Phase::Thoughts)
    }

    pub(super) fn unit(&mut self, unit: Unit, signs: &Signs, out: &mut Output<'_>) {
        let watched = self.held.watch(unit, &mut self.watch, &signs.0);
        for unit in self.held.take_front(watched.certain).units() {
            self.put(unit, out);
        }
        if let Some(sign) = watched.met {
            self.held.clear();
            self.sign(Signs::get(sign), out);
        }
    }

    /// Takes what is no marker.
    fn put(&mut self, unit: Unit, out: &mut Output<'_>) {
        match &mut self.phase {
            Phase::Start(text) => {
                out.shown(unit, |_, shown| text.push_str(shown));
                if !may_be_header(text) {
                    self.give_start(out);
                }
            }
            Phase::Header(header) => header
                .text
                .extend(unit.character().filter(|_| header.text.len() < HEADER_BYTES_MAX)),
            Phase::Outside | Phase::Thoughts | Phase::Content => {
                out.shown(unit, |out, text| self.say(text, out));
            }
            Phase::Arguments { begun, space } => match unit {
                Unit::Text(c) if c.is_ascii_whitespace() => {
                    space.extend(begun.then_some(c));
                }
                Unit::Text(c) => {
                    *begun = true;
                    out.arguments(&std::mem::take(space));
                    out.arguments(c.encode_utf8(&mut [0; 4]));
                }
                Unit::Special(_) => {
                    out.end_call();
                    self.phase = Phase::Outside;
                    self.put(unit, out);
                }
            },
        }
    }

    fn say(&mut self, text: &str, out: &mut Output<'_>) {
        let thinks = self.is_thinking();
        let said = std::mem::replace(&mut self.said[usize::from(thinks)], true);
        let apart = if std::mem::take(&mut self.fresh) && said { "\n\n" } else { "" };
        for text in [apart, text] {
            if thinks {
                out.reasoning(text);
            } else {
                out.content(text);
            }
        }
    }

    /// What stands at the answer's start is text.
    fn give_start(&mut self, out: &mut Output<'_>) {
        if let Phase::Start(text) = &mut self.phase {
            let text = std::mem::take(text);
            self.phase = Phase::Outside;
            if !text.is_empty() {
                self.say(&text, out);
            }
        }
    }

    fn sign(&mut self, sign: Sign, out: &mut Output<'_>) {
        if let Phase::Start(text) = &mut self.phase
            && text.trim_start().starts_with(RECIPIENT)
            && !matches!(sign, Sign::Start | Sign::End)
        {
            self.phase = Phase::Header(Header { text: std::mem::take(text), channel: None });
        }
        self.give_start(out);
        match (&mut self.phase, sign) {
            (Phase::Header(header), Sign::Channel | Sign::Constrain) => {
                header.text.push(' ');
                if matches!(sign, Sign::Channel) {
                    header.channel = Some(header.text.len());
                }
            }
            (Phase::Header(header), Sign::Message) => {
                let header = std::mem::take(header);
                self.begin(&header, out);
            }
            (Phase::Outside, Sign::Message) => self.begin(&Header::default(), out),
            (_, Sign::Message | Sign::Constrain) => {}
            (_, Sign::Start) => {
                self.close(out);
                self.phase = Phase::Header(Header::default());
            }
            (_, Sign::Channel) => {
                self.close(out);
                self.phase = Phase::Header(Header { text: String::new(), channel: Some(0) });
            }
            (_, Sign::End) => self.close(out),
        }
    }

    /// A message begins.
    fn begin(&mut self, header: &Header, out: &mut Output<'_>) {
        self.fresh = true;
        self.phase = match (header.function(), header.channel()) {
            (Some(name), _) => {
                out.call(name);
                Phase::Arguments { begun: false, space: String::new() }
            }
            (None, Some("analysis")) => Phase::Thoughts,
            (None, _) => Phase::Content,
        };
    }

    /// A message ends.
    fn close(&mut self, out: &mut Output<'_>) {
        if let Phase::Arguments { begun: false, .. } = self.phase {
            out.arguments("{}");
        }
        out.end_call();
        self.phase = Phase::Outside;
    }

    /// The answer is over.
    pub(super) fn end(&mut self, out: &mut Output<'_>) {
        for unit in self.held.take().units() {
            self.put(unit, out);
        }
        self.give_start(out);
        // Arguments of which nothing came were cut off, unless a marker says that they are over.
        out.end_call();
        self.phase = Phase::Outside;
    }
}

/// Whether a header that the prompt began may go on like this.
fn may_be_header(text: &str) -> bool {
    let word = text.trim_start();
    let name = word.strip_prefix(RECIPIENT);
    let fits = name.map_or(RECIPIENT.starts_with(word), |name| !name.contains('\n'));
    fits && text.len() <= RECIPIENT.len() + NAME_BYTES_MAX
}

impl Header {
    /// The function that the message goes to.
    fn function(&self) -> Option<&str> {
        let names = self.text.split_ascii_whitespace().filter_map(|w| w.strip_prefix(RECIPIENT));
        names.into_iter().find(|name| !name.is_empty())
    }

    fn channel(&self) -> Option<&str> {
        self.text.get(self.channel?..)?.split_ascii_whitespace().next()
    }
}
