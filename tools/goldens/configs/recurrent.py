"""Models that keep state: short convolutions, state spaces, linear recurrences."""

from .recipes import WIDE, four_bits

LFM2 = {
    "model_type": "lfm2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "block_dim": 64,
    "block_ff_dim": 128,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.2,
    "block_multiple_of": 16,
    "conv_L_cache": 3,
    "conv_bias": True,
    "norm_eps": 1e-5,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 1000000.0,
}

MAMBA2 = {
    "model_type": "mamba2",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "expand": 2,
    "num_heads": 8,
    "head_dim": 16,
    "state_size": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "layer_norm_epsilon": 1e-5,
    "time_step_rank": 4,
    "time_step_limit": [0.25, 1.0],
    "hidden_act": "silu",
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}

QWEN3_NEXT = {
    "model_type": "qwen3_next",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "partial_rotary_factor": 0.25,
    "full_attention_interval": 3,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 40,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "rms_norm_eps": 1e-6,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

RECURRENT_GEMMA = {
    "model_type": "recurrent_gemma",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 192,
    "lru_width": 64,
    "conv1d_width": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "partial_rotary_factor": 0.5,
    "attention_bias": False,
    "attention_window_size": 8,
    "block_types": ["recurrent", "recurrent", "attention"],
    "embeddings_scale_by_sqrt_dim": True,
    "logits_soft_cap": 4.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 96,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}

RWKV7 = {
    "model_type": "rwkv7",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "head_dim": 16,
    "norm_eps": 4e-5,
    "a_low_rank_dim": 16,
    "v_low_rank_dim": 12,
    "gate_low_rank_dim": 20,
    "decay_low_rank_dim": 16,
    "vocab_size": 96,
    "tie_word_embeddings": False,
}

CONFIGS = {
    "lfm2": LFM2,
    "lfm2-4bit": four_bits(LFM2, hidden_size=128, block_dim=128, block_ff_dim=256, block_multiple_of=32, conv_bias=False),
    "mamba2": MAMBA2,
    "mamba2-4bit": four_bits(MAMBA2, hidden_size=128, intermediate_size=256, head_dim=32, tie_word_embeddings=False),
    "qwen3_next": QWEN3_NEXT,
    "qwen3_next-4bit": four_bits(
        QWEN3_NEXT, (0, 2, 3), ["mlp.gate", "mlp.shared_expert_gate"], **WIDE, moe_intermediate_size=96,
        shared_expert_intermediate_size=64, linear_key_head_dim=32, linear_value_head_dim=48, norm_topk_prob=False, mlp_only_layers=[1]),
    "recurrent_gemma": RECURRENT_GEMMA,
    "recurrent_gemma-4bit": four_bits(
        {k: v for k, v in RECURRENT_GEMMA.items() if k != "block_types"}, _block_types=RECURRENT_GEMMA["block_types"], hidden_size=128,
        lru_width=128, intermediate_size=384, head_dim=32),
    "rwkv7": RWKV7,
    # mlx-lm writes no group size for what it keeps in eight bits: groups are then of 64. A rank that is no whole number of groups
    # stays dense.
    "rwkv7-4bit": RWKV7 | {
        "hidden_size": 128,
        "intermediate_size": 256,
        "head_dim": 32,
        "norm_eps": 2e-5,
        "a_low_rank_dim": 64,
        "v_low_rank_dim": 48,
        "gate_low_rank_dim": 128,
        "decay_low_rank_dim": 64,
        "quantization": {"group_size": 32, "bits": 4, "model.embeddings": {"bits": 8}}
        | {f"model.layers.{i}.attn.{m}_lora.lora.2": {"bits": 8} for i in range(3) for m in "wag"},
    },
}

MATTERS = {
    "lfm2": [
        {"conv_bias": False},
        {"rope_theta": 10000.0},
    ],
    "mamba2": [
        {"time_step_limit": None},
        {"use_conv_bias": False},
    ],
    "qwen3_next": [
        {"norm_topk_prob": False},
        {"partial_rotary_factor": 1.0},
    ],
    "recurrent_gemma": [
        {"attention_window_size": 9},
        {"block_types": ["recurrent", "attention"]},
        {"embeddings_scale_by_sqrt_dim": False},
        {"logits_soft_cap": 0},
        {"partial_rotary_factor": 1.0},
    ],
    "rwkv7": [
        {"head_dim": 32},
    ],
}
