//! A model's words: text to tokens and back, and conversations to text.
//!
//! Loaded once, then shared and never changed. Encoding is the `tokenizers` crate's; decoding is
//! ours (see `decode`), because it has to stream; templates are in `chat`.
//!
//! The `tokenizers` crate asserts things about its files that a hostile or broken file violates,
//! and reports some of them by panicking. Those panics are caught here, at load and at each
//! encoding, and become errors. This relies on unwinding; with `panic = "abort"` a broken
//! tokenizer.json stops the process instead.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer};

use crate::chat::{ChatInput, Templates};
use crate::decode::{DecodeState, Decoder};
use crate::description::{self, Pair};
use crate::files::{Config, Directory, TextFiles};
use crate::{Detokenizer, GgufVocab, TemplateError, TextError, folder};

const TOKENIZER_JSON: &str = "tokenizer.json";

/// Tokenizer and chat templates of one model.
#[derive(Debug)]
pub struct TextModel {
    pub(crate) tokenizer: Tokenizer,
    decoder: Decoder,
    special: HashSet<u32>,
    /// Characters that spellings of special tokens begin with, and bytes of the longest.
    special_begins: (HashSet<char>, usize),
    bos: Option<u32>,
    eos: Option<u32>,
    pub(crate) templates: Templates,
    /// What was decoded with, as it came: the library gives it back in other words.
    pub(crate) decoding: Decoding,
}

/// What a decoder is made of beside the vocabulary.
#[derive(Debug)]
pub(crate) struct Decoding {
    /// The `decoder` of tokenizer.json.
    pub(crate) json: Value,
    pub(crate) clean_up: bool,
    /// Ids that the file spells otherwise than the library: it keeps one of two alike.
    pub(crate) respelled: Vec<(u32, String)>,
}

/// The parts of tokenizer.json that the `tokenizers` crate does not give back.
#[derive(serde::Deserialize)]
struct Outline {
    #[serde(default)]
    decoder: Value,
    model: OutlineModel,
}

#[derive(serde::Deserialize)]
struct OutlineModel {
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

impl TextModel {
    /// Loads `tokenizer.json` and what lies beside it: `tokenizer_config.json`,
    /// `special_tokens_map.json`, `chat_template.jinja`, `chat_template.json` and
    /// `additional_chat_templates/`. Only the first must exist, or in its place one of the older
    /// forms: `tokenizer.model`, `vocab.json` with `merges.txt`, or `vocab.txt`.
    ///
    /// A chat template that does not compile is no reason to refuse the model: it is reported by
    /// [`TextModel::chat_template_error`] and by [`TextModel::render_chat`].
    ///
    /// # Errors
    /// A file that cannot be read or used, by name and with the reason.
    pub fn from_dir(dir: &Path) -> Result<TextModel, TextError> {
        let read = Directory::read(dir)?;
        let files = read.files();
        let located = |error| in_directory(error, dir);
        let mut config = Config::parse(&files).map_err(located)?;
        for template in &read.templates {
            config.set_template(&template.name, &template.source, &template.file);
        }
        TextModel::from_files(&files, config).map_err(located)
    }

    /// The same from memory.
    ///
    /// # Errors
    /// As [`TextModel::from_dir`].
    pub fn from_bytes(files: TextFiles<'_>) -> Result<TextModel, TextError> {
        TextModel::from_files(&files, Config::parse(&files)?)
    }

    /// From the tokenizer keys of a GGUF header.
    ///
    /// # Errors
    /// A vocabulary that contradicts itself; a kind or a splitting rule that is not built in.
    #[expect(clippy::needless_pass_by_value, reason = "the caller is done with the vocabulary")]
    pub fn from_gguf(vocab: GgufVocab) -> Result<TextModel, TextError> {
        let json = vocab.tokenizer_json()?;
        let mut config = Config { special: vocab.special_tokens(), ..Config::default() };
        if let Some(source) = &vocab.chat_template {
            config.set_template("default", source, "tokenizer.chat_template");
        }
        let mut model = TextModel::build(&json, config, &vocab.words())?;
        model.bos = vocab.bos;
        model.eos = vocab.eos;
        Ok(model)
    }

    fn from_files(files: &TextFiles<'_>, mut config: Config) -> Result<TextModel, TextError> {
        if files.tokenizer_json.is_empty()
            && let Some(made) = folder::describe(files, &mut config)?
        {
            return TextModel::build(&made.json, config, &made.listed);
        }
        let wishes = (config.options.add_bos, config.options.add_eos);
        let encoder = config.special.contains_key("cls_token");
        let mut model = TextModel::build(files.tokenizer_json, config, &[])?;
        if wishes != (None, None) && !encoder {
            let (bos, eos) = (wishes.0.unwrap_or(false), wishes.1.unwrap_or(false));
            model.set_frame(bos, eos).map_err(|e| TextError::invalid(TOKENIZER_JSON, e))?;
        }
        Ok(model)
    }

    /// `add_bos_token` and `add_eos_token` of the configuration replace what tokenizer.json puts
    /// around a text, as in transformers 5. Encoders have other tokens there and keep theirs.
    fn set_frame(&mut self, bos: bool, eos: bool) -> Result<(), String> {
        let token = |id: Option<u32>, wish: bool| {
            let id = id.filter(|_| wish)?;
            Some((self.tokenizer.id_to_token(id)?, id))
        };
        let (bos, eos) = (token(self.bos, bos), token(self.eos, eos));
        fn named(token: Option<&(String, u32)>) -> Option<(&str, u32)> {
            token.map(|(token, id)| (token.as_str(), *id))
        }
        let frame = description::frame(named(bos.as_ref()), named(eos.as_ref()), Pair::Both);
        let processor: PostProcessorWrapper =
            serde_json::from_value(frame).map_err(|e| e.to_string())?;
        self.tokenizer.with_post_processor(Some(processor));
        Ok(())
    }

    fn build(
        tokenizer_json: &[u8],
        config: Config,
        listed: &[String],
    ) -> Result<TextModel, TextError> {
        let invalid = |reason: String| TextError::invalid(TOKENIZER_JSON, reason);
        let outline: Outline =
            serde_json::from_slice(tokenizer_json).map_err(|e| invalid(e.to_string()))?;
        let mut tokenizer = contained(|| Tokenizer::from_bytes(tokenizer_json)).map_err(invalid)?;
        // Files often carry the limits of their training; a server has its own.
        tokenizer.with_truncation(None).map_err(|e| invalid(e.to_string()))?;
        tokenizer.with_padding(None);
        add_named_tokens(&mut tokenizer, &config).map_err(invalid)?;

        let respelled = (0..)
            .zip(listed)
            .filter(|(id, token)| tokenizer.id_to_token(*id).as_ref() != Some(*token));
        let respelled = respelled.map(|(id, token)| (id, token.clone())).collect();
        // Transformers ignores the wish for BPE models, where it would eat real spaces.
        let clean_up = config.clean_up_spaces && outline.model.kind.as_deref() != Some("BPE");
        let decoding = Decoding { json: outline.decoder, clean_up, respelled };
        let named = |key: &str| {
            config.special.get(key).and_then(Value::as_str).and_then(|t| tokenizer.token_to_id(t))
        };
        let ends = (named("bos_token"), named("eos_token"));
        let templates = Templates::new(config.special, &config.templates);
        TextModel::assemble(tokenizer, decoding, ends, templates)
    }

    /// Of its parts; `ends` are the tokens that begin and end a text.
    pub(crate) fn assemble(
        tokenizer: Tokenizer,
        decoding: Decoding,
        (bos, eos): (Option<u32>, Option<u32>),
        templates: Templates,
    ) -> Result<TextModel, TextError> {
        let tokens = vocabulary(&tokenizer, &decoding.respelled)
            .map_err(|reason| TextError::invalid(TOKENIZER_JSON, reason))?;
        let special = special_ids(&tokenizer, &tokens);
        let spelled = || special.iter().filter_map(|id| tokens[*id as usize].as_deref());
        let begins = spelled().filter_map(|token| token.chars().next()).collect();
        let special_begins = (begins, spelled().map(str::len).max().unwrap_or(0));
        let decoder = Decoder::new(&decoding.json, tokens, decoding.clean_up)?;
        Ok(TextModel { tokenizer, decoder, special, special_begins, bos, eos, templates, decoding })
    }

    /// Puts this template in the place of all that the model came with.
    ///
    /// # Errors
    /// The template does not compile; the old ones stay.
    pub fn set_chat_template(&mut self, source: &str) -> Result<(), TextError> {
        Ok(self.templates.replace(source)?)
    }

    /// Number of ids that the tokenizer knows: the largest plus one. A model's output may be wider.
    pub fn vocab_size(&self) -> usize {
        self.decoder.len()
    }

    /// Tokens to text. Bytes that are not UTF-8 become U+FFFD; ids outside the vocabulary are
    /// skipped.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut state = DecodeState::new(&self.decoder);
        let mut out = String::new();
        for &id in ids {
            if !(skip_special && self.is_special(id)) {
                state.push(&self.decoder, id, &mut out);
            }
        }
        state.flush(&mut out);
        out
    }

    /// The exact bytes that a token adds inside a text, perhaps part of a character; none for an
    /// id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.decoder.piece(id)
    }

    /// A token for display: its bytes as text, U+FFFD for what is not UTF-8, special tokens as
    /// they are written.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// Whether a token steers the model and is left out of text by `skip_special`.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The special token whose spelling a text begins with, the longest one, and its bytes.
    pub(crate) fn special_at(&self, text: &str) -> Option<(u32, usize)> {
        let (begins, longest) = &self.special_begins;
        if !text.starts_with(|first| begins.contains(&first)) {
            return None;
        }
        let ends = (1..=text.len().min(*longest)).rev().filter(|end| text.is_char_boundary(*end));
        let token = |end: usize| {
            let id = self.token_id(&text[..end]).filter(|id| self.is_special(*id))?;
            Some((id, end))
        };
        ends.into_iter().find_map(token)
    }

    /// The token of exactly this spelling, e.g. `<|im_end|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Beginning of text, if the files name one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of text, if the tokenizer's files name one. Models often have further end tokens, in
    /// generation_config.json, which is not read here.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether the model came with a chat template (or was given one).
    pub fn has_chat_template(&self) -> bool {
        !self.templates.is_empty()
    }

    /// The sources of the model's chat templates, for what they tell of its formats.
    pub fn template_sources(&self) -> Vec<&str> {
        self.templates.sources()
    }

    /// Why a chat template of this model cannot be used, if one cannot: worth a line at start.
    pub fn chat_template_error(&self) -> Option<&TemplateError> {
        self.templates.error()
    }

    /// Writes a conversation as the text that the model was trained to continue. Encode it without
    /// adding special tokens.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn render_chat(&self, chat: &ChatInput) -> Result<String, TemplateError> {
        self.templates.render(chat)
    }

    /// Starts streaming text behind `prompt`. The pieces, joined, are what [`TextModel::decode`]
    /// of prompt and output adds to that of the prompt alone.
    pub fn detokenizer(self: &Arc<Self>, prompt: &[u32], skip_special: bool) -> Detokenizer {
        Detokenizer::new(Arc::clone(self), prompt, skip_special)
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

/// `bos_token` and its like are special even if tokenizer.json does not say so. Only tokens that
/// exist are marked: a new one would get an id that the model has no weights for.
fn add_named_tokens(tokenizer: &mut Tokenizer, config: &Config) -> Result<(), String> {
    let added = tokenizer.get_added_tokens_decoder();
    let missing: Vec<AddedToken> = config
        .special
        .values()
        .filter_map(Value::as_str)
        .filter(|token| tokenizer.token_to_id(token).is_some_and(|id| !added.contains_key(&id)))
        .map(|token| AddedToken::from(token, true))
        .collect();
    contained(|| tokenizer.add_special_tokens(missing)).map(|_| ())
}

/// Ids whose token is spelled like a special one: so does the library tell them apart.
fn special_ids(tokenizer: &Tokenizer, tokens: &[Option<String>]) -> HashSet<u32> {
    let added = tokenizer.get_added_tokens_decoder();
    let special: HashSet<&str> =
        added.values().filter(|token| token.special).map(|token| token.content.as_str()).collect();
    let is_special =
        |token: &Option<String>| token.as_deref().is_some_and(|token| special.contains(token));
    (0..).zip(tokens).filter(|(_, token)| is_special(token)).map(|(id, _)| id).collect()
}

/// All tokens by id. A file may leave gaps, but an id far beyond the number of tokens would only
/// make an enormous table. `respelled` is what the file spells otherwise than the library.
fn vocabulary(
    tokenizer: &Tokenizer,
    respelled: &[(u32, String)],
) -> Result<Vec<Option<String>>, String> {
    let known = tokenizer.get_vocab_size(true);
    let count = known + respelled.len();
    let ids = tokenizer.get_vocab(true).into_values().chain(respelled.iter().map(|(id, _)| *id));
    let size = ids.max().map_or(0, |id| id as usize + 1).max(known);
    if size > count * 2 + (1 << 16) {
        return Err(format!("token id {} for a vocabulary of {count}", size - 1));
    }
    let mut tokens: Vec<_> = (0..size).map(|id| tokenizer.id_to_token(id as u32)).collect();
    for (id, token) in respelled {
        tokens[*id as usize] = Some(token.clone());
    }
    Ok(tokens)
}

/// Runs code of the `tokenizers` crate; its error or panic becomes a message.
pub(crate) fn contained<T, E: std::fmt::Display>(
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a message");
            Err(format!("the tokenizer library panicked: {message}"))
        }
    }
}

/// Gives an error the path of the file that it names.
fn in_directory(error: TextError, dir: &Path) -> TextError {
    match error {
        TextError::Invalid { file, reason } if !file.contains(std::path::MAIN_SEPARATOR) => {
            TextError::Invalid { file: dir.join(file).display().to_string(), reason }
        }
        other => other,
    }
}
