"""The text parts of models that see."""

from .classic import QWEN2, QWEN3
from .experts import QWEN3_MOE
from .recipes import WIDE, four_bits
from .recurrent import LFM2


def nested(model_type, text, /, **changes):
    """A multimodal model's configuration, of which the text model's is a part."""
    return {"model_type": model_type, "text_config": text | changes}


MROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}

MUSE_GLIMMER = {
    "model_type": "muse_glimmer",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 96,
    "rms_norm_eps": 1e-5,
    "post_norm_eps": 1e-8,
    "sliding_window": 8,
    "qk_scale_factor": 2.5,
    "hidden_activation": "silu",
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "layer_rope_theta": [100000.0, 0, 100000.0, 100000.0],
    "tie_word_embeddings": False,
    "final_logit_softcapping": 4.0,
    "output_multiplier": 0.6,
}

CONFIGS = {
    "qwen2_vl": QWEN2 | {"model_type": "qwen2_vl", "rope_scaling": MROPE},
    "qwen2_5_vl-4bit": four_bits(nested(
        "qwen2_5_vl", QWEN2 | WIDE, model_type="qwen2_5_vl_text", rope_scaling=MROPE, tie_word_embeddings=False)),
    "qwen3_vl": nested(
        "qwen3_vl", QWEN3, model_type="qwen3_vl_text",
        rope_scaling={"rope_type": "default", "mrope_interleaved": True, "mrope_section": [6, 5, 5]}),
    "qwen3_vl-4bit": four_bits(nested("qwen3_vl", QWEN3 | WIDE, tie_word_embeddings=False)),
    # What other tools call the section, in the text model's part of the configuration.
    "qwen3_vl-mxfp4": nested("qwen3_vl", QWEN3 | WIDE, tie_word_embeddings=False, quantization_config={"quant_method": "mxfp4"}),
    "qwen3_vl_moe": nested("qwen3_vl_moe", QWEN3_MOE),
    "qwen3_vl_moe-4bit": four_bits(
        nested("qwen3_vl_moe", QWEN3_MOE | WIDE, moe_intermediate_size=96, norm_topk_prob=False, mlp_only_layers=[0]),
        range(1, 3), ["mlp.gate"], "language_model.model"),
    "lfm2_vl": nested("lfm2-vl", LFM2),
    "lfm2_vl-4bit": four_bits(nested(
        "lfm2-vl", LFM2, hidden_size=128, block_dim=128, block_ff_dim=256, block_multiple_of=32, conv_bias=False)),
    "muse_glimmer": MUSE_GLIMMER,
    "muse_glimmer-4bit": four_bits(nested("muse_glimmer", MUSE_GLIMMER | WIDE, head_dim=32)),
}

MATTERS = {
    "lfm2_vl": [
        {"text_config": {"rope_theta": 10000.0}},
    ],
    "qwen3_vl_moe": [
        {"text_config": {"norm_topk_prob": False}},
        {"text_config": {"num_experts_per_tok": 2}},
    ],
    "qwen2_vl": [
        {"rope_theta": 10000.0},
    ],
    "qwen3_vl": [
        {"text_config": {"rope_theta": 10000.0}},
    ],
    "muse_glimmer": [
        {"qk_scale_factor": 1.0},
        {"output_multiplier": 1.0},
        {"final_logit_softcapping": None},
        {"sliding_window": 9},
        {"layer_rope_theta": None},
        {"rope_parameters": {"rope_theta": 1000.0}},
        {"post_norm_eps": 1.0},
    ],
}
