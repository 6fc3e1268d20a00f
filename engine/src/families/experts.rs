//! Mixtures of experts: what the families read in the same way from both file formats.

use kernels::{Activation, RouterGroups, RouterScore};

use super::decoder::{EXPERTS_MAX, HIDDEN_MAX, LAYERS_MAX};
use super::header::Header;
use super::hub;
use crate::config::Fields;
use crate::spec::{ExpertsSpec, MlpSpec, ModelSpec, RouterSpec, SharedSpec};
use crate::weights::LoadError;

/// Experts of all layers together. The largest published models have 30,000; more would make a
/// file of a few bytes ask for a list of tensors without end.
const ALL_MAX: usize = 1 << 17;

/// Experts chosen by the softmax over all of them; the family changes what differs.
fn plain(count: usize, top_k: usize, width: usize) -> ExpertsSpec {
    let router = RouterSpec {
        score: RouterScore::Softmax,
        bias: false,
        correction: false,
        groups: None,
        normalise: false,
        scale: 1.0,
    };
    let activation = Activation::Silu;
    ExpertsSpec { count, top_k, width, activation, bias: false, router, shared: None }
}

/// Experts of a config.json: how many is in one of `counts`, their width in `width`.
pub(super) fn from_config(
    config: &Fields,
    counts: &[&str],
    width: &str,
) -> Result<ExpertsSpec, LoadError> {
    let key = counts.iter().find(|key| config.get(key).is_some()).unwrap_or(&counts[0]);
    let count = config.need(key, EXPERTS_MAX)?;
    let top_k = config.need("num_experts_per_tok", EXPERTS_MAX)?;
    if top_k > count {
        let problem = format!("{top_k} of {count} experts cannot be chosen");
        return Err(config.wrong("num_experts_per_tok", &problem));
    }
    if count * config.count("num_hidden_layers", LAYERS_MAX)?.unwrap_or(1) > ALL_MAX {
        return Err(config.wrong(key, &format!("{count} in every layer are too many")));
    }
    Ok(plain(count, top_k, config.need(width, HIDDEN_MAX)?))
}

/// Experts of a GGUF header; `width` is theirs where the header has none for experts.
pub(super) fn from_header(header: &Header<'_>, width: usize) -> Result<ExpertsSpec, LoadError> {
    let count = header.need("expert_count", EXPERTS_MAX)?;
    let top_k = header.need("expert_used_count", EXPERTS_MAX)?;
    if top_k > count {
        let problem = format!("{top_k} of {count} experts cannot be chosen");
        return Err(header.wrong("expert_used_count", &problem));
    }
    if count * header.count("block_count", LAYERS_MAX)?.unwrap_or(1) > ALL_MAX {
        let problem = format!("{count} in every layer are too many");
        return Err(header.wrong("expert_count", &problem));
    }
    let own = header.some("expert_feed_forward_length", HIDDEN_MAX)?;
    Ok(plain(count, top_k, own.unwrap_or(width)))
}

/// Groups of experts, of which the best are kept; `None` where there is one, or all are kept.
pub(super) fn groups(
    config: &Fields,
    experts: &ExpertsSpec,
    (count, kept): (usize, usize),
    two_best: bool,
) -> Result<Option<RouterGroups>, LoadError> {
    let count = config.count("n_group", EXPERTS_MAX)?.unwrap_or(count);
    let kept = config.count("topk_group", EXPERTS_MAX)?.unwrap_or(kept);
    if count <= 1 || kept >= count {
        return Ok(None);
    }
    let size = experts.count / count;
    if size * count != experts.count || size < 1 + usize::from(two_best) {
        let problem = format!("{count} groups do not share out {} experts", experts.count);
        return Err(config.wrong("n_group", &problem));
    }
    if kept * size < experts.top_k {
        let problem = format!("{kept} groups have fewer than {} experts", experts.top_k);
        return Err(config.wrong("topk_group", &problem));
    }
    Ok(Some(RouterGroups { count, kept, two_best }))
}

/// `n_shared_experts` of the experts' width, as one MLP that is as wide as all of them.
pub(super) fn shared(
    config: &Fields,
    width: usize,
    default: usize,
) -> Result<Option<SharedSpec>, LoadError> {
    let count = match config.whole("n_shared_experts")? {
        Some(count) => count as usize,
        None => default,
    };
    if count > EXPERTS_MAX || count * width > HIDDEN_MAX * EXPERTS_MAX {
        return Err(config.wrong("n_shared_experts", &format!("{count} are too many")));
    }
    Ok(Some(SharedSpec { width: count * width, switch: false }).filter(|_| count > 0))
}

/// Scores, groups and shared experts as the header of DeepSeek's and GLM's files spell them.
pub(super) fn finish(header: &Header<'_>, experts: &mut ExpertsSpec) -> Result<(), LoadError> {
    experts.router.score = match header.number("expert_gating_func", 0.0, 16.0)? {
        Some(func) if func > 1.5 && func < 2.5 => RouterScore::Sigmoid,
        None | Some(0.0..=1.5) => RouterScore::Softmax,
        Some(func) => {
            let problem = format!("function {func} is not supported; 1 and 2 are");
            return Err(header.wrong("expert_gating_func", &problem));
        }
    };
    let sigmoid = experts.router.score == RouterScore::Sigmoid;
    experts.router.normalise = header.flag("expert_weights_norm")?;
    experts.router.scale = header.factor("expert_weights_scale")?;
    let count = header.some("expert_group_count", EXPERTS_MAX)?.unwrap_or(1);
    let kept = header.some("expert_group_used_count", EXPERTS_MAX)?.unwrap_or(count);
    if count > 1 && kept < count {
        let size = experts.count / count;
        if size * count != experts.count || size < 2 || kept * size < experts.top_k {
            let problem = format!("{kept} of {count} groups of {} experts", experts.count);
            return Err(header.wrong("expert_group_count", &problem));
        }
        experts.router.groups = Some(RouterGroups { count, kept, two_best: sigmoid });
    }
    let shared = header.some("expert_shared_count", EXPERTS_MAX)?;
    let width = experts.width;
    experts.shared = shared.map(|count| SharedSpec { width: count * width, switch: false });
    Ok(())
}

/// Puts the experts into the layers for which `routed` holds, with the activation that the MLP
/// there had.
pub(super) fn place(spec: &mut ModelSpec, experts: &ExpertsSpec, routed: impl Fn(usize) -> bool) {
    for (index, layer) in spec.layers.iter_mut().enumerate() {
        if !routed(index) {
            continue;
        }
        let mut experts = experts.clone();
        if let MlpSpec::Dense(dense) = &layer.mlp {
            experts.activation = dense.activation;
        }
        layer.mlp = MlpSpec::Experts(experts);
    }
}

/// The layers that Qwen's configurations give experts to: every `decoder_sparse_step`-th, but
/// none of `mlp_only_layers`.
pub(super) fn sparse(config: &Fields, layers: usize) -> Result<Vec<bool>, LoadError> {
    let step = config.count("decoder_sparse_step", LAYERS_MAX)?.unwrap_or(1);
    let dense = config.numbers("mlp_only_layers", 0.0, LAYERS_MAX as f64)?.unwrap_or_default();
    let only = |layer: usize| dense.iter().any(|only| *only as usize == layer);
    Ok((0..layers).map(|layer| (layer + 1).is_multiple_of(step) && !only(layer)).collect())
}

/// `norm_topk_prob`.
pub(super) fn normalise(config: &Fields, default: bool) -> Result<bool, LoadError> {
    Ok(config.flag("norm_topk_prob")?.unwrap_or(default))
}

/// `routed_scaling_factor`.
pub(super) fn scale(config: &Fields) -> Result<f32, LoadError> {
    hub::factor(config, "routed_scaling_factor")
}
