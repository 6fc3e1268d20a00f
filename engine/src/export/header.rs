//! The keys of a GGUF header for a [`ModelSpec`], and how its tensors are kept there.
//!
//! Each family has one line in [`FORMS`]. What a line gets wrong cannot do harm: the written file
//! is opened again and must describe the source.

use kernels::NormKind;

use super::rope;
use super::writer::Value;
use crate::spec::{LayerSpec, MlpSpec, ModelSpec};

/// How GGUF files keep a family's models.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    family: &'static str,
    /// `general.architecture`.
    pub(super) arch: &'static str,
    /// Rotated pairs are neighbours there: rows of q and k are reordered.
    pub(super) neighbours: bool,
    /// Norm weights are stored with the one that checkpoints leave out.
    pub(super) whole_norms: bool,
    /// Factors of rotary frequencies may lie beside the weights.
    factors: bool,
    /// The window's layers that need not be listed.
    usual: fn(usize) -> bool,
}

const PLAIN: Form = Form {
    family: "",
    arch: "",
    neighbours: false,
    whole_norms: false,
    factors: false,
    usual: |_| true,
};
const LLAMA: Form = Form { arch: "llama", neighbours: true, factors: true, ..PLAIN };

const FORMS: [Form; 14] = [
    Form { family: "llama", ..LLAMA },
    Form { family: "mistral", ..LLAMA },
    Form { family: "mixtral", ..LLAMA },
    Form { family: "granite", arch: "granite", ..LLAMA },
    Form { family: "smollm3", arch: "smollm3", factors: false, ..LLAMA },
    Form { family: "qwen2", arch: "qwen2", ..PLAIN },
    Form { family: "qwen3", arch: "qwen3", ..PLAIN },
    Form { family: "qwen3_moe", arch: "qwen3moe", ..PLAIN },
    Form { family: "gemma", arch: "gemma", whole_norms: true, ..PLAIN },
    Form {
        family: "gemma2",
        arch: "gemma2",
        whole_norms: true,
        usual: |layer| layer.is_multiple_of(2),
        ..PLAIN
    },
    Form {
        family: "gemma3",
        arch: "gemma3",
        whole_norms: true,
        usual: |layer| !(layer + 1).is_multiple_of(6),
        ..PLAIN
    },
    Form { family: "phi3", arch: "phi3", ..PLAIN },
    Form { family: "olmo2", arch: "olmo2", ..PLAIN },
    Form { family: "starcoder2", arch: "starcoder2", ..PLAIN },
];

impl Form {
    /// The form of a family.
    ///
    /// # Errors
    /// It has none here; says which families have.
    pub(super) fn of(spec: &ModelSpec) -> Result<&'static Self, String> {
        FORMS.iter().find(|form| form.family == spec.family).ok_or_else(|| {
            let known: Vec<_> = FORMS.iter().map(|form| form.family).collect();
            let (family, known) = (spec.family, known.join(", "));
            format!(
                "a model of the family {family} cannot be written as GGUF yet; these can: {known}"
            )
        })
    }

    /// What a file of this form says when it is read back.
    pub(super) fn read_back(&self, source: &ModelSpec, family: &'static str) -> ModelSpec {
        let mut spec = source.clone();
        spec.family = family;
        if self.whole_norms {
            spec.norm.offset = 0.0;
        }
        for layer in &mut spec.layers {
            if let (true, Some(norm)) = (self.whole_norms, &mut layer.attention.qk_norm) {
                norm.offset = 0.0;
            }
        }
        spec.ropes.iter_mut().for_each(|rope| rope.interleaved = self.neighbours);
        spec
    }
}

/// Keys, and tensors that follow from the spec.
pub(super) struct Header {
    pub(super) keys: Vec<(String, Value)>,
    pub(super) tensors: Vec<(&'static str, Vec<f32>)>,
}

/// The keys of a model. `stated` is the base of its rotation as its config.json names it.
///
/// # Errors
/// The spec asks for something that these files cannot say.
pub(super) fn write(spec: &ModelSpec, form: &Form, stated: Option<f64>) -> Result<Header, String> {
    let Some(layer) = spec.layers.first() else { return Err("the model has no layers".into()) };
    let mut keys = Keys { arch: form.arch, all: Vec::new() };
    keys.model(spec, layer);
    keys.windows(spec, form);
    keys.factors(spec, form);
    let mut tensors = Vec::new();
    if let Some(main) = spec.ropes.first() {
        // Whole heads are reordered, so all of a head has to turn.
        if form.neighbours && 2 * main.inv_freq.len() != layer.attention.head_dim {
            return Err("heads that turn in part cannot be written in this family".to_owned());
        }
        let written = rope::write(main, stated, form.factors)?;
        keys.count("rope.dimension_count", 2 * main.inv_freq.len());
        keys.number("rope.freq_base", written.base);
        written.keys.into_iter().for_each(|(name, value)| keys.put(&name, value));
        tensors = written.tensors;
    }
    if let [_, local, ..] = &spec.ropes[..] {
        let problem = "the rotation of layers with windows is stretched, which cannot be written";
        let base = rope::base(&local.inv_freq).ok_or(problem)?;
        keys.number("rope.freq_base_swa", base as f32);
    }
    Ok(Header { keys: keys.all, tensors })
}

struct Keys {
    arch: &'static str,
    all: Vec<(String, Value)>,
}

impl Keys {
    fn put(&mut self, name: &str, value: Value) {
        self.all.push((format!("{}.{name}", self.arch), value));
    }

    fn count(&mut self, name: &str, count: usize) {
        self.put(name, Value::Count(count as u32));
    }

    fn number(&mut self, name: &str, number: f32) {
        self.put(name, Value::Number(number));
    }

    fn model(&mut self, spec: &ModelSpec, layer: &LayerSpec) {
        let attention = &layer.attention;
        self.count("context_length", spec.context);
        self.count("embedding_length", spec.hidden);
        self.count("block_count", spec.layers.len());
        self.count("feed_forward_length", layer.mlp.width());
        self.count("vocab_size", spec.vocab);
        self.count("attention.head_count", attention.heads);
        self.count("attention.head_count_kv", attention.kv_heads);
        self.count("attention.key_length", attention.head_dim);
        self.count("attention.value_length", attention.head_dim);
        let eps = match spec.norm.kind {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        self.number(eps, spec.norm.eps);
        if let MlpSpec::Experts(experts) = &layer.mlp {
            self.count("expert_count", experts.count);
            self.count("expert_used_count", experts.top_k);
            if self.arch != "llama" {
                self.count("expert_feed_forward_length", experts.width);
            }
        }
    }

    fn windows(&mut self, spec: &ModelSpec, form: &Form) {
        let windows = spec.layers.iter().map(|layer| layer.attention.window);
        let Some(window) = windows.clone().flatten().next() else { return };
        self.count("attention.sliding_window", window as usize);
        let listed: Vec<bool> = windows.map(|window| window.is_some()).collect();
        if listed.iter().enumerate().any(|(layer, &listed)| listed != (form.usual)(layer)) {
            self.put("attention.sliding_window_pattern", Value::Flags(listed));
        }
    }

    /// Soft caps of Gemma, factors of Granite.
    fn factors(&mut self, spec: &ModelSpec, form: &Form) {
        let layer = &spec.layers[0];
        let head = spec.head.as_ref();
        if let Some(cap) = layer.attention.soft_cap {
            self.number("attn_logit_softcapping", cap);
        }
        if let Some(cap) = head.and_then(|head| head.soft_cap) {
            self.number("final_logit_softcapping", cap);
        }
        if form.arch == "granite" {
            self.number("embedding_scale", spec.embedding.scale);
            self.number("residual_scale", layer.residual_scale);
            self.number("attention.scale", layer.attention.scale);
            let scale = head.map_or(1.0, |head| head.scale);
            let near = [scale.recip(), scale.recip().next_up(), scale.recip().next_down()];
            let exact = near.into_iter().find(|near| near.recip().to_bits() == scale.to_bits());
            self.number("logit_scale", exact.unwrap_or(near[0]));
        }
    }
}
