//! A text model as bytes, for another process that makes the same text and the same tokens: what
//! a gateway is told by a node whose files it has not. Whatever the files were (a folder in any of
//! its forms, a GGUF header), what goes over is the tokenizer as it stands in memory.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::chat::Templates;
use crate::files::Template;
use crate::model::{Decoding, contained};
use crate::{TextError, TextModel};

/// What messages call it.
const NAME: &str = "the model's text";

/// See the module.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Portable {
    /// tokenizer.json, as the library writes it.
    tokenizer: String,
    decoder: Value,
    clean_up: bool,
    respelled: Vec<(u32, String)>,
    special: Map<String, Value>,
    /// Names and sources.
    templates: Vec<(String, String)>,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl TextModel {
    /// As bytes for [`TextModel::from_portable`]. Equal models give equal bytes.
    ///
    /// # Errors
    /// The tokenizer cannot be written.
    pub fn to_portable(&self) -> Result<Vec<u8>, TextError> {
        let invalid = |why: String| TextError::invalid(NAME, why);
        let tokenizer = contained(|| self.tokenizer.to_string(false)).map_err(invalid)?;
        let (templates, special) = self.templates.parts();
        let portable = Portable {
            tokenizer,
            decoder: self.decoding.json.clone(),
            clean_up: self.decoding.clean_up,
            respelled: self.decoding.respelled.clone(),
            special: special.clone(),
            templates: templates.map(|(n, s)| (n.to_owned(), s.to_owned())).collect(),
            bos: self.bos(),
            eos: self.eos(),
        };
        serde_json::to_vec(&portable).map_err(|error| invalid(error.to_string()))
    }

    /// The same model again.
    ///
    /// # Errors
    /// The bytes are none of [`TextModel::to_portable`].
    pub fn from_portable(bytes: &[u8]) -> Result<TextModel, TextError> {
        let invalid = |why: String| TextError::invalid(NAME, why);
        let Portable { tokenizer, decoder, clean_up, respelled, special, templates, bos, eos } =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let tokenizer =
            contained(|| Tokenizer::from_bytes(tokenizer.as_bytes())).map_err(invalid)?;
        let named = |(name, source)| Template { name, source, file: NAME.to_owned() };
        let templates: Vec<Template> = templates.into_iter().map(named).collect();
        let templates = Templates::new(special, &templates);
        let decoding = Decoding { json: decoder, clean_up, respelled };
        TextModel::assemble(tokenizer, decoding, (bos, eos), templates)
    }
}
