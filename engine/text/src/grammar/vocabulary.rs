//! A model's tokens as the grammar engine sees them: a trie of their bytes.
//!
//! Special tokens stand apart from all text (see `watch`), so a string of a schema can never be
//! answered with an end-of-turn token. End tokens are those that end a sequence of this model.

use std::sync::Arc;

use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::GrammarError;
use super::watch::{SPECIAL, special};
use crate::TextModel;

/// Tokens, by their bytes.
#[derive(Clone)]
pub(crate) struct Vocabulary {
    env: Arc<Env>,
}

struct Env {
    trie: TokTrie,
    ends: Vec<u32>,
    /// Tokens of newlines alone, and how many.
    newlines: Vec<(u32, u8)>,
    /// Tokens whose bytes another token has too; the trie knows the other one only.
    twins: Vec<(u32, u32)>,
}

/// The trie holds no longer tokens; real ones (runs of spaces) end at 1024.
const TOKEN_BYTES_MAX: usize = 1024;

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.trie.greedy_tokenize(bytes)
    }

    /// The trie's own cut of a text is not the tokenizer's.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// A token's part in the stream.
pub(crate) enum Piece<'a> {
    Text(&'a [u8]),
    Special([u8; 5]),
}

impl Piece<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            Self::Special(bytes) => bytes,
        }
    }
}

impl Vocabulary {
    /// Of this model; `ends` are the tokens that end its sequences.
    pub(crate) fn new(text: &TextModel, ends: &[u32]) -> Result<Self, GrammarError> {
        let size = text.vocab_size();
        let Some((&end, _)) = ends.split_first() else {
            return Err(GrammarError::model("the model has no end token"));
        };
        if let Some(id) = ends.iter().find(|id| **id as usize >= size) {
            return Err(GrammarError::model(format!("the end token {id} is not in the tokenizer")));
        }
        let word = |id: u32| {
            let bytes = text.token_bytes(id);
            if text.is_special(id) || ends.contains(&id) || bytes.first() == Some(&SPECIAL) {
                // The spelling is for messages; the id makes it the only one of its kind.
                [&[SPECIAL], format!("<{id}>").as_bytes()].concat()
            } else if bytes.len() > TOKEN_BYTES_MAX {
                Vec::new()
            } else {
                bytes.to_vec()
            }
        };
        let mut words: Vec<Vec<u8>> = (0..size as u32).map(word).collect();
        if words.is_empty() {
            return Err(GrammarError::model("the tokenizer is empty"));
        }
        let twins = take_twins(&mut words);
        let info = TokRxInfo::new(size as u32, end);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(ends);
        let newlines = [1, 2].map(|n| (trie.token_id_at_bytes(&b"\n\n"[..n]), n as u8));
        let newlines = newlines.into_iter().filter_map(|(id, n)| Some((id?, n))).collect();
        Ok(Self { env: Arc::new(Env { trie, ends: ends.to_vec(), newlines, twins }) })
    }

    /// What holds for a token's bytes holds for its twins.
    pub(crate) fn with_twins(&self, words: &mut [u32]) {
        for &(known, twin) in &self.env.twins {
            let allowed = words[known as usize / 32] >> (known % 32) & 1;
            words[twin as usize / 32] |= allowed << (twin % 32);
        }
    }

    /// The token of the same bytes that the trie knows.
    pub(crate) fn known(&self, id: u32) -> u32 {
        let at = self.env.twins.binary_search_by_key(&id, |(_, twin)| *twin);
        at.map_or(id, |at| self.env.twins[at].0)
    }

    pub(crate) fn env(&self) -> TokEnv {
        Arc::<Env>::clone(&self.env)
    }

    pub(crate) fn trie(&self) -> &TokTrie {
        &self.env.trie
    }

    /// Number of ids.
    pub(crate) fn size(&self) -> usize {
        self.env.trie.vocab_size()
    }

    pub(crate) fn ends(&self) -> &[u32] {
        &self.env.ends
    }

    pub(crate) fn newlines(&self) -> &[(u32, u8)] {
        &self.env.newlines
    }

    /// A token in the stream; `None` outside the vocabulary.
    pub(crate) fn piece(&self, id: u32) -> Option<Piece<'_>> {
        if id as usize >= self.size() {
            return None;
        }
        match self.env.trie.token(self.known(id)) {
            [SPECIAL, ..] => Some(Piece::Special(special(id))),
            bytes => Some(Piece::Text(bytes)),
        }
    }

    /// Tokens of a stretch of the stream, cut in any way; `None` where the vocabulary lacks a byte.
    pub(crate) fn tokens(&self, mut stream: &[u8]) -> Option<Vec<u32>> {
        let mut tokens = Vec::new();
        while !stream.is_empty() {
            if let [SPECIAL, a, b, c, d, rest @ ..] = stream {
                tokens.push(u32::from_le_bytes([*a, *b, *c, *d]));
                stream = rest;
                continue;
            }
            let end = stream.iter().position(|b| *b == SPECIAL).unwrap_or(stream.len());
            let (text, rest) = stream.split_at(end);
            let cut = self.env.trie.greedy_tokenize(text);
            let length: usize = cut.iter().map(|id| self.env.trie.token(*id).len()).sum();
            if length != text.len() {
                return None;
            }
            tokens.extend(cut);
            stream = rest;
        }
        Some(tokens)
    }

    /// Tokens that begin with `bytes` and go on behind them, with what follows.
    pub(crate) fn longer_than<'a>(&'a self, bytes: &[u8]) -> Vec<(u32, &'a [u8])> {
        let trie = self.trie();
        let mut found = Vec::new();
        let Some(top) = trie.child_at_bytes(trie.root(), bytes) else { return found };
        let mut open: Vec<_> = trie.node_children(top).collect();
        while let Some(node) = open.pop() {
            if let Some(id) = node.token_id() {
                found.push((id, &trie.token(id)[bytes.len()..]));
            }
            open.extend(trie.node_children(node));
        }
        found
    }

    /// Tokens of text that hold one of `markers`, but not at their end. One pass over all tokens.
    pub(crate) fn holding(&self, markers: &[&[u8]]) -> Vec<u32> {
        let mut begins: Vec<Vec<&[u8]>> = vec![Vec::new(); 256];
        for marker in markers {
            if let Some(&first) = marker.first() {
                begins[usize::from(first)].push(marker);
            }
        }
        let holds = |id: &u32| {
            let token = self.trie().token(*id);
            let inside = |(at, byte): (usize, &u8)| {
                let ends = |marker: &&[u8]| token[at..].strip_prefix(*marker);
                let rests = begins[usize::from(*byte)].iter().filter_map(ends);
                rests.into_iter().any(|rest| !rest.is_empty())
            };
            token.first() != Some(&SPECIAL) && token.iter().enumerate().any(inside)
        };
        (0..self.size() as u32).filter(holds).collect()
    }
}

/// Empties words that stand there before; (the one before, the emptied one), by the latter.
fn take_twins(words: &mut [Vec<u8>]) -> Vec<(u32, u32)> {
    let mut first = std::collections::HashMap::with_capacity(words.len());
    let mut twins = Vec::new();
    for (id, word) in (0..).zip(words.iter()) {
        if !word.is_empty()
            && let Some(known) = first.insert(word.as_slice(), id)
        {
            first.insert(word.as_slice(), known);
            twins.push((known, id));
        }
    }
    for &(_, twin) in &twins {
        words[twin as usize].clear();
    }
    twins
}
