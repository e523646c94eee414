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

STABLELM = {
    "model_type": "stablelm",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "layer_norm_eps": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "use_qkv_bias": False,
    "qk_layernorm": True,
    "use_parallel_residual": False,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}

COHERE = LLAMA | {
    "model_type": "cohere",
    "num_hidden_layers": 2,
    "layer_norm_eps": 1e-5,
    "logit_scale": 1.5,
    "use_qk_norm": True,
    "layer_norm_bias": False,
    "attention_bias": False,
}

INTERNLM2 = LLAMA | {"model_type": "internlm2", "bias": False, "tie_word_embeddings": False}

GPT2 = {
    "model_type": "gpt2",
    "n_ctx": 128,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "vocab_size": 96,
}

GPT_BIGCODE = GPT2 | {
    "model_type": "gpt_bigcode",
    "n_inner": 192,
    "multi_query": True,
    "activation_function": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}

GPTJ = {
    "model_type": "gptj",
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-5,
    "rotary_dim": 8,
    "activation_function": "gelu_new",
    "vocab_size": 96,
    "tie_word_embeddings": False,
}

QWEN = {
    "model_type": "qwen",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "layer_norm_epsilon": 1e-6,
    "no_bias": True,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "seq_length": 128,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "max_position_embeddings": 256,
    "vocab_size": 96,
    "tie_word_embeddings": False,
}

OPENELM = {
    "model_type": "openelm",
    "model_dim": 64,
    "head_dim": 16,
    "num_transformer_layers": 3,
    "num_query_heads": [4, 4, 8],
    "num_kv_heads": [2, 1, 4],
    "ffn_dim_divisor": 32,
    "ffn_multipliers": [0.5, 1.3, 2.0],
    "ffn_with_glu": True,
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "max_context_length": 256,
    "vocab_size": 96,
}

PLAMO = {
    "model_type": "plamo",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "n_shared_head": 4,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "vocab_size": 96,
    "tie_word_embeddings": False,
}

OLMO = {
    "model_type": "olmo",
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "mlp_ratio": 3,
    "mlp_hidden_size": None,
    "vocab_size": 90,
    "embedding_size": 96,
    "max_sequence_length": 256,
    "weight_tying": False,
}

NEMOTRON_NAS = LLAMA | {
    "model_type": "nemotron-nas",
    "num_hidden_layers": 4,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "block_configs": [
        {"attention": {"no_op": False, "replace_with_linear": False, "n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
        {"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}},
        {"attention": {"no_op": True}, "ffn": {"replace_with_linear": True}},
        {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 6.5}},
    ],
    "tie_word_embeddings": False,
}

DBRX = {
    "model_type": "dbrx",
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "max_seq_len": 256,
    "attn_config": {"clip_qkv": 2.0, "kv_n_heads": 2, "rope_theta": 500000.0},
    "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 8, "moe_top_k": 3, "moe_normalize_expert_weights": 1.0},
    "vocab_size": 96,
    "tie_word_embeddings": False,
}

# Blocks are of 32 or 64 tokens; every token sees more of the nearest than there are.
PHI3SMALL = {
    "model_type": "phi3small",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "ff_intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 96,
    "max_position_embeddings": 8192,
    "dense_attention_every_n_layers": 2,
    "blocksparse_block_size": 64,
    "blocksparse_num_local_blocks": 16,
    "blocksparse_vert_stride": 8,
    "gegelu_limit": 1.5,
    "mup_attn_multiplier": 3.0,
    "mup_embedding_multiplier": 4.0,
    "mup_use_scaling": True,
    "mup_width_multiplier": 0.8,
    "rope_embedding_base": 10000,
    "rope_position_scale": 1.0,
    "dummy_token_indices": [],
}

PHIXTRAL = {
    "model_type": "phixtral",
    "model_dim": 64,
    "num_heads": 4,
    "num_layers": 2,
    "rotary_dim": 8,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "num_vocab": 96,
    "vocab_size": 96,
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
    "minicpm-4bit": four_bits(MINICPM, **WIDE, dim_model_base=192),
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
    "stablelm": STABLELM,
    "stablelm-4bit": four_bits(STABLELM, **WIDE, use_qkv_bias=True, qk_layernorm=False, use_parallel_residual=True),
    "cohere": COHERE | WIDE | {"num_hidden_layers": 3},
    "cohere-4bit": four_bits(COHERE, **WIDE, use_qk_norm=False, layer_norm_bias=True, attention_bias=True),
    "internlm2": INTERNLM2,
    "internlm2-4bit": four_bits(INTERNLM2, **WIDE, bias=True),
    "gpt2": GPT2,
    "gpt2-4bit": four_bits(GPT2, n_embd=128),
    "gpt_bigcode": GPT_BIGCODE,
    "gpt_bigcode-4bit": four_bits(GPT_BIGCODE, n_embd=128, multi_query=False, activation_function="gelu", tie_word_embeddings=False),
    "gptj": GPTJ,
    "gptj-4bit": four_bits(GPTJ, n_embd=128, rotary_dim=None),
    "qwen": QWEN,
    "qwen-4bit": four_bits(QWEN, hidden_size=128, kv_channels=32, intermediate_size=384, no_bias=False),
    "openelm": OPENELM | {
        "num_transformer_layers": 2, "num_query_heads": [4, 8], "num_kv_heads": [2, 4], "ffn_multipliers": [0.5, 2.0]},
    "openelm-4bit": four_bits(OPENELM, model_dim=128, head_dim=32, share_input_output_layers=False),
    "phi3small": PHI3SMALL,
    "phi3small-4bit": four_bits(PHI3SMALL, hidden_size=128, ff_intermediate_size=192, mup_use_scaling=False),
    "phixtral": PHIXTRAL,
    "phixtral-4bit": four_bits(PHIXTRAL, model_dim=128, model_type="phi-msft", num_local_experts=3),
    "plamo": PLAMO,
    "plamo-4bit": four_bits(PLAMO, **WIDE),
    "olmo": OLMO,
    "olmo-4bit": four_bits(OLMO, d_model=128),
    "nemotron-nas": NEMOTRON_NAS,
    "nemotron-nas-4bit": four_bits(NEMOTRON_NAS, hidden_size=128, attention_bias=True, mlp_bias=True),
    "dbrx": DBRX,
    "dbrx-4bit": four_bits(DBRX, d_model=128, ffn_config=DBRX["ffn_config"] | {"ffn_hidden_size": 64}),
}

MATTERS = {
    "nemotron-nas": [
        {"rope_theta": 1000.0},
    ],
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
    "stablelm": [
        {"partial_rotary_factor": 1.0},
        {"qk_layernorm": False},
        {"use_parallel_residual": True},
    ],
    "cohere": [
        {"logit_scale": 0.0625},
        {"use_qk_norm": False},
        {"rope_theta": 1000000.0},
    ],
    "internlm2": [{"rope_theta": 1000000.0}],
    "gpt2": [{"activation_function": "relu"}],
    "gpt_bigcode": [{"activation_function": "relu"}],
    "gptj": [
        {"rotary_dim": 16},
        {"activation_function": "relu"},
    ],
    "qwen": [{"rotary_emb_base": 1000000}],
    "openelm": [{"normalize_qk_projections": False}],
    "phi3small": [
        {"gegelu_limit": 20.0},
        {"mup_attn_multiplier": 1.0},
        {"mup_embedding_multiplier": 10.0},
        {"mup_width_multiplier": 8.0},
    ],
    "phixtral": [
        {"rotary_dim": 16},
        {"num_experts_per_tok": 1},
    ],
    "plamo": [{"rope_theta": 1000000.0}],
    "olmo": [{"clip_qkv": 0.5}],
    "dbrx": [{"attn_config": {"clip_qkv": 8.0, "kv_n_heads": 2, "rope_theta": 500000.0}}],
    "olmo3": [
        {"model_type": "olmo2"},
        {"sliding_window": 9},
        {"rope_scaling": None},
    ],
}
