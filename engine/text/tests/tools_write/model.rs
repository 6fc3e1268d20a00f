//! A model with the special tokens of all formats, and one to which all of them are text.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) use hearth_tests::simulation::random::Random;
use serde_json::{Map, Value, json};
use text::grammar::{Allowed, Grammars, Plan, State};
use text::{TextFiles, TextModel};

const ENDS: [&str; 3] = ["<|im_end|>", "<|call|>", "<|return|>"];

/// Special tokens of the formats.
const SPECIAL: [&str; 27] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|constrain|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|tool_call|>",
    "<|/tool_call|>",
];

const ACTIONS: [&str; 2] = ["<|START_ACTION|>", "<|END_ACTION|>"];

/// Tokens of text that end one part of a call and begin the next.
const LONGER: [&str; 12] = [
    "\":",
    "\",",
    "}}",
    "\"}",
    "{\"",
    "</",
    ">\n",
    "\n<",
    "\n\n",
    "'))",
    "\n</parameter>",
    "null<",
];

/// Where `part` begins in `bytes`.
fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// A model and its grammars.
pub(crate) struct Model {
    pub(crate) text: TextModel,
    grammars: Grammars,
    special: Vec<u32>,
    ends: Vec<u32>,
}

/// The model with special tokens, and the one without.
pub(crate) fn models() -> &'static [Model; 2] {
    static MODELS: OnceLock<[Model; 2]> = OnceLock::new();
    MODELS.get_or_init(|| [true, false].map(Model::new))
}

/// How byte-level tokenizers spell bytes.
fn letter(byte: u8) -> char {
    let plain = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !plain(*byte)).count() as u32;
    char::from_u32(256 + before).expect("a letter")
}

fn tokenizer(special: bool) -> String {
    let spelled = |text: &str| text.bytes().map(letter).collect::<String>();
    let bytes = (0..=255).map(|byte| letter(byte).to_string());
    let words: Vec<String> = bytes.chain(LONGER.map(spelled)).collect();
    let vocab: Map<String, Value> = words.iter().cloned().zip((0..).map(Value::from)).collect();
    let of_formats = SPECIAL.iter().chain(&ACTIONS).filter(|_| special);
    let added = (words.len()..).zip(ENDS.iter().chain(of_formats));
    let added: Vec<Value> = added
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
    .to_string()
}

impl Model {
    pub(crate) fn new(special: bool) -> Self {
        let json = tokenizer(special);
        let files = TextFiles { tokenizer_json: json.as_bytes(), ..TextFiles::default() };
        let text = TextModel::from_bytes(files).expect("a model");
        let ends = ENDS.map(|end| text.token_id(end).expect("an end")).to_vec();
        let grammars = Grammars::new(&text, &ends).expect("grammars");
        let ids = 0..text.vocab_size() as u32;
        let special = ids.filter(|id| text.is_special(*id)).collect();
        Self { text, grammars, special, ends }
    }

    fn start(&self, plan: &Plan) -> State {
        let grammar = self.grammars.compile(plan);
        grammar.unwrap_or_else(|error| panic!("{error}: {plan:?}")).start()
    }

    /// Compiles a plan as if for the first time: how long it took.
    pub(crate) fn compile_anew(&self, plan: &Plan) -> Duration {
        let grammars = Grammars::new(&self.text, &self.ends).expect("grammars");
        let begun = Instant::now();
        grammars.compile(plan).expect("a grammar");
        begun.elapsed()
    }

    /// All tokens that may come.
    fn allowed(&self, state: &mut State) -> Vec<u32> {
        let size = self.text.vocab_size();
        let mut words = vec![0; size.div_ceil(32)];
        let all = 0..size as u32;
        match state.allowed(&mut words).expect("a mask") {
            Allowed::Any => all.collect(),
            Allowed::Only => all.filter(|t| words[*t as usize / 32] >> (t % 32) & 1 == 1).collect(),
        }
    }

    /// Draws any allowed token until an end; `None` where `most` tokens were not enough.
    pub(crate) fn run(&self, plan: &Plan, random: &mut Random, most: usize) -> Option<Vec<u32>> {
        let mut state = self.start(plan);
        let mut tokens = Vec::new();
        for _ in 0..most {
            let may = self.allowed(&mut state);
            let token = may[random.index(may.len())];
            state.push(token).expect("an allowed token");
            if self.ends.contains(&token) {
                return Some(tokens);
            }
            tokens.push(token);
        }
        None
    }

    /// Feeds a text cut into tokens at random, special tokens where they are spelled; whether all
    /// of it was taken and the answer may end.
    pub(crate) fn takes(&self, plan: &Plan, said: &str, random: &mut Random) -> bool {
        self.taken(plan, said, random).is_ok()
    }

    /// Its tokens, or what was left when no token fitted.
    pub(crate) fn taken(
        &self,
        plan: &Plan,
        said: &str,
        random: &mut Random,
    ) -> Result<Vec<u32>, String> {
        let mut tokens = Vec::new();
        let mut state = self.start(plan);
        let mut rest = said.as_bytes();
        while !rest.is_empty() {
            let may = self.allowed(&mut state);
            let at = |token: &u32| find(rest, self.text.token_bytes(*token));
            let special = self.special.iter().filter_map(|token| Some((at(token)?, *token))).min();
            let (plain, special) = special
                .map_or((rest, None), |(at, token)| (&rest[..at], Some(token).filter(|_| at == 0)));
            let begins = |token: u32| {
                let bytes = self.text.token_bytes(token);
                special == Some(token) || !bytes.is_empty() && plain.starts_with(bytes)
            };
            let fits: Vec<u32> = may.into_iter().filter(|token| begins(*token)).collect();
            if fits.is_empty() {
                return Err(String::from_utf8_lossy(rest).into_owned());
            }
            let token = fits[random.index(fits.len())];
            state.push(token).expect("an allowed token");
            rest = &rest[self.text.token_bytes(token).len()..];
            tokens.push(token);
        }
        let may = self.allowed(&mut state);
        let ended = may.iter().any(|token| self.ends.contains(token));
        if ended { Ok(tokens) } else { Err("it may not end".to_owned()) }
    }
}
