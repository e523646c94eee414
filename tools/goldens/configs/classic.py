"""Dense decoders: attention and a feed-forward network in every layer."""

from .recipes import WIDE, four_bits, quantized, scaled

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

# The other families. Windows and chunks are shorter than the prompts; soft caps, clips and thresholds are low enough to be reached.
OLMO2 = LLAMA | {"model_type": "olmo2", "tie_word_embeddings": False, "rope_theta": 500000.0, "attention_bias": False}

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
    "olmo2": OLMO2,
    "olmo2-4bit": four_bits(OLMO2, **WIDE),
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
}

# Stored in bf16, as published checkpoints are; the oracle and Pippin both compute in f32.
BF16 = {"llama-bf16": "llama", "llama-4bit-bf16": "llama-4bit", "qwen2-bf16": "qwen2", "qwen3-4bit-bf16": "qwen3-4bit"}

MATTERS = {
    "olmo2": [
        {"rope_theta": 10000.0},
    ],
    "phi": [
        {"partial_rotary_factor": 1.0},
        {"hidden_act": "relu"},
    ],
    "phi3-longrope": [
        {"rope_scaling": None},
        {"partial_rotary_factor": 1.0, "rope_scaling": None},
    ],
    "phi3-sliding": [
        {"sliding_window": 9},
    ],
    "gpt_neox": [
        {"rotary_pct": 1.0},
        {"use_parallel_residual": False},
        {"hidden_act": "relu"},
    ],
    "cohere2": [
        {"sliding_window": 9},
        {"sliding_window_pattern": 2},
        {"logit_scale": 1.0},
    ],
    "llama-rope-linear": [
        {"rope_scaling": None},
    ],
    "llama-rope-llama3": [
        {"rope_scaling": None},
    ],
    "llama-rope-yarn": [
        {"rope_scaling": None},
    ],
    "llama-rope-yarn-mscale": [
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ],
    "llama-rope-longrope": [
        {"rope_scaling": None},
    ],
    "llama-rope-traditional": [
        {"rope_traditional": False},
    ],
    "llama-sliding": [
        {"sliding_window": 9},
        {"layer_types": None},
    ],
    "llama-biases": [
        {"attention_bias": False},
        {"mlp_bias": False},
    ],
    "llama-untied": [
        {"tie_word_embeddings": True},
    ],
    "mistral-sliding": [
        {"sliding_window": None},
    ],
    "qwen2": [
        {"model_type": "llama"},
    ],
    "qwen2-yarn": [
        {"rope_scaling": None},
    ],
    "qwen3": [
        {"model_type": "llama"},
    ],
    "qwen3-rope-parameters": [
        {"rope_parameters": {"rope_theta": 100000.0}},
    ],
}
