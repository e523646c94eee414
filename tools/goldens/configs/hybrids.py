"""Models that keep state in some of their layers, or in all: linear attention and state spaces, mostly beside attention."""

from .recipes import WIDE
from .recurrent import QWEN3_NEXT


def without(config, *fields):
    return {name: value for name, value in config.items() if name not in fields}


# Dense networks in a model that sees, whose text model has fields of its own.
QWEN3_5_TEXT = without(QWEN3_NEXT, "num_experts", "partial_rotary_factor", "rope_theta", "decoder_sparse_step", "mlp_only_layers") | {
    "model_type": "qwen3_5_text",
    "attention_bias": False,
    "rope_parameters": {
        "rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
    },
}

QWEN3_5 = {"model_type": "qwen3_5", "text_config": QWEN3_5_TEXT}

QWEN3_5_MOE_TEXT = QWEN3_5_TEXT | {
    "model_type": "qwen3_5_moe_text", "num_experts": 8, **WIDE, "moe_intermediate_size": 96, "shared_expert_intermediate_size": 64,
    "linear_key_head_dim": 32, "linear_value_head_dim": 48, "tie_word_embeddings": True,
}

EIGHT = {"group_size": 64, "bits": 8}

CONFIGS = {
    "qwen3_5": QWEN3_5,
    "qwen3_5_moe-4bit": {
        "model_type": "qwen3_5_moe",
        "text_config": QWEN3_5_MOE_TEXT,
        "quantization": {"group_size": 32, "bits": 4} | {
            f"language_model.model.layers.{i}.mlp.{m}": EIGHT for i in range(4) for m in ("gate", "shared_expert_gate")},
    },
}

MATTERS = {
    "qwen3_5": [
        {"text_config": {"full_attention_interval": 2, "num_hidden_layers": 2}},
        {"text_config": {"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}}},
        {"text_config": {"rope_parameters": {"rope_theta": 100.0}}},
    ],
    "qwen3_5_moe-4bit": [
        {"text_config": {"norm_topk_prob": False}},
    ],
}
