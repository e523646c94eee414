"""Google's Gemma."""

from .recipes import WIDE, four_bits

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

# As the small ones: an input of each layer's own, and upper layers without keys and values.
GEMMA4 = {
    "model_type": "gemma4_text",
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 96,
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "final_logit_softcapping": 4.0,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "hidden_activation": "gelu_pytorch_tanh",
}

# As the large ones: one matrix for keys and values in layers without a window.
GEMMA4_LARGE = {
    "model_type": "gemma4_text",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 96,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 8,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 100000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
    },
    "final_logit_softcapping": 8.0,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "hidden_activation": "gelu_pytorch_tanh",
}

GEMMA4_EXPERTS = GEMMA4_LARGE | {
    "enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 48,
}


GEAR = {
    "model_type": "gear",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "layer_types": ["conv_mixer", "sliding_attention", "conv_mixer", "full_attention"],
    "conv_L_cache": 4,
    "sliding_window": 8,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "query_pre_attn_scalar": 20,
    "attention_bias": True,
    "attn_logit_softcapping": 8.0,
    "final_logit_softcapping": 4.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}


def gemma4(text, **changes):
    return {"model_type": "gemma4", "text_config": text | changes, "vocab_size": 96}


CONFIGS = {
    "gear": GEAR,
    "gear-4bit": four_bits(
        GEAR, **WIDE, head_dim=32, attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None,
        hidden_activation="gelu", tie_word_embeddings=False),
    "gemma2": GEMMA2,
    "gemma2-4bit": four_bits(GEMMA2, **WIDE, head_dim=32),
    "gemma3": GEMMA3,
    "gemma3-4bit": four_bits(GEMMA3, **WIDE, head_dim=32),
    # As published, without what mlx-lm has defaults for.
    "gemma3-nested": {"model_type": "gemma3", "vocab_size": 96, "text_config": {
        key: value for key, value in GEMMA3.items() if key not in ("num_attention_heads", "num_key_value_heads", "vocab_size")}},
    "gemma3n": GEMMA3N,
    "gemma3n-4bit": four_bits(GEMMA3N, text_config=GEMMA3N["text_config"] | {
        "hidden_size": 128, "intermediate_size": 192, "head_dim": 32, "hidden_size_per_layer_input": 32, "laurel_rank": 32}),
    "gemma4_text": GEMMA4,
    "gemma4_text-4bit": four_bits(GEMMA4, **WIDE, head_dim=32, global_head_dim=64, hidden_size_per_layer_input=32),
    "gemma4": gemma4(GEMMA4_EXPERTS),
    "gemma4-4bit": gemma4(GEMMA4_EXPERTS, **WIDE, head_dim=32, global_head_dim=64, moe_intermediate_size=96) | {
        "quantization": {"group_size": 32, "bits": 4}
        | {f"language_model.model.layers.{i}.router.proj": {"group_size": 64, "bits": 8} for i in range(3)}},
    "gemma4-dense": gemma4(GEMMA4_LARGE, final_logit_softcapping=None) | {"model_type": "gemma4_unified"},
}

MATTERS = {
    "gemma2": [
        {"attn_logit_softcapping": None},
        {"final_logit_softcapping": None},
        {"query_pre_attn_scalar": 24},
        {"sliding_window": 9},
    ],
    "gemma3": [
        {"sliding_window": 9},
        {"sliding_window_pattern": 2},
        {"rope_local_base_freq": 1000000.0},
        {"rope_scaling": None},
        {"query_pre_attn_scalar": 24},
    ],
    "gear": [
        {"conv_L_cache": 3},
        {"attention_bias": False},
        {"attn_logit_softcapping": None},
        {"final_logit_softcapping": None},
        {"sliding_window": 9},
        {"query_pre_attn_scalar": None},
        {"rope_local_base_freq": 1000000.0},
    ],
    "gemma3n": [
        {"text_config": {"activation_sparsity_pattern": None}},
        {"text_config": {"altup_active_idx": 1}},
        {"text_config": {"altup_correct_scale": False}},
        {"text_config": {"num_kv_shared_layers": 0}},
        {"text_config": {"sliding_window": 9}},
        {"text_config": {"rope_local_base_freq": 1000000.0}},
    ],
    "gemma4_text": [
        {"hidden_size_per_layer_input": 0},
        {"num_kv_shared_layers": 0},
        {"use_double_wide_mlp": False},
        {"global_head_dim": None},
        {"rope_parameters": {"full_attention": {"rope_theta": 1000000.0}}},
        {"rope_parameters": {"sliding_attention": {"rope_theta": 1000000.0}}},
        {"sliding_window": 9},
        {"sliding_window_pattern": 2},
        {"final_logit_softcapping": None},
    ],
    "gemma4": [
        {"text_config": {"enable_moe_block": False}},
        {"text_config": {"top_k_experts": 3}},
        {"text_config": {"attention_k_eq_v": False}},
        {"text_config": {"num_global_key_value_heads": None}},
        {"text_config": {"tie_word_embeddings": True}},
    ],
}
