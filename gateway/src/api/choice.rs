//! One choice of an answer: tokens in, text out, cut at stop strings. What may be shown gathers
//! in `text`, `logprobs` and `token_ids`; a stream takes it away piece by piece, a whole answer
//! leaves it to the end.

use std::collections::VecDeque;

use text::{Detokenizer, StopStrings};
use wire::{Decoding, Finish, TokenLogprob};

use super::voice::Voice;

/// What holds for all choices of a request.
pub(super) struct Rules {
    /// Tokens that end a choice.
    pub(super) stop_tokens: Vec<u32>,
    /// Stop strings and stop tokens stay in the text.
    pub(super) include_stop: bool,
    /// Stop strings do not count before this many tokens.
    pub(super) min_tokens: u64,
    /// Nothing is shown: the caller wants the prompt's scores alone.
    pub(super) mute: bool,
}

/// A token whose text is not wholly shown yet.
struct Pending {
    /// Where its text starts and ends, in bytes from the first token's start.
    start: usize,
    end: usize,
    id: u32,
    entry: Option<TokenLogprob>,
}

/// One choice.
pub(super) struct Choice {
    /// Its number in the answer.
    pub(super) index: u32,
    /// Text that may be shown; with a voice, it has it.
    pub(super) text: String,
    /// Reads content, thoughts and calls out of the text.
    pub(super) voice: Option<Voice>,
    /// Its tokens' log-probabilities, when asked for.
    pub(super) logprobs: Option<Vec<TokenLogprob>>,
    /// Its tokens, when asked for.
    pub(super) token_ids: Option<Vec<u32>>,
    /// Tokens made, up to the stop.
    pub(super) tokens: u64,
    /// Why it ended, once it has.
    pub(super) finish: Option<Finish>,
    /// A stream has sent an event of it.
    pub(super) begun: bool,
    /// A stream has sent its last event.
    closed: bool,
    detokenizer: Detokenizer,
    stops: StopStrings,
    /// Bytes of text made, and of these, shown before stop strings were watched.
    made: usize,
    direct: usize,
    pending: VecDeque<Pending>,
}

impl Choice {
    pub(super) fn new(
        index: u32,
        decoding: &Decoding,
        (detokenizer, stops): (Detokenizer, StopStrings),
        voice: Option<Voice>,
    ) -> Self {
        Self {
            index,
            text: String::new(),
            voice,
            logprobs: decoding.logprobs.map(|_| Vec::new()),
            token_ids: decoding.return_token_ids.then(Vec::new),
            tokens: 0,
            finish: None,
            begun: false,
            closed: false,
            detokenizer,
            stops,
            made: 0,
            direct: 0,
            pending: VecDeque::new(),
        }
    }

    /// Takes a token. `true`: its text met a stop string, and the engine need not go on.
    pub(super) fn push(
        &mut self,
        rules: &Rules,
        id: u32,
        entry: Option<TokenLogprob>,
        special: bool,
    ) -> bool {
        if rules.mute || self.finish.is_some() {
            return false;
        }
        self.tokens += 1;
        let start = self.made;
        let silent = !rules.include_stop && rules.stop_tokens.contains(&id);
        let new = if silent { "" } else { self.detokenizer.push(id) };
        self.made += new.len();
        if let Some(voice) = &mut self.voice {
            voice.token(self.made, Some(id).filter(|_| special && !silent));
        }
        if self.tokens < rules.min_tokens {
            self.direct += new.len();
            self.text.push_str(new);
        } else {
            self.text.push_str(self.stops.push(new).emit);
        }
        if self.logprobs.is_some() || self.token_ids.is_some() {
            let entry = entry.map(|entry| TokenLogprob { hidden: entry.hidden || silent, ..entry });
            self.pending.push_back(Pending { start, end: self.made, id, entry });
        }
        let hit = self.stops.hit().is_some();
        if hit {
            self.finish(Finish::Stop);
            self.cut();
        } else {
            self.read();
            self.settle(self.shown());
        }
        hit
    }

    /// The engine has ended it: what was held back is shown.
    pub(super) fn end(&mut self, reason: Finish) {
        if self.finish.is_some() {
            return;
        }
        let rest = self.detokenizer.flush();
        self.made += rest.len();
        self.text.push_str(self.stops.push(rest).emit);
        if self.stops.hit().is_some() {
            self.finish(Finish::Stop);
            self.cut();
        } else {
            self.text.push_str(self.stops.flush());
            self.finish(reason);
            self.settle(usize::MAX);
        }
    }

    /// Hands the text that may be shown to the voice.
    fn read(&mut self) {
        let shown = self.shown();
        if let Some(voice) = &mut self.voice {
            voice.show(&self.text, shown);
            self.text.clear();
        }
    }

    /// The choice is over. One that made calls waits for their results.
    fn finish(&mut self, reason: Finish) {
        self.read();
        let mut reason = reason;
        if let Some(voice) = &mut self.voice {
            voice.end();
            if voice.calls() && reason == Finish::Stop {
                reason = Finish::ToolCalls;
            }
        }
        self.finish = Some(reason);
    }

    /// Whether a stream has something to send. Tokens without text wait for the next text.
    pub(super) fn has_news(&self) -> bool {
        let news = match &self.voice {
            Some(voice) => voice.has_news(),
            None => !self.text.is_empty(),
        };
        !self.closed && (news || self.finish.is_some())
    }

    /// A stream has sent what there was.
    pub(super) fn taken(&mut self) {
        self.begun = true;
        self.closed = self.finish.is_some();
        self.text.clear();
        self.logprobs.iter_mut().for_each(Vec::clear);
        self.token_ids.iter_mut().for_each(Vec::clear);
    }

    /// The stop string that ended it.
    pub(super) fn stop(&self) -> Option<&str> {
        self.stops.met()
    }

    fn shown(&self) -> usize {
        self.direct + self.stops.emitted_bytes()
    }

    /// Shows the tokens that end within the text shown.
    fn settle(&mut self, shown: usize) {
        while self.pending.front().is_some_and(|token| token.end <= shown) {
            self.show_first();
        }
    }

    /// Shows the tokens that have a part in the text shown, and forgets the others.
    fn cut(&mut self) {
        let shown = self.shown();
        while self.pending.front().is_some_and(|t| t.start < shown || t.end <= shown) {
            self.show_first();
        }
        self.pending.clear();
    }

    fn show_first(&mut self) {
        let Some(token) = self.pending.pop_front() else { return };
        if let Some(ids) = &mut self.token_ids {
            ids.push(token.id);
        }
        if let (Some(all), Some(entry)) = (&mut self.logprobs, token.entry) {
            all.push(entry);
        }
    }
}
