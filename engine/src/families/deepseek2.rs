//! DeepSeek V2 and V2.5: keys and values compressed to one latent for all heads, many small
//! experts chosen by softmax, shared ones (arXiv 2405.04434).
//!
//! V3 builds on the same parts; GGUF files of both carry the same name.

use kernels::RouterScore;

use super::decoder::{HEAD_DIM_MAX, HIDDEN_MAX, LAYERS_MAX};
use super::header::{self, Header};
use super::hub::Spelling;
use super::{Family, USUAL, experts, hub, names, rope};
use crate::config::Fields;
use crate::spec::{ExpertsSpec, LatentSpec, LayerPart as P, ModelSpec, Role};
use crate::weights::{LoadError, Pick, Source, shown};

pub(super) const FAMILY: Family = Family {
    name: "deepseek_v2",
    architectures: &["DeepseekV2ForCausalLM"],
    model_types: &["deepseek_v2"],
    gguf: &["deepseek2"],
    own_code: true,
    hub_source,
    gguf_source,
    spare: names::beyond,
    from_config,
    from_header,
    ..USUAL
};

/// The norms of the compressions do not follow the config's epsilon.
const LATENT_EPS: f32 = 1e-6;

/// Shared with V3. What turns is one part of a head, which has a size of its own.
pub(super) const SPELLING: Spelling =
    Spelling { head_dim: ("qk_rope_head_dim", None), ..hub::LLAMA };

fn from_config(config: &Fields) -> Result<ModelSpec, LoadError> {
    let mut spec = hub::decoder(config, FAMILY.name, &SPELLING)?;
    latent(config, &mut spec)?;
    hub::no_window(config, &spec)?;
    let mut mixture = mixture(config, "softmax")?;
    let grouped = match config.word("topk_method")? {
        None | Some("greedy") => false,
        Some("group_limited_greedy") => true,
        Some(other) => {
            let problem = format!("{} is not supported", shown(other));
            return Err(config.wrong("topk_method", &problem));
        }
    };
    let groups = experts::groups(config, &mixture, (1, 1), false)?;
    mixture.router.groups = groups.filter(|_| grouped);
    if experts::normalise(config, false)? {
        // The published code then leaves the scaling out, the library does neither.
        return Err(config.wrong("norm_topk_prob", "is not supported in this family"));
    }
    let first = config.whole("first_k_dense_replace")?.unwrap_or(0) as usize;
    experts::place(&mut spec, &mixture, |layer| layer >= first);
    Ok(spec)
}

/// The compressed attention of a config.json.
pub(super) fn latent(config: &Fields, spec: &mut ModelSpec) -> Result<(), LoadError> {
    let query_rank = if config.spells("q_lora_rank") {
        config.count("q_lora_rank", HIDDEN_MAX)?
    } else {
        Some(1536)
    };
    let latent = LatentSpec {
        query_rank,
        latent: config.need("kv_lora_rank", HEAD_DIM_MAX)?,
        plain: config.need("qk_nope_head_dim", HEAD_DIM_MAX)?,
        rotated: config.need("qk_rope_head_dim", HEAD_DIM_MAX)?,
        value: config.need("v_head_dim", HEAD_DIM_MAX)?,
        norm_eps: LATENT_EPS,
        keys_transposed: false,
    };
    // Saved files repeat the sizes that follow from these.
    hub::idle(config, &["head_dim", "qk_head_dim"]);
    compress(spec, latent, rope::latent_scale(config)?);
    Ok(())
}

fn compress(spec: &mut ModelSpec, latent: LatentSpec, factor: f32) {
    let head_dim = latent.plain + latent.rotated;
    for rope in &mut spec.ropes {
        rope.interleaved = true;
    }
    for layer in &mut spec.layers {
        let attention = &mut layer.attention;
        attention.kv_heads = attention.heads;
        attention.head_dim = head_dim;
        attention.scale = (head_dim as f32).sqrt().recip() * factor;
        attention.latent = Some(latent);
    }
}

/// The experts of a config.json, whose scores have to be made as `scores` says.
pub(super) fn mixture(config: &Fields, scores: &str) -> Result<ExpertsSpec, LoadError> {
    let mut mixture = experts::from_config(config, &["n_routed_experts"], "moe_intermediate_size")?;
    mixture.shared = experts::shared(config, mixture.width, 2)?;
    mixture.router.scale = experts::scale(config)?;
    if config.word("scoring_func")?.is_some_and(|found| found != scores) {
        return Err(config.wrong("scoring_func", &format!("only {scores} is supported")));
    }
    if config.count("moe_layer_freq", LAYERS_MAX)?.is_some_and(|every| every != 1) {
        return Err(config.wrong("moe_layer_freq", "values other than 1 are not supported"));
    }
    Ok(mixture)
}

fn from_header(header: &Header<'_>) -> Result<ModelSpec, LoadError> {
    let mut spec = header::decoder(header, FAMILY.name, &header::NEIGHBOURS)?;
    header::no_window(header)?;
    let ahead = header.some("nextn_predict_layers", LAYERS_MAX)?.unwrap_or(0);
    spec.layers.truncate(spec.layers.len().saturating_sub(ahead).max(1));
    let rotated = header.need("rope.dimension_count", HEAD_DIM_MAX)?;
    let Some(head_dim) = header.count("attention.key_length_mla", HEAD_DIM_MAX)? else {
        let problem = "is missing: the file was converted before keys were kept compressed; \
                       convert the model again";
        return Err(header.wrong("attention.key_length_mla", problem));
    };
    if head_dim <= rotated {
        let problem = format!("{head_dim} leaves nothing beside {rotated} turning elements");
        return Err(header.wrong("attention.key_length_mla", &problem));
    }
    let latent = LatentSpec {
        query_rank: header.some("attention.q_lora_rank", HIDDEN_MAX)?,
        latent: header.need("attention.kv_lora_rank", HEAD_DIM_MAX)?,
        plain: head_dim - rotated,
        rotated,
        value: header.need("attention.value_length_mla", HEAD_DIM_MAX)?,
        norm_eps: LATENT_EPS,
        // Converters split the up-projection, and turn the keys' part over.
        keys_transposed: true,
    };
    // The factor of yarn goes to the scores; the converter stores a tenth of `mscale_all_dim`.
    let mut factor = 1.0;
    if let Some(tenth) = header.number("rope.scaling.yarn_log_multiplier", 0.0, 1e3)? {
        let stretch = header.number("rope.scaling.factor", 0.0, rope::FACTOR_MAX)?;
        let by = rope::yarn_magnitude(stretch.unwrap_or(1.0).max(1.0), 10.0 * tenth);
        factor = (by * by) as f32;
        spec.ropes[0].magnitude = 1.0;
    }
    compress(&mut spec, latent, factor);
    let mut mixture = experts::from_header(header, spec.layers[0].mlp.width())?;
    experts::finish(header, &mut mixture)?;
    let first = header.some("leading_dense_block_count", LAYERS_MAX)?.unwrap_or(0);
    mixture.router.correction = header.dims(&format!("blk.{first}.exp_probs_b.bias")).is_some();
    if mixture.router.score == RouterScore::Softmax && mixture.router.normalise {
        return Err(header.wrong("expert_weights_norm", "is not supported with softmax"));
    }
    experts::place(&mut spec, &mixture, |layer| layer >= first);
    Ok(spec)
}

/// Each head's rows of the joint up-projection hold its keys, then its values.
pub(super) fn hub_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    let Role::Layer(layer, part) = role else { return None };
    let attention = &spec.layers[layer].attention;
    let latent = attention.latent?;
    let first = match part {
        P::KeyUp => 0,
        P::ValueUp => latent.plain,
        P::Query if latent.query_rank.is_some() => {
            return Some(names::hub(layer, "self_attn.q_b_proj.weight"));
        }
        _ => return None,
    };
    let stride = latent.plain + latent.value;
    let pick = Pick::OfEach { count: attention.heads, stride, first };
    Some(Source { pick, ..names::hub(layer, "self_attn.kv_b_proj.weight") })
}

pub(super) fn gguf_source(spec: &ModelSpec, role: Role) -> Option<Source> {
    match role {
        Role::Layer(layer, P::Query) => {
            spec.layers[layer].attention.latent?.query_rank?;
            Some(names::gguf(layer, "attn_q_b.weight"))
        }
        _ => None,
    }
}
