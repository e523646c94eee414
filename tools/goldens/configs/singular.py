"""Families with a layer, a norm or a state that no other has."""

from .classic import LLAMA
from .newer import text
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

LONGCAT_FLASH = {
    "model_type": "longcat_flash",
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "moe_topk": 3,
    "expert_ffn_hidden_size": 48,
    "n_routed_experts": 5,
    "zero_expert_num": 3,
    "num_layers": 2,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "kv_lora_rank": 40,
    "q_lora_rank": 48,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 20,
    "routed_scaling_factor": 1.5,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "attention_bias": True,
    "router_bias": True,
}

LONGCAT_FLASH_NGRAM = LONGCAT_FLASH | {
    "model_type": "longcat_flash_ngram",
    "num_layers": 1,
    "ngram_vocab_size_ratio": 3,
    "emb_neighbor_num": 4,
    "emb_split_num": 2,
    "attention_bias": False,
    "router_bias": False,
}

MUSE_SPARK = {
    "model_type": "muse_spark",
    "text_config": {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "num_hidden_layers": 3,
        "vocab_size": 96,
        "rms_norm_eps": 1e-5,
        "post_norm_eps": 1e-8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "layer_rope_theta": [10000.0, 0.0, 10000.0],
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 8,
        "final_logit_softcapping": 20.0,
        "output_multiplier": 2.0,
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "moe_hidden_size": 40,
        "moe_intermediate_size": 48,
        "qk_scale_factor": 1.7,
        "routed_scaling_factor": 1.5,
        "max_position_embeddings": 256,
    },
}

CONFIGS = {
    "muse_spark": MUSE_SPARK,
    "muse_spark-4bit": four_bits(
        MUSE_SPARK, **text(
            MUSE_SPARK, hidden_size=128, head_dim=32, moe_hidden_size=64, moe_intermediate_size=64, num_hidden_layers=2,
            layer_types=["sliding_attention", "full_attention"], layer_rope_theta=[10000.0, 0.0])) | {
        "quantization": {"group_size": 32, "bits": 4, "lm_head": False}},
    "longcat_flash": LONGCAT_FLASH,
    "longcat_flash-4bit": four_bits(
        LONGCAT_FLASH, range(1), ["mlp.router.classifier"], hidden_size=128, ffn_hidden_size=192, num_layers=1, kv_lora_rank=96,
        q_lora_rank=64, qk_nope_head_dim=32, v_head_dim=32, expert_ffn_hidden_size=64, attention_bias=False, router_bias=False,
        norm_topk_prob=True,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale_all_dim": 1.0}),
    "longcat_flash_ngram": LONGCAT_FLASH_NGRAM,
    "longcat_flash_ngram-4bit": four_bits(
        LONGCAT_FLASH_NGRAM, range(1), ["mlp.router.classifier"], hidden_size=128, ffn_hidden_size=192, kv_lora_rank=96,
        q_lora_rank=64, qk_nope_head_dim=32, v_head_dim=32, expert_ffn_hidden_size=64, emb_split_num=2, emb_neighbor_num=3, ngram_vocab_size_ratio=2),
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
    "muse_spark": [
        {"text_config": {"sliding_window": 9}},
        {"text_config": {"qk_scale_factor": 1.0}},
        {"text_config": {"layer_rope_theta": [10000.0, 10000.0, 10000.0]}},
        {"text_config": {"final_logit_softcapping": 2.0}},
        {"text_config": {"output_multiplier": 1.0}},
        {"text_config": {"post_norm_eps": 0.1}},
    ],
    "longcat_flash_ngram": [
        {"ngram_vocab_size_ratio": 2},
    ],
    "longcat_flash": [
        {"mla_scale_q_lora": False},
        {"mla_scale_kv_lora": False},
        {"routed_scaling_factor": 1.0},
        {"norm_topk_prob": True},
        {"rope_theta": 1000.0},
        {"attention_bias": False},
        {"router_bias": False},
    ],
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
