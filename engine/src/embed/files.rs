//! What a model is there for, and what stands behind its layers: read from config.json and from
//! the files that sentence-transformers writes (modules.json and what it names).

use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Pooler, Pooling, Reads, Stage, Task, classes};
use crate::config::{CONFIG_BYTES_MAX, Fields};
use crate::model::ModelFiles;
use crate::weights::gguf::Gguf;
use crate::weights::shards::Tensors;
use crate::weights::{self, LoadError, shown};

/// Modules behind a model; published ones have four.
const MODULES_MAX: usize = 16;
/// Elements on either side of a dense layer.
const WIDTH_MAX: usize = 1 << 17;
/// Named prompts; published models have some dozens.
const PROMPTS_MAX: usize = 1024;

/// How Qwen3-Reranker is asked; its authors' words.
const QWEN_PAIR: [&str; 3] = [
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and \
     the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n\
     <|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that \
     answer the query\n<Query>: ",
    "\n<Document>: ",
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
];

/// What stands behind a model, or `None` for one that generates. `asked` overrides what the files
/// suggest, where they leave a choice. A model that does not generate loses its head.
///
/// # Errors
/// The files ask for what is not supported, or the model cannot do what is asked.
pub fn describe(files: &mut ModelFiles, asked: Option<Task>) -> Result<Option<Pooler>, LoadError> {
    let pooler = match choose(files, asked)? {
        Choice::Generate => return Ok(None),
        Choice::Classes(config) => {
            let mut pooler = classes::pooler(files, &config)?;
            read_limits(&files.path, &mut pooler)?;
            pooler
        }
        Choice::YesOrNo => {
            let mut pooler = classes::yes_or_no(files)?;
            pooler.reads.pair = Some(QWEN_PAIR.map(str::to_owned));
            pooler
        }
        Choice::Modules(list) => modules(files, &list)?,
        Choice::Bare => bare(files)?,
    };
    files.spec.head = None;
    // What the weights' check took for unused is what stands in the pooler.
    files.notes.retain(|note| pooler.task != Task::Rerank || !note.contains("are not used"));
    Ok(Some(pooler))
}

enum Choice {
    Generate,
    Classes(Fields),
    YesOrNo,
    Modules(Modules),
    Bare,
}

/// What modules.json lists.
struct Modules {
    file: PathBuf,
    modules: Vec<Fields>,
}

fn choose(files: &ModelFiles, asked: Option<Task>) -> Result<Choice, LoadError> {
    let path = &files.path;
    let cannot = |what: &str| Err(LoadError::new(path, format!("this model cannot {what}")));
    let folder = path.is_dir();
    let config = if folder { read(path, "config.json")? } else { None };
    let architectures = match &config {
        Some(config) => config.words("architectures")?.unwrap_or_default(),
        None => Vec::new(),
    };
    if architectures.iter().any(|name| name.ends_with(classes::ENDING)) {
        return match (asked, config) {
            (None | Some(Task::Rerank), Some(config)) => Ok(Choice::Classes(config)),
            _ => cannot("do anything but rerank: it ends in classes"),
        };
    }
    let generates = files.spec.causal && files.spec.head.is_some();
    let yes_or_no = files.spec.family == "qwen3" && generates;
    let list = if folder { read_modules(path)? } else { None };
    let named = path.to_string_lossy().to_lowercase().contains("qwen3-reranker");
    match asked {
        Some(Task::Generate) if generates => Ok(Choice::Generate),
        Some(Task::Generate) => cannot("generate text: it only reads"),
        Some(Task::Rerank) if yes_or_no => Ok(Choice::YesOrNo),
        Some(Task::Rerank) => cannot("rerank: it has no classes"),
        None if yes_or_no && named && list.is_none() => Ok(Choice::YesOrNo),
        None if generates && list.is_none() => Ok(Choice::Generate),
        None | Some(Task::Embed) => Ok(list.map_or(Choice::Bare, Choice::Modules)),
    }
}

/// A model without a word about pooling: the mean for encoders, as sentence-transformers does
/// then, the last position for decoders, which alone has seen everything.
fn bare(files: &ModelFiles) -> Result<Pooler, LoadError> {
    let usual = if files.spec.causal { Pooling::Last } else { Pooling::Mean };
    let pooling = if files.path.is_dir() { None } else { gguf_pooling(&files.path)? };
    let pooling = vec![pooling.unwrap_or(usual)];
    let mut pooler = Pooler::of(Task::Embed, files.spec.hidden, pooling, vec![Stage::Normalise]);
    if files.path.is_dir() {
        read_limits(&files.path, &mut pooler)?;
    }
    Ok(pooler)
}

/// `pooling_type` of a GGUF header: 1 mean, 2 first, 3 last; 0 says nothing.
fn gguf_pooling(path: &Path) -> Result<Option<Pooling>, LoadError> {
    let header = Gguf::open(path)?;
    let architecture = header.need_text("general.architecture")?.to_owned();
    let key = format!("{architecture}.pooling_type");
    Ok(match header.number(&key, 0.0, 16.0)?.map(|kind| kind as u32) {
        None | Some(0) => None,
        Some(1) => Some(Pooling::Mean),
        Some(2) => Some(Pooling::First),
        Some(3) => Some(Pooling::Last),
        Some(other) => return Err(header.wrong(&key, &format!("{other} is not supported"))),
    })
}

/// The modules that modules.json lists, in their order.
fn modules(files: &ModelFiles, list: &Modules) -> Result<Pooler, LoadError> {
    let folder = &files.path;
    let hidden = files.spec.hidden;
    let (mut pooling, mut stages, mut include_prompt) = (None, Vec::new(), true);
    let mut size = hidden;
    for (index, module) in list.modules.iter().enumerate() {
        let kind = module.word("type")?.unwrap_or_default();
        let path = module.word("path")?.unwrap_or_default();
        let refuse = |problem: &str| Err(module.wrong("type", problem));
        match (kind.rsplit('.').next().unwrap_or_default(), index) {
            ("Transformer", 0) if path.is_empty() => {}
            ("Transformer", 0) => return refuse("the model itself must lie in the folder's root"),
            (_, 0) => return refuse("the first module must be a Transformer"),
            ("Pooling", _) if pooling.is_none() && stages.is_empty() => {
                let config = need(&beside(folder, path, module)?, "config.json")?;
                let (found, include) = read_pooling(&config)?;
                size = hidden * found.len();
                (pooling, include_prompt) = (Some(found), include);
            }
            ("Dense", _) if pooling.is_some() => {
                let stage = dense(&beside(folder, path, module)?, size)?;
                size = stage.size(size);
                stages.push(stage);
            }
            ("Normalize", _) if pooling.is_some() => stages.push(Stage::Normalise),
            _ => {
                let problem = format!("{} is not supported in this place", shown(kind));
                return refuse(&problem);
            }
        }
    }
    let Some(pooling) = pooling else {
        return Err(LoadError::new(&list.file, "names no Pooling"));
    };
    let mut pooler = Pooler::of(Task::Embed, hidden, pooling, stages);
    pooler.reads.include_prompt = include_prompt;
    read_limits(folder, &mut pooler)?;
    read_prompts(folder, &mut pooler.reads)?;
    Ok(pooler)
}

fn read_modules(folder: &Path) -> Result<Option<Modules>, LoadError> {
    let file = folder.join("modules.json");
    if !file.exists() {
        return Ok(None);
    }
    let bytes = weights::read_small(&file, CONFIG_BYTES_MAX)?;
    let list: Vec<&RawValue> = serde_json::from_slice(&bytes)
        .map_err(|e| LoadError::new(&file, format!("is not a JSON list: {e}")))?;
    if list.is_empty() || list.len() > MODULES_MAX {
        let problem = format!("lists {} modules; wanted 1 to {MODULES_MAX}", list.len());
        return Err(LoadError::new(&file, problem));
    }
    let each = list.iter().map(|module| Fields::parse(&file, module.get().as_bytes()));
    let modules = each.collect::<Result<_, _>>()?;
    Ok(Some(Modules { file, modules }))
}

/// A folder below the model's, by a plain name.
fn beside(folder: &Path, path: &str, module: &Fields) -> Result<PathBuf, LoadError> {
    let plain =
        !path.is_empty() && !path.starts_with('.') && !path.contains(['/', '\\', '\0', ':']);
    if plain {
        return Ok(folder.join(path));
    }
    Err(module.wrong("path", &format!("{} is not the name of a folder here", shown(path))))
}

/// In the order in which sentence-transformers puts several results together.
const POOLINGS: [(&str, &str, Pooling); 6] = [
    ("pooling_mode_cls_token", "cls", Pooling::First),
    ("pooling_mode_max_tokens", "max", Pooling::Max),
    ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrt),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Pooling::Weighted),
    ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
];

/// Flags, as most files have them, or the names of the modes.
fn read_pooling(config: &Fields) -> Result<(Vec<Pooling>, bool), LoadError> {
    let mut found = Vec::new();
    let named: Option<Vec<&str>> = match config.get("pooling_mode") {
        Some(Value::String(one)) => Some(vec![one]),
        Some(_) => config.words("pooling_mode")?,
        None => None,
    };
    for name in named.iter().flatten() {
        let Some((_, _, pooling)) = POOLINGS.iter().find(|(_, known, _)| known == name) else {
            let problem = format!("{} is not supported", shown(name));
            return Err(config.wrong("pooling_mode", &problem));
        };
        found.push(*pooling);
    }
    for (key, _, pooling) in POOLINGS {
        if config.flag(key)? == Some(true) && named.is_none() {
            found.push(pooling);
        }
    }
    let unknown = |key: &&str| {
        key.starts_with("pooling_mode_") && POOLINGS.iter().all(|(known, ..)| known != key)
    };
    if let Some(key) = config.keys().find(unknown) {
        return Err(config.wrong(key, "is not supported"));
    }
    if found.is_empty() {
        return Err(LoadError::new(config.file(), "asks for no pooling"));
    }
    Ok((found, config.flag("include_prompt")?.unwrap_or(true)))
}

/// A dense layer and its activation.
fn dense(folder: &Path, size: usize) -> Result<Stage, LoadError> {
    let config = need(folder, "config.json")?;
    let (cols, rows) =
        (config.need("in_features", WIDTH_MAX)?, config.need("out_features", WIDTH_MAX)?);
    if cols != size {
        let problem = format!("is {cols}; what comes before has {size}");
        return Err(config.wrong("in_features", &problem));
    }
    for key in ["module_input_name", "module_output_name"] {
        if config.word(key)?.is_some_and(|name| name != "sentence_embedding") {
            return Err(config.wrong(key, "only sentence_embedding is supported"));
        }
    }
    let name = config.word("activation_function")?.unwrap_or("Tanh");
    let Some(activation) = classes::named(name) else {
        let problem = format!("{} is not supported", shown(name));
        return Err(config.wrong("activation_function", &problem));
    };
    let tensors = Tensors::open(folder)?;
    let weight = tensors.need_plain("linear.weight", &[rows, cols])?;
    let bias = match config.flag("bias")? {
        Some(false) => Vec::new(),
        _ => tensors.need_plain("linear.bias", &[rows])?,
    };
    Ok(Stage::Dense { weight, bias, activation })
}

/// How much the model reads, and whether in lower case.
fn read_limits(folder: &Path, pooler: &mut Pooler) -> Result<(), LoadError> {
    /// A tokenizer without a limit says 10^30.
    const NO_LIMIT: f64 = 1e9;
    let file = read(folder, "sentence_bert_config.json")?;
    if let Some(file) = &file {
        pooler.tokens_max = file.count("max_seq_length", 1 << 24)?;
        pooler.reads.lower_case = file.flag("do_lower_case")?.unwrap_or(false);
    }
    if pooler.tokens_max.is_none()
        && let Some(file) = read(folder, "tokenizer_config.json")?
    {
        let most = file.number("model_max_length", 1.0, f64::MAX)?;
        pooler.tokens_max = most.filter(|most| *most < NO_LIMIT).map(|most| most as usize);
    }
    Ok(())
}

/// The prompts that stand in front of texts.
fn read_prompts(folder: &Path, reads: &mut Reads) -> Result<(), LoadError> {
    let Some(file) = read(folder, "config_sentence_transformers.json")? else { return Ok(()) };
    if let Some(prompts) = file.object("prompts")? {
        for name in prompts.keys().take(PROMPTS_MAX) {
            let text = prompts.word(name)?.unwrap_or_default();
            reads.prompts.push((name.to_owned(), text.to_owned()));
        }
    }
    if let Some(name) = file.word("default_prompt_name")? {
        if !reads.prompts.iter().any(|(known, _)| known == name) {
            let problem = format!("{} is none of the prompts", shown(name));
            return Err(file.wrong("default_prompt_name", &problem));
        }
        reads.default_prompt = Some(name.to_owned());
    }
    Ok(())
}

/// A file that may be missing.
fn read(folder: &Path, name: &str) -> Result<Option<Fields>, LoadError> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = weights::read_small(&path, CONFIG_BYTES_MAX)?;
    Fields::parse(&path, &bytes).map(Some)
}

fn need(folder: &Path, name: &str) -> Result<Fields, LoadError> {
    let missing = || LoadError::new(&folder.join(name), "is missing; modules.json names it");
    read(folder, name)?.ok_or_else(missing)
}
