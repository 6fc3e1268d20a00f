//! From a path to a model: a Hugging Face folder, or a GGUF file.
//!
//! Everything that can be wrong with a model's files is found here, before a device is touched:
//! the spec, every tensor's presence, shape and type, end tokens, tokenizer. No weights are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernels::{CacheElement, Format, Precision};
use text::{GgufVocab, TextError, TextModel};

use crate::adapter::AdapterBase;
use crate::config::{CONFIG_BYTES_MAX, Fields};
use crate::families;
use crate::generation::{self, Generation};
use crate::model::{GenerationDefaults, ModelFiles};
use crate::spec::ModelSpec;
use crate::weights::containers::{self, Container};
use crate::weights::gguf::{Gguf, Item};
use crate::weights::gguf_weights::GgufWeights;
use crate::weights::hub::HubWeights;
use crate::weights::shards::Tensors;
use crate::weights::{self, DeviceBytes, LoadError, Weights, shown};

/// Special tokens of these spellings end a turn in every model that has them. Many GGUF files
/// name only the token that ends a text, and a chat would then run on to its limit.
const ENDS_OF_TURN: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<EOT>",
];

/// Published tables of SentencePiece's replacements have a quarter of a megabyte.
const CHARSMAP_BYTES_MAX: usize = 8 << 20;

/// Opens a model: a folder in the layout of Hugging Face, or a `.gguf` file.
///
/// # Errors
/// It is neither, it is damaged, or it asks for something that is not supported; see the text.
pub fn open(path: &Path) -> Result<ModelFiles, LoadError> {
    let words = |error: TextError| text_error(path, &error);
    match kind(path)? {
        Kind::Folder => {
            let model = open_folder(path)?;
            model.with_text(TextModel::from_dir(path).map_err(words)?)
        }
        Kind::Gguf => {
            let (mut model, vocab) = open_gguf(path)?;
            let text = TextModel::from_gguf(vocab).map_err(words)?;
            let ends = ENDS_OF_TURN.iter().filter_map(|name| text.token_id(name));
            model.eos.extend(ends.filter(|&id| text.is_special(id)));
            model.with_text(text)
        }
    }
}

/// As [`open`], without the tokenizer: for tools that need no text.
///
/// # Errors
/// As [`open`].
pub fn open_weights(path: &Path) -> Result<Wordless, LoadError> {
    match kind(path)? {
        Kind::Folder => open_folder(path),
        Kind::Gguf => Ok(open_gguf(path)?.0),
    }
}

/// What a `config.json` alone describes: enough to plan a model that is not downloaded yet.
///
/// # Errors
/// The file cannot be read, or asks for something that is not supported.
pub fn spec_of_config(config_json: &Path) -> Result<ModelSpec, LoadError> {
    let bytes = weights::read_small(config_json, CONFIG_BYTES_MAX)?;
    let config = Fields::parse(config_json, &bytes)?;
    Container::read(&config, None)?;
    Ok(families::from_config(&config)?.spec)
}

/// A model without its tokenizer; see [`ModelFiles`] for the fields.
pub struct Wordless {
    /// Where it came from.
    pub path: PathBuf,
    /// What it computes.
    pub spec: ModelSpec,
    /// Its tensors, mapped.
    pub weights: Arc<dyn Weights + Send + Sync>,
    /// Bytes of the tensors that it uses.
    pub weight_bytes: u64,
    /// Bytes that they take on a CPU, packed for its products.
    pub packed_bytes: u64,
    /// Bytes that they take on a GPU.
    pub device_bytes: DeviceBytes,
    /// The format that most of those bytes are in.
    pub format: Format,
    /// Author's sampling defaults.
    pub defaults: GenerationDefaults,
    /// Every id that its configuration calls an end.
    pub eos: Vec<u32>,
    /// What in the files has no effect, for the operator.
    pub notes: Vec<String>,
    /// What adapters have to fit; `None` where none can be read for it.
    pub adapter_base: Option<AdapterBase>,
}

impl Wordless {
    /// Joins the tokenizer, whose ids must all have a row in the embedding table.
    pub(crate) fn with_text(mut self, text: TextModel) -> Result<ModelFiles, LoadError> {
        let (words, rows) = (text.vocab_size(), self.spec.vocab);
        if words > rows {
            let problem = format!(
                "the tokenizer has {words} tokens, the embedding table only {rows} rows; \
                 they belong to different models"
            );
            return Err(LoadError::new(&self.path, problem));
        }
        if let Some(error) = text.chat_template_error() {
            self.notes.push(format!("{}: {error}; chat is off", self.path.display()));
        }
        self.eos.extend(text.eos());
        self.eos.sort_unstable();
        self.eos.dedup();
        let (auto_precision, auto_cache) = match self.format {
            Format::F32 => (Precision::Float32, CacheElement::F32),
            Format::Bf16 => (Precision::Bfloat16, CacheElement::Bf16),
            // Quantized files keep their few plain tensors in f32 or f16.
            _ => (Precision::Float16, CacheElement::F16),
        };
        Ok(ModelFiles {
            path: self.path,
            spec: self.spec,
            weights: self.weights,
            weight_bytes: self.weight_bytes,
            packed_bytes: self.packed_bytes,
            device_bytes: self.device_bytes,
            format: self.format,
            auto_precision,
            auto_cache,
            defaults: self.defaults,
            eos: self.eos,
            notes: self.notes,
            adapter_base: self.adapter_base,
            text,
        })
    }
}

pub(crate) fn text_error(path: &Path, error: &TextError) -> LoadError {
    LoadError::new(path, format!("tokenizer: {error}"))
}

enum Kind {
    Folder,
    Gguf,
}

fn kind(path: &Path) -> Result<Kind, LoadError> {
    let meta = std::fs::metadata(path).map_err(|error| {
        LoadError::new(path, format!("cannot be opened: {error}; give a model folder or a .gguf"))
    })?;
    if meta.is_dir() {
        return Ok(Kind::Folder);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors" | "json") => {
            Err(LoadError::new(path, "is one file of a model; give the folder that it lies in"))
        }
        _ => Ok(Kind::Gguf),
    }
}

/// The configuration of a folder, already read.
pub(crate) struct Folder<'a> {
    pub(crate) path: &'a Path,
    pub(crate) config: &'a [u8],
    pub(crate) generation: Option<&'a [u8]>,
    /// What names a quantized container where config.json does not.
    pub(crate) quantization: Option<Fields>,
}

impl Folder<'_> {
    /// The model that the configuration describes, checked against its weights.
    pub(crate) fn model(self, tensors: Tensors) -> Result<Wordless, LoadError> {
        let config = Fields::parse(&self.path.join("config.json"), self.config)?;
        let container = Container::read(&config, self.quantization.as_ref())?;
        let described = families::from_config(&config)?;
        let weights = HubWeights::new(tensors, container, &described);
        let spec = &described.spec;
        let mut eos = Ends::default();
        eos.add(spec, config.ids("eos_token_id")?, |problem| {
            config.wrong("eos_token_id", problem)
        })?;
        let mut generation = Generation::default();
        if let Some(bytes) = self.generation {
            let file = Fields::parse(&self.path.join("generation_config.json"), bytes)?;
            generation = generation::read(&file)?;
            eos.add(spec, std::mem::take(&mut generation.eos), |problem| {
                file.wrong("eos_token_id", problem)
            })?;
        }
        let found = weights::check(spec, &weights)?;
        let mut notes = weights.check_unused(&described)?;
        notes.extend(described.notes);
        notes.extend(generation.notes);
        let adapter_base = AdapterBase::new(described.spec.clone(), described.hub_source);
        Ok(Wordless {
            path: self.path.to_path_buf(),
            spec: described.spec,
            weights: Arc::new(weights),
            weight_bytes: found.bytes,
            packed_bytes: found.packed,
            device_bytes: found.device,
            format: found.format,
            defaults: generation.defaults,
            eos: eos.0,
            notes,
            adapter_base: Some(adapter_base),
        })
    }
}

/// End tokens from several places; each must be a token of the model.
#[derive(Default)]
struct Ends(Vec<u32>);

impl Ends {
    fn add(
        &mut self,
        spec: &ModelSpec,
        ids: Vec<u32>,
        wrong: impl Fn(&str) -> LoadError,
    ) -> Result<(), LoadError> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= spec.vocab) {
            return Err(wrong(&format!("{id} is not below the vocabulary size {}", spec.vocab)));
        }
        self.0.extend(ids);
        Ok(())
    }
}

fn open_folder(path: &Path) -> Result<Wordless, LoadError> {
    let config_path = path.join("config.json");
    if !config_path.exists() {
        return Err(LoadError::new(path, no_config(path)));
    }
    let config = weights::read_small(&config_path, CONFIG_BYTES_MAX)?;
    let generation_path = path.join("generation_config.json");
    let generation = if generation_path.exists() {
        Some(weights::read_small(&generation_path, CONFIG_BYTES_MAX)?)
    } else {
        None
    };
    let quantization = containers::beside(path, CONFIG_BYTES_MAX)?;
    let folder = Folder { path, config: &config, generation: generation.as_deref(), quantization };
    folder.model(Tensors::open(path)?)
}

/// What to do about a folder without config.json.
fn no_config(path: &Path) -> String {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let gguf = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    match gguf.filter(|name| name.ends_with(".gguf")).min() {
        Some(name) => format!("has no config.json, but {}: give that file's path", shown(&name)),
        None => "has no config.json; is it the folder of a model?".to_owned(),
    }
}

fn open_gguf(path: &Path) -> Result<(Wordless, GgufVocab), LoadError> {
    let header = Gguf::open(path)?;
    let described = families::from_header(&header)?;
    let weights = GgufWeights::new(header, &described);
    let found = weights::check(&described.spec, &weights)?;
    let mut notes = weights.check_unused(&described)?;
    notes.extend(described.notes);
    let (spec, header) = (described.spec, weights.file());
    let vocab = vocab(header, &spec)?;
    let mut eos = Ends::default();
    for kind in ["eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{kind}_token_id");
        let id = id(header, &key)?;
        eos.add(&spec, id.into_iter().collect(), |problem| header.wrong(&key, problem))?;
    }
    let model = Wordless {
        path: path.to_path_buf(),
        spec,
        weights: Arc::new(weights),
        weight_bytes: found.bytes,
        packed_bytes: found.packed,
        device_bytes: found.device,
        format: found.format,
        defaults: GenerationDefaults::default(),
        eos: eos.0,
        notes,
        // Converters reorder rows that an adapter was trained on.
        adapter_base: None,
    };
    Ok((model, vocab))
}

fn id(header: &Gguf, key: &str) -> Result<Option<u32>, LoadError> {
    Ok(header.number(key, 0.0, f64::from(u32::MAX))?.map(|id| id as u32))
}

fn vocab(header: &Gguf, spec: &ModelSpec) -> Result<GgufVocab, LoadError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    // Merges may be more than tokens: several may make the same token.
    let merges_max = spec.vocab.saturating_mul(4).saturating_add(1024);
    let string = |item: Item<'_>| match item {
        Item::Text(text) => Some(text.to_owned()),
        Item::Number(_) => None,
    };
    let number = |item: Item<'_>| match item {
        Item::Number(number) => Some(number),
        Item::Text(_) => None,
    };
    let flag = |name: &str| -> Result<Option<bool>, LoadError> {
        Ok(header.number(&key(name), 0.0, 1.0)?.map(|flag| flag > 0.0))
    };
    let tokens = header.list(&key("tokens"), spec.vocab, "strings", string)?;
    let score = |item: Item<'_>| number(item).map(|score| score as f32);
    let kind = |item: Item<'_>| number(item).map(|kind| kind as i32);
    let byte = |item: Item<'_>| number(item).map(|byte| byte as i64 as u8);
    Ok(GgufVocab {
        model: header.need_text(&key("model"))?.to_owned(),
        pre: header.text(&key("pre"))?.map(str::to_owned),
        tokens: tokens.ok_or_else(|| header.wrong(&key("tokens"), "is missing"))?,
        scores: header.list(&key("scores"), spec.vocab, "numbers", score)?,
        types: header.list(&key("token_type"), spec.vocab, "numbers", kind)?,
        merges: header.list(&key("merges"), merges_max, "strings", string)?,
        bos: id(header, &key("bos_token_id"))?,
        eos: id(header, &key("eos_token_id"))?,
        unk: id(header, &key("unknown_token_id"))?,
        pad: id(header, &key("padding_token_id"))?,
        sep: id(header, &key("seperator_token_id"))?,
        cls: id(header, &key("cls_token_id"))?,
        mask: id(header, &key("mask_token_id"))?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_sep: flag("add_sep_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
        precompiled_charsmap: header.list(
            &key("precompiled_charsmap"),
            CHARSMAP_BYTES_MAX,
            "bytes",
            byte,
        )?,
        lowercase: flag("normalizer.lowercase")?,
        strip_accents: flag("normalizer.strip_accents")?,
        chat_template: header.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}
