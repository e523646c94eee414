"""More mixtures of experts."""

from .classic import LLAMA
from .recipes import WIDE, four_bits

BASE = LLAMA | {"num_hidden_layers": 3, "tie_word_embeddings": False}

MIXTRAL = BASE | {
    "model_type": "mixtral", "intermediate_size": 48, "num_local_experts": 8, "num_experts_per_tok": 2, "rope_theta": 1000000.0,
}

QWEN2_MOE = BASE | {
    "model_type": "qwen2_moe",
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 80,
    "norm_topk_prob": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "rope_theta": 1000000.0,
}

OLMOE = BASE | {
    "model_type": "olmoe", "intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": False, "clip_qkv": None,
}

PHIMOE = BASE | {
    "model_type": "phimoe",
    "intermediate_size": 48,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "router_jitter_noise": 0.2,
    "original_max_position_embeddings": 64,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.5, 8.0],
        "short_mscale": 1.1,
        "long_mscale": 1.3,
    },
    "sliding_window": None,
}

GRANITEMOE = BASE | {
    "model_type": "granitemoe",
    "intermediate_size": 48,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "attention_bias": False,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 1.5,
    "residual_multiplier": 0.8,
    "logits_scaling": 0.5,
    "tie_word_embeddings": True,
}

GROUPED = {
    "n_routed_experts": 16,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
}

GLM4_MOE = BASE | GROUPED | {
    "model_type": "glm4_moe",
    "head_dim": 24,
    "attention_bias": True,
    "use_qk_norm": True,
    "partial_rotary_factor": 0.5,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
}

SOLAR_OPEN = BASE | GROUPED | {
    "model_type": "solar_open", "head_dim": 24, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "partial_rotary_factor": 1.0,
    "norm_topk_prob": False, "first_k_dense_replace": 0, "rope_theta": 1000000.0,
}

DOTS1 = BASE | GROUPED | {"model_type": "dots1", "head_dim": 24, "scoring_func": "noaux_tc", "rope_theta": 10000000}

DEEPSEEK = BASE | {
    "model_type": "deepseek",
    "num_hidden_layers": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 2,
    "norm_topk_prob": False,
}

LFM2_MOE = {
    "model_type": "lfm2_moe",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_dense_layers": 1,
    "norm_topk_prob": True,
    "use_expert_bias": True,
    "routed_scaling_factor": 1.5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "rope_theta": 1000000.0,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
}

ERNIE4_5_MOE = BASE | {
    "model_type": "ernie4_5_moe",
    "num_hidden_layers": 5,
    "use_bias": False,
    "rope_theta": 500000.0,
    "moe_num_experts": 8,
    "moe_k": 3,
    "moe_intermediate_size": 48,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": 3,
    "moe_layer_interval": 1,
    "moe_gate_act": "softmax",
}

MINIMAX = BASE | {
    "model_type": "minimax",
    "intermediate_size": 48,
    "head_dim": 24,
    "rotary_dim": 12,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "shared_intermediate_size": 0,
    "use_qk_norm": True,
    "scoring_func": "sigmoid",
    "rope_theta": 5000000,
}

BAILING_MOE = BASE | {
    "model_type": "bailing_moe",
    "num_experts": 16,
    "num_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "first_k_dense_replace": 1,
    "rope_theta": 600000,
}

BAILING_MOE_2 = BAILING_MOE | {
    "use_qk_norm": True,
    "use_qkv_bias": True,
    "partial_rotary_factor": 0.5,
    "moe_router_enable_expert_bias": True,
    "routed_scaling_factor": 2.5,
    "score_function": "sigmoid",
    "n_group": 4,
    "topk_group": 2,
    "moe_shared_expert_intermediate_size": 64,
}

EXAONE_MOE = BASE | {
    "model_type": "exaone_moe",
    "head_dim": 24,
    "moe_intermediate_size": 48,
    "num_experts": 16,
    "num_experts_per_tok": 3,
    "num_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "is_moe_layer": [False, True, True],
    "rope_theta": 1000000.0,
}

KLEAR = BASE | {
    "model_type": "Klear",
    "attention_bias": False,
    "mlp_only_layers": [1],
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "decoder_sparse_step": 1,
    "n_shared_experts": 2,
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "rope_theta": 500000,
}

AFMOE = BASE | {
    "model_type": "afmoe",
    "num_hidden_layers": 4,
    "head_dim": 24,
    "moe_intermediate_size": 48,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_shared_experts": 1,
    "num_dense_layers": 1,
    "route_norm": True,
    "route_scale": 2.0,
    "score_func": "sigmoid",
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "mup_enabled": True,
}

MIMO_V2_FLASH = BASE | {
    "model_type": "mimo_v2_flash",
    "num_hidden_layers": 4,
    "hybrid_layer_pattern": [0, 1, 1, 0],
    "moe_layer_freq": [0, 1, 1, 1],
    "add_swa_attention_sink_bias": True,
    "add_full_attention_sink_bias": False,
    "sliding_window_size": 8,
    "moe_intermediate_size": 48,
    "n_shared_experts": None,
    "n_routed_experts": 8,
    "routed_scaling_factor": None,
    "num_experts_per_tok": 3,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "layernorm_epsilon": 1e-5,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 24,
    "v_head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 24,
    "swa_v_head_dim": 16,
    "rope_theta": 5000000,
    "swa_rope_theta": 10000,
    "partial_rotary_factor": 0.34,
    "attention_value_scale": 0.7,
}

LAGUNA = BASE | {
    "model_type": "laguna",
    "num_hidden_layers": 4,
    "head_dim": 24,
    "num_attention_heads_per_layer": [4, 6, 6, 4],
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "sliding_window": 8,
    "rope_parameters": {
        "full_attention": {
            "rope_type": "yarn", "rope_theta": 500000.0, "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0,
            "beta_slow": 1.0, "partial_rotary_factor": 0.5,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
    "gating": True,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 32,
    "moe_routed_scaling_factor": 2.5,
    "moe_router_logit_softcapping": 0.0,
    "moe_router_score_func": "sigmoid",
}

HUNYUAN = BASE | {
    "model_type": "hunyuan",
    "num_hidden_layers": 4,
    "attention_bias": False,
    "moe_topk": 2,
    "num_experts": 8,
    "num_shared_expert": 1,
    "use_mixed_mlp_moe": True,
    "use_qk_norm": True,
    "use_cla": True,
    "cla_share_factor": 2,
    "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 50.0},
    "tie_word_embeddings": True,
}

MINIMAX_M3 = {
    "model_type": "minimax_m3_vl",
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 48,
        "dense_intermediate_size": 96,
        "shared_intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000000.0,
        "head_dim": 24,
        "rotary_dim": 12,
        "vocab_size": 96,
        "tie_word_embeddings": False,
        "routed_scaling_factor": 2.0,
        "use_qk_norm": True,
        "use_gemma_norm": True,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 2.0,
        "moe_layer_freq": [0, 1, 1],
    },
}

LLAMA4_TEXT = BASE | {
    "model_type": "llama4_text",
    "num_hidden_layers": 4,
    "head_dim": 16,
    "intermediate_size_mlp": 112,
    "no_rope_layers": [1, 1, 1, 0],
    "use_qk_norm": True,
    "rope_theta": 500000.0,
}

NARROW = {"moe_intermediate_size": 96}

NVFP4 = {"group_size": 16, "bits": 4, "mode": "nvfp4"}

CONFIGS = {
    "mixtral": MIXTRAL,
    "mixtral-4bit": four_bits(MIXTRAL, hidden_size=128, intermediate_size=96),
    # A factor for each expert.
    "mixtral-nvfp4": MIXTRAL | {"quantization": NVFP4 | {
        f"model.layers.{i}.block_sparse_moe.switch_mlp.{m}_proj": NVFP4 | {"global_scale": True}
        for i in range(3) for m in ("gate", "up", "down")
    }},
    "qwen2_moe": QWEN2_MOE,
    "qwen2_moe-4bit": four_bits(QWEN2_MOE, **WIDE, **NARROW, shared_expert_intermediate_size=160),
    "olmoe": OLMOE,
    "olmoe-4bit": four_bits(OLMOE, hidden_size=128, intermediate_size=96, norm_topk_prob=True),
    "phimoe": PHIMOE,
    "phimoe-4bit": four_bits(PHIMOE, hidden_size=128, intermediate_size=96, num_hidden_layers=2, rope_scaling=None),
    "granitemoe": GRANITEMOE,
    "granitemoe-4bit": four_bits(
        GRANITEMOE, range(3), ["block_sparse_moe.router.layer", "self_attn.o_proj"], hidden_size=128, intermediate_size=96,
        attention_bias=True),
    "glm4_moe": GLM4_MOE,
    "glm4_moe-4bit": four_bits(
        GLM4_MOE, **WIDE, **NARROW, num_hidden_layers=2, head_dim=32, use_qk_norm=False, attention_bias=False, n_group=1, topk_group=1),
    "solar_open": SOLAR_OPEN,
    "solar_open-4bit": four_bits(SOLAR_OPEN, **WIDE, **NARROW, head_dim=32, use_qk_norm=True, norm_topk_prob=True),
    "dots1": DOTS1,
    "dots1-4bit": four_bits(DOTS1, **WIDE, **NARROW, head_dim=32, n_group=1, topk_group=1),
    "deepseek": DEEPSEEK,
    "deepseek-4bit": four_bits(DEEPSEEK, **WIDE, **NARROW, moe_layer_freq=1, num_hidden_layers=3),
    "lfm2_moe": LFM2_MOE,
    "lfm2_moe-4bit": four_bits(
        LFM2_MOE, range(1, 4), ["feed_forward.gate"], **WIDE, **NARROW, use_expert_bias=False, norm_topk_prob=False),
    "ernie4_5_moe": ERNIE4_5_MOE,
    "ernie4_5_moe-4bit": four_bits(
        ERNIE4_5_MOE, **WIDE, **NARROW, use_bias=True, moe_gate_act="sigmoid", moe_layer_interval=2, moe_num_shared_experts=0),
    "minimax": MINIMAX,
    "minimax-4bit": four_bits(
        MINIMAX | {"model_type": "minimax_m2"}, range(3), ["block_sparse_moe.gate"], hidden_size=128, intermediate_size=96, head_dim=32,
        rotary_dim=16),
    "bailing_moe": BAILING_MOE,
    "bailing_moe-sigmoid": BAILING_MOE_2,
    "bailing_moe-4bit": four_bits(BAILING_MOE_2, range(1, 3), ["mlp.gate.gate_proj"], **WIDE, **NARROW, use_bias=True),
    "exaone_moe": EXAONE_MOE,
    "exaone_moe-4bit": four_bits(
        EXAONE_MOE, **WIDE, **NARROW, head_dim=32, layer_types=["full_attention"] * 3, n_group=1, topk_group=1, num_shared_experts=0),
    "klear": KLEAR,
    "klear-4bit": four_bits(KLEAR, (0, 2), ["mlp.gate"], **WIDE, **NARROW, attention_bias=True, n_shared_experts=1),
    "afmoe": AFMOE,
    "afmoe-4bit": four_bits(AFMOE, range(1, 4), ["mlp.router.gate"], **WIDE, **NARROW, head_dim=32, mup_enabled=False, route_norm=False),
    "mimo_v2_flash": MIMO_V2_FLASH,
    "mimo_v2_flash-4bit": four_bits(
        MIMO_V2_FLASH, **WIDE, **NARROW, n_shared_experts=1, routed_scaling_factor=1.5, add_full_attention_sink_bias=True,
        attention_value_scale=None, v_head_dim=32, swa_v_head_dim=24, swa_num_attention_heads=8),
    "laguna": LAGUNA,
    "laguna-4bit": four_bits(
        LAGUNA, range(1, 4), ["mlp.gate.proj"], **WIDE, **NARROW, shared_expert_intermediate_size=64, head_dim=32,
        moe_router_logit_softcapping=2.0, moe_router_score_func="sqrtsoftplus", gating=False, qkv_bias=True, attention_bias=True),
    "hunyuan": HUNYUAN,
    "hunyuan-4bit": four_bits(
        HUNYUAN, **WIDE, num_hidden_layers=2, attention_bias=True, moe_intermediate_size=[96, 64], moe_topk=[3, 2], num_shared_expert=[1, 2],
        use_cla=False),
    "minimax_m3_vl": MINIMAX_M3,
    "minimax_m3_vl-4bit": four_bits(
        MINIMAX_M3, range(1, 3), ["block_sparse_moe.gate"], "language_model.model", text_config=MINIMAX_M3["text_config"] | {
            "hidden_size": 128, "intermediate_size": 96, "dense_intermediate_size": 192, "shared_intermediate_size": 64, "head_dim": 32,
            "rotary_dim": 16, "use_gemma_norm": False}),
    "llama4_text": LLAMA4_TEXT,
    "llama4_text-4bit": four_bits(
        LLAMA4_TEXT, **WIDE, intermediate_size_mlp=160, head_dim=32, use_qk_norm=False),
}

MATTERS = {
    "solar_open": [{"norm_topk_prob": True}, {"routed_scaling_factor": 1.0}],
    "bailing_moe": [{"norm_topk_prob": False}, {"num_experts_per_tok": 2}],
    "mixtral": [{"num_experts_per_tok": 3}, {"sliding_window": 5}],
    "qwen2_moe": [{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
    "olmoe": [{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
    "phimoe": [{"router_jitter_noise": 0.01}, {"rope_scaling": None}],
    "granitemoe": [
        {"attention_multiplier": 0.25}, {"embedding_multiplier": 6.0}, {"residual_multiplier": 1.0}, {"logits_scaling": 1.0},
    ],
    "glm4_moe": [{"partial_rotary_factor": 1.0}, {"routed_scaling_factor": 1.0}, {"topk_group": 1}, {"norm_topk_prob": False}],
    "dots1": [{"routed_scaling_factor": 1.0}, {"topk_group": 1}],
    "deepseek": [{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
    "lfm2_moe": [{"norm_topk_prob": False}, {"routed_scaling_factor": 1.0}, {"use_expert_bias": False}],
    "ernie4_5_moe": [{"moe_k": 2}, {"moe_gate_act": "sigmoid"}],
    "minimax": [{"rotary_dim": 24}, {"use_qk_norm": False}],
    "bailing_moe-sigmoid": [
        {"score_function": "softmax"}, {"moe_router_enable_expert_bias": False}, {"partial_rotary_factor": 1.0}, {"use_qk_norm": False},
        {"topk_group": 1},
    ],
    "exaone_moe": [{"sliding_window": 9}, {"layer_types": ["full_attention"] * 3}, {"routed_scaling_factor": 1.0}],
    "klear": [{"norm_topk_prob": False}],
    "afmoe": [{"mup_enabled": False}, {"route_norm": False}, {"route_scale": 1.0}, {"score_func": "softmax"}, {"sliding_window": 9}],
    "mimo_v2_flash": [
        {"attention_value_scale": 1.0}, {"swa_rope_theta": 100}, {"rope_theta": 100}, {"add_swa_attention_sink_bias": False},
        {"sliding_window_size": 9}, {"partial_rotary_factor": 1.0},
    ],
    "laguna": [
        {"moe_router_logit_softcapping": 0.5}, {"moe_router_score_func": "sqrtsoftplus"}, {"gating": False}, {"sliding_window": 9},
        {"moe_routed_scaling_factor": 1.0},
    ],
    "hunyuan": [{"moe_topk": 3}, {"rope_scaling": None}, {"use_qk_norm": False}],
    "minimax_m3_vl": [
        {"text_config": {"routed_scaling_factor": 1.0}}, {"text_config": {"use_gemma_norm": False}}, {"text_config": {"swiglu_limit": 7.0}},
        {"text_config": {"rotary_dim": 24}}, {"text_config": {"use_qk_norm": False}},
    ],
    "llama4_text": [{"no_rope_layers": [1, 1, 1, 1]}, {"use_qk_norm": False}, {"attention_chunk_size": 10}],
}
