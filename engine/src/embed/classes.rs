//! The heads of cross-encoders: what a `...ForSequenceClassification` computes of the hidden
//! states, as transformers defines it for each family.

use super::{Activation, Pooler, Pooling, Stage, Task};
use crate::config::Fields;
use crate::model::ModelFiles;
use crate::weights::shards::Tensors;
use crate::weights::{LoadError, shown};

/// What ends the name of an architecture with classes.
pub(super) const ENDING: &str = "ForSequenceClassification";

/// Classes of the largest published tables are some thousands.
const LABELS_MAX: usize = 1 << 16;

/// The head of a model with classes, of which there must be one: the score.
pub(super) fn pooler(files: &ModelFiles, config: &Fields) -> Result<Pooler, LoadError> {
    one_label(config)?;
    let tensors = Tensors::open(&files.path)?;
    let hidden = files.spec.hidden;
    let head = Head { tensors: &tensors, hidden };
    let (pooling, mut stages) = match files.spec.family {
        "bert" => {
            let prefix = if tensors.has("bert.pooler.dense.weight") { "bert." } else { "" };
            let pooler = head.dense(&format!("{prefix}pooler.dense"), Activation::Tanh)?;
            (Pooling::First, vec![pooler, head.score("classifier")?])
        }
        "roberta" => {
            let dense = head.dense("classifier.dense", Activation::Tanh)?;
            (Pooling::First, vec![dense, head.score("classifier.out_proj")?])
        }
        "distilbert" => {
            let dense = head.dense("pre_classifier", Activation::Relu)?;
            (Pooling::First, vec![dense, head.score("classifier")?])
        }
        "modernbert" => modernbert(config, &head)?,
        "llama" | "qwen3" => (Pooling::Last, vec![head.score("score")?]),
        other => {
            let problem = format!("classes are not supported for the family {other}");
            return Err(config.wrong("architectures", &problem));
        }
    };
    let activation = activation(config)?;
    if activation != Activation::Identity {
        stages.push(Stage::Dense { weight: vec![1.0], bias: Vec::new(), activation });
    }
    Ok(Pooler::of(Task::Rerank, hidden, vec![pooling], stages))
}

fn modernbert(config: &Fields, head: &Head<'_>) -> Result<(Pooling, Vec<Stage>), LoadError> {
    let pooling = match config.word("classifier_pooling")? {
        None | Some("cls") => Pooling::First,
        Some("mean") => Pooling::Mean,
        Some(other) => {
            let problem = format!("{} is not supported; wanted cls or mean", shown(other));
            return Err(config.wrong("classifier_pooling", &problem));
        }
    };
    let activation = match config.word("classifier_activation")? {
        None | Some("gelu") => Activation::Gelu,
        Some("silu") => Activation::Silu,
        Some("relu") => Activation::Relu,
        Some(other) => {
            let problem = format!("{} is not supported", shown(other));
            return Err(config.wrong("classifier_activation", &problem));
        }
    };
    let eps = config.number("norm_eps", 0.0, 1.0)?.unwrap_or(1e-5) as f32;
    let norm = Stage::LayerNorm {
        weight: head.tensors.need_plain("head.norm.weight", &[head.hidden])?,
        bias: head.tensors.plain("head.norm.bias", &[head.hidden])?.unwrap_or_default(),
        eps,
    };
    Ok((pooling, vec![head.dense("head.dense", activation)?, norm, head.score("classifier")?]))
}

/// Tensors of a head.
struct Head<'a> {
    tensors: &'a Tensors,
    hidden: usize,
}

impl Head<'_> {
    /// `hidden` to `hidden`.
    fn dense(&self, name: &str, activation: Activation) -> Result<Stage, LoadError> {
        self.linear(name, self.hidden, activation)
    }

    /// `hidden` to the score.
    fn score(&self, name: &str) -> Result<Stage, LoadError> {
        self.linear(name, 1, Activation::Identity)
    }

    fn linear(&self, name: &str, rows: usize, activation: Activation) -> Result<Stage, LoadError> {
        let weight = self.tensors.need_plain(&format!("{name}.weight"), &[rows, self.hidden])?;
        let bias = self.tensors.plain(&format!("{name}.bias"), &[rows])?.unwrap_or_default();
        Ok(Stage::Dense { weight, bias, activation })
    }
}

/// A ranking needs one number.
fn one_label(config: &Fields) -> Result<(), LoadError> {
    let named = config.object("id2label")?.map(|labels| labels.keys().count());
    // What transformers takes where nothing is said.
    let labels = match (named, config.count("num_labels", LABELS_MAX)?) {
        (Some(labels), _) | (None, Some(labels)) => labels,
        (None, None) => 2,
    };
    if labels == 1 {
        return Ok(());
    }
    let problem = format!("has {labels} classes; only models with one, the score, are served");
    Err(config.wrong("id2label", &problem))
}

/// From logit to score: what the file asks for, or, as sentence-transformers has it for one
/// class, a sigmoid.
fn activation(config: &Fields) -> Result<Activation, LoadError> {
    let nested = config.object("sentence_transformers")?;
    let (asked, key) = match &nested {
        Some(fields) if fields.word("activation_fn")?.is_some() => {
            (fields.word("activation_fn")?, "sentence_transformers.activation_fn")
        }
        _ => {
            let key = "sbert_ce_default_activation_function";
            (config.word(key)?, key)
        }
    };
    match asked {
        None => Ok(Activation::Sigmoid),
        Some(name) => named(name).ok_or_else(|| {
            let problem = format!("{} is not supported", shown(name));
            config.wrong(key, &problem)
        }),
    }
}

/// A function by the name of its class in torch.
pub(super) fn named(name: &str) -> Option<Activation> {
    Some(match name.rsplit('.').next()? {
        "Identity" => Activation::Identity,
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "ReLU" => Activation::Relu,
        "GELU" => Activation::Gelu,
        "SiLU" => Activation::Silu,
        _ => return None,
    })
}

/// A generator that answers "yes" or "no": the score is the probability of "yes" against "no".
/// The difference of two rows of the head gives the difference of their logits.
pub(super) fn yes_or_no(files: &ModelFiles) -> Result<Pooler, LoadError> {
    let wrong = |problem: &str| LoadError::new(&files.path, problem);
    let (Some(yes), Some(no)) = (files.text.token_id("yes"), files.text.token_id("no")) else {
        return Err(wrong("the tokenizer has no tokens 'yes' and 'no' to rerank with"));
    };
    let Some(head) = files.spec.head else {
        return Err(wrong("a model without a head cannot say 'yes' or 'no'"));
    };
    let role = if head.tied { crate::spec::Role::Embedding } else { crate::spec::Role::Head };
    let (rows, cols) = (files.spec.vocab, files.spec.hidden);
    let view = files.weights.tensor(role, rows, cols)?;
    let each = view.format.row_bytes(cols);
    let row = |id: u32| -> Result<Vec<f32>, LoadError> {
        let start = id as usize * each;
        let bytes = view.bytes.get(start..start + each).unwrap_or_default();
        let one = crate::weights::TensorView { rows: 1, bytes: bytes.into(), ..view.clone() };
        let row = crate::weights::widen(&one).filter(|row| row.len() == cols);
        row.ok_or_else(|| wrong("a quantized head cannot rerank"))
    };
    let (yes, no) = (row(yes)?, row(no)?);
    let weight = yes.iter().zip(&no).map(|(yes, no)| yes - no).collect();
    let score = Stage::Dense { weight, bias: Vec::new(), activation: Activation::Sigmoid };
    Ok(Pooler::of(Task::Rerank, cols, vec![Pooling::Last], vec![score]))
}
