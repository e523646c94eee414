"""Models that keep state in some of their layers, or in all: linear attention and state spaces, mostly beside attention."""

from .recipes import WIDE, four_bits
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

def packed(path, block, embedding=False):
    return {"path": path, "block": block, "dtype": "float16", "embedding": embedding}


# Widths of which the rotations' blocks, the smallest of which is 512, are parts.
PRISM = {
    "model_type": "prism_hadamard_qwen35",
    "schema_version": 2,
    "tensor_namespace": "mlx-vlm-qwen3_5",
    "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
    "text_config": QWEN3_5_TEXT | {
        "hidden_size": 512, "num_hidden_layers": 2, "full_attention_interval": 2, "intermediate_size": 1024, "head_dim": 128,
        "linear_num_value_heads": 4, "linear_value_head_dim": 128,
    },
    "modules": [
        packed("model.embed_tokens", 512, True),
        packed("model.layers.0.linear_attn.in_proj_qkv", 512),
        packed("model.layers.0.linear_attn.in_proj_z", 512),
        packed("model.layers.0.linear_attn.out_proj", 512),
        packed("model.layers.0.mlp.gate_proj", 512),
        packed("model.layers.0.mlp.up_proj", 512),
        packed("model.layers.0.mlp.down_proj", 1024),
        packed("model.layers.1.self_attn.q_proj", 512),
        packed("model.layers.1.self_attn.k_proj", 512),
        packed("model.layers.1.self_attn.v_proj", 0),
        packed("model.layers.1.self_attn.o_proj", 512),
        packed("model.layers.1.mlp.down_proj", 512),
        packed("lm_head", 512),
    ],
}

GRANITE = {
    "model_type": "granitemoehybrid",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "mlp_bias": False,
    "embedding_multiplier": 2.0,
    "attention_multiplier": 0.2,
    "logits_scaling": 0.5,
    "residual_multiplier": 0.7,
    "layer_types": ["mamba", "attention", "mamba"],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_n_groups": 2,
    "mamba_proj_bias": False,
    "mamba_conv_bias": True,
    "time_step_limit": [0.25, 1.0],
    "position_embedding_type": "rope",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}

FALCON_H1 = {
    "model_type": "falcon_h1",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "mamba_d_ssm": 96,
    "mamba_n_heads": 6,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_n_groups": 2,
    "mamba_rms_norm": True,
    "mamba_norm_before_gate": True,
    "mamba_conv_bias": True,
    "mamba_proj_bias": True,
    "projectors_bias": True,
    "embedding_multiplier": 2.0,
    "lm_head_multiplier": 3.0,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}

MAMBA = {
    "model_type": "mamba",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "state_size": 8,
    "conv_kernel": 4,
    "use_bias": True,
    "use_conv_bias": True,
    "time_step_rank": "auto",
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 96,
    "tie_word_embeddings": True,
}

JAMBA = {
    "model_type": "jamba",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_layer_offset": 1,
    "attn_layer_period": 3,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 8,
    "mamba_dt_rank": 6,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}

PLAMO2 = {
    "model_type": "plamo2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size_per_head": 16,
    "attention_window_size": 8,
    "full_attention_idx": [3],
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_num_heads": 6,
    "mamba_step": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
}

OLMO_HYBRID = {
    "model_type": "olmo_hybrid",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}

KIMI_LINEAR = {
    "model_type": "kimi_linear",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "mla_use_nope": True,
    "linear_attn_config": {
        "kda_layers": [1, 3], "full_attn_layers": [2], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4,
    },
    "num_experts": 8,
    "num_experts_per_token": 3,
    "num_shared_experts": 1,
    "moe_intermediate_size": 48,
    "moe_router_activation_func": "sigmoid",
    "moe_renormalize": True,
    "routed_scaling_factor": 2.0,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "num_expert_group": 1,
    "topk_group": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 96,
    "model_max_length": 256,
    "tie_word_embeddings": False,
}

KIMI_K3 = {
    "model_type": "kimi_k3",
    "text_config": without(KIMI_LINEAR, "model_type", "num_expert_group", "head_dim", "model_max_length") | {
        "num_hidden_layers": 4,
        "hidden_act": "situ",
        "activation_situ_beta": 2.0,
        "activation_situ_linear_beta": 1.5,
        "attn_res_block_size": 2,
        "q_lora_rank": 24,
        "mla_use_output_gate": True,
        "linear_attn_config": {
            "kda_layers": [1, 2, 4], "full_attn_layers": [3], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4,
            "gate_lower_bound": -5.0, "use_full_rank_gate": True,
        },
        "num_expert_group": 1,
        "routed_expert_hidden_size": 32,
        "latent_moe_use_norm": True,
        "max_position_embeddings": 256,
    },
}

# Without mixtures of the stream, with groups of experts, and with what else may be absent.
KIMI_K3_PLAIN = KIMI_K3["text_config"] | {
    "num_hidden_layers": 3,
    "attn_res_block_size": None,
    "activation_situ_beta": None,
    "activation_situ_linear_beta": None,
    "q_lora_rank": None,
    "mla_use_output_gate": False,
    "linear_attn_config": KIMI_LINEAR["linear_attn_config"],
    "num_expert_group": 4,
    "topk_group": 2,
    "routed_expert_hidden_size": None,
    "num_shared_experts": 0,
    "tie_word_embeddings": True,
}

NEMOTRON_H = {
    "model_type": "nemotron_h",
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "intermediate_size": 96,
    "hybrid_override_pattern": "M-*EM",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "attention_bias": False,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "mamba_proj_bias": False,
    "ssm_state_size": 16,
    "conv_kernel": 4,
    "n_groups": 2,
    "mlp_bias": False,
    "use_bias": False,
    "use_conv_bias": True,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "moe_shared_expert_intermediate_size": 40,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.0,
    "mlp_hidden_act": "relu2",
    "layer_norm_epsilon": 1e-5,
    "time_step_limit": [0.25, 1.0],
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
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
    "prism_hadamard_qwen35": PRISM,
    "granitemoehybrid": GRANITE,
    "granitemoehybrid-4bit": four_bits(
        GRANITE, range(3), ["block_sparse_moe.router.layer"], **WIDE, mamba_n_groups=1, mamba_conv_bias=False,
        position_embedding_type="nope", num_local_experts=8, num_experts_per_tok=3, shared_intermediate_size=96,
        mamba_proj_bias=True),
    "falcon_h1": FALCON_H1,
    "falcon_h1-4bit": four_bits(
        FALCON_H1, **WIDE, head_dim=32, mamba_rms_norm=False, mamba_d_ssm=192, mamba_d_head=32, mamba_proj_bias=False,
        projectors_bias=False, tie_word_embeddings=False),
    "mamba": MAMBA,
    "falcon_mamba-4bit": four_bits(
        MAMBA, **WIDE, model_type="falcon_mamba", use_bias=False, time_step_rank=32, mixer_rms_eps=1e-2, state_size=16,
        tie_word_embeddings=False),
    "jamba": JAMBA,
    "jamba-4bit": four_bits(JAMBA, (1, 3), ["feed_forward.router"], **WIDE, mamba_dt_rank="auto", tie_word_embeddings=True),
    "plamo2": PLAMO2,
    "plamo2-4bit": four_bits(
        PLAMO2, **WIDE, num_hidden_layers=5, mamba_step=3, full_attention_idx=None, hidden_size_per_head=32, mamba_num_heads=4,
        tie_word_embeddings=False),
    "olmo_hybrid": OLMO_HYBRID,
    "olmo_hybrid-4bit": four_bits(
        OLMO_HYBRID, **WIDE, linear_key_head_dim=32, linear_value_head_dim=48, linear_allow_neg_eigval=False,
        rope_parameters={"rope_type": "default", "rope_theta": None}),
    "kimi_linear": KIMI_LINEAR,
    "kimi_linear-4bit": four_bits(
        KIMI_LINEAR, (1, 2), ["mlp.gate"], **WIDE, qk_nope_head_dim=32, v_head_dim=32, moe_intermediate_size=64, moe_renormalize=False,
        linear_attn_config=KIMI_LINEAR["linear_attn_config"] | {"head_dim": 32, "kda_layers": [2, 3], "full_attn_layers": [1]}),
    "kimi_k3": KIMI_K3,
    "kimi_k3-plain": KIMI_K3_PLAIN | {"model_type": "kimi_k3"},
    "kimi_k3-4bit": {
        "model_type": "kimi_k3",
        "text_config": KIMI_K3["text_config"] | WIDE | {
            "num_hidden_layers": 3, "qk_nope_head_dim": 32, "v_head_dim": 32, "moe_intermediate_size": 64, "routed_expert_hidden_size": 64,
            "q_lora_rank": 32, "latent_moe_use_norm": False,
            "linear_attn_config": KIMI_K3["text_config"]["linear_attn_config"] | {
                "head_dim": 32, "kda_layers": [2, 3], "full_attn_layers": [1], "use_full_rank_gate": False},
        },
        "quantization": {"group_size": 32, "bits": 4} | {
            f"language_model.model.layers.{i}.mlp.gate": EIGHT for i in (1, 2)} | {
            f"language_model.model.layers.{i}.{part}_res_proj": False for i in range(3) for part in ("self_attention", "mlp")} | {
            "language_model.model.output_attn_res_proj": False},
    },
    "nemotron_h": NEMOTRON_H,
    "nemotron_h-4bit": four_bits(
        without(NEMOTRON_H, "hybrid_override_pattern"), **WIDE, head_dim=32, layers_block_type=["mamba", "attention", "moe", "mlp"],
        moe_latent_size=64, mlp_bias=True, attention_bias=True, mamba_proj_bias=True, moe_intermediate_size=64,
        moe_shared_expert_intermediate_size=64, time_step_limit=None, norm_topk_prob=False),
}

MATTERS = {
    "prism_hadamard_qwen35": [
        {"modules": PRISM["modules"][1:]},
        {"modules": PRISM["modules"][:-1]},
        {"modules": PRISM["modules"][:6] + [packed("model.layers.0.mlp.down_proj", 512)] + PRISM["modules"][7:]},
    ],
    "qwen3_5": [
        {"text_config": {"full_attention_interval": 2, "num_hidden_layers": 2}},
        {"text_config": {"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}}},
        {"text_config": {"rope_parameters": {"rope_theta": 100.0}}},
    ],
    "qwen3_5_moe-4bit": [
        {"text_config": {"norm_topk_prob": False}},
    ],
    "granitemoehybrid": [
        {"position_embedding_type": "nope"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}},
        {"residual_multiplier": 1.0},
        {"attention_multiplier": 0.25},
        {"embedding_multiplier": 1.0},
        {"logits_scaling": 1.0},
        {"time_step_limit": None},
    ],
    "falcon_h1": [
        {"mamba_norm_before_gate": False},
        {"lm_head_multiplier": 1.0},
        {"rope_theta": 10.0},
    ],
    "falcon_mamba-4bit": [
        {"mixer_rms_eps": 1e-6},
    ],
    "jamba": [
        {"num_experts_per_tok": 3},
    ],
    "plamo2": [
        {"attention_window_size": 9},
        {"full_attention_idx": None},
        {"full_attention_idx": [1, 3]},
        {"mamba_enabled": False},
        {"rms_norm_eps": 0.1},
    ],
    "olmo_hybrid": [
        {"linear_allow_neg_eigval": False},
        {"rope_parameters": {"rope_type": "default", "rope_theta": None}},
    ],
    "kimi_linear": [
        {"moe_router_activation_func": "softmax"},
        {"moe_renormalize": False},
        {"routed_scaling_factor": 1.0},
        {"first_k_dense_replace": 2, "num_hidden_layers": 2},
    ],
    "kimi_k3": [
        {"text_config": {"activation_situ_beta": 0}},
        {"text_config": {"activation_situ_linear_beta": None}},
        {"text_config": {"attn_res_block_size": 3}},
        {"text_config": {"attn_res_block_size": None}},
        {"text_config": {"mla_use_output_gate": False}},
        {"text_config": {"latent_moe_use_norm": False}},
    ],
    "kimi_k3-plain": [
        {"moe_renormalize": False},
        {"topk_group": 4},
    ],
    "nemotron_h": [
        {"time_step_limit": None},
        {"routed_scaling_factor": 1.0},
        {"norm_topk_prob": False},
        {"mlp_hidden_act": "silu"},
    ],
}
