"""Mixtures of experts."""

from .classic import QWEN3
from .recipes import WIDE, four_bits

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

AFFINE4 = {"group_size": 32, "bits": 4, "mode": "affine"}

AFFINE8 = {"group_size": 64, "bits": 8, "mode": "affine"}

CONFIGS = {
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
    "llama4": LLAMA4,
    "llama4-4bit": four_bits(LLAMA4, text_config=LLAMA4["text_config"] | {
        "hidden_size": 128, "intermediate_size": 96, "intermediate_size_mlp": 192, "head_dim": 32}),
}

MATTERS = {
    "qwen3_moe": [
        {"norm_topk_prob": False},
        {"num_experts_per_tok": 2},
    ],
    "gpt_oss": [
        {"sliding_window": 9},
        {"layer_types": ["full_attention"] * 4},
        {"swiglu_limit": 0.5},
        {"rope_scaling": None},
        {"rope_scaling": GPT_OSS["rope_scaling"] | {"truncate": True}},
    ],
    "llama4": [
        {"text_config": {"attention_chunk_size": 12}},
        {"text_config": {"attn_temperature_tuning": 0}},
        {"text_config": {"floor_scale": 4}},
        {"text_config": {"attn_scale": 0.1}},
        {"text_config": {"use_qk_norm": False}},
        {"text_config": {"rope_scaling": None}},
    ],
}
