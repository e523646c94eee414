"""The older dense decoders."""

from .classic import LLAMA, LLAMA3, YARN
from .recipes import WIDE, four_bits

GEMMA = LLAMA | {"model_type": "gemma", "head_dim": 24, "rms_norm_eps": 1e-6, "hidden_act": "gelu", "tie_word_embeddings": True}

GRANITE = LLAMA | {
    "model_type": "granite",
    "logits_scaling": 0.7,
    "attention_multiplier": 0.4,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.6,
    "attention_bias": False,
    "mlp_bias": False,
}

STARCODER2 = {
    "model_type": "starcoder2",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "norm_epsilon": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 100000.0,
    "hidden_act": "gelu_pytorch_tanh",
    "sliding_window": 8,
    "tie_word_embeddings": True,
}

MINICPM = LLAMA | {
    "model_type": "minicpm",
    "scale_emb": 4,
    "dim_model_base": 48,
    "scale_depth": 1.1,
    "tie_word_embeddings": False,
}

HELIUM = LLAMA | {"model_type": "helium", "head_dim": 16, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}

INTERNLM3 = LLAMA | {"model_type": "internlm3", "bias": False, "qkv_bias": False, "tie_word_embeddings": False}

GLM = LLAMA | {
    "model_type": "glm",
    "head_dim": 24,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
    "tie_word_embeddings": False,
}

NEMOTRON = LLAMA | {
    "model_type": "nemotron",
    "hidden_act": "relu2",
    "head_dim": 24,
    "norm_eps": 1e-5,
    "partial_rotary_factor": 0.5,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}

EXAONE = {
    "model_type": "exaone",
    "hidden_size": 64,
    "num_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 500000.0,
    "rope_scaling": LLAMA3,
    "activation_function": "silu",
    "tie_word_embeddings": True,
}

EXAONE4 = LLAMA | {
    "model_type": "exaone4",
    "num_hidden_layers": 4,
    "head_dim": 16,
    "rope_scaling": LLAMA3,
    "sliding_window": 8,
    "sliding_window_pattern": "LLG",
    "tie_word_embeddings": False,
}

OLMO3 = LLAMA | {
    "model_type": "olmo3",
    "num_hidden_layers": 4,
    "sliding_window": 8,
    "rope_theta": 500000.0,
    "rope_scaling": YARN,
    "attention_bias": False,
    "tie_word_embeddings": False,
}

CONFIGS = {
    "gemma": GEMMA,
    "gemma-4bit": four_bits(GEMMA, **WIDE, head_dim=32),
    "granite": GRANITE,
    "granite-4bit": four_bits(
        GRANITE, range(2), ["self_attn.o_proj", "mlp.down_proj"], **WIDE, attention_bias=True, mlp_bias=True),
    "starcoder2": STARCODER2,
    "starcoder2-4bit": four_bits(STARCODER2, **WIDE, hidden_act="gelu", sliding_window=None, tie_word_embeddings=False),
    "minicpm": MINICPM,
    "minicpm-4bit": four_bits(MINICPM, **WIDE),
    "helium": HELIUM,
    "helium-4bit": four_bits(HELIUM, **WIDE, head_dim=32),
    "internlm3": INTERNLM3,
    "internlm3-4bit": four_bits(INTERNLM3, **WIDE, bias=True, qkv_bias=True),
    "glm": GLM,
    "glm-4bit": four_bits(GLM, **WIDE, head_dim=32, attention_bias=False, tie_word_embeddings=True),
    "glm4": GLM | {"model_type": "glm4"},
    "glm4-4bit": four_bits(GLM, **WIDE, model_type="glm4", head_dim=32),
    "nemotron": NEMOTRON,
    "nemotron-4bit": four_bits(NEMOTRON, **WIDE, head_dim=32, attention_bias=True, mlp_bias=True),
    "exaone": EXAONE,
    "exaone-4bit": four_bits(EXAONE, **WIDE, tie_word_embeddings=False),
    "exaone4": EXAONE4,
    "exaone4-4bit": four_bits(EXAONE4, **WIDE, head_dim=32, sliding_window=None, sliding_window_pattern=None),
    "olmo3": OLMO3,
    "olmo3-4bit": four_bits(OLMO3, **WIDE),
}

MATTERS = {
    "gemma": [{"hidden_activation": "relu"}],
    "granite": [
        {"logits_scaling": 1.0},
        {"attention_multiplier": 0.25},
        {"embedding_multiplier": 1.0},
        {"residual_multiplier": 1.0},
    ],
    "starcoder2": [
        {"sliding_window": 9},
        {"rope_theta": 10000.0},
    ],
    "minicpm": [
        {"scale_emb": 1},
        {"dim_model_base": 64},
        {"scale_depth": 1.4},
    ],
    "helium": [{"model_type": "llama"}],
    "internlm3": [{"rope_traditional": True}],
    "glm": [
        {"partial_rotary_factor": 1.0},
        {"attention_bias": False},
    ],
    "glm4": [
        {"partial_rotary_factor": 1.0},
        {"model_type": "glm"},
    ],
    "nemotron": [
        {"hidden_act": "relu"},
        {"partial_rotary_factor": 1.0},
    ],
    "exaone": [{"rope_scaling": None}],
    "exaone4": [
        {"sliding_window": 9},
        {"sliding_window": None},
        {"sliding_window_pattern": "LG"},
        {"rope_scaling": None},
    ],
    "olmo3": [
        {"model_type": "olmo2"},
        {"sliding_window": 9},
        {"rope_scaling": None},
    ],
}
