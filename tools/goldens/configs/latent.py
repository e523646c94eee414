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

CONFIGS = {
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
}
