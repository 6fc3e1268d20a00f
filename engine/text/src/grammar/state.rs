//! Where one sequence stands in its grammar. A function of the grammar and the tokens so far:
//! whoever knows these can make it again, so nothing else of it is ever kept or moved.

use std::sync::Arc;

use llguidance::Matcher;

use super::Grammar;
use super::vocabulary::{Piece, Vocabulary};
use super::watch::{SPECIAL, Watch};

/// Longest text that is forced at once.
const FORCED_BYTES_MAX: usize = 1024;

/// Newlines that may stand between thoughts and a held answer.
const GAP_MAX: u8 = 2;

/// The sequence cannot go on: a bound of the grammar engine was met, or a token came that was not
/// allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarFault(pub String);

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Any token.
    Any,
    /// The tokens of the mask.
    Only,
}

/// See the module. A clone goes its own way: what it takes, the other has not.
#[derive(Clone)]
pub struct State {
    grammar: Arc<Grammar>,
    phase: Phase,
}

#[derive(Clone)]
enum Phase {
    /// Nothing yet: thoughts may be opened, or the answer begins. So many bytes of the opening are
    /// there; the answer took them too, unless it could not.
    Opening(usize, Option<Step>),
    Thinking {
        watch: Watch,
        used: u32,
    },
    /// The budget is spent: so many tokens of what closes the thoughts were made.
    Closing(usize),
    /// Thoughts are closed; newlines so far.
    Gap(u8),
    Answer(Step),
}

/// Where an answer stands.
#[derive(Clone)]
pub(super) enum Step {
    /// Nothing is asked of it (any more).
    Free,
    /// Free until an opening.
    Watching(Watch),
    Held(Box<Matcher>),
    Ended,
}

impl State {
    pub(super) fn new(grammar: Arc<Grammar>) -> Self {
        let phase = match &grammar.thinking {
            None => Phase::Answer(grammar.answer()),
            Some(thinking) if thinking.open => {
                Phase::Thinking { watch: thinking.close.watch(), used: 0 }
            }
            Some(_) => Phase::Opening(0, Some(grammar.answer())),
        };
        Self { grammar, phase }
    }

    /// Takes a token that was drawn.
    ///
    /// # Errors
    /// It was not allowed, or the grammar engine met one of its bounds.
    pub fn push(&mut self, token: u32) -> Result<(), GrammarFault> {
        let pushed = self.take(token);
        pushed.inspect_err(|_| self.grammar.spoil())
    }

    fn take(&mut self, token: u32) -> Result<(), GrammarFault> {
        let grammar = Arc::clone(&self.grammar);
        let vocabulary = &grammar.vocabulary;
        let Some(piece) = vocabulary.piece(token) else {
            // Models may have logits for more tokens than the tokenizer has. They are no text, and
            // no mask allows them.
            return if matches!(self.phase, Phase::Answer(Step::Held(_))) {
                Err(GrammarFault(format!("token {token} is not in the tokenizer")))
            } else {
                Ok(())
            };
        };
        if vocabulary.ends().contains(&token) {
            return self.end(token);
        }
        match &mut self.phase {
            Phase::Answer(step) => step.push(&grammar, vocabulary.known(token), piece.bytes()),
            Phase::Opening(at, answer) => {
                let opening = &grammar.thinking.as_ref().map_or(&[][..], |t| &t.opening)[*at..];
                let bytes = piece.bytes();
                let common = opening.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                if common == opening.len() {
                    self.think(&grammar)?;
                    return self.follow(&grammar, &bytes[common..]);
                }
                // The answer may begin like the opening, or be all that is left.
                let taken = match answer {
                    Some(step) => step.push(&grammar, vocabulary.known(token), bytes),
                    None => Err(GrammarFault("the thoughts were not opened".to_owned())),
                };
                if common == bytes.len() {
                    *at += common;
                    if taken.is_err() {
                        *answer = None;
                    }
                    return Ok(());
                }
                taken?;
                if let Some(step) = answer.take() {
                    self.phase = Phase::Answer(step);
                }
                Ok(())
            }
            _ => self.follow(&grammar, piece.bytes()),
        }
    }

    /// Writes which tokens may come next: bit `t % 32` of word `t / 32`. `Any`: all of them, and
    /// nothing is written. A mask of no token cannot be: what is complete may end.
    ///
    /// # Errors
    /// The grammar engine met one of its bounds.
    ///
    /// # Panics
    /// `words` is shorter than [`Grammar::words`].
    pub fn allowed(&mut self, words: &mut [u32]) -> Result<Allowed, GrammarFault> {
        let allowed = self.mask(words);
        allowed.inspect_err(|_| self.grammar.spoil())
    }

    fn mask(&mut self, words: &mut [u32]) -> Result<Allowed, GrammarFault> {
        let Self { grammar, phase } = self;
        let vocabulary = &grammar.vocabulary;
        let allowed = match phase {
            Phase::Answer(step) => step.allowed(grammar, words)?,
            Phase::Opening(at, answer) => {
                let thinking = grammar.thinking.as_ref();
                let opening = thinking.map_or(&[][..], |thinking| &thinking.opening[*at..]);
                words.fill(0);
                let answer = match answer {
                    Some(step) => step.allowed(grammar, words)?,
                    None => Allowed::Only,
                };
                if answer == Allowed::Only {
                    allow_beginnings(vocabulary, opening, words);
                }
                answer
            }
            Phase::Thinking { watch, used } => {
                let Some(thinking) = &grammar.thinking else { return Ok(Allowed::Any) };
                if thinking.budget.is_some_and(|most| *used >= most) {
                    *phase = Phase::Closing(0);
                    return self.mask(words);
                }
                let allowed = grammar.except_broken(&thinking.close, watch, false, words);
                if !grammar.is_held() {
                    return Ok(allowed);
                }
                // An answer is owed: it does not end among the thoughts.
                if allowed == Allowed::Any {
                    words.fill(u32::MAX);
                }
                vocabulary.ends().iter().for_each(|end| forbid(words, *end));
                Allowed::Only
            }
            Phase::Closing(at) => {
                words.fill(0);
                let closing = grammar.thinking.as_ref().map_or(&[][..], |t| &t.closing);
                allow(words, closing[*at]);
                Allowed::Only
            }
            Phase::Gap(newlines) => {
                let mut step = grammar.answer();
                let answer = step.allowed(grammar, words)?;
                if answer == Allowed::Only {
                    let fits = |n: &&(u32, u8)| n.1 + *newlines <= GAP_MAX;
                    vocabulary.newlines().iter().filter(fits).for_each(|n| allow(words, n.0));
                }
                answer
            }
        };
        if allowed == Allowed::Only {
            let (size, own) = (vocabulary.size(), grammar.words());
            words[own..].fill(0);
            if size % 32 != 0 {
                words[own - 1] &= (1 << (size % 32)) - 1;
            }
            vocabulary.with_twins(words);
        }
        Ok(allowed)
    }

    /// Appends tokens that must come next: where a grammar leaves one text, a model need not be
    /// asked for it. As the tokenizer cuts that text, but for its last token, which what follows
    /// may be part of. None where the grammar leaves a choice, or is not told how to cut.
    pub fn forced(&mut self, into: &mut Vec<u32>) {
        let Self { grammar, phase } = self;
        let (Phase::Answer(Step::Held(matcher)), Some(encoder)) = (phase, &grammar.encoder) else {
            return;
        };
        let bytes = matcher.compute_ff_bytes();
        let end = bytes.iter().position(|byte| *byte == SPECIAL).unwrap_or(bytes.len());
        let text = bytes[..end.min(FORCED_BYTES_MAX)].utf8_chunks().next();
        let text = text.map_or("", |chunk| chunk.valid());
        // One byte is one token at most, and the last one is not forced.
        if text.len() < 2 {
            return;
        }
        let Ok(mut tokens) = encoder.encode(text, false) else { return };
        tokens.pop();
        let mut rest = text.as_bytes();
        for &token in &tokens {
            // A tokenizer may change a text (a blank in front, say): then it is none of ours.
            let piece = grammar.vocabulary.piece(token);
            let Some(Piece::Text(bytes)) = piece else { return };
            let Some(more) = rest.strip_prefix(bytes) else { return };
            rest = more;
        }
        if matcher.validate_tokens(&tokens).is_ok_and(|valid| valid == tokens.len()) {
            into.extend(tokens);
        }
    }

    /// An end token.
    fn end(&mut self, token: u32) -> Result<(), GrammarFault> {
        if let Phase::Answer(Step::Held(matcher)) = &mut self.phase
            && !matcher.is_stopped()
        {
            matcher.consume_token(token).map_err(|e| fault(&e))?;
            if !matcher.is_stopped() {
                // The grammar has this token inside, as a format's last word may be.
                return Ok(());
            }
        }
        self.phase = Phase::Answer(Step::Ended);
        Ok(())
    }

    fn think(&mut self, grammar: &Grammar) -> Result<(), GrammarFault> {
        let thinking = grammar.thinking.as_ref();
        let thinking = thinking.ok_or_else(|| GrammarFault("no thoughts here".to_owned()))?;
        self.phase = Phase::Thinking { watch: thinking.close.watch(), used: 0 };
        Ok(())
    }

    /// Takes the bytes of one token, or what is left of it behind a border.
    fn follow(&mut self, grammar: &Arc<Grammar>, bytes: &[u8]) -> Result<(), GrammarFault> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.phase {
            Phase::Thinking { watch, used } => {
                let Some(thinking) = &grammar.thinking else { return Ok(()) };
                *used += 1;
                for (at, &byte) in bytes.iter().enumerate() {
                    if watch.push(&thinking.close, byte).is_some() {
                        self.phase = Phase::Gap(0);
                        return self.follow(grammar, &bytes[at + 1..]);
                    }
                }
                Ok(())
            }
            Phase::Closing(at) => {
                *at += 1;
                let closing = grammar.thinking.as_ref().map_or(0, |t| t.closing.len());
                if *at >= closing {
                    self.phase = Phase::Gap(0);
                }
                Ok(())
            }
            Phase::Gap(newlines) => {
                let more = bytes.iter().take_while(|byte| **byte == b'\n').count();
                let total = usize::from(*newlines) + more;
                if more == bytes.len() && total <= usize::from(GAP_MAX) {
                    *newlines += more as u8;
                    return Ok(());
                }
                let kept = usize::from(GAP_MAX - *newlines).min(more);
                let mut step = grammar.answer();
                let pushed = step.push_bytes(grammar, &bytes[kept..]);
                self.phase = Phase::Answer(step);
                pushed
            }
            Phase::Answer(step) => step.push_bytes(grammar, bytes),
            Phase::Opening(..) => Ok(()),
        }
    }
}

impl Step {
    pub(super) fn watching(watch: Watch) -> Self {
        Self::Watching(watch)
    }

    pub(super) fn free() -> Self {
        Self::Free
    }

    pub(super) fn held(matcher: Box<Matcher>) -> Self {
        Self::Held(matcher)
    }

    /// Whether these bytes may stand here.
    pub(super) fn accepts(mut self, grammar: &Arc<Grammar>, bytes: &[u8]) -> bool {
        self.push_bytes(grammar, bytes).is_ok()
    }

    fn push(
        &mut self,
        grammar: &Arc<Grammar>,
        token: u32,
        bytes: &[u8],
    ) -> Result<(), GrammarFault> {
        if let Self::Held(matcher) = self {
            matcher.consume_token(token).map_err(|e| fault(&e))?;
            self.settle(grammar);
            return Ok(());
        }
        self.push_bytes(grammar, bytes)
    }

    fn push_bytes(&mut self, grammar: &Arc<Grammar>, bytes: &[u8]) -> Result<(), GrammarFault> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self {
            Self::Free | Self::Ended => Ok(()),
            Self::Held(matcher) => {
                feed(matcher, &grammar.vocabulary, bytes)?;
                self.settle(grammar);
                Ok(())
            }
            Self::Watching(watch) => {
                for (at, &byte) in bytes.iter().enumerate() {
                    if let Some(met) = watch.push(&grammar.openings, byte) {
                        let Some(held) = &grammar.held else {
                            return Err(GrammarFault("nothing is held here".to_owned()));
                        };
                        let mut matcher = held.matcher();
                        feed(&mut matcher, &grammar.vocabulary, grammar.openings.get(met))?;
                        *self = Self::Held(matcher);
                        return self.push_bytes(grammar, &bytes[at + 1..]);
                    }
                }
                Ok(())
            }
        }
    }

    /// What was held and is complete is free again, where the grammar says so.
    fn settle(&mut self, grammar: &Grammar) {
        if let Self::Held(matcher) = self
            && grammar.again
            && matcher.is_stopped()
            && !matcher.is_error()
        {
            *self = Self::Watching(grammar.openings.watch());
        }
    }

    fn allowed(
        &mut self,
        grammar: &Arc<Grammar>,
        words: &mut [u32],
    ) -> Result<Allowed, GrammarFault> {
        match self {
            Self::Free => return Ok(Allowed::Any),
            Self::Watching(watch) => {
                return Ok(grammar.except_broken(&grammar.openings, watch, true, words));
            }
            Self::Ended => {
                words.fill(0);
                grammar.vocabulary.ends().iter().for_each(|end| allow(words, *end));
            }
            Self::Held(matcher) => {
                let mask = matcher.compute_mask_or_eos().map_err(|e| fault(&e))?;
                let from = &mask.as_slice()[..grammar.words()];
                words[..from.len()].copy_from_slice(from);
                words[from.len()..].fill(0);
            }
        }
        Ok(Allowed::Only)
    }
}

/// Takes bytes of the stream, cut into tokens in any way.
pub(super) fn feed(
    matcher: &mut Matcher,
    vocabulary: &Vocabulary,
    bytes: &[u8],
) -> Result<(), GrammarFault> {
    let Some(tokens) = vocabulary.tokens(bytes) else {
        return Err(GrammarFault("the vocabulary lacks a byte".to_owned()));
    };
    matcher.consume_tokens(&tokens).map_err(|e| fault(&e))
}

fn fault(error: &impl std::fmt::Display) -> GrammarFault {
    let text = error.to_string();
    GrammarFault(text.lines().next().unwrap_or_default().chars().take(300).collect())
}

pub(super) fn allow(words: &mut [u32], token: u32) {
    words[token as usize / 32] |= 1 << (token % 32);
}

pub(super) fn forbid(words: &mut [u32], token: u32) {
    words[token as usize / 32] &= !(1 << (token % 32));
}

/// Allows all tokens that `stream` begins with.
fn allow_beginnings(vocabulary: &Vocabulary, stream: &[u8], words: &mut [u32]) {
    if let [SPECIAL, ..] = stream {
        if let Some(tokens) = vocabulary.tokens(&stream[..5]) {
            tokens.iter().for_each(|token| allow(words, *token));
        }
        return;
    }
    let text = stream.split(|byte| *byte == SPECIAL).next().unwrap_or_default();
    for token in vocabulary.trie().all_prefixes(text) {
        if matches!(vocabulary.piece(token), Some(Piece::Text(_))) {
            allow(words, token);
        }
    }
}
