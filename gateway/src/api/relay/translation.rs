//! A stream that is read in one dialect and written in another.

use wire::{
    ApiError, Broken, Dialect, Piece, Reader, Remark, Said, StreamOptions, Usage, Writer, converse,
    gemini, messages, openai, responses, sse,
};

use super::super::bill;
use super::super::surface::Page;
use super::EVENT_BYTES_MAX;
use super::handed::Handed;

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
    /// What was handed out, where somebody may go on with it.
    pub(super) handed: Option<Handed>,
    /// A piece of the answer has come.
    pub(super) begun: bool,
    done: bool,
    pub(super) failed: Option<ApiError>,
}

enum Frames {
    Sse(sse::Events),
    Aws(converse::Frames),
}

impl Translation {
    pub(super) fn new(
        dialect: Dialect,
        page: &Page,
        model: &str,
        (options, usage): (StreamOptions, Usage),
    ) -> Self {
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
        Self {
            bytes,
            reader,
            writer: page.writer(&page.head(model), options, 1),
            page: page.clone(),
            usage,
            said_usage: false,
            pieces: 0,
            handed: None,
            begun: false,
            done: false,
            failed: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        let Self { bytes: frames, reader, writer, usage, said_usage, pieces, begun, .. } = self;
        let Self { done, failed, handed, .. } = self;
        let mut said = |said: Said<'_>| match said {
            Said::Begun { .. } => {}
            Said::Usage(new) => (*usage, *said_usage) = (new, true),
            Said::Failed(error) => *failed = Some(error),
            Said::Done => *done = true,
            Said::Piece(piece) => {
                if !std::mem::replace(begun, true) {
                    let first = Piece { usage: Some(*usage), ..Piece::default() };
                    writer.start(out, &first);
                }
                *pieces += u64::from(piece.delta != wire::Delta::None);
                writer.piece(out, &piece);
                handed.iter_mut().for_each(|handed| handed.piece(&piece));
            }
        };
        let mut each = |name: &str, data: &str| reader.event(name, data, &mut said);
        match frames {
            Frames::Sse(events) => events.push(bytes, &mut each)?,
            Frames::Aws(frames) => frames.push(bytes, &mut each)?,
        }
        match &self.failed {
            Some(error) if self.begun => Err(Broken(error.message.clone())),
            _ => Ok(()),
        }
    }

    /// The provider has said that the answer is over.
    pub(super) fn is_whole(&self) -> bool {
        self.done
    }

    /// The provider's stream is over.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        let Self { reader, writer, done, usage, said_usage, .. } = self;
        reader.end(&mut |said| match said {
            Said::Piece(piece) => writer.piece(out, &piece),
            Said::Usage(new) => (*usage, *said_usage) = (new, true),
            Said::Done => *done = true,
            _ => {}
        })?;
        if self.done { Ok(()) } else { Err(Broken("it has no end".into())) }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>, remark: &Remark<'_>) {
        self.writer.end(out, &self.usage, remark);
    }

    /// Ends it here as if the bound on new tokens had been met.
    pub(super) fn cut_short(&mut self, out: &mut Vec<u8>) {
        let end = Piece { finish: Some(wire::Finish::Length), ..Piece::default() };
        self.writer.piece(out, &end);
        let usage = Usage { completion_tokens: self.pieces, ..self.usage };
        let remark = Remark { notice: Some(bill::USED_UP), ..Remark::default() };
        self.writer.end(out, &usage, &remark);
    }
}
