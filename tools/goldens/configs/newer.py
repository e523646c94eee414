"""Newer dense decoders, most of them llama with a difference."""

from .classic import LLAMA
from .recipes import WIDE, four_bits

UNTIED = {"tie_word_embeddings": False}

SMOLLM3 = LLAMA | {"model_type": "smollm3", "num_hidden_layers": 3, "no_rope_layers": [1, 0, 1]}

MIMO = LLAMA | UNTIED | {"model_type": "mimo", "rope_theta": 640000, "num_nextn_predict_layers": 1}

ERNIE4_5 = LLAMA | {"model_type": "ernie4_5", "head_dim": 24, "use_bias": True, "rope_theta": 500000.0}

HUNYUAN_V1_DENSE = LLAMA | {
    "model_type": "hunyuan_v1_dense",
    "head_dim": 24,
    "attention_bias": False,
    "use_qk_norm": True,
    "rope_scaling": {"alpha": 1000.0, "factor": 1.0, "type": "dynamic", "mscale": 1.0, "mscale_all_dim": 1.0},
}

SEED_OSS = LLAMA | UNTIED | {"model_type": "seed_oss", "head_dim": 24, "attention_bias": True, "attention_out_bias": False}

TELECHAT3 = LLAMA | UNTIED | {"model_type": "telechat3", "attention_bias": True, "mlp_bias": True}

MINISTRAL3 = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
    "model_type": "ministral3",
    "num_hidden_layers": 3,
    "head_dim": 24,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 8,
    "rope_parameters": {
        "type": "yarn", "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 10,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4,
    },
}

MISTRAL3 = {
    "model_type": "mistral3",
    "text_config": MINISTRAL3 | UNTIED | {"layer_types": None, "sliding_window": None, "num_hidden_layers": 2},
}

PIXTRAL = {
    "model_type": "pixtral",
    "text_config": {k: v for k, v in LLAMA.items() if k not in ("tie_word_embeddings", "num_attention_heads")}
    | {"model_type": "mistral", "head_dim": 4, "num_key_value_heads": 8, "sliding_window": None},
}


def text(config, **changes):
    return {"text_config": config["text_config"] | changes}


CONFIGS = {
    "smollm3": SMOLLM3,
    "smollm3-4bit": four_bits({k: v for k, v in SMOLLM3.items() if k != "no_rope_layers"}, **WIDE, num_hidden_layers=4),
    "mimo": MIMO,
    "mimo-4bit": four_bits(MIMO, **WIDE),
    "ernie4_5": ERNIE4_5,
    "ernie4_5-4bit": four_bits(ERNIE4_5, **WIDE, head_dim=32, use_bias=False),
    "hunyuan_v1_dense": HUNYUAN_V1_DENSE,
    "hunyuan_v1_dense-4bit": four_bits(HUNYUAN_V1_DENSE, **WIDE, head_dim=32, use_qk_norm=False),
    "seed_oss": SEED_OSS,
    "seed_oss-4bit": four_bits(SEED_OSS, **WIDE, head_dim=32, attention_out_bias=True),
    "telechat3": TELECHAT3,
    "telechat3-4bit": four_bits(TELECHAT3, **WIDE, attention_bias=False),
    "ministral3": MINISTRAL3,
    "ministral3-4bit": four_bits(MINISTRAL3, **WIDE, head_dim=32),
    "mistral3": MISTRAL3,
    "mistral3-4bit": four_bits(MISTRAL3, **text(MISTRAL3, **WIDE, head_dim=32)),
    "llava": {"model_type": "llava", "text_config": LLAMA | UNTIED | {"rms_norm_eps": 1e-6}},
    "pixtral": PIXTRAL,
    "acereason-4bit": four_bits(LLAMA | {"model_type": "acereason", "rope_theta": 1000000.0}, **WIDE) | UNTIED,
}

MATTERS = {
    "smollm3": [
        {"no_rope_layers": [1, 1, 1]},
        {"no_rope_layers": None},
    ],
    "smollm3-4bit": [
        {"no_rope_layer_interval": 2},
    ],
    "ernie4_5": [
        {"use_bias": False},
    ],
    "hunyuan_v1_dense": [
        {"use_qk_norm": False},
        {"rope_scaling": None},
    ],
    "seed_oss": [
        {"attention_bias": False},
        {"attention_out_bias": True},
    ],
    "ministral3": [
        {"sliding_window": 9},
        {"rope_parameters": MINISTRAL3["rope_parameters"] | {"llama_4_scaling_beta": 0.1}},
    ],
}
