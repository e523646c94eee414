"""Ling and Ring (Bailing) whose layers have linear attention mostly: with decays that are fixed, or by the delta rule."""

from .recipes import WIDE, four_bits

BASE = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "layer_group_size": 3,
    "intermediate_size": 96,
    "moe_intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 8,
    "num_shared_experts": 1,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}

# The heads of both kinds of attention are not as wide as each other.
BAILING_MOE_LINEAR = BASE | {
    "model_type": "bailing_moe_linear",
    "head_dim": 24,
    "group_norm_size": 2,
    "norm_topk_prob": True,
    "use_qk_norm": True,
    "partial_rotary_factor": 0.5,
}

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0}

LATENT = {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}

# A number of heads that is no power of two.
BAILING_HYBRID = BASE | LATENT | {
    "model_type": "bailing_hybrid",
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 16,
    "q_lora_rank": None,
    "group_norm_size": 3,
    "num_experts": 16,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "moe_shared_expert_intermediate_size": 40,
    "num_shared_experts": 2,
}

BAILING_MOE_V3 = BASE | LATENT | {
    "architectures": ["BailingMoeV3ForCausalLM"],
    "model_type": "bailing_hybrid",
    "head_dim": 16,
    "q_lora_rank": 24,
    "num_experts": 16,
    "n_group": 4,
    "topk_group": 2,
    "moe_shared_expert_intermediate_size": 40,
    "short_conv_kernel_size": 4,
    "kda_lower_bound": -2.0,
}

CONFIGS = {
    "bailing_moe_linear": BAILING_MOE_LINEAR,
    "bailing_moe_linear-4bit": four_bits(
        BAILING_MOE_LINEAR, range(1, 4), ["mlp.gate.gate_proj"], **WIDE, moe_intermediate_size=64, head_dim=32, group_norm_size=4,
        use_bias=True, use_qkv_bias=True, rope_traditional=True, use_qk_norm=False, score_function="sigmoid", num_experts=16, n_group=4,
        topk_group=2, moe_router_enable_expert_bias=True, routed_scaling_factor=2.5, tie_word_embeddings=True),
    "bailing_hybrid": BAILING_HYBRID,
    "bailing_hybrid-4bit": four_bits(
        BAILING_HYBRID, range(1, 4), ["mlp.gate.gate_proj"], **WIDE, num_attention_heads=4, num_key_value_heads=4, head_dim=32,
        group_norm_size=4, q_lora_rank=64, qk_nope_head_dim=32, v_head_dim=32, moe_intermediate_size=64, use_bias=True, use_qkv_bias=True,
        use_qk_norm=False, rope_interleave=False, n_group=1, topk_group=1, norm_topk_prob=False, moe_router_enable_expert_bias=False,
        score_function="softmax", moe_shared_expert_intermediate_size=None,
        rope_scaling=YARN),
    "bailing_moe_v3": BAILING_MOE_V3,
    "bailing_moe_v3-4bit": four_bits(
        BAILING_MOE_V3, **WIDE, head_dim=32, q_lora_rank=None, qk_nope_head_dim=32, v_head_dim=32, moe_intermediate_size=64,
        moe_shared_expert_intermediate_size=64, num_shared_experts=2, n_group=1, topk_group=1, tie_word_embeddings=True,
        rope_scaling=YARN),
}

MATTERS = {
    "bailing_moe_linear": [
        {"partial_rotary_factor": 1.0}, {"rope_theta": 10}, {"norm_topk_prob": False}, {"use_qk_norm": False}, {"group_norm_size": 4},
        {"layer_group_size": 2, "num_hidden_layers": 2},
    ],
    "bailing_moe_linear-4bit": [{"rope_traditional": False}, {"score_function": "softmax"}, {"routed_scaling_factor": 1.0}],
    "bailing_hybrid": [
        {"partial_rotary_factor": 1.0}, {"rope_interleave": False}, {"group_norm_size": 6}, {"topk_group": 1},
        {"moe_router_enable_expert_bias": False}, {"norm_topk_prob": False}, {"score_function": "softmax"},
    ],
    "bailing_hybrid-4bit": [
        {"rope_scaling": YARN | {"mscale_all_dim": 0.0, "mscale": 0.0}}, {"rope_scaling": None},
    ],
    "bailing_moe_v3": [
        {"kda_lower_bound": -5.0}, {"topk_group": 1}, {"routed_scaling_factor": 1.0}, {"rope_theta": 10},
    ],
    "bailing_moe_v3-4bit": [{"rope_scaling": YARN | {"mscale_all_dim": 0.0, "mscale": 0.0}}],
}
