//! The weights of a Hugging Face checkpoint, by role.
//!
//! Joins what three others know: where a family's checkpoints keep a role (`names`, or the family
//! itself), which tensors the files hold (`shards`), and how a matrix is made of them
//! (`containers`).

use std::collections::BTreeSet;

use kernels::Format;

use super::containers::{Container, Found, INPUTS_NOT_ROUNDED, Want};
use super::shards::{Tensor, Tensors};
use super::{LoadError, Look, Source, TensorView, Weights, names, shown};
use crate::families::Described;
use crate::spec::{ModelSpec, Role};

/// All tensors of a checkpoint, under the roles that a family gives them.
pub(crate) struct HubWeights {
    tensors: Tensors,
    container: Container,
    spec: ModelSpec,
    source: fn(&ModelSpec, Role) -> Option<Source>,
    /// What stands before the names of the base model: `model.`, nothing, ...
    prefix: String,
    /// What stands before the head's name.
    head_prefix: String,
}

/// Tensors beside a matrix that have no effect here: endings of their names, and why.
const WITHOUT_EFFECT: [(&[&str], &str); 2] = [
    (
        &[
            ".input_scale",
            ".input_scale_ub",
            ".input_zero_point",
            ".activation_scale",
            ".input_global_scale",
        ],
        INPUTS_NOT_ROUNDED,
    ),
    (
        &[
            ".k_scale",
            ".v_scale",
            ".q_scale",
            ".kv_scale",
            ".prob_output_scale",
            ".k_proj.output_scale",
            ".v_proj.output_scale",
            ".k_zero_point",
            ".v_zero_point",
        ],
        "the files hold scales for an 8-bit KV cache; the cache is not 8-bit, so they have no \
         effect",
    ),
];

/// Parts of names that belong to what sees and hears in a model.
const SENSES: [&str; 12] = [
    "vision_tower",
    "vision_model",
    "visual",
    "vision_embed_tokens",
    "multi_modal_projector",
    "mm_projector",
    "image_newline",
    "audio_tower",
    "audio_model",
    "embed_vision",
    "embed_audio",
    "patch_merger",
];

impl HubWeights {
    /// Gives the tensors of a folder the roles that its family describes.
    pub(crate) fn new(tensors: Tensors, container: Container, described: &Described) -> Self {
        let &Described { hub_source: source, prefixes, .. } = described;
        let spec = described.spec.clone();
        let embedding = source(&spec, Role::Embedding);
        let embedding = embedding.unwrap_or_else(|| names::hub(Role::Embedding)).name;
        let prefix = prefix(&tensors, &embedding, prefixes);
        let mut weights =
            Self { tensors, container, spec, source, prefix, head_prefix: String::new() };
        weights.head_prefix = weights.head_prefix();
        weights
    }

    /// The head stands beside the base model, below whatever wraps both; some keep it inside.
    fn head_prefix(&self) -> String {
        let name = self.place(Role::Head).name;
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let stored = |prefix: &str| {
            let starts = format!("{prefix}{module}.");
            self.tensors.all().any(|tensor| tensor.name.starts_with(&starts))
        };
        let wrapper = self.prefix.strip_suffix("model.").unwrap_or(&self.prefix);
        let mut candidates = ["", wrapper, &self.prefix].into_iter();
        candidates.find(|prefix| stored(prefix)).unwrap_or_default().to_owned()
    }

    /// Where a role lies, as the family or most checkpoints name it.
    fn place(&self, role: Role) -> Source {
        (self.source)(&self.spec, role).unwrap_or_else(|| names::hub(role))
    }

    /// As [`HubWeights::place`], with the name as the files spell it.
    fn source_of(&self, role: Role) -> Source {
        let mut source = self.place(role);
        let prefix = match role {
            Role::Head | Role::HeadBias => &self.head_prefix,
            _ => &self.prefix,
        };
        source.name.insert_str(0, prefix);
        source
    }

    fn open(&self, role: Role, rows: usize, cols: usize) -> Result<(Source, Found<'_>), LoadError> {
        let source = self.source_of(role);
        let vector = role.is_vector();
        // A vector's elements are what fused tensors and stacks are divided into.
        let (rows, cols) = if vector { (cols, 1) } else { (rows, cols) };
        let want = Want {
            name: &source.name,
            rows: source.rows_of(rows),
            cols,
            slab: source.slab,
            transposed: source.transposed && !vector,
            vector,
        };
        let found = self.container.open(&self.tensors, &want)?;
        Ok((source, found))
    }

    /// Refuses tensors that no part of the model uses: computing without them would be silently
    /// wrong. `spare` says what a family's checkpoints hold beside the model. Returns what to tell
    /// the operator.
    pub(crate) fn check_unused(&self, described: &Described) -> Result<Vec<String>, LoadError> {
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let mut quantized = matches!(self.container, Container::Plain);
        for need in self.spec.tensors() {
            let (_, found) = self.open(need.role, need.rows, need.cols)?;
            used.extend(&found.used);
            quantized |= found.quantized;
        }
        if !quantized {
            let method = self.container.name();
            let problem = format!(
                "config.json says that weights are quantized ({method}), but none of the model's \
                 is stored so"
            );
            return Err(LoadError::new(self.tensors.origin(), problem));
        }
        let (mut notes, mut spare) = (BTreeSet::<String>::new(), Vec::new());
        notes.extend(self.container.note().map(str::to_owned));
        for tensor in self.tensors.all().filter(|tensor| !used.contains(tensor.name)) {
            let name = tensor.name;
            if let Some(why) = without_effect(name) {
                notes.insert(why.to_owned());
            } else if (described.spare)(&self.spec, name) {
                spare.push(name);
            } else if !self.harmless(&tensor) {
                let family = self.spec.family;
                let problem = format!("has no place in a {family} model with this config.json");
                return Err(tensor.wrong(problem));
            }
        }
        Ok(notes.into_iter().chain(super::spare_note(&spare)).collect())
    }

    /// Whether computing without a tensor makes no difference.
    fn harmless(&self, tensor: &Tensor<'_>) -> bool {
        let head = self.source_of(Role::Head).name;
        let head = head.strip_suffix(".weight").unwrap_or(&head);
        // A tied head may be stored as a copy; rotary tables are computed from the config.
        let copy = tensor.name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
        // Converters of quantized models write a bias for every linear layer.
        let nothing = || tensor.bytes.iter().all(|&byte| byte == 0);
        copy || tensor.name.ends_with("rotary_emb.inv_freq")
            || tensor.name.ends_with(".bias") && nothing()
    }
}

/// Why a tensor has no effect here, if it is of a kind that has none.
fn without_effect(name: &str) -> Option<&'static str> {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(endings, _)| ends(endings)) {
        return Some(why);
    }
    let sense = name.split('.').any(|part| SENSES.contains(&part));
    sense.then_some("the model can take images or sound as well; here it takes text only")
}

/// What stands before the name of the embedding, and so of everything in the base model: one of
/// the family's own, or whatever stands there (models that wrap another one).
fn prefix(tensors: &Tensors, embedding: &str, usual: &[&str]) -> String {
    let module = embedding.strip_suffix(".weight").unwrap_or(embedding);
    let module_of = |name: &str| -> Option<usize> {
        let at = name.rfind(module)?;
        let whole = at == 0 || name[..at].ends_with('.');
        let rest = &name[at + module.len()..];
        (whole && (rest.is_empty() || rest.starts_with('.'))).then_some(at)
    };
    let found: Vec<&str> = tensors
        .all()
        .filter_map(|tensor| module_of(tensor.name).map(|at| &tensor.name[..at]))
        .collect();
    let own = usual.iter().copied().find(|prefix| found.contains(prefix));
    // Later layers may hold the table once more (they predict further tokens): the shortest.
    let any = || found.iter().copied().min_by_key(|prefix| prefix.len());
    own.or_else(any).or(usual.first().copied()).unwrap_or_default().to_owned()
}

impl Weights for HubWeights {
    fn look(&self, role: Role, rows: usize, cols: usize) -> Result<Look, LoadError> {
        let (source, found) = self.open(role, rows, cols)?;
        let picked = if role.is_vector() { cols } else { rows };
        Ok(found.opened.look(picked, source.rows_of(picked)))
    }

    fn tensor(&self, role: Role, rows: usize, cols: usize) -> Result<TensorView<'_>, LoadError> {
        let (source, found) = self.open(role, rows, cols)?;
        let (picked, each) = if role.is_vector() { (cols, 1) } else { (rows, cols) };
        let runs = source.pick.runs(picked).map_err(|problem| {
            let name = shown(&source.name);
            LoadError::new(self.tensors.origin(), format!("tensor {name}: {problem}"))
        })?;
        found.used.iter().for_each(|name| self.tensors.reading(name));
        Ok(TensorView { rows, cols, ..found.opened.view(&runs, each)? })
    }

    fn not_plain(&self, role: Role, format: Format) -> LoadError {
        let (name, format) = (self.source_of(role).name, format.name());
        let problem = format!("tensor {} cannot be widened from {format}", shown(&name));
        LoadError::new(self.tensors.origin(), problem)
    }
}
