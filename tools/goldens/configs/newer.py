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

NEMOTRON_LABS_DIFFUSION = {k: v for k, v in MINISTRAL3.items() if k not in ("layer_types", "sliding_window")} | UNTIED | {
    "model_type": "nemotron_labs_diffusion", "num_hidden_layers": 2, "mask_token_id": 95, "block_size": 32,
}

NANBEIGE = LLAMA | UNTIED | {"model_type": "nanbeige", "num_loops": 2}

APERTUS = LLAMA | UNTIED | {
    "model_type": "apertus", "hidden_act": "xielu", "attention_bias": False, "mlp_bias": False, "qk_norm": True, "post_norm": False,
}

NANOCHAT = {
    "model_type": "nanochat",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "intermediate_size": 256,
    "rope_theta": 10000.0,
}

LILLE = {
    "model_type": "lille-130m",
    "block_size": 256,
    "layer_norm_eps": 1e-5,
    "n_embd": 64,
    "n_head": 4,
    "n_kv_heads": 2,
    "n_layer": 2,
    "rope_theta": 10000.0,
    "vocab_size": 96,
}

PLAMO3 = LLAMA | {
    "model_type": "plamo3",
    "num_hidden_layers": 4,
    "head_dim": 24,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_theta": 10000.0,
    "window_size": 8,
    "sliding_window_pattern": 3,
}

MELLUM = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | UNTIED | {
    "model_type": "mellum",
    "num_hidden_layers": 3,
    "head_dim": 24,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {
            "rope_type": "yarn", "rope_theta": 500000.0, "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}

SPARK2_5 = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
    "model_type": "spark2_5",
    "num_hidden_layers": 4,
    "head_dim": 24,
    "hidden_act": "gelu",
    "sliding_window": 8,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}

YOUTU_LLM = LLAMA | {
    "model_type": "youtu_llm",
    "num_key_value_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 40,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "rope_theta": 1600000.0,
}

STEP3P5 = {
    "model_type": "step3p5",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "vocab_size": 96,
    "num_attention_heads": 4,
    "num_attention_groups": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": [10000.0, 500000.0, 10000.0, 500000.0],
    "rope_scaling": {
        "rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 32.0, "original_max_position_embeddings": 64,
    },
    "yarn_only_types": ["full_attention"],
    "partial_rotary_factors": [1.0, 0.5, 1.0, 0.5],
    "max_position_embeddings": 256,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 6, "num_attention_groups": 3},
    "use_head_wise_attn_gate": True,
    "moe_num_experts": 8,
    "moe_top_k": 3,
    "moe_intermediate_size": 48,
    "share_expert_dim": 40,
    "moe_layers_enum": "1,2,3",
    "moe_router_scaling_factor": 2.0,
    "norm_expert_weight": True,
    "swiglu_limits": [0.0, 0.0, 0.3, 0.5],
    "swiglu_limits_shared": [0.4, None, 0.0, 0.3],
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
    "pixtral-4bit": four_bits(PIXTRAL, **text(PIXTRAL, **WIDE, head_dim=32, num_key_value_heads=2, num_attention_heads=4)),
    "nemotron_labs_diffusion": NEMOTRON_LABS_DIFFUSION,
    "nemotron_labs_diffusion-4bit": four_bits(NEMOTRON_LABS_DIFFUSION, **WIDE, head_dim=32),
    "nanbeige": NANBEIGE,
    "nanbeige-4bit": four_bits(NANBEIGE, **WIDE, loop_loss_weights=[0.5, 0.5], skip_loop_final_norm=True),
    "apertus": APERTUS,
    "apertus-4bit": four_bits(APERTUS, **WIDE, mlp_bias=True),
    "nanochat": NANOCHAT,
    "nanochat-4bit": four_bits(NANOCHAT, hidden_size=128),
    "lille-130m": LILLE,
    "lille-130m-4bit": four_bits(LILLE, n_embd=128),
    "plamo3": PLAMO3,
    "plamo3-4bit": four_bits(PLAMO3, **WIDE, head_dim=32, tie_word_embeddings=False),
    "mellum": MELLUM,
    "mellum-4bit": four_bits(MELLUM, range(3), ["mlp.gate"], **WIDE, head_dim=32, moe_intermediate_size=96, norm_topk_prob=False),
    "spark2_5": SPARK2_5,
    "spark2_5-4bit": SPARK2_5 | WIDE | {
        "head_dim": 32,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"],
        "quantization": {"group_size": 32, "bits": 4} | {f"model.layers.{i}.self_attn.g_proj": False for i in range(2)},
    },
    "youtu_llm": YOUTU_LLM,
    "youtu_llm-4bit": four_bits(
        YOUTU_LLM, **WIDE, q_lora_rank=None, kv_lora_rank=96, qk_nope_head_dim=32, v_head_dim=64, tie_word_embeddings=False),
    "step3p5": STEP3P5,
    "step3p5-4bit": four_bits(
        {k: v for k, v in STEP3P5.items() if k != "layer_types"}, range(1, 4), ["mlp.gate.gate"], **WIDE, head_dim=32,
        moe_intermediate_size=96, share_expert_dim=64, norm_expert_weight=False, use_head_wise_attn_gate=False),
    "acereason-4bit": four_bits(LLAMA | {"model_type": "acereason", "rope_theta": 1000000.0}, **WIDE) | UNTIED,
}

MATTERS = {
    "mimo": [
        {"model_type": "llama"},
    ],
    "telechat3": [
        {"attention_bias": False},
        {"mlp_bias": False},
    ],
    "mistral3": [
        {"text_config": {"rope_parameters": MINISTRAL3["rope_parameters"] | {"llama_4_scaling_beta": 0.1}}},
    ],
    "pixtral": [
        {"text_config": {"rope_theta": 1000.0}},
    ],
    "lille-130m": [
        {"rope_theta": 1000000.0},
    ],
    "youtu_llm": [
        {"rope_theta": 10000.0},
        {"rope_traditional": False},
    ],
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
    "nemotron_labs_diffusion": [
        {"rope_parameters": MINISTRAL3["rope_parameters"] | {"llama_4_scaling_beta": 0.1}},
    ],
    "nanbeige": [
        {"num_loops": 1},
        {"skip_loop_final_norm": True},
    ],
    "apertus": [
        {"qk_norm": False},
    ],
    "nanochat": [
        {"final_logit_softcapping": 4.0},
    ],
    "plamo3": [
        {"window_size": 9},
        {"rope_local_theta": 1000000.0},
        {"sliding_window_pattern": 2},
    ],
    "mellum": [
        {"norm_topk_prob": False},
        {"sliding_window": 9},
        {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
    ],
    "spark2_5": [
        {"sliding_window": 9},
        {"layer_types": ["full_attention"] * 4},
    ],
    "step3p5": [
        {"sliding_window": 9},
        {"rope_theta": 10000.0},
        {"rope_scaling": None},
        {"yarn_only_types": None},
        {"partial_rotary_factors": None},
        {"moe_router_scaling_factor": 1.0},
        {"norm_expert_weight": False},
        {"swiglu_limits": None},
        {"swiglu_limits_shared": None},
    ],
}
