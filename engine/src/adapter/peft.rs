//! Adapters as the PEFT library saves them: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! Source of the fields and of the scaling rules: PEFT's `LoraConfig` and LoRA layer. Options
//! that change what is computed and are not computed here are refused by name, and so are tensors
//! that change something other than a projection of the base model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use super::{Adapter, Pair};
use crate::config::{CONFIG_BYTES_MAX, Fields, is_off};
use crate::families::Names;
use crate::spec::{LayerPart, ModelSpec, Role};
use crate::weights::safetensors::{self, Entry};
use crate::weights::{
    FileBytes, LoadError, Pick, Source, TensorView, names, read_small, shape_text, shown, widen,
};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Published ranks end at 512 or so.
const RANK_MAX: usize = 4096;
/// What a key of `rank_pattern` may take to compile: they are short module names.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Options that change the computation: absent, null, false, zero or empty.
const MUST_BE_OFF: [&str; 17] = [
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "lora_ga_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
];

/// Reads the adapter in `folder` for a base model of this spec, whose checkpoint names its
/// tensors by `names`.
///
/// # Errors
/// Files are missing or damaged, ask for something that is not computed here, or change parts
/// that the base model does not have.
pub(crate) fn open(folder: &Path, spec: &ModelSpec, names: Names) -> Result<Adapter, LoadError> {
    let path = folder.join(CONFIG);
    let config = Fields::parse(&path, &read_small(&path, CONFIG_BYTES_MAX)?)?;
    let scaling = Scaling::read(&config)?;
    let mut file = File::open(folder.join(WEIGHTS))?;
    let mut adapter = Adapter::default();
    for need in spec.tensors() {
        let Role::Layer(layer, part) = need.role else { continue };
        if need.role.is_vector() {
            continue;
        }
        let source = names(spec, need.role).unwrap_or_else(|| names::hub(need.role));
        if let Some(pair) = file.pair(&source, need.rows, &scaling)? {
            refuse_absorbed(&file, part, &source)?;
            adapter.pairs.insert((layer, part), pair);
        }
    }
    file.refuse_rest(spec)?;
    if adapter.pairs.is_empty() {
        return Err(LoadError::new(&file.path, "holds no pair of lora_A and lora_B"));
    }
    Ok(adapter)
}

/// Latent attention applies these matrices in a turned form, beside which nothing can be added.
fn refuse_absorbed(file: &File, part: LayerPart, source: &Source) -> Result<(), LoadError> {
    if matches!(part, LayerPart::KeyUp | LayerPart::ValueUp) {
        let problem = format!("adapters of {} are not supported", source.name);
        return Err(LoadError::new(&file.path, problem));
    }
    Ok(())
}

/// From a module's name to what its product is multiplied by.
struct Scaling {
    alpha: f64,
    rank: usize,
    /// Divided by the root of the rank (arXiv 2312.03732).
    by_root: bool,
    alphas: Vec<(Regex, f64)>,
    ranks: Vec<(Regex, f64)>,
}

impl Scaling {
    fn read(config: &Fields) -> Result<Self, LoadError> {
        if let Some(kind) = config.word("peft_type")?.filter(|kind| *kind != "LORA") {
            let problem = format!("{} is not supported; LORA is", shown(kind));
            return Err(config.wrong("peft_type", &problem));
        }
        for key in MUST_BE_OFF {
            if config.get(key).is_some_and(|value| !is_off(value)) {
                return Err(config.wrong(key, "this option is not supported"));
            }
        }
        if let Some(bias) = config.word("bias")?.filter(|bias| *bias != "none") {
            let problem = format!("{} is not supported; none is", shown(bias));
            return Err(config.wrong("bias", &problem));
        }
        // These start from a changed base; saved unconverted, they mean nothing beside the plain.
        if let Some(Value::String(start)) = config.get("init_lora_weights")
            && !["gaussian", "eva", "orthogonal"].contains(&start.as_str())
        {
            let problem = format!("{} changes the base model; convert the adapter", shown(start));
            return Err(config.wrong("init_lora_weights", &problem));
        }
        let alpha = config.number("lora_alpha", 0.0, 1e9)?.unwrap_or(8.0);
        Ok(Self {
            alpha,
            rank: config.count("r", RANK_MAX)?.unwrap_or(8),
            by_root: config.flag("use_rslora")?.unwrap_or(false),
            alphas: patterns(config, "alpha_pattern")?,
            ranks: patterns(config, "rank_pattern")?,
        })
    }

    /// Rank and scale of a module.
    fn of(&self, module: &str) -> (usize, f32) {
        let find = |patterns: &[(Regex, f64)]| {
            patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
        };
        let alpha = find(&self.alphas).unwrap_or(self.alpha);
        let rank = find(&self.ranks).map_or(self.rank, |rank| rank as usize);
        let by = if self.by_root { (rank as f64).sqrt() } else { rank as f64 };
        (rank, (alpha / by) as f32)
    }
}

/// A pattern stands for modules whose name ends with a match, behind a dot or alone.
fn patterns(config: &Fields, key: &str) -> Result<Vec<(Regex, f64)>, LoadError> {
    let Some(map) = config.object(key)? else { return Ok(Vec::new()) };
    let pattern = |name: &str| {
        let value = map.number(name, 0.0, 1e9)?.ok_or_else(|| map.wrong(name, "is missing"))?;
        let regex = regex::RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{name})$"))
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|_| map.wrong(&shown(name), "is not a pattern that is understood here"))?;
        Ok((regex, value))
    };
    map.keys().map(pattern).collect()
}

/// The adapter's tensors by module.
struct File {
    path: PathBuf,
    bytes: FileBytes,
    modules: BTreeMap<String, Module>,
}

#[derive(Default)]
struct Module {
    down: Option<Entry>,
    up: Option<Entry>,
    used: bool,
}

impl File {
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        let bytes = FileBytes::map(&path)?;
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        for (name, entry) in safetensors::parse(&path, bytes.get())? {
            let (module, is_down) = split(&name).ok_or_else(|| {
                let problem = format!("tensor {} is not part of a low-rank pair", shown(&name));
                LoadError::new(&path, problem)
            })?;
            let module = modules.entry(module.to_owned()).or_default();
            let place = if is_down { &mut module.down } else { &mut module.up };
            if place.replace(entry).is_some() {
                let problem = format!("tensor {} is there twice", shown(&name));
                return Err(LoadError::new(&path, problem));
            }
        }
        Ok(Self { path, bytes, modules })
    }

    /// The pair of a projection whose outputs are some rows of the module that `source` names.
    fn pair(
        &mut self,
        source: &Source,
        rows: usize,
        scaling: &Scaling,
    ) -> Result<Option<Pair>, LoadError> {
        let wanted = source.name.strip_suffix(".weight").unwrap_or(&source.name);
        // The file names modules from the top of the wrapped model, sources from its base.
        let is_it = |name: &str| {
            name.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let Some(name) = self.modules.keys().find(|name| is_it(name)).cloned() else {
            return Ok(None);
        };
        let (rank, scale) = scaling.of(&name);
        let module = self.modules.get_mut(&name).expect("just found");
        module.used = true;
        let (Some(down), Some(up)) = (module.down.clone(), module.up.clone()) else {
            let problem = format!("module {} has only half of its pair", shown(&name));
            return Err(LoadError::new(&self.path, problem));
        };
        let (found_rank, _) = self.dims(&name, "lora_A", &down)?;
        let (found_rows, up_rank) = self.dims(&name, "lora_B", &up)?;
        if found_rank != rank || up_rank != rank {
            let problem = format!(
                "module {}: {CONFIG} says rank {rank}, the tensors have {found_rank} and {up_rank}",
                shown(&name)
            );
            return Err(LoadError::new(&self.path, problem));
        }
        let total = source.rows_of(rows);
        if found_rows != total {
            let problem = format!(
                "module {} has {found_rows} outputs, the base model's has {total}: \
                 the adapter is for another base model",
                shown(&name)
            );
            return Err(LoadError::new(&self.path, problem));
        }
        let (down, all) = (self.values(&name, &down)?, self.values(&name, &up)?);
        let up = picked(&all, rank, rows, source.pick);
        Ok(Some(Pair { down, up, rank, scale }))
    }

    fn dims(&self, name: &str, half: &str, entry: &Entry) -> Result<(usize, usize), LoadError> {
        match *entry.shape.dims() {
            [rows, cols] if rows > 0 && cols > 0 => Ok((rows as usize, cols as usize)),
            ref other => {
                let problem = format!(
                    "tensor {half} of {} is {}, wanted a matrix",
                    shown(name),
                    shape_text(other)
                );
                Err(LoadError::new(&self.path, problem))
            }
        }
    }

    fn values(&self, name: &str, entry: &Entry) -> Result<Vec<f32>, LoadError> {
        let wrong = |problem: String| {
            LoadError::new(&self.path, format!("module {}: {problem}", shown(name)))
        };
        let dims = entry.shape.dims();
        let Some(format) = entry.dtype.format else {
            return Err(wrong(format!("elements of type {} are not read", entry.dtype.name)));
        };
        let bytes = self.bytes.get()[entry.place.clone()].into();
        let (rows, cols) = (dims[0] as usize, dims[1] as usize);
        let view = TensorView { format, rows, cols, bytes, order: None };
        let values = widen(&view).ok_or_else(|| wrong("it is not plain numbers".to_owned()))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(wrong("a value is not a finite number".to_owned()));
        }
        Ok(values)
    }

    /// Modules that belong to no projection would be silently left out.
    fn refuse_rest(&self, spec: &ModelSpec) -> Result<(), LoadError> {
        match self.modules.iter().find(|(_, module)| !module.used) {
            None => Ok(()),
            Some((name, _)) => {
                let problem = format!(
                    "changes module {}, which is no projection of the layers of this {} model",
                    shown(name),
                    spec.family
                );
                Err(LoadError::new(&self.path, problem))
            }
        }
    }
}

/// `base_model.model.<module>.lora_A[.<adapter>].weight` -> module, and whether it is `lora_A`.
fn split(name: &str) -> Option<(&str, bool)> {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    let name = name.strip_suffix(".weight")?;
    for (half, is_down) in [(".lora_A", true), (".lora_B", false)] {
        if let Some((module, adapter)) = name.split_once(half) {
            let plain = adapter.is_empty() || adapter.starts_with('.');
            return plain.then_some((module, is_down));
        }
    }
    None
}

/// The rows of `[total, rank]` that a role is.
fn picked(all: &[f32], rank: usize, rows: usize, pick: Pick) -> Vec<f32> {
    let row = |at: usize| all[at * rank..(at + 1) * rank].iter().copied();
    match pick {
        Pick::All => all.to_vec(),
        Pick::Run { first, .. } => (first..first + rows).flat_map(row).collect(),
        Pick::EveryOther { first } => (0..rows).flat_map(|i| row(first + 2 * i)).collect(),
        Pick::OfEach { count, stride, first } => {
            let each = rows / count;
            let at = |i: usize| i / each * stride + first + i % each;
            (0..rows).flat_map(|i| row(at(i))).collect()
        }
    }
}
