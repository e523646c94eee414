"""Writes crates/pippin-models/tests/gguf_names.json: what llama.cpp calls the tensors of the architectures that are read.

Run with any Python that has gguf 0.19 (`pip install gguf`):

    python tools/gguf/make_names.py

For each architecture there are pairs of our name and llama.cpp's, of what is outside of layers and of layer 0. llama.cpp's come from the
table of its own converter, gguf.get_tensor_name_map, so that the tests of what is read do not depend on the table that reads.
"""

import json
import pathlib

import gguf

PATH = pathlib.Path(__file__).parents[2] / "crates/pippin-models/tests/gguf_names.json"
# What the converter is given in place of our names.
PUBLISHED = [
    *((f"model.h.0.{n}", f"gpt_neox.layers.0.{n}") for n in ["attention.", "mlp.dense", "input_layernorm", "post_attention_layernorm"]),
    ("model.embed_in", "gpt_neox.embed_in"),
    ("model.embed_out", "embed_out"),
    ("model.final_layer_norm", "gpt_neox.final_layer_norm"),
    *((f"model.{n}", f"transformer.{n}") for n in ["h.", "wte", "wpe", "ln_f"]),
    ("mlp.gate.gate_proj", "mlp.gate"),
    ("backbone.layers.0.mixer.switch_mlp.fc1", "model.layers.0.mlp.experts.up_proj"),
    ("backbone.layers.0.mixer.switch_mlp.fc2", "model.layers.0.mlp.experts.down_proj"),
    (".0.shared_mlp.gate_proj", ".0.mlp.shared_mlp.gate_proj"),
    (".0.shared_mlp.up_proj", ".0.mlp.shared_mlp.up_proj"),
    ("block_sparse_moe.switch_mlp.gate_proj", "block_sparse_moe.experts.w1"),
    ("block_sparse_moe.switch_mlp.up_proj", "block_sparse_moe.experts.w3"),
    ("block_sparse_moe.switch_mlp.down_proj", "block_sparse_moe.experts.w2"),
    ("feed_forward.switch_mlp.gate_proj", "block_sparse_moe.experts.w1"),
    ("feed_forward.switch_mlp.up_proj", "block_sparse_moe.experts.w3"),
    ("feed_forward.switch_mlp.down_proj", "block_sparse_moe.experts.w2"),
    ("feed_forward.gate_proj", "feed_forward.w1"),
    ("feed_forward.up_proj", "feed_forward.w3"),
    ("feed_forward.down_proj", "feed_forward.w2"),
    (".switch_mlp.", ".experts."),
    (".switch_glu.", "."),
    ("self_attn.sinks", "self_attn.sinks.weight"),
    ("dt_bias", "dt_proj.bias"),
    ("e_score_correction_bias", "e_score_correction"),
    ("language_model.model.", "model."),
    ("language_model.lm_head", "lm_head"),
    ("self_attn.embed_q", "self_attn.k_b_proj"),
    ("self_attn.unembed_out", "self_attn.v_b_proj"),
]
ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
QK_NORMS = ["self_attn.q_norm", "self_attn.k_norm"]
GATED = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
QK_LAYERNORMS = ["self_attn.query_layernorm", "self_attn.key_layernorm"]
NORMS = ["input_layernorm", "post_attention_layernorm"]
SANDWICH = [*NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm"]
POST_NORMS = ["post_attention_layernorm", "post_feedforward_layernorm"]
MIXTURE = ["mlp.gate", "mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"]
CORRECTION = "mlp.gate.e_score_correction_bias"
SHARED_ONE = ["mlp.shared_expert_gate", *(f"mlp.shared_expert.{n}_proj" for n in ["gate", "up", "down"])]
SHARED = [f"mlp.shared_experts.{n}_proj" for n in ["gate", "up", "down"]]
BLOCK_SPARSE = [f"block_sparse_moe.switch_mlp.{n}_proj" for n in ["gate", "up", "down"]]
LATENT = [
    f"self_attn.{n}"
    for n in [
        "q_proj", "q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "embed_q", "unembed_out", "o_proj",
    ]
]  # fmt: skip
DELTA = [f"linear_attn.{n}" for n in ["in_proj_qkv", "in_proj_z", "conv1d", "dt_bias", "A_log", "norm", "out_proj"]]
INPUTS = ["model.embed_tokens_per_layer", "model.per_layer_model_projection", "model.per_layer_projection_norm"]
OWN_INPUT = ["per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm"]
GPT = ["ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
STATE_SPACE = ["in_proj", "conv1d", "dt_bias", "A_log", "D", "norm", "out_proj"]
MODEL = ["model.embed_tokens", "model.norm", "lm_head"]
TIED = MODEL[:2]
# Where layers are elsewhere, by the name of the embedding.
PATHS = {"backbone.embeddings": "backbone.layers", "model.wte": "model.h", "transformer.wte": "transformer.h", "model.embed_in": "model.h"}
# Modules of each architecture: outside of layers, and in them.
MODULES = {
    "llama": (MODEL, [*ATTENTION, *GATED, "block_sparse_moe.gate", *BLOCK_SPARSE, *NORMS]),
    "internlm2": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "xverse": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "minicpm": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "mistral3": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "bailingmoe2": (
        ["model.word_embeddings", "model.norm", "lm_head"],
        [
            "attention.query_key_value", "attention.dense", "attention.query_layernorm", "attention.key_layernorm", *GATED,
            "mlp.gate.gate_proj", "mlp.gate.expert_bias", *MIXTURE[1:], *SHARED, *NORMS,
        ],
    ),
    "granitehybrid": (
        MODEL,
        [
            *ATTENTION, *GATED, "block_sparse_moe.router.layer", *BLOCK_SPARSE, *(f"shared_mlp.{n}" for n in ["gate_proj", "up_proj"]),
            "shared_mlp.output_linear", *(f"mamba.{n}" for n in STATE_SPACE), *NORMS,
        ],
    ),
    "nemotron": (MODEL, [*ATTENTION, "mlp.up_proj", "mlp.down_proj", *NORMS]),
    "nemotron_h": (
        ["backbone.embeddings", "backbone.norm_f", "lm_head"],
        ["norm", *(f"mixer.{n}" for n in STATE_SPACE), *(f"mixer.{n}_proj" for n in "qkvo"), "mixer.up_proj", "mixer.down_proj"],
    ),
    "nemotron_h_moe": (
        ["backbone.embeddings", "backbone.norm_f", "lm_head"],
        [
            "norm", *(f"mixer.{n}" for n in STATE_SPACE), *(f"mixer.{n}_proj" for n in "qkvo"), "mixer.up_proj", "mixer.down_proj",
            "mixer.gate", "mixer.gate.e_score_correction_bias", "mixer.switch_mlp.fc1", "mixer.switch_mlp.fc2",
            "mixer.shared_experts.up_proj", "mixer.shared_experts.down_proj",
        ],
    ),
    "gpt2": (["model.wte", "model.wpe", "model.ln_f", "lm_head"], GPT),
    "gptneox": (
        ["model.embed_in", "model.final_layer_norm", "model.embed_out"],
        ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", *NORMS],
    ),
    "starcoder": (["transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"], GPT),
    "qwen3next": (MODEL, [*ATTENTION, *QK_NORMS, *DELTA, "linear_attn.in_proj_ba", *MIXTURE, *SHARED_ONE, *NORMS]),
    "qwen35": (MODEL, [*ATTENTION, *QK_NORMS, *DELTA, "linear_attn.in_proj_a", "linear_attn.in_proj_b", *GATED, *NORMS]),
    "qwen35moe": (
        MODEL,
        [*ATTENTION, *QK_NORMS, *DELTA, "linear_attn.in_proj_a", "linear_attn.in_proj_b", *MIXTURE, *SHARED_ONE, *NORMS],
    ),
    "gemma3n": (
        [*TIED, *INPUTS, "model.altup_projections", "model.altup_unembed_projections"],
        [
            *ATTENTION, *QK_NORMS, *GATED, *SANDWICH, *OWN_INPUT, "altup.correction_coefs", "altup.correct_output_scale",
            "altup.prediction_coefs", "altup.modality_router", "altup.router_norm", "laurel.linear_left", "laurel.linear_right",
            "laurel.post_laurel_norm",
        ],
    ),
    "gemma4": (
        [*MODEL, *INPUTS],
        [
            *ATTENTION, *QK_NORMS, *GATED, *SANDWICH, *OWN_INPUT, "layer_scalar", "pre_feedforward_layernorm_2",
            "post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "router.proj", "experts.gate_up_proj", "experts.down_proj",
        ],
    ),
    "qwen2vl": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "qwen3vl": (MODEL, [*ATTENTION, *QK_NORMS, *GATED, *NORMS]),
    "qwen3vlmoe": (MODEL, [*ATTENTION, *QK_NORMS, *MIXTURE, *NORMS]),
    "lfm2moe": (
        ["model.embed_tokens", "model.embedding_norm"],
        [
            *ATTENTION[:3], "self_attn.out_proj", "self_attn.q_layernorm", "self_attn.k_layernorm", "conv.conv", "conv.in_proj", "conv.out_proj",
            *(f"feed_forward.{n}_proj" for n in ["gate", "up", "down"]), "feed_forward.gate", "feed_forward.expert_bias",
            *(f"feed_forward.switch_mlp.{n}_proj" for n in ["gate", "up", "down"]), "operator_norm", "ffn_norm",
        ],
    ),
    "qwen2": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "qwen3": (MODEL, [*ATTENTION, *QK_NORMS, *GATED, *NORMS]),
    "qwen3moe": (MODEL, [*ATTENTION, *QK_NORMS, *MIXTURE, *NORMS]),
    "gemma": (TIED, [*ATTENTION, *GATED, *NORMS]),
    "gemma2": (TIED, [*ATTENTION, *GATED, *SANDWICH]),
    "gemma3": (TIED, [*ATTENTION, *QK_NORMS, *GATED, *SANDWICH]),
    "olmo2": (MODEL, [*ATTENTION, *QK_NORMS, *GATED, *POST_NORMS]),
    "phi2": (["model.embed_tokens", "model.final_layernorm", "lm_head"], [*ATTENTION[:3], "self_attn.dense", "mlp.fc1", "mlp.fc2", "input_layernorm"]),
    "phi3": (MODEL, ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj", *NORMS]),
    "gpt-oss": (MODEL, [*ATTENTION, "self_attn.sinks", "mlp.router", *(f"mlp.experts.{n}_proj" for n in ["gate", "up", "down"]), *NORMS]),
    "cohere2": (TIED, [*ATTENTION, *GATED, "input_layernorm"]),
    "exaone4": (MODEL, [*ATTENTION, *QK_NORMS, *GATED, *POST_NORMS]),
    "glm4": (
        MODEL,
        [*ATTENTION, "mlp.gate_up_proj", "mlp.down_proj", *NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"],
    ),
    "qwen2moe": (MODEL, [*ATTENTION, *MIXTURE, *SHARED_ONE, *NORMS]),
    "smollm3": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "olmoe": (MODEL, [*ATTENTION, *QK_NORMS, *MIXTURE, *NORMS]),
    "seed_oss": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "ernie4_5": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "ernie4_5-moe": (MODEL, [*ATTENTION, *GATED, *MIXTURE, CORRECTION, *SHARED, *NORMS]),
    "granitemoe": (MODEL, [*ATTENTION, "block_sparse_moe.router.layer", *BLOCK_SPARSE, *NORMS]),
    "hunyuan-dense": (MODEL, [*ATTENTION, *QK_LAYERNORMS, *GATED, *NORMS]),
    "hunyuan-moe": (
        MODEL,
        [*ATTENTION, *QK_LAYERNORMS, "mlp.gate.wg", *MIXTURE[1:], *(f"mlp.shared_mlp.{n}_proj" for n in ["gate", "up", "down"]), *NORMS],
    ),
    "command-r": (TIED, [*ATTENTION, *QK_NORMS, *GATED, "input_layernorm"]),
    "stablelm": (MODEL, [*ATTENTION, "self_attn.q_layernorm", "self_attn.k_layernorm", *GATED, *NORMS]),
    "minimax-m2": (MODEL, [*ATTENTION, *QK_NORMS, "block_sparse_moe.gate", "block_sparse_moe.e_score_correction_bias", *BLOCK_SPARSE, *NORMS]),
    "dots1": (
        MODEL,
        [*ATTENTION, *QK_NORMS, *GATED, "mlp.gate", CORRECTION, *(f"mlp.experts.{n}_proj" for n in ["gate", "up", "down"]), *SHARED, *NORMS],
    ),
    "glm4moe": (MODEL, [*ATTENTION, *QK_NORMS, *GATED, *MIXTURE, CORRECTION, *SHARED, *NORMS]),
    "exaone-moe": (MODEL, [*ATTENTION, *QK_NORMS, *GATED, *MIXTURE, CORRECTION, *SHARED, *NORMS]),
    "deepseek2": (MODEL, [*LATENT, *GATED, *MIXTURE, CORRECTION, *SHARED, *NORMS]),
    "mistral4": (MODEL, [*LATENT, *GATED, *MIXTURE, *SHARED, *NORMS]),
    "starcoder2": (MODEL, [*ATTENTION, "mlp.c_fc", "mlp.c_proj", *NORMS]),
    "granite": (MODEL, [*ATTENTION, *GATED, *NORMS]),
    "lfm2": (
        ["model.embed_tokens", "model.embedding_norm"],
        [
            *ATTENTION[:3], "self_attn.out_proj", "self_attn.q_layernorm", "self_attn.k_layernorm", "conv.conv", "conv.in_proj", "conv.out_proj",
            "feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "operator_norm", "ffn_norm",
        ],
    ),
    "mamba2": (
        ["backbone.embeddings", "backbone.norm_f", "lm_head"],
        ["norm", "mixer.in_proj", "mixer.conv1d", "mixer.dt_bias", "mixer.A_log", "mixer.D", "mixer.norm", "mixer.out_proj"],
    ),
}  # fmt: skip


def theirs(names: gguf.TensorNameMap, ours: str) -> str:
    name = ours
    for old, new in PUBLISHED:
        name = name.replace(old, new)
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, f"{name} is not in the table"
    return found


def main() -> None:
    tables = {}
    for architecture, (model, layer) in MODULES.items():
        kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
        names = gguf.get_tensor_name_map(kind, 1)
        path = PATHS.get(model[0], "model.layers")
        tables[architecture] = {ours: theirs(names, ours) for ours in [*model, *(f"{path}.0.{module}" for module in layer)]}
    PATH.write_text(json.dumps(tables, indent=1) + "\n")


if __name__ == "__main__":
    main()
