//! [`Source`]: the keys and tensors of the file to write, and where each comes from.
//!
//! From a folder everything is made from the spec: names and order as GGUF files of the family
//! have them, fused and stacked tensors put together of their parts. From another GGUF file keys
//! are copied and tensors keep their names.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use kernels::Format;
use text::{GgufVocab, TextModel};

use super::encode::Piece;
use super::header::{self, Form};
use super::mixture::{Mixture, Model};
use super::rope;
use super::writer::Value;
use crate::families;
use crate::model::ModelFiles;
use crate::spec::{LayerPart, MlpSpec, ModelSpec, Need, Role};
use crate::weights::gguf::Gguf;
use crate::weights::{LoadError, Pick, TensorView, names, read_small};

/// Keys that say how the source was made, not what the model is.
const OF_THE_FILE: [&str; 3] =
    ["general.file_type", "general.quantization_version", "general.alignment"];

/// A tensor to write.
pub(super) struct Planned {
    /// In GGUF.
    pub(super) name: String,
    /// Outermost first.
    pub(super) dims: Vec<u64>,
    pub(super) format: Format,
    from: From,
}

enum From {
    /// Parts of the model, in the order in which they follow each other.
    Roles(Vec<Need>),
    /// Numbers that follow from the spec.
    Numbers(Vec<f32>),
    /// The tensor of the same name.
    File,
}

impl Planned {
    pub(super) fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.elements() / self.format.block_len() as u64 * self.format.block_bytes() as u64
    }

    /// How many pieces it is made of.
    pub(super) fn pieces(&self) -> usize {
        if let From::Roles(needs) = &self.from { needs.len() } else { 1 }
    }
}

enum Origin<'a> {
    Model(&'a ModelFiles, &'static Form),
    File(Gguf),
}

/// A model on its way into a file.
pub(super) struct Source<'a> {
    path: PathBuf,
    origin: Origin<'a>,
    keys: Vec<(String, Value)>,
    tensors: Vec<Planned>,
    notes: Vec<String>,
}

impl<'a> Source<'a> {
    /// A folder in the layout of Hugging Face, opened.
    pub(super) fn folder(files: &'a ModelFiles, mixture: &Mixture) -> Result<Self, LoadError> {
        let (path, spec) = (&files.path, &files.spec);
        let wrong = |problem: String| LoadError::new(path, problem);
        let form = Form::of(spec).map_err(wrong)?;
        let stated = stated_base(path)?;
        let written = header::write(spec, form, stated).map_err(wrong)?;
        let (vocab, notes) = GgufVocab::from_dir(path, spec.vocab)
            .map_err(|error| wrong(format!("tokenizer: {error}")))?;
        let name = path.canonicalize().unwrap_or_default();
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut keys = general(form.arch, mixture);
        keys.insert(1, ("general.name".to_owned(), Value::Text(name)));
        keys.extend(written.keys);
        let mut source = Self {
            path: path.clone(),
            origin: Origin::Model(files, form),
            keys,
            tensors: vec![],
            notes,
        };
        source.words(vocab, files)?;
        source.plan(spec, form, mixture).map_err(wrong)?;
        for (name, numbers) in written.tensors {
            source.tensors.push(Planned {
                name: name.to_owned(),
                dims: vec![numbers.len() as u64],
                format: Format::F32,
                from: From::Numbers(numbers),
            });
        }
        Ok(source)
    }

    /// A GGUF file, which was opened as a model before.
    pub(super) fn gguf(file: Gguf, mixture: &Mixture) -> Result<Self, LoadError> {
        let arch = file.need_text("general.architecture")?.to_owned();
        let count = |name: &str| file.count(&format!("{arch}.{name}"), usize::MAX >> 12);
        let heads = count("attention.head_count")?.unwrap_or(1);
        let model = Model {
            layers: count("block_count")?.unwrap_or(1),
            group: heads / count("attention.head_count_kv")?.unwrap_or(heads).max(1),
            experts: count("expert_count").ok().flatten().unwrap_or(0),
            tied: file.dims("output.weight").is_none(),
        };
        let mut keys = general(&arch, mixture);
        for (key, value) in file.raw_keys()? {
            let ours = OF_THE_FILE.contains(&key.as_str()) || key.starts_with("split.");
            if !ours && key != "general.architecture" {
                keys.push((key, Value::Raw(value)));
            }
        }
        let (mut tensors, mut lossy) = (Vec::new(), 0);
        for (name, dims, stored) in file.all_tensors() {
            let mut format = mixture.format(name, dims, &model);
            // What no mixture touches stays as it is.
            if format == Format::F32 && mixture.base != Format::F32 && !stored.is_quantized() {
                format = stored;
            }
            lossy += usize::from(stored.is_quantized() && stored != format);
            let (name, dims) = (name.to_owned(), dims.to_vec());
            tensors.push(Planned { name, dims, format, from: From::File });
        }
        let mut notes = Vec::new();
        if lossy > 0 {
            notes.push(format!(
                "{lossy} tensors were quantized already: widened and encoded again, they lose \
                 quality twice; take the model's original files if you have them"
            ));
        }
        let path = file.file().to_path_buf();
        Ok(Self { path, origin: Origin::File(file), keys, tensors, notes })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keys(&self) -> &[(String, Value)] {
        &self.keys
    }

    pub(super) fn tensors(&self) -> &[Planned] {
        &self.tensors
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How the family's files differ from the source; nothing if that is such a file.
    pub(super) fn form(&self) -> Option<&'static Form> {
        match &self.origin {
            Origin::Model(_, form) => Some(form),
            Origin::File(_) => None,
        }
    }

    /// One piece of a tensor, as it is stored.
    pub(super) fn piece(&self, tensor: &Planned, index: usize) -> Result<Piece<'_>, LoadError> {
        let plain = |view| Piece { view, shift: 0.0, alternate: None };
        match (&tensor.from, &self.origin) {
            (From::Roles(needs), Origin::Model(files, form)) => role(files, form, needs[index]),
            (From::Numbers(numbers), _) => Ok(plain(vector(numbers))),
            (_, Origin::File(file)) => file.whole(&tensor.name).map(plain),
            (From::File, Origin::Model(..)) => {
                Err(LoadError::new(&self.path, format!("tensor {} is missing", tensor.name)))
            }
        }
    }

    /// Lists the tensors of a spec under the names that the family's files give them.
    fn plan(&mut self, spec: &ModelSpec, form: &Form, mixture: &Mixture) -> Result<(), String> {
        let attention = &spec.layers[0].attention;
        let experts = match &spec.layers[0].mlp {
            MlpSpec::Experts(experts) => experts.count,
            MlpSpec::Dense(_) => 0,
        };
        let model = Model {
            layers: spec.layers.len(),
            group: attention.heads / attention.kv_heads.max(1),
            experts,
            tied: spec.head.is_some_and(|head| head.tied),
        };
        let family = families::gguf_names(form.arch).ok_or("no family reads this architecture")?;
        // Experts come one after the other, each with all of its tensors.
        for need in spec.tensors() {
            let source = family(spec, need.role).unwrap_or_else(|| names::gguf(need.role, experts));
            let vector = need.role.is_vector();
            let rows = if vector { need.cols } else { need.rows };
            let rows = match source.pick {
                Pick::All => rows,
                Pick::Run { of, .. } => of,
                _ => return Err(format!("{} cannot be put together", source.name)),
            };
            let known = self.tensors.iter_mut().find(|tensor| tensor.name == source.name);
            if let Some(Planned { from: From::Roles(needs), .. }) = known {
                needs.push(need);
                continue;
            }
            let stack = source.slab.map(|slab| slab.of);
            let cols = (!vector).then_some(need.cols);
            let dims = stack.into_iter().chain([rows]).chain(cols).map(|dim| dim as u64);
            let dims: Vec<u64> = dims.collect();
            let format = match vector {
                true => Format::F32,
                false => mixture.format(&source.name, &dims, &model),
            };
            let from = From::Roles(vec![need]);
            self.tensors.push(Planned { name: source.name, dims, format, from });
        }
        self.tensors.iter_mut().for_each(|tensor| tensor.in_order(spec, family));
        Ok(())
    }

    /// The tokenizer's keys.
    fn words(&mut self, vocab: GgufVocab, files: &ModelFiles) -> Result<(), LoadError> {
        let mut put = |name: &str, value| {
            self.keys.push((format!("tokenizer.ggml.{name}"), value));
        };
        put("model", Value::Text(vocab.model));
        vocab.pre.into_iter().for_each(|pre| put("pre", Value::Text(pre)));
        put("tokens", Value::Texts(vocab.tokens));
        vocab.scores.into_iter().for_each(|scores| put("scores", Value::Numbers(scores)));
        vocab.types.into_iter().for_each(|types| put("token_type", Value::Whole(types)));
        vocab.merges.into_iter().for_each(|merges| put("merges", Value::Texts(merges)));
        vocab
            .add_space_prefix
            .into_iter()
            .for_each(|add| put("add_space_prefix", Value::Flag(add)));
        let eos = vocab.eos.or(files.eos.first().copied());
        let mut ends = files.eos.iter().copied().filter(|&id| Some(id) != eos);
        let ids = [
            ("bos", vocab.bos),
            ("eos", eos),
            ("eot", ends.next()),
            ("eom", ends.next()),
            ("unknown", vocab.unk),
            ("padding", vocab.pad),
        ];
        for (name, id) in ids {
            id.into_iter().for_each(|id| put(&format!("{name}_token_id"), Value::Count(id)));
        }
        let (add_bos, add_eos) = frame(&files.text, vocab.bos, eos)
            .map_err(|problem| LoadError::new(&files.path, format!("tokenizer: {problem}")))?;
        put("add_bos_token", Value::Flag(add_bos));
        put("add_eos_token", Value::Flag(add_eos));
        let more = ends.count();
        if let Some(template) = vocab.chat_template {
            self.keys.push(("tokenizer.chat_template".to_owned(), Value::Text(template)));
        }
        if more > 0 {
            self.notes.push(format!("{more} further end tokens have no place in a GGUF file"));
        }
        Ok(())
    }
}

impl Planned {
    /// Parts in the order of their rows, or of their place in the stack.
    fn in_order(&mut self, spec: &ModelSpec, family: families::Names) {
        let From::Roles(needs) = &mut self.from else { return };
        needs.sort_by_key(|need| match need.role {
            Role::Expert(_, expert, _) => expert,
            role => match family(spec, role).map(|source| source.pick) {
                Some(Pick::Run { first, .. }) => first,
                _ => 0,
            },
        });
    }
}

fn general(arch: &str, mixture: &Mixture) -> Vec<(String, Value)> {
    let mut keys = vec![
        ("general.architecture".to_owned(), Value::Text(arch.to_owned())),
        ("general.file_type".to_owned(), Value::Count(mixture.number)),
    ];
    if mixture.base.is_quantized() {
        keys.push(("general.quantization_version".to_owned(), Value::Count(2)));
    }
    keys
}

fn stated_base(folder: &Path) -> Result<Option<f64>, LoadError> {
    let path = folder.join("config.json");
    let bytes = read_small(&path, crate::config::CONFIG_BYTES_MAX)?;
    let config: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| LoadError::new(&path, error.to_string()))?;
    Ok(rope::stated(&config))
}

fn vector(numbers: &[f32]) -> TensorView<'static> {
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let bytes = Cow::Owned(bytes);
    TensorView { format: Format::F32, rows: 1, cols: numbers.len(), bytes, order: None }
}

/// The tensor of a role, with what its place in a GGUF file does to it.
fn role<'a>(files: &'a ModelFiles, form: &Form, need: Need) -> Result<Piece<'a>, LoadError> {
    use LayerPart::{Key, KeyBias, KeyNorm, Query, QueryBias, QueryNorm};
    let view = files.weights.tensor(need.role, need.rows, need.cols)?;
    let (mut shift, mut alternate) = (0.0, None);
    match need.role {
        Role::Layer(layer, Query | Key | QueryBias | KeyBias) if form.neighbours => {
            alternate = Some(files.spec.layers[layer].attention.head_dim);
        }
        Role::Layer(layer, QueryNorm | KeyNorm) if form.whole_norms => {
            let norm = files.spec.layers[layer].attention.qk_norm;
            shift = norm.map_or(0.0, |norm| norm.offset);
        }
        role if form.whole_norms && is_norm(role) => shift = files.spec.norm.offset,
        _ => {}
    }
    let mut piece = Piece { view, shift, alternate };
    if alternate.is_some() && need.role.is_vector() {
        // A row for each element, to be reordered as those of a matrix are.
        (piece.view.rows, piece.view.cols) = (need.cols, 1);
    }
    Ok(piece)
}

fn is_norm(role: Role) -> bool {
    use LayerPart::{AttentionNorm, AttentionPostNorm, MlpNorm, MlpPostNorm};
    matches!(
        role,
        Role::FinalNorm
            | Role::EmbeddingNorm
            | Role::Layer(_, AttentionNorm | AttentionPostNorm | MlpNorm | MlpPostNorm)
    )
}

/// Which of BOS and EOS the tokenizer puts around a text.
fn frame(text: &TextModel, bos: Option<u32>, eos: Option<u32>) -> Result<(bool, bool), String> {
    let encode = |special| text.encode("a", special).map_err(|error| error.to_string());
    let (bare, framed) = (encode(false)?, encode(true)?);
    let at = framed.windows(bare.len().max(1)).position(|ids| ids == bare);
    let at = at.ok_or("special tokens change the text between them")?;
    let around = (&framed[..at], &framed[at + bare.len()..]);
    let is = |ids: &[u32], token: Option<u32>| ids.len() == 1 && ids.first().copied() == token;
    match around {
        ([], []) => Ok((false, false)),
        (before, []) if is(before, bos) => Ok((true, false)),
        ([], behind) if is(behind, eos) => Ok((false, true)),
        (before, behind) if is(before, bos) && is(behind, eos) => Ok((true, true)),
        _ => Err("puts other tokens than BOS and EOS around a text".to_owned()),
    }
}
