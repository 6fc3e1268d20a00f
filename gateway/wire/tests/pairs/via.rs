//! The way of an answer: a provider's bytes in, a caller's bytes out, as the gateway does it; and
//! what either end understood.

use wire::{
    Answer, ApiError, Back, Broken, Choice, Delta, ErrorKind, Finish, Piece, Reader, Remark, Said,
    Seal, SealRef, Thought, TokenLogprob, Usage, Writer,
};

use crate::completions_client;
use crate::side::{Frames, From, In};

/// What was understood of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Heard {
    pub(crate) thoughts: Vec<Thought>,
    pub(crate) text: String,
    pub(crate) refusal: String,
    /// Ids, names and arguments.
    pub(crate) calls: Vec<(String, String, String)>,
    pub(crate) finish: Option<Finish>,
    pub(crate) stop: Option<String>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) usage: Option<Usage>,
    /// It came to its end.
    pub(crate) whole: bool,
    pub(crate) failed: Option<String>,
    /// A call went on behind the beginning of the next.
    pub(crate) mixed: bool,
    /// The last thought may grow.
    open: bool,
}

impl Heard {
    pub(crate) fn piece(&mut self, piece: &Piece<'_>) {
        assert!(self.finish.is_none() && !self.whole, "{piece:?} behind the end");
        assert_eq!(piece.index, 0);
        match piece.delta {
            Delta::None => {}
            Delta::Content(text) => self.text.push_str(text),
            Delta::Refusal(text) => self.refusal.push_str(text),
            Delta::Reasoning(text) => match self.thoughts.last_mut().filter(|_| self.open) {
                Some(last) => last.text.push_str(text),
                None => self.thoughts.push(Thought::of(text)),
            },
            Delta::Seal(seal) => self.seal(seal),
            Delta::CallStart { index, id, name } => {
                assert_eq!(usize::try_from(index), Ok(self.calls.len()), "calls are numbered");
                self.calls.push((id.into(), name.into(), String::new()));
            }
            Delta::Arguments { index, text } => {
                let at = usize::try_from(index).expect("few");
                self.mixed |= at + 1 != self.calls.len();
                self.calls[at].2.push_str(text);
            }
        }
        match piece.delta {
            Delta::Reasoning(_) => self.open = true,
            Delta::None => {}
            _ => self.open = false,
        }
        self.logprobs.extend_from_slice(piece.logprobs.unwrap_or_default());
        self.finish = piece.finish;
        self.stop = piece.stop.map(str::to_owned);
    }

    fn seal(&mut self, seal: SealRef<'_>) {
        let seal = match seal {
            SealRef::Signature(text) => Seal::Signature(text.into()),
            SealRef::Redacted(text) => Seal::Redacted(text.into()),
            SealRef::Encrypted { id, content } => {
                Seal::Encrypted { id: id.into(), content: content.into() }
            }
        };
        let own = !self.open || matches!(seal, Seal::Redacted(_));
        match self.thoughts.last_mut().filter(|_| !own) {
            Some(last) => last.seal = Some(seal),
            None => self.thoughts.push(Thought { text: String::new(), seal: Some(seal) }),
        }
    }

    pub(crate) fn said(&mut self, said: &Said<'_>) {
        match said {
            Said::Begun { .. } => {}
            Said::Piece(piece) => self.piece(piece),
            Said::Usage(usage) => self.usage = Some(*usage),
            Said::Failed(error) => self.failed = Some(error.message.clone()),
            Said::Done => self.whole = true,
        }
    }

    pub(crate) fn of(answer: &Answer) -> Self {
        Self::of_choice(answer, &answer.choices[0])
    }

    pub(crate) fn of_choice(answer: &Answer, choice: &Choice) -> Self {
        let call = |call: &wire::Call| (call.id.clone(), call.name.clone(), call.arguments.clone());
        Self {
            thoughts: choice.thoughts.clone(),
            text: choice.text.clone(),
            refusal: choice.refusal.clone().unwrap_or_default(),
            calls: choice.tool_calls.iter().map(call).collect(),
            finish: Some(choice.finish),
            stop: choice.stop.clone(),
            logprobs: choice.logprobs.clone().unwrap_or_default(),
            usage: answer.usage,
            whole: true,
            ..Self::default()
        }
    }

    /// The words of its thoughts.
    pub(crate) fn words(&self) -> String {
        Thought::words(&self.thoughts).unwrap_or_default()
    }
}

/// One stream on its way.
pub(crate) struct Via {
    frames: Frames,
    reader: Box<dyn Reader>,
    writer: Box<dyn Writer>,
    back: Back,
    /// Choices that were asked for, and those of them that have begun.
    begun: Vec<bool>,
    /// It could not be read.
    broken: Option<Broken>,
    /// What was heard of the provider.
    pub(crate) heard: Heard,
    /// What was heard of choices behind the first.
    pub(crate) others: Vec<Heard>,
    /// What the caller gets.
    pub(crate) out: Vec<u8>,
}

impl Via {
    pub(crate) fn new(from: From, to: In) -> Self {
        Self::of(from, to, 1)
    }

    /// Of an answer with so many choices.
    pub(crate) fn of(from: From, to: In, choices: usize) -> Self {
        Self {
            frames: from.frames(),
            reader: from.reader(),
            writer: to.writer(choices),
            back: Back::default(),
            begun: vec![false; choices],
            broken: None,
            heard: Heard::default(),
            others: vec![Heard::default(); choices - 1],
            out: Vec::new(),
        }
    }

    /// Told this way.
    pub(crate) fn on(self, back: Back) -> Self {
        Self { back, ..self }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Self { frames, reader, writer, back, begun, broken, heard, others, out } = self;
        let mut said = |said: Said<'_>| {
            hear(heard, others, &said);
            let Said::Piece(piece) = said else { return };
            let at = usize::try_from(piece.index).expect("few");
            if !std::mem::replace(&mut begun[at], true) {
                let first = Piece { index: piece.index, usage: heard.usage, ..Piece::default() };
                writer.start(out, &first);
            }
            writer.piece(out, &back.piece(&piece));
        };
        let read = frames.push(bytes, &mut |name, data| reader.event(name, data, &mut said));
        *broken = read.clone().err();
        read
    }

    /// The caller's stream ends here as if the bound on new tokens had been met.
    pub(crate) fn cut_short(mut self) -> (Heard, Vec<u8>) {
        let Self { writer, begun, heard, out, .. } = &mut self;
        if !begun[0] {
            writer.start(out, &Piece { usage: heard.usage, ..Piece::default() });
        }
        if heard.finish.is_none() {
            let finish = Some(Finish::Length);
            writer.piece(out, &Piece { finish, ..Piece::default() });
        }
        writer.end(out, &heard.usage.unwrap_or_default(), &Remark::default());
        (self.heard, self.out)
    }

    /// The provider's stream is over: the caller's ends, or fails.
    pub(crate) fn end(self) -> (Result<(), Broken>, Heard, Vec<u8>) {
        let (ended, heard, _, out) = self.end_all();
        (ended, heard, out)
    }

    /// As [`Via::end`], with what was heard of choices behind the first.
    pub(crate) fn end_all(mut self) -> (Result<(), Broken>, Heard, Vec<Heard>, Vec<u8>) {
        let Self { reader, writer, back, broken, heard, others, out, .. } = &mut self;
        let ended = broken.clone().map_or(Ok(()), Err).and_then(|()| {
            reader.end(&mut |said| {
                hear(heard, others, &said);
                if let Said::Piece(piece) = said {
                    writer.piece(out, &back.piece(&piece));
                }
            })
        });
        let failed = self.heard.failed.clone().map(Broken);
        let ended = ended.and_then(|()| failed.map_or(Ok(()), Err));
        match &ended {
            Ok(()) => {
                let usage = self.heard.usage.unwrap_or_default();
                self.writer.end(&mut self.out, &usage, &Remark::default());
            }
            Err(_) => {
                let error = ApiError::new(ErrorKind::Upstream, "provider_error", "It broke.");
                self.writer.error(&mut self.out, &error);
            }
        }
        (ended, self.heard, self.others, self.out)
    }
}

/// What is said goes to the choice that it is about, or to all.
fn hear(heard: &mut Heard, others: &mut [Heard], said: &Said<'_>) {
    match said {
        Said::Piece(piece) if piece.index > 0 => {
            let at = usize::try_from(piece.index).expect("few");
            others[at - 1].piece(&Piece { index: 0, ..*piece });
        }
        Said::Piece(_) => heard.said(said),
        _ => {
            heard.said(said);
            others.iter_mut().for_each(|other| other.said(said));
        }
    }
}

/// A provider's stream as a caller gets it, and what was heard on the way.
pub(crate) fn streamed(from: From, to: In, bytes: &[u8]) -> (Heard, Vec<u8>) {
    let mut via = Via::new(from, to);
    via.push(bytes).expect("it can be read");
    let (ended, heard, out) = via.end();
    ended.expect("it is whole");
    (heard, out)
}

/// What the caller's own client understands of a stream.
pub(crate) fn client(side: In, bytes: &[u8]) -> Heard {
    clients(side, bytes, 1).remove(0)
}

/// The same of a stream with so many choices.
pub(crate) fn clients(side: In, bytes: &[u8], choices: usize) -> Vec<Heard> {
    let (mut frames, mut reader) = (side.from().frames(), side.from().reader());
    let own = if side == In::Completions {
        completions_client::scores_of_chat(bytes)
    } else {
        bytes.to_vec()
    };
    let mut all = vec![Heard::default(); choices];
    let (heard, others) = all.split_at_mut(1);
    let mut hear = |said: Said<'_>| hear(&mut heard[0], others, &said);
    frames
        .push(&own, &mut |name, data| reader.event(name, data, &mut hear))
        .expect("what is written can be read");
    reader.end(&mut hear).unwrap_or_else(|why| panic!("{side:?}: {why}"));
    all
}

/// A provider's whole answer as a caller gets it, and what was heard on the way.
pub(crate) fn whole(from: From, to: In, body: &[u8]) -> (Answer, Vec<u8>) {
    let answer = from.read(body).expect("it can be read");
    let choices: &[Choice] = &answer.choices;
    let out = to.write(choices, &answer.usage.unwrap_or_default());
    (answer, out)
}
