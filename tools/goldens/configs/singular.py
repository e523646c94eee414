"""Families with a layer, a norm or a state that no other has."""

from .classic import LLAMA
from .recipes import WIDE, four_bits

UNTIED = {"tie_word_embeddings": False}

BITNET = LLAMA | {"model_type": "bitnet", "hidden_act": "relu2", "rope_theta": 500000.0}

BAICHUAN_M1 = {
    "model_type": "baichuan_m1",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_swa_attention_heads": 2,
    "num_swa_key_value_heads": 1,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "conv_window": 2,
    "sliding_window": 8,
    "sliding_window_layers": [1],
    "tie_word_embeddings": False,
    "max_position_embeddings": 256,
}

TALKIE = {
    "model_type": "talkie",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 24,
    "intermediate_size": 96,
    "vocab_size": 96,
    "rope_theta": 10000.0,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
}

AFM7 = {
    "model_type": "afm7",
    "vocab_size": 96,
    "hidden_dim": 64,
    "num_layers": 4,
    "num_kv_reuse_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "hidden_dim_scale_factor": 1.63,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-4,
    "max_position_embeddings": 256,
}

CONFIGS = {
    "afm7": AFM7,
    "afm7-4bit": four_bits(
        {k: v for k, v in AFM7.items() if k not in ("rope_theta", "rms_norm_eps", "hidden_dim_scale_factor")}, hidden_dim=128,
        num_layers=3, num_kv_reuse_layers=1),
    "talkie": TALKIE,
    "talkie-4bit": four_bits(
        {k: v for k, v in TALKIE.items() if k not in ("rope_theta", "rms_norm_eps")}, **WIDE, head_dim=32) | {
        "quantization": {"group_size": 32, "bits": 4, "lm_head": False}},
    "baichuan_m1": BAICHUAN_M1,
    "baichuan_m1-4bit": four_bits(
        {k: v for k, v in BAICHUAN_M1.items() if "_swa_" not in k}, **WIDE, num_hidden_layers=2, sliding_window_layers=[0]),
    "bitnet": BITNET,
    # As it is packed in MLX's layout.
    "bitnet-2bit": BITNET | WIDE | UNTIED | {
        "attention_bias": True, "mlp_bias": True, "quantization": {"group_size": 64, "bits": 2}},
    "bitnet-4bit": four_bits({k: v for k, v in BITNET.items() if k != "tie_word_embeddings"}, **WIDE),
}

MATTERS = {
    "afm7": [
        {"rope_theta": 1000.0},
        {"rms_norm_eps": 0.1},
    ],
    "talkie": [
        {"rope_theta": 1000.0},
        {"rms_norm_eps": 0.1},
    ],
    "baichuan_m1": [
        {"sliding_window": 9},
        {"rope_theta": 1000.0},
    ],
    "bitnet": [
        {"hidden_act": "silu"},
        {"attention_bias": True},
        {"mlp_bias": True},
    ],
}
