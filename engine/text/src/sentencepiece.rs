//! `tokenizer.model`: a SentencePiece model, the form that came before tokenizer.json.
//!
//! Reads the few fields that say how a text is normalised and which pieces there are. What they
//! mean is written in `description`. Schema: sentencepiece, `src/sentencepiece_model.proto`.

use crate::TextError;
use crate::description::{NORMAL, Pieces};
use crate::protobuf::{Field, Fields};

/// The largest published vocabularies have about 260 000 pieces.
const PIECES_MAX: usize = 1 << 22;

/// How a text is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The likeliest sequence of pieces.
    Unigram,
    /// Pairs are joined, best piece first.
    Bpe,
}

/// A model file, read.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    pub(crate) kind: Kind,
    pub(crate) pieces: Pieces,
    pub(crate) byte_fallback: bool,
    pub(crate) unk: Option<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
    /// Replacements of characters, compiled into a trie.
    pub(crate) charsmap: Vec<u8>,
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
    pub(crate) escape_whitespaces: bool,
}

/// Ids as the trainer wrote them; -1 stands for none.
struct Trainer {
    kind: u64,
    byte_fallback: bool,
    whitespace_as_suffix: bool,
    unk: i64,
    bos: i64,
    eos: i64,
    pad: i64,
}

impl SentencePiece {
    pub(crate) fn parse(file: &str, bytes: &[u8]) -> Result<SentencePiece, TextError> {
        parse(bytes).map_err(|reason| TextError::invalid(file, reason))
    }
}

fn parse(bytes: &[u8]) -> Result<SentencePiece, String> {
    let mut trainer = Trainer {
        kind: 1,
        byte_fallback: false,
        whitespace_as_suffix: false,
        unk: 0,
        bos: 1,
        eos: 2,
        pad: -1,
    };
    let mut model = SentencePiece {
        kind: Kind::Unigram,
        pieces: Pieces::default(),
        byte_fallback: false,
        unk: None,
        bos: None,
        eos: None,
        pad: None,
        charsmap: Vec::new(),
        add_dummy_prefix: true,
        remove_extra_whitespaces: true,
        escape_whitespaces: true,
    };
    for field in Fields::new(bytes) {
        match field? {
            (1, piece) => add_piece(&mut model.pieces, piece.bytes()?)?,
            (2, spec) => read_trainer(&mut trainer, spec.bytes()?)?,
            (3, spec) => read_normalizer(&mut model, spec.bytes()?)?,
            (5, spec) => refuse_denormalizer(spec.bytes()?)?,
            _ => {}
        }
    }
    model.kind = match trainer.kind {
        1 => Kind::Unigram,
        2 => Kind::Bpe,
        other => {
            return Err(format!(
                "SentencePiece model type {other} is not supported; supported: 1 (unigram), 2 (bpe)"
            ));
        }
    };
    if trainer.whitespace_as_suffix {
        return Err("treat_whitespace_as_suffix is not supported".into());
    }
    let count = model.pieces.tokens.len();
    if count == 0 {
        return Err("no pieces".into());
    }
    let id = |name: &str, id: i64| match u32::try_from(id) {
        Ok(id) if (id as usize) < count => Ok(Some(id)),
        Ok(id) => Err(format!("{name} piece {id} is outside the {count} pieces")),
        Err(_) => Ok(None),
    };
    model.byte_fallback = trainer.byte_fallback;
    model.unk = id("unknown", trainer.unk)?;
    // The trainer's defaults stand in files that have no such piece.
    model.bos = id("bos", trainer.bos).unwrap_or(None);
    model.eos = id("eos", trainer.eos).unwrap_or(None);
    model.pad = id("padding", trainer.pad)?;
    Ok(model)
}

fn add_piece(pieces: &mut Pieces, message: &[u8]) -> Result<(), String> {
    let (mut text, mut score, mut kind) = (None, 0.0, NORMAL);
    for field in Fields::new(message) {
        match field? {
            (1, piece) => text = Some(piece.text()?),
            (2, value) => score = value.float()?,
            (3, value) => kind = i32::try_from(value.number()?).unwrap_or(0),
            _ => {}
        }
    }
    let id = pieces.tokens.len();
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Err(format!("piece {id} has no text"));
    };
    if !(1..=6).contains(&kind) {
        return Err(format!("piece {id} has the unknown type {kind}"));
    }
    if !score.is_finite() {
        return Err(format!("piece {id} has the score {score}"));
    }
    if id == PIECES_MAX {
        return Err(format!("more than {PIECES_MAX} pieces"));
    }
    pieces.tokens.push(text.to_owned());
    pieces.scores.push(score);
    pieces.types.push(kind);
    Ok(())
}

fn read_trainer(trainer: &mut Trainer, message: &[u8]) -> Result<(), String> {
    for field in Fields::new(message) {
        match field? {
            (3, value) => trainer.kind = value.number()?,
            (24, value) => trainer.whitespace_as_suffix = value.flag()?,
            (35, value) => trainer.byte_fallback = value.flag()?,
            (40, value) => trainer.unk = value.signed()?,
            (41, value) => trainer.bos = value.signed()?,
            (42, value) => trainer.eos = value.signed()?,
            (43, value) => trainer.pad = value.signed()?,
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(model: &mut SentencePiece, message: &[u8]) -> Result<(), String> {
    for field in Fields::new(message) {
        match field? {
            (2, value) => model.charsmap = value.bytes()?.to_vec(),
            (3, value) => model.add_dummy_prefix = value.flag()?,
            (4, value) => model.remove_extra_whitespaces = value.flag()?,
            (5, value) => model.escape_whitespaces = value.flag()?,
            _ => {}
        }
    }
    Ok(())
}

/// Rules for the way back to text: no published model has any.
fn refuse_denormalizer(message: &[u8]) -> Result<(), String> {
    for field in Fields::new(message) {
        if let (2, Field::Bytes([_, ..])) = field? {
            return Err("a denormalizer is not supported".into());
        }
    }
    Ok(())
}
