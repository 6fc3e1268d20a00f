"""What each tiny decoder family of tests/data/families is: config.json as published files spell it,
and the features whose absence must move the logits (`ablate`: name -> changed keys).

Other keys: `zero_centred` norms are stored minus one, `std` sets the size of tensors by pattern,
`extra` are tensors that published files hold and the model does not use, `stateful_rope` means that
a run without a cache is another computation, `seed` is where the search for clear margins starts.
"""

DROP = object()


def config(arch, model_type, **keys):
    out = {
        "architectures": [arch],
        "model_type": model_type,
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "transformers_version": "4.51.0",
    }
    out.update(keys)
    return {key: value for key, value in out.items() if value is not DROP}


def layer_norm(arch, model_type, **keys):
    """A family with LayerNorm: another name for epsilon."""
    return config(arch, model_type, **{"rms_norm_eps": DROP, "layer_norm_eps": 1e-5, **keys})


LLAMA = ("LlamaForCausalLM", "llama")
SPECS = {}

SPECS["gemma1"] = dict(
    config=config(
        "GemmaForCausalLM", "gemma", head_dim=16, num_key_value_heads=1, attention_bias=False,
        hidden_act="gelu", hidden_activation=None, rms_norm_eps=1e-6, pad_token_id=0,
    ),
    zero_centred=True, embedding=0.07,
    ablate={"relu": {"hidden_act": "relu"}},
)
QWEN2_MOE = dict(
    num_hidden_layers=2, moe_intermediate_size=16, shared_expert_intermediate_size=24,
    num_experts=8, num_experts_per_tok=3, norm_topk_prob=False, decoder_sparse_step=1,
    mlp_only_layers=[], output_router_logits=False, router_aux_loss_coef=0.001,
    rms_norm_eps=1e-6, rope_theta=1000000.0, sliding_window=16, use_sliding_window=False,
    max_window_layers=2, tie_word_embeddings=False,
)
SPECS["qwen2_moe"] = dict(
    config=config("Qwen2MoeForCausalLM", "qwen2_moe", **QWEN2_MOE),
    ablate={"norm_topk_prob": {"norm_topk_prob": True}, "top 2": {"num_experts_per_tok": 2}},
)
SPECS["qwen2_moe_mixed"] = dict(
    config=config(
        "Qwen2MoeForCausalLM", "qwen2_moe",
        **{**QWEN2_MOE, "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3],
           "num_experts": 4, "norm_topk_prob": True, "qkv_bias": True},
    ),
    ablate={"norm_topk_prob": {"norm_topk_prob": False}},
)
OLMO3 = dict(
    num_hidden_layers=4, attention_bias=False, rms_norm_eps=1e-6, rope_theta=500000.0,
    sliding_window=12, max_position_embeddings=512, tie_word_embeddings=False, pad_token_id=0,
    layer_types=["sliding_attention"] * 3 + ["full_attention"],
    rope_scaling={
        "attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0,
        "original_max_position_embeddings": 64, "rope_type": "yarn",
    },
)
SPECS["olmo3"] = dict(
    config=config("Olmo3ForCausalLM", "olmo3", num_attention_heads=2, num_key_value_heads=2, **OLMO3),
    ablate={
        "no rope_scaling": {"rope_scaling": None}, "window 13": {"sliding_window": 13},
        "attention_factor 1": {"rope_scaling.attention_factor": 1.0},
    },
)
SPECS["smollm3"] = dict(
    config=config(
        "SmolLM3ForCausalLM", "smollm3", num_hidden_layers=4, rope_theta=5000000.0,
        attention_bias=False, mlp_bias=False, no_rope_layer_interval=4, no_rope_layers=[1, 0, 1, 0],
        layer_types=["full_attention"] * 4, use_sliding_window=False, sliding_window=None,
        rms_norm_eps=1e-6, pretraining_tp=1, rope_scaling=None, pad_token_id=0, max_window_layers=4,
    ),
    ablate={"rope everywhere": {"no_rope_layers": [1, 1, 1, 1]}},
)
SPECS["smollm3_interval"] = dict(
    config=config(
        "SmolLM3ForCausalLM", "smollm3", num_hidden_layers=4, rope_theta=DROP, torch_dtype=DROP,
        dtype="bfloat16", rope_parameters={"rope_theta": 50000.0, "rope_type": "default"},
        no_rope_layer_interval=2, pad_token_id=0, rms_norm_eps=1e-6, transformers_version="5.0.0",
    ),
    ablate={"interval 4": {"no_rope_layer_interval": 4}},
)
SPECS["phi2"] = dict(
    config=layer_norm(
        "PhiForCausalLM", "phi", num_attention_heads=2, num_key_value_heads=2, rope_scaling=None,
        hidden_act="gelu_new", partial_rotary_factor=0.5, qk_layernorm=False, embd_pdrop=0.0,
        resid_pdrop=0.1, intermediate_size=64, tie_word_embeddings=False, hidden_size=40,
    ),
    ablate={"half rotary": {"partial_rotary_factor": 1.0}},
)
SPECS["phi2"]["config"]["partial_rotary_factor"] = 0.4
LONGROPE = {
    "type": "longrope",
    "long_factor": [1.0, 1.15, 1.4, 1.9, 2.6, 3.7], "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.45],
}
PHI3 = dict(
    attention_bias=False, embd_pdrop=0.0, resid_pdrop=0.0, pad_token_id=0,
    original_max_position_embeddings=24, max_position_embeddings=96,
)
SPECS["phi4mini"] = dict(
    config=config(
        "Phi3ForCausalLM", "phi3", num_attention_heads=2, num_key_value_heads=1, lm_head_bias=False,
        full_attn_mod=1, interpolate_factor=1, mlp_bias=False, sliding_window=262144,
        partial_rotary_factor=0.75, rope_scaling=LONGROPE, tie_word_embeddings=True, **PHI3,
    ),
    stateful_rope=True,
    ablate={"short factors": {"rope_scaling.long_factor": LONGROPE["short_factor"]}},
)
SPECS["phi3_window"] = dict(
    config=config(
        "Phi3ForCausalLM", "phi3", num_key_value_heads=4, sliding_window=13, rope_scaling=None,
        tie_word_embeddings=False,
        **{**PHI3, "original_max_position_embeddings": 96},
    ),
    ablate={"no window": {"sliding_window": None}, "window 14": {"sliding_window": 14}},
)
SPECS["starcoder2"] = dict(
    config=config(
        "Starcoder2ForCausalLM", "starcoder2", rms_norm_eps=DROP, norm_epsilon=1e-5, use_bias=True,
        norm_type="layer_norm", mlp_type="default", hidden_act="gelu_pytorch_tanh",
        sliding_window=11, residual_dropout=0.1, embedding_dropout=0.1, intermediate_size=96,
    ),
    ablate={"window 12": {"sliding_window": 12}, "silu": {"hidden_act": "silu"}},
)
STABLELM = dict(
    num_attention_heads=2, num_key_value_heads=1, use_qkv_bias=True, partial_rotary_factor=0.25,
    tie_word_embeddings=False, rope_scaling=None, hidden_dropout=0.0,
)
SPECS["stablelm"] = dict(
    config=layer_norm(
        "StableLmForCausalLM", "stablelm", use_parallel_residual=False, qk_layernorm=False, **STABLELM
    ),
    ablate={"half rotary": {"partial_rotary_factor": 0.5}},
)
SPECS["stablelm_parallel"] = dict(
    config=layer_norm(
        "StableLmForCausalLM", "stablelm", use_parallel_residual=True, qk_layernorm=True,
        **{**STABLELM, "use_qkv_bias": False},
    ),
    ablate={"half rotary": {"partial_rotary_factor": 0.5}},
)
COHERE = dict(
    attention_bias=False, logit_scale=0.25, pad_token_id=0, rope_theta=75000.0,
    model_max_length=256,
)
SPECS["cohere"] = dict(
    config=layer_norm("CohereForCausalLM", "cohere", use_qk_norm=False, **COHERE),
    ablate={"logit_scale 1": {"logit_scale": 1.0}},
)
SPECS["cohere_qk_norm"] = dict(
    config=layer_norm("CohereForCausalLM", "cohere", use_qk_norm=True, **COHERE),
    ablate={"logit_scale 1": {"logit_scale": 1.0}},
)
SPECS["cohere2"] = dict(
    config=layer_norm(
        "Cohere2ForCausalLM", "cohere2", num_hidden_layers=4, head_dim=8, sliding_window=12,
        sliding_window_pattern=4, layer_switch=4, order_of_interleaved_layers="local_attn_first",
        position_embedding_type="rope_gptj", rotary_pct=1.0, cache_implementation="hybrid",
        use_embedding_sharing=True, use_gated_activation=True, use_parallel_block=True,
        use_parallel_embedding=False, **COHERE,
    ),
    ablate={"pattern 2": {"sliding_window_pattern": 2}, "window 13": {"sliding_window": 13}},
)
GLM = dict(
    head_dim=8, partial_rotary_factor=0.5, pad_token_id=0, rms_norm_eps=1.5625e-07,
    tie_word_embeddings=False,
)
SPECS["glm"] = dict(
    config=config("GlmForCausalLM", "glm", attention_bias=True, **GLM),
    ablate={"full rotary": {"partial_rotary_factor": 1.0}},
)
SPECS["glm4"] = dict(
    config=config("Glm4ForCausalLM", "glm4", attention_bias=False, **GLM),
    ablate={"full rotary": {"partial_rotary_factor": 1.0}},
)
GLM4_MOE = dict(
    num_hidden_layers=3, head_dim=8, partial_rotary_factor=0.5, first_k_dense_replace=1,
    moe_intermediate_size=12, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
    n_group=1, topk_group=1, norm_topk_prob=True, routed_scaling_factor=1.5, attention_bias=True,
    rope_theta=1000000, num_nextn_predict_layers=1, tie_word_embeddings=False, pad_token_id=0,
    eos_token_id=[2, 3], rope_scaling=None,
)
MTP = {
    "model.layers.3.eh_proj.weight": [32, 64], "model.layers.3.enorm.weight": [32],
    "model.layers.3.hnorm.weight": [32], "model.layers.3.shared_head.norm.weight": [32],
    "model.layers.3.embed_tokens.weight": [96, 32], "model.layers.3.mlp.gate.weight": [8, 32],
}
SPECS["glm4_moe"] = dict(
    config=config("Glm4MoeForCausalLM", "glm4_moe", use_qk_norm=False, **GLM4_MOE),
    extra=MTP,
    ablate={
        "full rotary": {"partial_rotary_factor": 1.0}, "no norm_topk_prob": {"norm_topk_prob": False},
        "routed_scaling_factor 1": {"routed_scaling_factor": 1.0},
    },
)
SPECS["glm4_moe_groups"] = dict(
    config=config(
        "Glm4MoeForCausalLM", "glm4_moe",
        **{**GLM4_MOE, "n_group": 4, "topk_group": 2, "n_shared_experts": 2, "use_qk_norm": True,
           "attention_bias": False, "num_nextn_predict_layers": 0},
    ),
    ablate={"no groups": {"n_group": 1, "topk_group": 1}, "top 3": {"num_experts_per_tok": 3}},
)
DEEPSEEK = dict(
    num_hidden_layers=3, num_key_value_heads=4, attention_bias=False, first_k_dense_replace=1,
    kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=12, moe_layer_freq=1,
    moe_intermediate_size=12, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3,
    rms_norm_eps=1e-6, aux_loss_alpha=0.001, seq_aux=True, ep_size=1, pretraining_tp=1,
    tie_word_embeddings=False,
)
YARN_MSCALE = {
    "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 64, "type": "yarn",
}
SPECS["deepseek_v2_lite"] = dict(
    config=config(
        "DeepseekV2ForCausalLM", "deepseek_v2", q_lora_rank=None, topk_method="greedy",
        scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=1.0, n_group=1,
        topk_group=1, rope_scaling=YARN_MSCALE, max_position_embeddings=2560, **DEEPSEEK,
    ),
    ablate={"no rope_scaling": {"rope_scaling": None}, "top 2": {"num_experts_per_tok": 2}},
)
SPECS["deepseek_v2"] = dict(
    config=config(
        "DeepseekV2ForCausalLM", "deepseek_v2", q_lora_rank=20, topk_method="group_limited_greedy",
        scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=4.0, n_group=4,
        topk_group=2, rope_scaling=YARN_MSCALE, max_position_embeddings=2560, **DEEPSEEK,
    ),
    std=[("experts.down_proj", 0.15)],
    ablate={"no groups": {"topk_method": "greedy"}, "factor 1": {"routed_scaling_factor": 1.0}},
)
SPECS["moonlight"] = dict(
    config=config(
        "DeepseekV3ForCausalLM", "deepseek_v3", q_lora_rank=None, topk_method="noaux_tc",
        scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.446, n_group=1,
        topk_group=1, rope_theta=50000.0, num_nextn_predict_layers=0, **DEEPSEEK,
    ),
    ablate={"no norm_topk_prob": {"norm_topk_prob": False}, "top 2": {"num_experts_per_tok": 2}},
)
SPECS["granitemoe"] = dict(
    config=config(
        "GraniteMoeForCausalLM", "granitemoe", attention_bias=False, attention_multiplier=0.2,
        embedding_multiplier=6.0, residual_multiplier=0.6, logits_scaling=3.0, intermediate_size=16,
        num_local_experts=8, num_experts_per_tok=3, output_router_logits=False, rope_scaling=None,
        router_aux_loss_coef=0.001, tie_word_embeddings=True, pad_token_id=0, rms_norm_eps=1e-6,
    ),
    embedding=0.06,
    ablate={
        "attention_multiplier": {"attention_multiplier": 8**-0.5}, "top 2": {"num_experts_per_tok": 2},
        "residual_multiplier 1": {"residual_multiplier": 1.0},
        "embedding_multiplier 1": {"embedding_multiplier": 1.0}, "logits_scaling 1": {"logits_scaling": 1.0},
    },
)
SPECS["olmoe"] = dict(
    config=config(
        "OlmoeForCausalLM", "olmoe", num_key_value_heads=4, intermediate_size=16, num_experts=8,
        num_experts_per_tok=3, norm_topk_prob=False, clip_qkv=None, attention_bias=False,
        output_router_logits=False, router_aux_loss_coef=0.01, rope_scaling=None, pad_token_id=0,
        tie_word_embeddings=False,
    ),
    ablate={"norm_topk_prob": {"norm_topk_prob": True}},
)
SPECS["mistral_head_dim"] = dict(
    config=config(
        "MistralForCausalLM", "mistral", head_dim=16, sliding_window=None, rope_theta=1000000.0,
        tie_word_embeddings=False,
    ),
)
SPECS["mixtral_window"] = dict(
    config=config(
        "MixtralForCausalLM", "mixtral", intermediate_size=24, num_local_experts=4,
        num_experts_per_tok=2, sliding_window=10, output_router_logits=False,
        router_aux_loss_coef=0.02, tie_word_embeddings=False,
    ),
    ablate={"no window": {"sliding_window": None}},
)
SPECS["llama_dynamic_ntk"] = dict(
    config=config(
        *LLAMA, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=24,
        rope_scaling={"type": "dynamic", "factor": 4.0}, pretraining_tp=1, tie_word_embeddings=False,
    ),
    stateful_rope=True,
    ablate={"no rope_scaling": {"rope_scaling": None}, "factor 2": {"rope_scaling.factor": 2.0}},
)
SPECS["llama_yarn"] = dict(
    config=config(
        *LLAMA, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
        rope_scaling={
            "type": "yarn", "factor": 16.0, "original_max_position_embeddings": 32,
            "beta_fast": 8, "beta_slow": 1,
        },
        tie_word_embeddings=False,
    ),
    ablate={"no rope_scaling": {"rope_scaling": None}, "factor 8": {"rope_scaling.factor": 8.0}},
)
SPECS["llama_linear"] = dict(
    config=config(
        *LLAMA, rope_scaling={"type": "linear", "factor": 4.0}, tie_word_embeddings=False,
    ),
    ablate={"no rope_scaling": {"rope_scaling": None}},
)
SPECS["qwen3_yarn"] = dict(
    config=config(
        "Qwen3ForCausalLM", "qwen3", head_dim=16, attention_bias=False, rms_norm_eps=1e-6,
        num_attention_heads=2, num_key_value_heads=1, rope_theta=1000000.0, sliding_window=None,
        use_sliding_window=False, max_window_layers=2, tie_word_embeddings=True,
        max_position_embeddings=40,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40},
    ),
    ablate={"no rope_scaling": {"rope_scaling": None}},
)
SPECS["qwen2_window"] = dict(
    config=config(
        "Qwen2ForCausalLM", "qwen2", num_hidden_layers=3, use_sliding_window=True, sliding_window=9,
        max_window_layers=1, rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=True,
    ),
    ablate={
        "no window": {"use_sliding_window": False}, "max_window_layers 2": {"max_window_layers": 2},
        "window 10": {"sliding_window": 10},
    },
)
