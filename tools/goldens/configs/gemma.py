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

CONFIGS = {
    "gemma2": GEMMA2,
    "gemma2-4bit": four_bits(GEMMA2, **WIDE, head_dim=32),
    "gemma3": GEMMA3,
    "gemma3-4bit": four_bits(GEMMA3, **WIDE, head_dim=32),
    "gemma3n": GEMMA3N,
    "gemma3n-4bit": four_bits(GEMMA3N, text_config=GEMMA3N["text_config"] | {
        "hidden_size": 128, "intermediate_size": 192, "head_dim": 32, "hidden_size_per_layer_input": 32, "laurel_rank": 32}),
}

MATTERS = {
    "gemma3n": [
        {"text_config": {"activation_sparsity_pattern": None}},
        {"text_config": {"altup_active_idx": 1}},
        {"text_config": {"altup_correct_scale": False}},
        {"text_config": {"num_kv_shared_layers": 0}},
        {"text_config": {"sliding_window": 9}},
        {"text_config": {"rope_local_base_freq": 1000000.0}},
    ],
}
