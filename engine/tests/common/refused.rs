//! Fixtures of neighbouring families that cannot be computed yet, and the words that refuse them.

/// Fixtures of what is refused, and the words that say so.
pub(crate) const REFUSED: [(&str, &str); 5] = [
    // Norms of heads behind the rotation.
    ("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM is not supported"),
    // Layer norms without weights.
    ("olmo", "OlmoForCausalLM is not supported"),
    ("olmo_tied", "OlmoForCausalLM is not supported"),
    // Norms of heads with biases, and with a tensor for each head.
    ("phi_qk_layernorm", "qk_layernorm: this option is not supported in phi models"),
    ("stablelm_parallel", "qk_layernorm: this option is not supported in stablelm models"),
];
