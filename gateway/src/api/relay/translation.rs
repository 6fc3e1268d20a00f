//! A stream that is read in one dialect and written in another.

use wire::{
    ApiError, Broken, Dialect, Piece, Reader, Remark, Said, StreamOptions, Usage, Writer, converse,
    gemini, messages, openai, responses, sse,
};

use super::super::bill;
use super::super::surface::Page;
use super::EVENT_BYTES_MAX;
use super::handed::Handed;

/// Choices of one answer: as many as readers tell apart.
const CHOICES_MAX: u32 = 1024;

/// A stream that is read in one dialect and written in another.
pub(super) struct Translation {
    bytes: Frames,
    reader: Box<dyn Reader>,
    pub(super) writer: Box<dyn Writer>,
    pub(super) page: Page,
    pub(super) usage: Usage,
    pub(super) said_usage: bool,
    /// Pieces with something in them: about one per token.
    pub(super) pieces: u64,
    /// Events so far, comments apart.
    pub(super) events: u64,
    /// What was handed out, where somebody may go on with it.
    pub(super) handed: Option<Handed>,
    /// How far each choice has come that the caller asked for.
    choices: Vec<Stage>,
    /// Of these, as many as the provider's dialect can answer.
    expected: usize,
    done: bool,
    /// Thoughts have come that the caller does not see.
    pub(super) thinks: bool,
    pub(super) failed: Option<ApiError>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    Begun,
    Ended,
}

enum Frames {
    Sse(sse::Events),
    Aws(converse::Frames),
}

impl Translation {
    /// Of an answer with so many choices.
    pub(super) fn new(
        dialect: Dialect,
        (page, choices): (&Page, u32),
        model: &str,
        (options, usage): (StreamOptions, Usage),
    ) -> Self {
        let choices = usize::try_from(choices.clamp(1, CHOICES_MAX)).unwrap_or(usize::MAX);
        let reader: Box<dyn Reader> = match dialect {
            Dialect::Messages => Box::new(messages::Reader::default()),
            Dialect::Gemini => Box::new(gemini::Reader::new()),
            Dialect::Converse => Box::new(converse::Reader::new()),
            Dialect::Responses => Box::new(responses::Reader::new()),
            _ => Box::new(openai::Reader::new()),
        };
        let bytes = match dialect {
            Dialect::Converse => Frames::Aws(converse::Frames::new(EVENT_BYTES_MAX)),
            _ => Frames::Sse(sse::Events::new(EVENT_BYTES_MAX)),
        };
        // Google may make fewer, and its reader knows whether those have ended.
        let many = dialect == Dialect::Chat;
        Self {
            bytes,
            reader,
            writer: page.writer(&page.head(model), options, choices),
            page: page.clone(),
            usage,
            said_usage: false,
            pieces: 0,
            events: 0,
            handed: None,
            choices: vec![Stage::Waits; choices],
            expected: if many { choices } else { 1 },
            done: false,
            thinks: false,
            failed: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        let Self { bytes: frames, reader, writer, usage, said_usage, pieces, choices, .. } = self;
        let Self { done, thinks, failed, handed, events, page, .. } = self;
        let mut said = |said: Said<'_>| match said {
            Said::Begun { .. } => {}
            Said::Usage(new) => (*usage, *said_usage) = (new, true),
            Said::Failed(error) => *failed = Some(error),
            Said::Done => *done = true,
            Said::Piece(piece) => {
                let told = page.back.piece(&piece);
                *thinks |= told.delta != piece.delta && told.says_nothing();
                if say(&mut **writer, out, (choices, *usage), &told) {
                    *pieces += u64::from(piece.delta != wire::Delta::None);
                    handed.iter_mut().for_each(|handed| handed.piece(&piece));
                }
            }
        };
        let mut each = |name: &str, data: &str| {
            *events += 1;
            reader.event(name, data, &mut said)
        };
        match frames {
            Frames::Sse(events) => events.push(bytes, &mut each)?,
            Frames::Aws(frames) => frames.push(bytes, &mut each)?,
        }
        match &self.failed {
            Some(error) if self.has_begun() => Err(Broken(error.message.clone())),
            _ => Ok(()),
        }
    }

    /// A piece of the answer has come.
    pub(super) fn has_begun(&self) -> bool {
        self.choices.iter().any(|stage| *stage != Stage::Waits)
    }

    /// The provider has said that the answer is over.
    pub(super) fn is_whole(&self) -> bool {
        self.done
    }

    /// A sign of life.
    pub(super) fn ping(&mut self, out: &mut Vec<u8>) {
        self.writer.ping(out);
    }

    /// The provider's stream is over.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        let Self { reader, writer, page, done, usage, said_usage, choices, .. } = self;
        let had_end = *done;
        reader.end(&mut |said| match said {
            Said::Piece(piece) => {
                say(&mut **writer, out, (choices, *usage), &page.back.piece(&piece));
            }
            Said::Usage(new) => (*usage, *said_usage) = (new, true),
            Said::Done => *done = true,
            _ => {}
        })?;
        // A reader knows of those choices alone that have begun.
        let ended = choices.iter().filter(|stage| **stage == Stage::Ended).count();
        if *done && (had_end || ended >= self.expected) {
            return Ok(());
        }
        Err(Broken("it has no end".into()))
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>, remark: &Remark<'_>) {
        self.writer.end(out, &self.usage, remark);
    }

    /// Ends it here as if the bound on new tokens had been met.
    pub(super) fn cut_short(&mut self, out: &mut Vec<u8>) {
        let end = Piece { finish: Some(wire::Finish::Length), ..Piece::default() };
        for index in 0..self.choices.len() {
            // One that waits has nothing to say, and the first of all has to say the end.
            let first = index == 0 && !self.has_begun();
            if first || self.choices[index] == Stage::Begun {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                let known = (&mut *self.choices, self.usage);
                say(&mut *self.writer, out, known, &Piece { index, ..end });
            }
        }
        let usage = Usage { completion_tokens: self.pieces, ..self.usage };
        let remark = Remark { notice: Some(bill::USED_UP), ..Remark::default() };
        self.writer.end(out, &usage, &remark);
    }
}

/// Writes a piece, of which a choice begins with its first; `false`: it is of a choice that the
/// caller has not asked for.
fn say(
    writer: &mut dyn Writer,
    out: &mut Vec<u8>,
    (choices, usage): (&mut [Stage], Usage),
    piece: &Piece<'_>,
) -> bool {
    let own = usize::try_from(piece.index).ok().and_then(|at| choices.get_mut(at));
    let Some(stage) = own else { return false };
    if *stage == Stage::Waits {
        writer.start(out, &Piece { index: piece.index, usage: Some(usage), ..Piece::default() });
    }
    *stage = if piece.finish.is_some() { Stage::Ended } else { Stage::Begun };
    // Of a thought that the caller does not see nothing is left.
    if !piece.says_nothing() {
        writer.piece(out, piece);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::{Back, Limits};

    use super::super::super::surface::{Parsed, Surface};
    use super::*;

    fn translation(choices: u32) -> Translation {
        let body = br#"{"model":"m","n":2,"messages":[{"role":"user","content":"hi"}]}"#;
        let id: Arc<str> = "r".into();
        let parsed = Surface::Chat.parse(body, &Limits::default(), true, &id).expect("a chat");
        let how = (StreamOptions::default(), Usage::default());
        Translation::new(Dialect::Gemini, (&parsed.page, choices), "m", how)
    }

    /// A prompt is repeated before anything else and once. Of thoughts nothing is told.
    #[test]
    fn a_prompt_stands_in_front_whatever_comes_first() {
        let body = br#"{"model":"m","prompt":"Why? ","echo":true}"#;
        let id: Arc<str> = "r".into();
        let parsed = Surface::Completion.parse(body, &Limits::default(), true, &id);
        let Parsed { mut chat, mut page, .. } = parsed.expect("a chat can be made of it");
        page.back = Back::of(&mut chat, Dialect::Gemini);
        let event = |part: &str, more: &str| {
            let content = format!(r#"{{"parts":[{{"text":"{part}"{more}}}]}}"#);
            format!("data: {{\"candidates\":[{{\"content\":{content}}}]}}\n\n")
        };
        for (events, text) in [
            (vec![event("hm", r#","thought":true"#), event("So.", "")], "Why? So."),
            (vec![event("hm", r#","thought":true"#)], "Why? "),
            (vec![event("So.", ""), event(" Yes.", "")], "Why? So. Yes."),
            (vec![], "Why? "),
        ] {
            let how = (StreamOptions::default(), Usage::default());
            let mut stream = Translation::new(Dialect::Gemini, (&page, 1), "m", how);
            let mut out = Vec::new();
            for event in &events {
                stream.push(event.as_bytes(), &mut out).expect("sound");
            }
            assert_eq!(stream.thinks, events.first().is_some_and(|e| e.contains("thought")));
            stream.cut_short(&mut out);
            let out = String::from_utf8(out).expect("UTF-8");
            let chunks = out.lines().filter_map(|line| line.strip_prefix("data: {"));
            let chunk = |rest| serde_json::from_str(&format!("{{{rest}")).expect("JSON");
            let all: Vec<serde_json::Value> = chunks.map(chunk).collect();
            let words = all.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str());
            assert_eq!(words.collect::<String>(), text, "{out}");
            let ends = all.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "length");
            assert_eq!(ends.count(), 1, "{out}");
        }
    }

    fn said(index: u32, more: &str) -> String {
        let parts = r#""content":{"parts":[{"text":"a"}]}"#;
        format!("data: {{\"candidates\":[{{\"index\":{index},{parts}{more}}}]}}\n\n")
    }

    /// Each of them was left open but the first, which could end twice.
    #[test]
    fn all_choices_under_way_are_cut_short() {
        let ends = |choices, events: &str| {
            let (mut translation, mut out) = (translation(choices), Vec::new());
            translation.push(events.as_bytes(), &mut out).expect("sound");
            translation.cut_short(&mut out);
            let out = String::from_utf8(out).expect("UTF-8");
            let mut ends = Vec::new();
            for index in 0..choices {
                let own = format!("\"choices\":[{{\"index\":{index},");
                let own = || out.lines().filter(|line| line.contains(&own));
                let ended = own().filter(|line| line.contains("\"finish_reason\":\""));
                let roles = own().filter(|line| line.contains("\"role\""));
                ends.push((roles.count(), ended.count()));
            }
            ends
        };
        let stop = r#","finishReason":"STOP""#;
        assert_eq!(ends(2, &(said(0, "") + &said(1, ""))), [(1, 1), (1, 1)]);
        assert_eq!(ends(2, &(said(1, stop) + &said(0, ""))), [(1, 1), (1, 1)]);
        // One that never began is not there, and the first of all has to say the end.
        assert_eq!(ends(3, &said(1, "")), [(0, 0), (1, 1), (0, 0)]);
        assert_eq!(ends(2, ""), [(1, 1), (0, 0)]);
        // What was not asked for is neither handed out nor counted.
        let (mut one, mut out) = (translation(1), Vec::new());
        one.push((said(0, "") + &said(1, stop)).as_bytes(), &mut out).expect("sound");
        assert_eq!((one.pieces, out.windows(7).any(|seven| seven == b"index\":1")), (1, false));
    }
}
