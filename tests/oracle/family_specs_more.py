"""Neighbours of the families in family_specs.py: what a user will try next to them."""

from transformers import Gemma3ForConditionalGeneration

from family_specs import DROP, LLAMA, config, layer_norm

SPECS = {}

SPECS["gemma3_wrapped"] = dict(
    config={
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "boi_token_index": 90,
        "eoi_token_index": 91,
        "image_token_index": 92,
        "eos_token_id": [2, 3],
        "mm_tokens_per_image": 4,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "text_config": config(
            DROP, "gemma3_text", architectures=DROP, transformers_version=DROP, torch_dtype=DROP,
            hidden_act=DROP, hidden_activation="gelu_pytorch_tanh", num_hidden_layers=3,
            num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=12, rms_norm_eps=1e-6,
            rope_theta=1000000.0, rope_local_base_freq=10000.0, sliding_window=11,
            sliding_window_pattern=2, rope_scaling={"factor": 8.0, "rope_type": "linear"},
            attn_logit_softcapping=None, final_logit_softcapping=None, cache_implementation="hybrid",
        ),
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16,
            "image_size": 8, "patch_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1,
            "vision_use_head": False,
        },
    },
    cls=Gemma3ForConditionalGeneration, zero_centred=True, embedding=0.07,
    ablate={
        "no rope scaling": {"text_config.rope_scaling": None}, "window 12": {"text_config.sliding_window": 12},
        "local base": {"text_config.rope_local_base_freq": 1000000.0},
    },
)
SPECS["ministral"] = dict(
    config=config(
        "MinistralForCausalLM", "ministral", head_dim=8, num_hidden_layers=3, sliding_window=10,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rms_norm_eps=1e-6, tie_word_embeddings=False,
    ),
    ablate={"window 11": {"sliding_window": 11}, "all full": {"layer_types": ["full_attention"] * 3}},
)
SPECS["arcee"] = dict(
    config=config(
        "ArceeForCausalLM", "arcee", hidden_act="relu2", attention_bias=False, mlp_bias=False,
        head_dim=8, num_attention_heads=4, tie_word_embeddings=False, max_position_embeddings=512,
        rope_scaling={
            "rope_type": "yarn", "factor": 20.0, "original_max_position_embeddings": 32,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
        },
    ),
    ablate={"silu": {"hidden_act": "silu"}, "no rope_scaling": {"rope_scaling": None}},
)
SPECS["seed_oss"] = dict(
    config=config(
        "SeedOssForCausalLM", "seed_oss", head_dim=16, attention_bias=True, attention_out_bias=False,
        mlp_bias=False, attention_dropout=0.1, residual_dropout=0.1, pretraining_tp=1, pad_token_id=0,
        rope_theta=10000000.0, rope_scaling={"rope_type": "default"}, tie_word_embeddings=False,
    ),
)
SPECS["exaone4"] = dict(
    config=config(
        "Exaone4ForCausalLM", "exaone4", head_dim=8, num_hidden_layers=4, sliding_window=10,
        sliding_window_pattern="LLLG", rope_theta=1000000.0, pad_token_id=0,
        layer_types=["sliding_attention"] * 3 + ["full_attention"], tie_word_embeddings=False,
        rope_scaling={
            "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3",
        },
    ),
    ablate={"no rope_scaling": {"rope_scaling": None}, "window 11": {"sliding_window": 11}},
)
SPECS["exaone4_full"] = dict(
    config=config(
        "Exaone4ForCausalLM", "exaone4", head_dim=8, sliding_window=None,
        sliding_window_pattern=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True,
    ),
)
SPECS["hunyuan_v1_dense"] = dict(
    config=config(
        "HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", head_dim=16, attention_bias=False,
        mlp_bias=False, use_qk_norm=True, use_cla=False, cla_share_factor=2, pad_token_id=0,
        use_rotary_pos_emb=True, tie_word_embeddings=True, max_position_embeddings=512,
        attention_head_dim=16,
        rope_scaling={
            "alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0,
            "mscale_all_dim": 1.0, "type": "dynamic",
        },
    ),
    ablate={"alpha 10": {"rope_scaling.alpha": 10.0}},
)
SPECS["ernie4_5"] = dict(
    config=config(
        "Ernie4_5ForCausalLM", "ernie4_5", head_dim=16, use_bias=False, rope_theta=500000.0,
        tie_word_embeddings=True, pad_token_id=0,
    ),
)
SPECS["nemotron"] = dict(
    config=config(
        "NemotronForCausalLM", "nemotron", rms_norm_eps=DROP, norm_eps=1e-5, head_dim=8,
        hidden_act="relu2", partial_rotary_factor=0.5, rotary_percent=0.5, attention_bias=False,
        mlp_bias=False, rope_scaling=None, tie_word_embeddings=False,
    ),
    zero_centred=True,
    ablate={"full rotary": {"partial_rotary_factor": 1.0}},
)
SPECS["olmo"] = dict(
    config=config(
        "OlmoForCausalLM", "olmo", rms_norm_eps=DROP, clip_qkv=1.5, attention_bias=False,
        num_key_value_heads=4, rope_scaling=None, tie_word_embeddings=False, pad_token_id=0,
    ),
    ablate={"no clip": {"clip_qkv": None}},
)
SPECS["olmo_tied"] = dict(
    config=config(
        "OlmoForCausalLM", "olmo", rms_norm_eps=DROP, clip_qkv=None, attention_bias=False,
        num_key_value_heads=4, rope_scaling=None, tie_word_embeddings=True, pad_token_id=0,
    ),
)
SPECS["llama_new_spelling"] = dict(
    config=config(
        *LLAMA, rope_theta=DROP, torch_dtype=DROP, dtype="bfloat16", transformers_version="5.0.0",
        attention_bias=False, mlp_bias=False, tie_word_embeddings=False, head_dim=8,
        rope_parameters={
            "rope_theta": 50000.0, "rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0,
            "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
        },
    ),
    ablate={"no scaling": {"rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"}}},
)
SPECS["olmo3_new_spelling"] = dict(
    config=config(
        "Olmo3ForCausalLM", "olmo3", rope_theta=DROP, torch_dtype=DROP, dtype="bfloat16",
        transformers_version="5.0.0", sliding_window=12, tie_word_embeddings=False, pad_token_id=0,
        layer_types=["sliding_attention", "full_attention"], max_position_embeddings=512,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
            "full_attention": {
                "rope_type": "yarn", "rope_theta": 40000.0, "factor": 8.0,
                "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0,
                "attention_factor": 1.2,
            },
        },
    ),
    ablate={"window 13": {"sliding_window": 13}},
)
SPECS["phi_qk_layernorm"] = dict(
    config=layer_norm(
        "PhiForCausalLM", "phi", num_key_value_heads=4, hidden_act="gelu_new", qk_layernorm=True,
        partial_rotary_factor=0.5, tie_word_embeddings=False,
    ),
)
