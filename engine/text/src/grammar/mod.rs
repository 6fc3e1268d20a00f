//! Grammars over tokens: what an answer is held to, token by token.
//!
//! A [`Plan`] says what an answer looks like: thoughts first or not; then free text, text that is
//! held from its first byte, or text that is free until an opening and held from there. The
//! `llguidance` crate compiles what is held (its Lark dialect, with JSON Schema inside) and
//! computes masks; what is free costs no mask. A [`Grammar`] is a compiled plan, shared; a
//! [`State`] is one sequence's place in it.
//!
//! Everything that a caller can make large is bounded: see `limits`. Knows tokens and text, no
//! request and no device.

mod cache;
pub mod ebnf;
pub mod lark;
pub mod schema;
mod state;
mod trial;
mod vocabulary;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory, TokenParser};

use crate::TextModel;
use cache::Cache;
use state::Step;
pub use state::{Allowed, GrammarFault, State};
use vocabulary::Vocabulary;
use watch::{Markers, Watch};

/// Copies of one grammar's lexer. States that share one wait for each other's masks.
const LEXERS_MAX: usize = 4;

/// A lexer keeps what it met. With so many states it is left to those who use it, and the next
/// sequence has a new one, so that none ends for what others wrote before it.
const LEXER_STATES: usize = 10_000;

/// Longest grammar as text. A schema of a hundred properties has 10 KiB.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// What an answer looks like. Streams of bytes hold text and special tokens: see
/// [`lark::Literal`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Thoughts that come, or may come, before the answer.
    pub thinking: Option<Thinking>,
    /// The answer.
    pub answer: Answer,
}

/// Thoughts before an answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Thinking {
    /// What opens them. Empty where only an open one is watched.
    pub opening: Vec<u8>,
    /// What closes them.
    pub closing: Vec<u8>,
    /// The prompt opened them already.
    pub open: bool,
    /// They are closed after so many tokens.
    pub budget: Option<u32>,
}

/// What an answer is held to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Nothing.
    Free,
    /// A grammar in Lark, from its first byte to its end.
    Held(String),
    /// Free until one of the openings; from there, and with it, held to a grammar.
    Opened {
        /// What opens the grammar; part of it.
        openings: Vec<Vec<u8>>,
        /// It counts only at the answer's start, behind white space.
        at_start: bool,
        /// In Lark.
        lark: String,
        /// Free again behind it; otherwise the answer ends with it.
        again: bool,
    },
}

/// Why a plan cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The grammar itself: wrong, too large, or without any answer.
    #[error("{0}")]
    Invalid(String),
    /// This model cannot be held to any.
    #[error("this model cannot be held to a grammar: {0}")]
    Model(String),
}

impl GrammarError {
    pub(crate) fn model(why: impl Into<String>) -> Self {
        Self::Model(why.into())
    }
}

/// Compiles plans for one model and keeps them.
pub struct Grammars {
    vocabulary: Vocabulary,
    factory: ParserFactory,
    cache: Mutex<Cache>,
    /// Cuts text that has no alternative into tokens.
    encoder: Option<Arc<TextModel>>,
}

impl Grammars {
    /// For this model; `ends` are the tokens that end its sequences. Takes some 100 ms for a large
    /// vocabulary.
    ///
    /// # Errors
    /// [`GrammarError::Model`].
    pub fn new(text: &TextModel, ends: &[u32]) -> Result<Self, GrammarError> {
        let vocabulary = Vocabulary::new(text, ends)?;
        let slices = SlicedBiasComputer::general_slices();
        let factory =
            ParserFactory::new(&vocabulary.env(), InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|e| GrammarError::model(e.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { vocabulary, factory, cache: Mutex::default(), encoder: None })
    }

    /// States tell tokens that must come (see [`State::forced`]), cut by this model's tokenizer.
    #[must_use]
    pub fn with_forced(self, text: Arc<TextModel>) -> Self {
        // Grammars kept from before do not know of it.
        Self { encoder: Some(text), cache: Mutex::default(), ..self }
    }

    /// The grammar of a plan, compiled or kept from before.
    ///
    /// # Errors
    /// [`GrammarError::Invalid`], in words for the caller.
    pub fn compile(&self, plan: &Plan) -> Result<Arc<Grammar>, GrammarError> {
        if let Some(grammar) = self.kept(plan) {
            return Ok(grammar);
        }
        let grammar = Arc::new(self.build(plan)?);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(plan, &grammar);
        Ok(grammar)
    }

    /// The grammar of a plan that was compiled before.
    #[must_use]
    pub fn kept(&self, plan: &Plan) -> Option<Arc<Grammar>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(plan)
    }

    fn build(&self, plan: &Plan) -> Result<Grammar, GrammarError> {
        let thinking = match &plan.thinking {
            None => None,
            Some(thinking) => Some(Thought {
                opening: thinking.opening.clone(),
                closing: self.tokens(&thinking.closing)?,
                close: Markers::new([thinking.closing.clone()], false),
                open: thinking.open,
                budget: thinking.budget,
            }),
        };
        let none = || Markers::new([], false);
        let (lark, openings, again) = match &plan.answer {
            Answer::Free => (None, none(), false),
            Answer::Held(lark) => (Some(lark), none(), false),
            Answer::Opened { openings, at_start, lark, again } => {
                (Some(lark), Markers::new(openings.iter().cloned(), *at_start), *again)
            }
        };
        let watches = matches!(plan.answer, Answer::Opened { .. });
        let held = lark.map(|lark| self.parser(lark)).transpose()?;
        Ok(Grammar {
            plan: plan.clone(),
            vocabulary: self.vocabulary.clone(),
            encoder: self.encoder.clone(),
            thinking,
            watches,
            held: held.map(Held::new),
            openings,
            again,
            spoiled: AtomicBool::new(false),
            broken: Mutex::default(),
        })
    }

    fn tokens(&self, stream: &[u8]) -> Result<Vec<u32>, GrammarError> {
        let tokens = self.vocabulary.tokens(stream);
        tokens.ok_or_else(|| GrammarError::model("its vocabulary lacks a byte"))
    }

    fn parser(&self, lark: &str) -> Result<TokenParser, GrammarError> {
        if lark.len() > SOURCE_BYTES_MAX {
            let why = format!("the grammar has {} bytes, at most {SOURCE_BYTES_MAX}", lark.len());
            return Err(GrammarError::Invalid(why));
        }
        let create = |lark: String| {
            let parser = self.factory.create_parser(TopLevelGrammar::from_lark(lark));
            parser.map_err(|error| plain(&error.to_string()))
        };
        let parser = create(lark.to_owned()).map_err(GrammarError::Invalid)?;
        trial::run(create, &self.vocabulary, &parser, lark).map_err(GrammarError::Invalid)?;
        Ok(parser)
    }
}

/// Bounds on time and memory. Figures are measured in docs/structured-output.md.
fn limits() -> ParserLimits {
    ParserLimits {
        // Four for each optional property of an object.
        max_items_in_row: 10_000,
        // 20 ms.
        initial_lexer_fuel: 1_000_000,
        // 4 ms of one mask.
        step_lexer_fuel: 60_000,
        // 1 ms of one mask.
        step_max_items: 20_000,
        // 1 to 2 kB each.
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// The first line says what is wrong; further ones print the grammar.
fn plain(error: &str) -> String {
    // The grammar engine's name for a mask of no token.
    if error.contains("NoExtension") {
        return "no text satisfies it".to_owned();
    }
    let text: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    text.first().map_or_else(String::new, |line| line.chars().take(400).collect())
}

/// For a place in the openings (`true`) or in what closes thoughts.
type Broken = HashMap<(bool, Watch), Arc<Vec<u32>>>;

/// Places whose broken tokens are kept. There are about as many as markers have bytes.
const BROKEN_MAX: usize = 4096;

/// A compiled plan.
pub struct Grammar {
    /// What it was compiled from.
    plan: Plan,
    vocabulary: Vocabulary,
    encoder: Option<Arc<TextModel>>,
    thinking: Option<Thought>,
    /// The answer is free until one of `openings`.
    watches: bool,
    /// What the answer, or what is opened in it, is held to.
    held: Option<Held>,
    openings: Markers,
    again: bool,
    /// A sequence met a bound or a defect of the grammar engine in it.
    spoiled: AtomicBool,
    /// Tokens that would break a border, by where a watch stands. Few states are ever met.
    broken: Mutex<Broken>,
}

/// What is held, at its start. Sequences take turns on a few lexers.
struct Held {
    /// As it was compiled: no sequence uses it.
    fresh: TokenParser,
    /// Up to [`LEXERS_MAX`] copies.
    lexers: Mutex<Vec<TokenParser>>,
    started: AtomicUsize,
}

impl Held {
    fn new(fresh: TokenParser) -> Self {
        Self { fresh, lexers: Mutex::default(), started: AtomicUsize::new(0) }
    }

    fn matcher(&self) -> Box<Matcher> {
        let turn = self.started.fetch_add(1, Ordering::Relaxed) % LEXERS_MAX;
        let mut lexers = self.lexers.lock().unwrap_or_else(PoisonError::into_inner);
        if turn >= lexers.len() {
            lexers.push(self.fresh.deep_clone());
        }
        let turn = turn.min(lexers.len() - 1);
        if lexers[turn].parser.lexer_stats().num_states > LEXER_STATES {
            lexers[turn] = self.fresh.deep_clone();
        }
        Box::new(Matcher::new(Ok(lexers[turn].clone())))
    }

    fn bytes(&self) -> usize {
        let lexers = self.lexers.lock().unwrap_or_else(PoisonError::into_inner);
        let all = lexers.iter().chain([&self.fresh]);
        all.map(|parser| parser.parser.lexer_stats().num_bytes).sum()
    }
}

/// [`Thinking`], ready.
struct Thought {
    opening: Vec<u8>,
    closing: Vec<u32>,
    close: Markers,
    open: bool,
    budget: Option<u32>,
}

impl Grammar {
    /// What it was compiled from: another process compiles the same of it.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A sequence's start.
    #[must_use]
    pub fn start(self: &Arc<Self>) -> State {
        State::new(Arc::clone(self))
    }

    /// Words of a mask: one bit for each token of the tokenizer.
    #[must_use]
    pub fn words(&self) -> usize {
        self.vocabulary.size().div_ceil(32)
    }

    /// It is not kept for later requests: lexers are shared, and what happened to one of them is
    /// not known.
    fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed)
    }

    /// Bytes that it takes, about. Grows with use.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, Held::bytes)
    }

    /// The whole answer is held.
    fn is_held(&self) -> bool {
        self.held.is_some() && !self.watches
    }

    /// The answer's start.
    fn answer(&self) -> Step {
        if self.watches {
            Step::watching(self.openings.watch())
        } else if let Some(held) = &self.held {
            Step::held(held.matcher())
        } else {
            Step::free()
        }
    }

    /// All tokens but those that would end a marker and go on with what must not follow it.
    fn except_broken(
        self: &Arc<Self>,
        markers: &Markers,
        watch: &Watch,
        opens: bool,
        words: &mut [u32],
    ) -> Allowed {
        let key = (opens, watch.clone());
        let known = self.broken.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let broken = known.unwrap_or_else(|| {
            let found = Arc::new(self.find_broken(markers, watch, opens));
            let mut all = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= BROKEN_MAX {
                all.clear();
            }
            all.insert(key, Arc::clone(&found));
            found
        });
        if broken.is_empty() {
            return Allowed::Any;
        }
        words.fill(u32::MAX);
        for &token in &*broken {
            state::forbid(words, token);
        }
        Allowed::Only
    }

    fn find_broken(self: &Arc<Self>, markers: &Markers, watch: &Watch, opens: bool) -> Vec<u32> {
        let mut crossing: Vec<u32> = Vec::new();
        for rest in markers.rests(watch) {
            crossing.extend(self.vocabulary.longer_than(rest).iter().map(|(id, _)| *id));
        }
        crossing.extend(self.vocabulary.holding(&markers.whole(watch).collect::<Vec<_>>()));
        crossing.sort_unstable();
        crossing.dedup();
        crossing.retain(|&token| !self.crosses(markers, watch, opens, token));
        crossing
    }

    /// Whether a token may come that ends a marker and goes on.
    fn crosses(
        self: &Arc<Self>,
        markers: &Markers,
        watch: &Watch,
        opens: bool,
        token: u32,
    ) -> bool {
        let Some(piece) = self.vocabulary.piece(token) else { return false };
        let bytes = piece.bytes();
        let mut watch = watch.clone();
        for (at, &byte) in bytes.iter().enumerate() {
            if let Some(met) = watch.push(markers, byte) {
                return self.follows(opens.then(|| markers.get(met)), &bytes[at + 1..]);
            }
        }
        true
    }

    /// Whether `rest` may stand at the answer's start, behind an opening if there is one.
    fn follows(self: &Arc<Self>, opening: Option<&[u8]>, rest: &[u8]) -> bool {
        match opening {
            Some(opening) => {
                let Some(held) = &self.held else { return false };
                let mut matcher = held.matcher();
                let fed = state::feed(&mut matcher, &self.vocabulary, opening);
                fed.is_ok() && state::feed(&mut matcher, &self.vocabulary, rest).is_ok()
            }
            None => {
                let newlines = rest.iter().take_while(|byte| **byte == b'\n').count().min(2);
                self.answer().accepts(self, &rest[newlines..])
            }
        }
    }
}
