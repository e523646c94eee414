"""The tiny models of the golden tests: each is a `config.json` that differs from its base in what its name says."""

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
MISTRAL = LLAMA | {
    "model_type": "mistral",
    "head_dim": 24,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "sliding_window": None,
}
QWEN2 = LLAMA | {"model_type": "qwen2", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}
QWEN3 = LLAMA | {"model_type": "qwen3", "head_dim": 32, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}


def quantized(bits, group_size, **overrides):
    # Wider, so that every matrix is a whole number of groups in each direction.
    widths = {"hidden_size": 128, "intermediate_size": 192}
    return widths | {"quantization": {"group_size": group_size, "bits": bits} | overrides}


def scaled(**scaling):
    return {"rope_scaling": scaling}


# Per-layer settings as mixed-precision recipes write them: every bit width, and one matrix left dense.
MIXED = {
    "model.embed_tokens": {"group_size": 64, "bits": 6},
    "model.layers.0.self_attn.q_proj": {"group_size": 32, "bits": 3},
    "model.layers.0.self_attn.v_proj": {"group_size": 64, "bits": 8},
    "model.layers.0.self_attn.o_proj": {"group_size": 128, "bits": 5},
    "model.layers.0.mlp.down_proj": {"group_size": 64, "bits": 6},
    "model.layers.1.self_attn.q_proj": {"group_size": 128, "bits": 8},
    "model.layers.1.self_attn.k_proj": {"group_size": 32, "bits": 2},
    "model.layers.1.mlp.up_proj": {"group_size": 32, "bits": 5},
    "model.layers.1.mlp.gate_proj": False,
    "lm_head": {"group_size": 32, "bits": 8},
}

# All modes in one model, as a configuration lists them: an entry without a mode is affine, whatever the default.
MIXED_MODES = {
    "model.embed_tokens": {"group_size": 64, "bits": 8},
    "model.layers.0.self_attn.q_proj": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
    "model.layers.0.self_attn.v_proj": {"group_size": 64, "bits": 6},
    "model.layers.0.mlp.down_proj": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    "model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 4},
    "model.layers.1.self_attn.k_proj": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    "model.layers.1.self_attn.o_proj": {"group_size": 128, "bits": 4, "mode": "affine"},
    "model.layers.1.mlp.gate_proj": False,
    "lm_head": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
}

# Long periods relative to the context, so that all bands of frequencies occur in 16 dimensions.
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG_FACTORS = [1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.5, 8.0]

CONFIGS = {
    "llama": LLAMA,
    "llama-untied": LLAMA | {"tie_word_embeddings": False, "num_hidden_layers": 3},
    "llama-4bit": LLAMA | quantized(4, 64),
    "llama-4bit-untied": LLAMA | quantized(4, 32) | {"tie_word_embeddings": False},
    "llama-mixed-bits": LLAMA | quantized(4, 64, **MIXED) | {"tie_word_embeddings": False},
    "llama-mxfp4": LLAMA | quantized(4, 32, mode="mxfp4"),
    "llama-nvfp4": LLAMA | quantized(4, 16, mode="nvfp4") | {"tie_word_embeddings": False},
    "llama-mixed-modes": LLAMA | quantized(4, 32, mode="mxfp4", **MIXED_MODES) | {"tie_word_embeddings": False},
    "llama-rope-linear": LLAMA | scaled(type="linear", factor=2.5),
    "llama-rope-dynamic": LLAMA | scaled(type="dynamic", factor=2.0) | {"max_position_embeddings": 48},
    "llama-rope-llama3": LLAMA | {"rope_scaling": LLAMA3, "rope_theta": 500000.0},
    "llama-rope-yarn": LLAMA | {"rope_scaling": YARN},
    "llama-rope-yarn-mscale": LLAMA | {"rope_scaling": YARN | {"mscale": 0.8, "mscale_all_dim": 0.3, "beta_fast": 16, "beta_slow": 2}},
    "llama-rope-longrope": LLAMA | scaled(
        rope_type="longrope", original_max_position_embeddings=64, short_factor=[1.0] * 8, long_factor=LONG_FACTORS),
    "llama-rope-traditional": LLAMA | {"rope_traditional": True},
    "llama-biases": LLAMA | {"attention_bias": True, "mlp_bias": True},
    "llama-sliding": LLAMA | {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 8,
    },
    "mistral": MISTRAL,
    "mistral-sliding": MISTRAL | {"sliding_window": 8, "tie_word_embeddings": True},
    "mistral-4bit": MISTRAL | quantized(4, 64) | {"head_dim": 32},
    "qwen2": QWEN2,
    "qwen2-4bit": QWEN2 | quantized(4, 64) | {"tie_word_embeddings": False},
    "qwen2-yarn": QWEN2 | {"rope_scaling": YARN},
    "qwen3": QWEN3,
    "qwen3-untied": QWEN3 | {"tie_word_embeddings": False, "num_key_value_heads": 1},
    "qwen3-4bit": QWEN3 | quantized(4, 32),
    "qwen3-8bit": QWEN3 | quantized(8, 64),
    "qwen3-mxfp8": QWEN3 | quantized(8, 32, mode="mxfp8") | {"tie_word_embeddings": False},
    "qwen3-rope-parameters": {k: v for k, v in QWEN3.items() if k != "rope_theta"} | {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 100000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    },
}

# The other families. Windows and chunks are shorter than the prompts; soft caps, clips and thresholds are low enough to be reached.
OLMO2 = LLAMA | {"model_type": "olmo2", "tie_word_embeddings": False, "rope_theta": 500000.0, "attention_bias": False}
GEMMA2 = {
    "model_type": "gemma2",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 8.0,
    "final_logit_softcapping": 4.0,
    "sliding_window": 8,
    "hidden_activation": "gelu_pytorch_tanh",
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "query_pre_attn_scalar": 20,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "hidden_activation": "gelu_pytorch_tanh",
}
PHI3 = LLAMA | {"model_type": "phi3", "tie_word_embeddings": False, "original_max_position_embeddings": 256, "sliding_window": None}
PHI3_LONG = {"type": "longrope", "short_factor": [1.0, 1.0, 1.05, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.1, 1.5, 2.0, 3.5, 6.0]}
PHI = {
    "model_type": "phi",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "partial_rotary_factor": 0.5,
    "layer_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "hidden_act": "gelu_new",
    "tie_word_embeddings": False,
}
GPT_NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "layer_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.5,
    "use_parallel_residual": True,
    "hidden_act": "gelu",
    "tie_word_embeddings": False,
}
COHERE2 = {
    "model_type": "cohere2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "layer_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 50000.0,
    "logit_scale": 0.5,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "attention_bias": False,
    "layer_norm_bias": False,
    "use_qk_norm": False,
    "tie_word_embeddings": True,
}
QWEN3_MOE = QWEN3 | {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "tie_word_embeddings": False,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "initial_context_length": 64,
    "rope_theta": 150000,
    "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 64, "truncate": False,
    },
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "swiglu_limit": 7.0,
    "attention_bias": True,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "moe_intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 40,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "n_routed_experts": 16,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
LLAMA4 = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "hidden_size": 64,
        "num_hidden_layers": 5,
        "intermediate_size": 48,
        "intermediate_size_mlp": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 10,
        "attn_temperature_tuning": 4,
        "floor_scale": 8,
        "attn_scale": 0.5,
        "use_qk_norm": True,
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "vocab_size": 96,
        "max_position_embeddings": 256,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    },
    "tie_word_embeddings": False,
}
LFM2 = {
    "model_type": "lfm2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "block_dim": 64,
    "block_ff_dim": 128,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.2,
    "block_multiple_of": 16,
    "conv_L_cache": 3,
    "conv_bias": True,
    "norm_eps": 1e-5,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 1000000.0,
}
MAMBA2 = {
    "model_type": "mamba2",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "expand": 2,
    "num_heads": 8,
    "head_dim": 16,
    "state_size": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "layer_norm_epsilon": 1e-5,
    "time_step_rank": 4,
    "time_step_limit": [0.25, 1.0],
    "hidden_act": "silu",
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
QWEN3_NEXT = {
    "model_type": "qwen3_next",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "partial_rotary_factor": 0.25,
    "full_attention_interval": 3,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 40,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
RECURRENT_GEMMA = {
    "model_type": "recurrent_gemma",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 192,
    "lru_width": 64,
    "conv1d_width": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "partial_rotary_factor": 0.5,
    "attention_bias": False,
    "attention_window_size": 8,
    "block_types": ["recurrent", "recurrent", "attention"],
    "embeddings_scale_by_sqrt_dim": True,
    "logits_soft_cap": 4.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 96,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
RWKV7 = {
    "model_type": "rwkv7",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "head_dim": 16,
    "norm_eps": 4e-5,
    "a_low_rank_dim": 16,
    "v_low_rank_dim": 12,
    "gate_low_rank_dim": 20,
    "decay_low_rank_dim": 16,
    "vocab_size": 96,
    "tie_word_embeddings": False,
}
GEMMA3N = {
    "model_type": "gemma3n",
    "text_config": {
        "model_type": "gemma3n_text",
        "hidden_size": 64,
        "num_hidden_layers": 6,
        "intermediate_size": [96, 96, 96, 96, 96, 96],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 88,
        "num_kv_shared_layers": 2,
        "layer_types": [
            "sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention",
        ],
        "sliding_window": 8,
        "activation_sparsity_pattern": [0.8, 0.7, 0.0, 0.0, 0.0, 0.0],
        "altup_num_inputs": 3,
        "altup_active_idx": 0,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "laurel_rank": 12,
        "final_logit_softcapping": 4.0,
        "rms_norm_eps": 1e-6,
        "vocab_size": 96,
        "max_position_embeddings": 256,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "hidden_activation": "gelu_pytorch_tanh",
    },
}


def four_bits(config, layers=(), eight=(), **changes):
    """The model in four bits; `eight` are the modules of each of `layers` that mlx-lm keeps in eight."""
    more = {f"model.layers.{layer}.{module}": {"group_size": 64, "bits": 8} for layer in layers for module in eight}
    return config | changes | {"quantization": {"group_size": 32, "bits": 4} | more}


# Widths that are whole numbers of groups.
WIDE = {"hidden_size": 128, "intermediate_size": 192}

AFFINE4 = {"group_size": 32, "bits": 4, "mode": "affine"}
AFFINE8 = {"group_size": 64, "bits": 8, "mode": "affine"}

FAMILIES = {
    "olmo2": OLMO2,
    "olmo2-4bit": four_bits(OLMO2, **WIDE),
    "gemma2": GEMMA2,
    "gemma2-4bit": four_bits(GEMMA2, **WIDE, head_dim=32),
    "gemma3": GEMMA3,
    "gemma3-4bit": four_bits(GEMMA3, **WIDE, head_dim=32),
    "phi3": PHI3,
    "phi3-4bit": four_bits(PHI3, **WIDE),
    "phi3-longrope": PHI3 | {
        "rope_scaling": PHI3_LONG, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 64, "tie_word_embeddings": True,
    },
    "phi3-sliding": PHI3 | {"sliding_window": 8},
    "phi": PHI,
    "phi-4bit": four_bits(PHI, **WIDE),
    "gpt_neox": GPT_NEOX,
    "gpt_neox-4bit": four_bits(GPT_NEOX, hidden_size=128, intermediate_size=512),
    "gpt_neox-sequential": GPT_NEOX | {"use_parallel_residual": False, "hidden_act": "gelu_fast", "rotary_pct": 0.25},
    "cohere2": COHERE2,
    "cohere2-4bit": four_bits(COHERE2, **WIDE, head_dim=32),
    "qwen3_moe": QWEN3_MOE,
    "qwen3_moe-4bit": four_bits(
        QWEN3_MOE, (1, 3), ["mlp.gate"], **WIDE, moe_intermediate_size=96, norm_topk_prob=False, num_hidden_layers=4,
        decoder_sparse_step=2, mlp_only_layers=[]),
    "gpt_oss": GPT_OSS,
    "gpt_oss-4bit": four_bits(GPT_OSS, range(4), ["mlp.router"], hidden_size=128, intermediate_size=96, head_dim=32),
    "gpt_oss-mxfp4": GPT_OSS | {
        "hidden_size": 128,
        "intermediate_size": 96,
        "head_dim": 32,
        "quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4", "model.embed_tokens": AFFINE8, "lm_head": AFFINE8}
        | {f"model.layers.{i}.self_attn.{m}_proj": AFFINE8 if m == "o" else AFFINE4 for i in range(4) for m in "qkvo"}
        | {f"model.layers.{i}.mlp.router": {"group_size": 64, "bits": 8} for i in range(4)},
    },
    "deepseek_v3": DEEPSEEK_V3,
    "deepseek_v3-4bit": four_bits(
        DEEPSEEK_V3, **WIDE, moe_intermediate_size=64, n_shared_experts=1, q_lora_rank=64, kv_lora_rank=96, qk_nope_head_dim=32,
        v_head_dim=64),
    "deepseek_v3-yarn": DEEPSEEK_V3 | {
        "q_lora_rank": None,
        "n_group": 1,
        "topk_group": 1,
        "rope_scaling": {
            "type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1, "mscale": 0.7,
            "mscale_all_dim": 1.0,
        },
    },
    "llama4": LLAMA4,
    "llama4-4bit": four_bits(LLAMA4, text_config=LLAMA4["text_config"] | {
        "hidden_size": 128, "intermediate_size": 96, "intermediate_size_mlp": 192, "head_dim": 32}),
    "lfm2": LFM2,
    "lfm2-4bit": four_bits(LFM2, hidden_size=128, block_dim=128, block_ff_dim=256, block_multiple_of=32, conv_bias=False),
    "mamba2": MAMBA2,
    "mamba2-4bit": four_bits(MAMBA2, hidden_size=128, intermediate_size=256, head_dim=32, tie_word_embeddings=False),
    "qwen3_next": QWEN3_NEXT,
    "qwen3_next-4bit": four_bits(
        QWEN3_NEXT, (0, 2, 3), ["mlp.gate", "mlp.shared_expert_gate"], **WIDE, moe_intermediate_size=96,
        shared_expert_intermediate_size=64, linear_key_head_dim=32, linear_value_head_dim=48, norm_topk_prob=False, mlp_only_layers=[1]),
    "recurrent_gemma": RECURRENT_GEMMA,
    "recurrent_gemma-4bit": four_bits(
        {k: v for k, v in RECURRENT_GEMMA.items() if k != "block_types"}, _block_types=RECURRENT_GEMMA["block_types"], hidden_size=128,
        lru_width=128, intermediate_size=384, head_dim=32),
    "rwkv7": RWKV7,
    # mlx-lm writes no group size for what it keeps in eight bits: groups are then of 64. A rank that is no whole number of groups
    # stays dense.
    "rwkv7-4bit": RWKV7 | {
        "hidden_size": 128,
        "intermediate_size": 256,
        "head_dim": 32,
        "norm_eps": 2e-5,
        "a_low_rank_dim": 64,
        "v_low_rank_dim": 48,
        "gate_low_rank_dim": 128,
        "decay_low_rank_dim": 64,
        "quantization": {"group_size": 32, "bits": 4, "model.embeddings": {"bits": 8}}
        | {f"model.layers.{i}.attn.{m}_lora.lora.2": {"bits": 8} for i in range(3) for m in "wag"},
    },
    "gemma3n": GEMMA3N,
    "gemma3n-4bit": four_bits(GEMMA3N, text_config=GEMMA3N["text_config"] | {
        "hidden_size": 128, "intermediate_size": 192, "head_dim": 32, "hidden_size_per_layer_input": 32, "laurel_rank": 32}),
}

# Stored in bf16, as published checkpoints are; the oracle and Pippin both compute in f32.
BF16 = {"llama-bf16": "llama", "llama-4bit-bf16": "llama-4bit", "qwen2-bf16": "qwen2", "qwen3-4bit-bf16": "qwen3-4bit"}

MODELS = [(name, config, "F32") for name, config in (CONFIGS | FAMILIES).items()] + [(name, CONFIGS[base], "BF16") for name, base in BF16.items()]
