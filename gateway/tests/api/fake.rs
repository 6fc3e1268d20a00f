//! A tokenizer of words and bytes, and an engine that says a fixed sentence. Behind them runs the
//! real scheduler, so that cancels, limits and stops are the real ones.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use gateway::api::{App, Door, Keys, Limits, cache, router};
use gateway::backend::Model;
use gateway::backend::answering::Answering;
use gateway::backend::local::{LocalEngine, Options};
use gateway::metrics::Metrics;
use gateway::models::Models;
use gateway::route::Routes;
use scheduler::types::{
    Batch, Engine, Fault, Logits, Logprobs, PromptLogprobs, Row, Sample, Sampling, StepOutput,
};
use serde_json::json;
use text::tools::Format;
use text::{TextFiles, TextModel};

/// What the engine says. The accent is two tokens, so that streams meet half a character.
pub(crate) const SPEECH: &str = "Hello w\u{f6}rld, one two three.";

const WORDS: [&str; 6] = ["Hello", " w", "rld", " one", " two", " three"];

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'king' %}\
{{ raise_exception('no kings') }}{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The printable stand-in of a byte in byte-level vocabularies (GPT-2's table).
fn stand_in(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(256 + u32::try_from(before).expect("small")).expect("a character")
}

/// Bytes are their own ids; then come beginnings of the words; then special tokens.
pub(crate) fn text_model() -> TextModel {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255_u8 {
        vocab.insert(stand_in(byte).to_string(), json!(byte));
    }
    let mut merges = Vec::new();
    for word in WORDS {
        let letters: Vec<char> = word.bytes().map(stand_in).collect();
        let mut left = letters[0].to_string();
        for letter in &letters[1..] {
            let merged = format!("{left}{letter}");
            if !vocab.contains_key(&merged) {
                let id = vocab.len();
                vocab.insert(merged.clone(), json!(id));
                merges.push(format!("{left} {letter}"));
            }
            left = merged;
        }
    }
    let base = vocab.len();
    let special = |id: usize, content: &str| {
        json!({"id": base + id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<|im_start|>"), special(1, "<|im_end|>"),
            special(2, "<|bos|>")],
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": merges},
    });
    let config = json!({"bos_token": "<|bos|>", "eos_token": "<|im_end|>"});
    TextModel::from_bytes(TextFiles {
        tokenizer_json: tokenizer.to_string().as_bytes(),
        tokenizer_config: Some(config.to_string().as_bytes()),
        chat_template: Some(TEMPLATE),
        ..TextFiles::default()
    })
    .expect("the tokenizer is sound")
}

/// Holds the engine back, step by step.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock().expect("gate") = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock().expect("gate") = false;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("gate");
        drop(self.moved.wait_while(closed, |closed| *closed).expect("gate"));
    }
}

/// Says the speech, then the end token; or goes on for ever.
struct Speaker {
    speech: Vec<u32>,
    eos: u32,
    endless: bool,
    pace: Duration,
    gate: Arc<Gate>,
    ends: Arc<AtomicUsize>,
    steps: Arc<AtomicUsize>,
    launched: Arc<Mutex<Option<Instant>>>,
    fail_at: Option<u64>,
    slots: Vec<(Vec<u32>, usize, Option<u32>)>,
    next: StepOutput,
}

impl Speaker {
    fn score(token: u32, top: u32) -> Logprobs {
        let others = (0..top).zip([-0.5_f32, -1.5, -2.5, -3.5]);
        Logprobs {
            logprob: -0.5,
            rank: 1,
            top: others.map(|(i, logprob)| (token.saturating_sub(i), logprob)).collect(),
        }
    }

    fn row(&mut self, row: &Row) {
        let slot = usize::try_from(row.slot).expect("small");
        let (tokens, prompt_len, logprobs) = self.slots[slot].clone();
        let first = usize::try_from(row.first).expect("small");
        let end = first + usize::try_from(row.len).expect("small");
        let (sample, prompt) = match row.logits {
            Logits::No => (false, None),
            Logits::Sample => (true, None),
            Logits::Prompt { top, sample } => (sample, Some(top)),
        };
        if let Some(top) = prompt {
            let known = (first + 1..=end).filter(|at| *at < prompt_len);
            let entries: Vec<_> = known.map(|at| Self::score(tokens[at], top)).collect();
            let first = row.first + 1;
            self.next.prompt_logprobs.push((row.slot, PromptLogprobs { first, entries }));
        }
        if sample {
            let said = end - prompt_len;
            let token = match self.speech.get(said) {
                Some(token) => *token,
                None if self.endless => u32::from(b'.'),
                None => self.eos,
            };
            let logprobs = logprobs.map(|top| Box::new(Self::score(token, top)));
            self.next.samples.push(Sample { slot: row.slot, token, logprobs, forced: Vec::new() });
        }
    }
}

impl gateway::backend::local::Adapts for Speaker {}

/// Speaks from a script, whatever it is held to.
impl gateway::backend::local::Holds for Speaker {
    fn set_grammar(&mut self, _: u64, _: Arc<text::grammar::Grammar>) {}

    fn drop_grammar(&mut self, _: u64) {}
}

impl Engine for Speaker {
    fn depth(&self) -> usize {
        1
    }

    fn drafts_max(&self) -> u32 {
        0
    }

    fn launch(&mut self, batch: &Batch) {
        if !batch.starts.is_empty() {
            *self.launched.lock().expect("the time") = Some(Instant::now());
        }
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.ends.fetch_add(batch.ends.len(), Ordering::SeqCst);
        self.next = StepOutput { step: batch.step, elapsed_us: 100, ..StepOutput::default() };
        for start in &batch.starts {
            let slot = usize::try_from(start.slot).expect("small");
            if self.slots.len() <= slot {
                self.slots.resize(slot + 1, (Vec::new(), 0, None));
            }
            let prompt_len = usize::try_from(start.prompt_len).expect("small");
            self.slots[slot] = (start.tokens.clone(), prompt_len, start.sampling.logprobs);
        }
        for row in &batch.rows {
            self.row(row);
        }
    }

    fn collect(&mut self, out: &mut StepOutput) -> Result<(), Fault> {
        std::thread::sleep(self.pace);
        self.gate.pass();
        *out = std::mem::take(&mut self.next);
        match self.fail_at {
            Some(step) if out.step >= step => Err(Fault::Dead("the device fell off".to_owned())),
            _ => Ok(()),
        }
    }
}

/// How the fake server is built.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) keys: Vec<&'static str>,
    pub(crate) endless: bool,
    pub(crate) pace: Duration,
    pub(crate) rows: usize,
    pub(crate) waiting: usize,
    pub(crate) context: usize,
    pub(crate) loaded: bool,
    pub(crate) fail_at: Option<u64>,
    /// What the engine says.
    pub(crate) speech: &'static str,
    /// How its calls are written, where it makes some.
    pub(crate) format: Option<&'static Format>,
    /// Who may in, where that is not said by `keys`.
    pub(crate) door: Option<Door>,
    /// Who else may answer.
    pub(crate) routes: Routes,
    /// Answers are given again.
    pub(crate) cache: Option<cache::Settings>,
    /// A step that takes longer hangs.
    pub(crate) hangs: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keys: Vec::new(),
            endless: false,
            pace: Duration::ZERO,
            rows: 8,
            waiting: 64,
            context: 4096,
            loaded: true,
            fail_at: None,
            speech: SPEECH,
            format: None,
            door: None,
            routes: Routes::default(),
            cache: None,
            hangs: None,
        }
    }
}

/// A server without a socket.
pub(crate) struct Fake {
    pub(crate) router: Router,
    pub(crate) models: Arc<Models>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Arc<Gate>,
    /// Slots given back so far, as the engine saw it.
    pub(crate) ends: Arc<AtomicUsize>,
    /// Steps so far.
    pub(crate) steps: Arc<AtomicUsize>,
    /// When a sequence was last started.
    pub(crate) launched: Arc<Mutex<Option<Instant>>>,
}

impl Fake {
    pub(crate) fn start(setup: Setup) -> Self {
        let text = Arc::new(text_model());
        let gate = Arc::new(Gate::default());
        let (ends, steps) = (Arc::default(), Arc::default());
        let launched = Arc::new(Mutex::new(None));
        let eos = text.eos().expect("an end token");
        let speaker = Speaker {
            eos,
            speech: text.encode(setup.speech, false).expect("the speech is text"),
            endless: setup.endless,
            pace: setup.pace,
            gate: Arc::clone(&gate),
            ends: Arc::clone(&ends),
            steps: Arc::clone(&steps),
            launched: Arc::clone(&launched),
            fail_at: setup.fail_at,
            slots: Vec::new(),
            next: StepOutput::default(),
        };
        let pages = setup.rows * setup.context.div_ceil(16);
        let mut config = scheduler::Config::new(setup.rows, pages, setup.context);
        config.waiting_max = setup.waiting;
        let metrics = Metrics::new();
        let options =
            Options { name: "fake".to_owned(), request_timeout: None, step_timeout: setup.hangs };
        let engine = LocalEngine::start(speaker, config, options, metrics.model("org/fake"))
            .expect("a thread");
        let models = Models::new();
        models.add(Model {
            id: "org/fake".to_owned(),
            created: 1_700_000_000,
            context: setup.context,
            answering: Arc::new(Answering::new(&text, &[eos], setup.format)),
            text,
            defaults: Sampling::default(),
            max_tokens_default: None,
            eos: vec![eos],
            engine: engine.into(),
            prefix: gateway::backend::local::PrefixRule::Any,
            adapters: None,
            adapter: None,
        });
        if setup.loaded {
            models.set_loaded();
        }
        let door = setup.door.unwrap_or_else(|| Keys::new(setup.keys).into());
        let (all, count) = (Arc::clone(&models), Arc::clone(&metrics));
        let (others, cache) = ((None, setup.routes), setup.cache);
        let app = App::caching(all, count, door, setup.limits, others, cache);
        Self { router: router(app), models, metrics, gate, ends, steps, launched }
    }

    /// Waits until the engine holds nothing.
    pub(crate) async fn idle(&self) {
        let model = self.models.first().expect("the fake");
        for _ in 0..2_000 {
            if model.engine.open() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut state = String::new();
        let _ = write!(state, "{:?}", model.engine.stats());
        panic!("the engine is still busy: {state}");
    }
}
