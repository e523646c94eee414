"""Latent attention."""

from .recipes import WIDE, four_bits

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

YARN = {
    "type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1, "mscale": 0.7,
    "mscale_all_dim": 1.0,
}

# Widths that are whole numbers of groups.
PACKED = WIDE | {
    "moe_intermediate_size": 64, "n_shared_experts": 1, "q_lora_rank": 64, "kv_lora_rank": 96, "qk_nope_head_dim": 32,
    "v_head_dim": 64,
}


def without(config, *fields):
    return {name: value for name, value in config.items() if name not in fields}


DEEPSEEK_V2 = without(DEEPSEEK_V3, "norm_topk_prob") | {
    "model_type": "deepseek_v2",
    "topk_method": "group_limited_greedy",
    "scoring_func": "softmax",
    "rope_scaling": YARN,
}

GLM4_MOE_LITE = DEEPSEEK_V3 | {
    "model_type": "glm4_moe_lite",
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "rms_norm_eps": 1e-5,
}

KIMI_VL = {"model_type": "kimi_vl", "text_config": without(DEEPSEEK_V3, "model_type", "tie_word_embeddings") | {
    "n_group": 1, "topk_group": 1, "q_lora_rank": None,
}}

# Fewer tokens are seen than the prompt has. With several queries none of a key's products is positive only seldom.
DEEPSEEK_V32 = DEEPSEEK_V3 | {
    "model_type": "deepseek_v32",
    "num_hidden_layers": 2,
    "index_n_heads": 8,
    "index_head_dim": 32,
    "index_topk": 18,
    "n_group": 1,
    "topk_group": 1,
}

GLM_MOE_DSA = without(DEEPSEEK_V32, "rope_theta", "rope_scaling") | {
    "model_type": "glm_moe_dsa",
    "num_attention_heads": 6,
    "index_n_heads": 10,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
}

# Positions that share a factor end within the prompt.
MISTRAL4 = without(DEEPSEEK_V3, "rope_theta", "rope_scaling", "scoring_func", "topk_method", "moe_layer_freq") | {
    "model_type": "mistral4",
    "n_shared_experts": 1,
    "rope_interleave": True,
    "rope_parameters": {
        "type": "yarn", "rope_theta": 10000.0, "factor": 4, "original_max_position_embeddings": 16, "beta_fast": 32,
        "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5,
    },
}

MINICPM3 = {
    "model_type": "minicpm3",
    "hidden_size": 64,
    "dim_model_base": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 40,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "rms_norm_eps": 1e-5,
    "scale_depth": 1.4,
    "scale_emb": 12,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "longrope", "original_max_position_embeddings": 64,
        "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [1.0 + i / 4 for i in range(8)],
    },
    "tie_word_embeddings": False,
}

DEEPSEEK_V41 = {
    "model_type": "deepseek_v41",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "o_groups": 2,
    "o_lora_rank": 24,
    "moe_intermediate_size": 48,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "scoring_func": "sqrtsoftplus",
    "gate_temp": 1.0,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "swiglu_limit": 1.0,
    "rms_norm_eps": 1e-6,
    "sliding_window": 6,
    "compress_ratios": [0, 2, 2, 2],
    "kv_source_layer_ids": [1],
    "index_source_layer_ids": [1, 2],
    "compress_rope_theta": 1000.0,
    "candidate_source_layer_id": 1,
    "candidate_topk_blocks": 3,
    "candidate_block_size": 2,
    "index_n_heads": 8,
    "index_head_dim": 32,
    "index_topk": 4,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8, "beta_slow": 1},
    "hc_mult": 3,
    "hc_sinkhorn_iters": 5,
    "hc_eps": 1e-6,
    "vocab_size": 48,
    "max_position_embeddings": 256,
}

# Vectors of single tokens, then of four; no blocks, no scaling, widths that are not whole blocks.
DEEPSEEK_V41_PLAIN = DEEPSEEK_V41 | {
    "num_hidden_layers": 3,
    "head_dim": 24,
    "index_head_dim": 16,
    "compress_ratios": [1, 4, 4],
    "kv_source_layer_ids": [0, 1],
    "index_source_layer_ids": [0, 1],
    "candidate_source_layer_id": -1,
    "index_topk": 3,
    "scoring_func": "sigmoid",
    "norm_topk_prob": False,
    "swiglu_limit": 0,
    "rope_scaling": None,
    "hc_mult": 2,
}

CONFIGS = {
    "deepseek_v41": DEEPSEEK_V41,
    "deepseek_v41-plain": DEEPSEEK_V41_PLAIN,
    "deepseek_v41-4bit": DEEPSEEK_V41 | {
        "num_hidden_layers": 3, "hidden_size": 96, "o_lora_rank": 32, "moe_intermediate_size": 64, "gate_temp": 2.0,
        "compress_ratios": [0, 2, 2], "quantization": {"group_size": 32, "bits": 4} | {
            f"model.layers.{i}.{module}_hc.fn": False for i in range(3) for module in ("attn", "ffn")},
    },
    "deepseek_v3": DEEPSEEK_V3,
    "deepseek_v3-4bit": four_bits(DEEPSEEK_V3, **PACKED),
    "deepseek_v3-yarn": DEEPSEEK_V3 | {
        "q_lora_rank": None,
        "n_group": 1,
        "topk_group": 1,
        "rope_scaling": YARN,
    },
    "deepseek_v2": DEEPSEEK_V2,
    # As the smaller ones are.
    "deepseek_v2-4bit": four_bits(DEEPSEEK_V2, **PACKED | {"q_lora_rank": None}, topk_method="greedy"),
    "deepseek_v32": DEEPSEEK_V32,
    "deepseek_v32-4bit": four_bits(DEEPSEEK_V32, **PACKED),
    "glm_moe_dsa": GLM_MOE_DSA,
    "glm_moe_dsa-4bit": four_bits(GLM_MOE_DSA, **PACKED),
    "glm4_moe_lite": GLM4_MOE_LITE,
    "glm4_moe_lite-4bit": four_bits(GLM4_MOE_LITE, **PACKED),
    "kimi_vl": KIMI_VL,
    "kimi_vl-4bit": four_bits(KIMI_VL, text_config=KIMI_VL["text_config"] | PACKED | {"rope_scaling": YARN}),
    "mistral4": MISTRAL4,
    "mistral4-4bit": four_bits(MISTRAL4, **PACKED, num_hidden_layers=2),
    "minicpm3": MINICPM3,
    "minicpm3-4bit": four_bits(MINICPM3, **WIDE, dim_model_base=128, q_lora_rank=64, kv_lora_rank=96, qk_nope_head_dim=32),
}

MATTERS = {
    "deepseek_v41": [
        {"sliding_window": 12},
        {"index_topk": 2},
        {"candidate_topk_blocks": 2},
        {"candidate_source_layer_id": -1},
        {"compress_rope_theta": 100000.0},
        {"rope_scaling": None},
        {"hc_sinkhorn_iters": 1},
        {"swiglu_limit": 0},
        {"gate_temp": 2.0},
        {"scoring_func": "softmax"},
        {"index_source_layer_ids": [1]},
    ],
    "deepseek_v3": [
        {"topk_group": 1}, {"routed_scaling_factor": 1.0}, {"norm_topk_prob": False}, {"num_experts_per_tok": 2},
    ],
    "deepseek_v3-yarn": [{"rope_scaling": None}, {"rope_scaling": YARN | {"mscale_all_dim": 0.7}}],
    "deepseek_v2": [
        {"topk_method": "greedy"}, {"topk_group": 1}, {"routed_scaling_factor": 1.0}, {"first_k_dense_replace": 0},
        {"rope_scaling": YARN | {"mscale_all_dim": 0.7}}, {"rope_scaling": None},
    ],
    "deepseek_v32": [{"index_topk": 12}, {"index_topk": 96}, {"indexer_rope_interleave": True}],
    "glm_moe_dsa": [{"index_topk": 12}, {"indexer_rope_interleave": False}],
    "glm4_moe_lite": [{"norm_topk_prob": False}, {"rope_theta": 1000.0}, {"num_experts_per_tok": 2}],
    "kimi_vl": [{"text_config": {"routed_scaling_factor": 1.0}}, {"text_config": {"norm_topk_prob": False}}],
    "mistral4": [
        {"rope_parameters": MISTRAL4["rope_parameters"] | {"llama_4_scaling_beta": 0.01}}, {"rope_interleave": False},
        {"norm_topk_prob": False}, {"topk_group": 1}, {"routed_scaling_factor": 1.0},
    ],
    "minicpm3": [
        {"scale_depth": 1.0}, {"scale_emb": 1.0}, {"dim_model_base": 64}, {"rope_theta": 1000.0}, {"rope_scaling": None},
    ],
}
