//! llama.cpp's architectures: which family each is, what its configuration says, what its tensors are called, and what its
//! converter has changed in them.

use super::metadata::Metadata;
use super::{dense, gemma, mixtures, recurrent};
use crate::published::Tensors;
use crate::{ModelTypeRegistry, Result};

type Names = &'static [(&'static str, &'static str)];

/// How models of an architecture are read.
pub(crate) struct Architecture {
    /// llama.cpp's name.
    pub(crate) name: &'static str,
    /// The `model_type` of its family.
    pub(crate) model_type: &'static str,
    /// Those of families that it may be instead, as its metadata says.
    pub(crate) others: &'static [&'static str],
    /// Fields of the configuration beyond those that all have.
    pub(crate) config: fn(&mut Metadata<'_>) -> Result<()>,
    /// What tensors of a layer are called, before what is common.
    pub(crate) layer: Names,
    /// What the others are called.
    pub(crate) model: Names,
    /// What is before the number of a layer.
    pub(crate) layers: &'static str,
    /// Whether the rows of queries and keys are in the order in which llama.cpp rotates neighbours.
    pub(crate) permuted: bool,
    /// What else the converter has done, undone.
    pub(crate) finish: fn(&Metadata<'_>, &mut Tensors) -> Result<()>,
}

impl Architecture {
    const fn new(name: &'static str, model_type: &'static str) -> Self {
        Self {
            name,
            model_type,
            others: &[],
            config: |_| Ok(()),
            layer: &[],
            model: &[],
            layers: "model.layers",
            permuted: false,
            finish: |_, _| Ok(()),
        }
    }

    const fn or(self, others: &'static [&'static str]) -> Self {
        Self { others, ..self }
    }

    const fn config(self, config: fn(&mut Metadata<'_>) -> Result<()>) -> Self {
        Self { config, ..self }
    }

    const fn layer(self, layer: Names) -> Self {
        Self { layer, ..self }
    }

    const fn model(self, model: Names) -> Self {
        Self { model, ..self }
    }

    const fn layers(self, layers: &'static str) -> Self {
        Self { layers, ..self }
    }

    const fn permuted(self) -> Self {
        Self { permuted: true, ..self }
    }

    const fn finish(self, finish: fn(&Metadata<'_>, &mut Tensors) -> Result<()>) -> Self {
        Self { finish, ..self }
    }

    /// Whether there is the family.
    pub(crate) fn is_there(&self) -> bool {
        ModelTypeRegistry::get(self.model_type).is_some()
    }
}

/// Norms around attention and feed-forward network.
const SANDWICH: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Norms after attention and feed-forward network, and none before.
const POST_NORMS: Names =
    &[("post_attention_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm")];

/// Latent attention: the matrices that make keys and values, absorbed into queries and outputs; older files have them as one.
const LATENT: Names = &[
    ("attn_q_a", "self_attn.q_a_proj"),
    ("attn_q_a_norm", "self_attn.q_a_layernorm"),
    ("attn_q_b", "self_attn.q_b_proj"),
    ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
    ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
    ("attn_k_b", "self_attn.embed_q"),
    ("attn_v_b", "self_attn.unembed_out"),
    ("attn_kv_b", "self_attn.kv_b_proj"),
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
];

/// Networks beside experts, by the names that most families have for them.
const SHARED: Names = &[
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
];

/// Experts by the names of Mixtral.
const BLOCK_SPARSE: Names = &[
    ("ffn_gate_inp", "block_sparse_moe.gate"),
    ("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj"),
    ("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj"),
    ("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj"),
    ("exp_probs_b.bias", "block_sparse_moe.e_score_correction_bias"),
];

/// All architectures that are read, in alphabetical order.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture::new("bailingmoe2", "bailing_moe")
        .config(mixtures::bailing_moe)
        .layer(&[
            ("attn_qkv", "attention.query_key_value"),
            ("attn_output", "attention.dense"),
            ("attn_q_norm", "attention.query_layernorm"),
            ("attn_k_norm", "attention.key_layernorm"),
            ("ffn_gate_inp", "mlp.gate.gate_proj"),
            ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
            ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
            ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
            ("exp_probs_b.bias", "mlp.gate.expert_bias"),
        ])
        .model(&[("token_embd", "model.word_embeddings")]),
    Architecture::new("cohere2", "cohere2").config(dense::cohere2),
    Architecture::new("command-r", "cohere").config(dense::command_r),
    Architecture::new("deepseek2", "deepseek_v3")
        .or(&["deepseek_v2", "glm4_moe_lite"])
        .config(mixtures::deepseek2)
        .layer(LATENT)
        .finish(mixtures::separate_head),
    Architecture::new("dots1", "dots1").config(mixtures::glm4_moe).layer(&[
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_up_exps", "mlp.experts.up_proj"),
        ("ffn_down_exps", "mlp.experts.down_proj"),
        ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
        ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
    ]),
    Architecture::new("ernie4_5", "ernie4_5").config(dense::ernie),
    Architecture::new("ernie4_5-moe", "ernie4_5_moe").config(mixtures::ernie_moe).layer(SHARED),
    Architecture::new("exaone-moe", "exaone_moe").config(mixtures::exaone_moe).layer(SHARED),
    Architecture::new("exaone4", "exaone4").config(dense::exaone4).layer(POST_NORMS),
    Architecture::new("gemma", "gemma").config(gemma::gemma).finish(dense::norms_without_one),
    Architecture::new("gemma2", "gemma2")
        .config(gemma::gemma)
        .layer(SANDWICH)
        .finish(dense::norms_without_one),
    Architecture::new("gemma3", "gemma3_text")
        .config(gemma::gemma)
        .layer(SANDWICH)
        .finish(dense::norms_without_one),
    Architecture::new("gemma3n", "gemma3n_text")
        .config(gemma::gemma3n)
        .layer(LATER_GEMMA)
        .model(LATER_GEMMA_MODEL)
        .finish(gemma::unstack_streams),
    Architecture::new("gemma4", "gemma4_text")
        .config(gemma::gemma4)
        .layer(LATER_GEMMA)
        .model(LATER_GEMMA_MODEL),
    Architecture::new("glm4", "glm4").config(dense::attention_bias).layer(&[
        ("post_attention_norm", "post_self_attn_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
        ("post_ffw_norm", "post_mlp_layernorm"),
    ]),
    Architecture::new("glm4moe", "glm4_moe").config(mixtures::glm4_moe).layer(&[
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
        ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
    ]),
    Architecture::new("gpt-oss", "gpt_oss").config(mixtures::gpt_oss).layer(&[
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_gate_inp", "mlp.router"),
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_up_exps", "mlp.experts.up_proj"),
        ("ffn_down_exps", "mlp.experts.down_proj"),
    ]),
    Architecture::new("gpt2", "gpt2").config(dense::gpt2).layers("model.h").layer(GPT).model(&[
        ("token_embd", "model.wte"),
        ("position_embd", "model.wpe"),
        ("output_norm", "model.ln_f"),
    ]),
    Architecture::new("gptneox", "gpt_neox")
        .config(dense::gpt_neox)
        .layers("model.h")
        .layer(&[
            ("attn_qkv", "attention.query_key_value"),
            ("attn_output", "attention.dense"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ])
        .model(&[
            ("token_embd", "model.embed_in"),
            ("output_norm", "model.final_layer_norm"),
            ("output", "model.embed_out"),
        ])
        .finish(dense::heads_together),
    Architecture::new("granite", "granite").config(dense::granite).permuted(),
    Architecture::new("granitehybrid", "granitemoehybrid")
        .config(recurrent::granite_hybrid)
        .permuted()
        .layer(&[
            ("ssm_in", "mamba.in_proj"),
            ("ssm_conv1d", "mamba.conv1d"),
            ("ssm_dt.bias", "mamba.dt_bias"),
            ("ssm_a", "mamba.A_log"),
            ("ssm_d", "mamba.D"),
            ("ssm_norm", "mamba.norm"),
            ("ssm_out", "mamba.out_proj"),
            ("ffn_gate_inp", "block_sparse_moe.router.layer"),
            ("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj"),
            ("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj"),
            ("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj"),
            ("ffn_gate_shexp", "shared_mlp.gate_proj"),
            ("ffn_up_shexp", "shared_mlp.up_proj"),
            ("ffn_down_shexp", "shared_mlp.output_linear"),
        ])
        .finish(recurrent::state_spaces),
    Architecture::new("granitemoe", "granitemoe").config(mixtures::granite_moe).permuted().layer(&[
        ("ffn_gate_inp", "block_sparse_moe.router.layer"),
        ("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj"),
        ("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj"),
        ("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj"),
    ]),
    Architecture::new("hunyuan-dense", "hunyuan_v1_dense").config(dense::hunyuan).layer(HUNYUAN),
    Architecture::new("hunyuan-moe", "hunyuan").config(mixtures::hunyuan_moe).layer(HUNYUAN),
    // Its matrices are taken apart, and then it is a llama.
    Architecture::new("internlm2", "llama").config(dense::llama).permuted(),
    Architecture::new("lfm2", "lfm2")
        .config(recurrent::lfm2)
        .layer(LFM2)
        .model(LFM2_MODEL)
        .finish(recurrent::short_convolutions),
    Architecture::new("lfm2moe", "lfm2_moe")
        .config(recurrent::lfm2_moe)
        .layer(LFM2)
        .model(LFM2_MODEL)
        .finish(recurrent::short_convolutions),
    Architecture::new("llama", "llama").or(&["mixtral"]).config(dense::llama).permuted().layer(BLOCK_SPARSE),
    Architecture::new("mamba2", "mamba2")
        .config(recurrent::mamba2)
        .layers("backbone.layers")
        .layer(&[
            ("attn_norm", "norm"),
            ("ssm_in", "mixer.in_proj"),
            ("ssm_conv1d", "mixer.conv1d"),
            ("ssm_dt.bias", "mixer.dt_bias"),
            ("ssm_a", "mixer.A_log"),
            ("ssm_d", "mixer.D"),
            ("ssm_norm", "mixer.norm"),
            ("ssm_out", "mixer.out_proj"),
        ])
        .model(BACKBONE)
        .finish(recurrent::state_spaces),
    Architecture::new("minicpm", "granite").config(dense::minicpm).permuted(),
    Architecture::new("minimax-m2", "minimax").config(mixtures::minimax).layer(BLOCK_SPARSE),
    Architecture::new("mistral3", "ministral3").or(&["mistral"]).config(dense::mistral3).permuted(),
    Architecture::new("mistral4", "mistral4").config(mixtures::mistral4).layer(LATENT),
    Architecture::new("nemotron", "nemotron").config(dense::nemotron).finish(dense::norms_without_one),
    Architecture::new("nemotron_h", "nemotron_h")
        .config(recurrent::nemotron_h)
        .layers("backbone.layers")
        .layer(NEMOTRON_H)
        .model(BACKBONE)
        .finish(recurrent::state_spaces),
    Architecture::new("nemotron_h_moe", "nemotron_h")
        .config(recurrent::nemotron_h)
        .layers("backbone.layers")
        .layer(NEMOTRON_H)
        .model(BACKBONE)
        .finish(recurrent::state_spaces),
    Architecture::new("olmo2", "olmo2").or(&["olmo3"]).config(dense::olmo2).layer(POST_NORMS),
    Architecture::new("olmoe", "olmoe").config(mixtures::olmoe),
    Architecture::new("phi2", "phi")
        .layer(&[("attn_output", "self_attn.dense"), ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2")])
        .model(&[("output_norm", "model.final_layernorm")]),
    Architecture::new("phi3", "phi3")
        .config(dense::phi3)
        .layer(&[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")]),
    Architecture::new("qwen2", "qwen2"),
    Architecture::new("qwen2moe", "qwen2_moe").config(mixtures::qwen_moe).finish(mixtures::shared_gate),
    // Text has positions that are alike on all axes.
    Architecture::new("qwen2vl", "qwen2"),
    Architecture::new("qwen3", "qwen3"),
    Architecture::new("qwen35", "qwen3_5_text")
        .config(recurrent::qwen_delta)
        .layer(DELTA_NETS)
        .finish(recurrent::qwen35),
    Architecture::new("qwen35moe", "qwen3_5_moe_text")
        .config(recurrent::qwen_delta)
        .layer(DELTA_NETS)
        .finish(recurrent::qwen35),
    Architecture::new("qwen3moe", "qwen3_moe").config(mixtures::qwen_moe),
    // Its matrices are taken apart, and then it is a Qwen 3.5.
    Architecture::new("qwen3next", "qwen3_5_moe_text")
        .config(recurrent::qwen_delta)
        .layer(DELTA_NETS)
        .finish(recurrent::qwen3_next),
    Architecture::new("qwen3vl", "qwen3"),
    Architecture::new("qwen3vlmoe", "qwen3_moe").config(mixtures::qwen_moe),
    Architecture::new("seed_oss", "seed_oss")
        .config(dense::seed_oss)
        .layer(&[("post_attention_norm", "post_attention_layernorm")]),
    // The layers without positions are those of the models there are.
    Architecture::new("smollm3", "smollm3").config(dense::llama).permuted(),
    Architecture::new("stablelm", "stablelm")
        .config(dense::stablelm)
        .layer(&[("attn_q_norm", "self_attn.q_layernorm"), ("attn_k_norm", "self_attn.k_layernorm")]),
    Architecture::new("starcoder", "gpt_bigcode")
        .config(dense::gpt2)
        .layers("transformer.h")
        .layer(GPT)
        .model(&[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
        ]),
    Architecture::new("starcoder2", "starcoder2")
        .config(dense::starcoder2)
        .layer(&[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")]),
    Architecture::new("xverse", "llama").config(dense::llama).permuted(),
];

/// Hunyuan's names of norms of heads, of a router, and of the network beside experts.
const HUNYUAN: Names = &[
    ("attn_q_norm", "self_attn.query_layernorm"),
    ("attn_k_norm", "self_attn.key_layernorm"),
    ("ffn_gate_inp", "mlp.gate.wg"),
    ("ffn_gate_shexp", "mlp.shared_mlp.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_mlp.up_proj"),
    ("ffn_down_shexp", "mlp.shared_mlp.down_proj"),
];

/// Gemma 3n and 4.
const LATER_GEMMA: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("inp_gate", "per_layer_input_gate"),
    ("proj", "per_layer_projection"),
    ("post_norm", "post_per_layer_input_norm"),
    ("altup_correct_coef", "altup.correction_coefs"),
    ("altup_correct_scale.weight", "altup.correct_output_scale"),
    ("altup_predict_coef", "altup.prediction_coefs"),
    ("altup_router", "altup.modality_router"),
    ("altup_router_norm", "altup.router_norm"),
    ("laurel_l", "laurel.linear_left"),
    ("laurel_r", "laurel.linear_right"),
    ("laurel_post_norm", "laurel.post_laurel_norm"),
    ("layer_output_scale.weight", "layer_scalar"),
    ("post_ffw_norm_1", "post_feedforward_layernorm_1"),
    ("post_ffw_norm_2", "post_feedforward_layernorm_2"),
    ("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
    ("ffn_gate_inp.scale", "router.scale"),
    ("ffn_down_exps.scale", "router.per_expert_scale"),
    ("ffn_gate_inp", "router.proj"),
    ("ffn_gate_exps", "experts.switch_glu.gate_proj"),
    ("ffn_up_exps", "experts.switch_glu.up_proj"),
    ("ffn_down_exps", "experts.switch_glu.down_proj"),
];

const LATER_GEMMA_MODEL: Names = &[
    ("per_layer_token_embd", "model.embed_tokens_per_layer"),
    ("per_layer_model_proj", "model.per_layer_model_projection"),
    ("per_layer_proj_norm", "model.per_layer_projection_norm"),
    ("altup_proj", "model.altup_projections"),
    ("altup_unembd_proj", "model.altup_unembed_projections"),
];

/// Layers of GPT-2.
const GPT: Names = &[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

/// What is outside of layers where these are a backbone's.
const BACKBONE: Names = &[("token_embd", "backbone.embeddings"), ("output_norm", "backbone.norm_f")];

/// Nemotron H, whose layers are a norm and a mixer of whatever kind.
const NEMOTRON_H: Names = &[
    ("attn_norm", "norm"),
    ("attn_q", "mixer.q_proj"),
    ("attn_k", "mixer.k_proj"),
    ("attn_v", "mixer.v_proj"),
    ("attn_output", "mixer.o_proj"),
    ("ssm_in", "mixer.in_proj"),
    ("ssm_conv1d", "mixer.conv1d"),
    ("ssm_dt.bias", "mixer.dt_bias"),
    ("ssm_a", "mixer.A_log"),
    ("ssm_d", "mixer.D"),
    ("ssm_norm", "mixer.norm"),
    ("ssm_out", "mixer.out_proj"),
    ("ffn_up", "mixer.up_proj"),
    ("ffn_down", "mixer.down_proj"),
    ("ffn_gate_inp", "mixer.gate"),
    ("ffn_up_exps", "mixer.switch_mlp.fc1"),
    ("ffn_down_exps", "mixer.switch_mlp.fc2"),
    ("ffn_up_shexp", "mixer.shared_experts.up_proj"),
    ("ffn_down_shexp", "mixer.shared_experts.down_proj"),
    ("ffn_latent_down", "mixer.fc1_latent_proj"),
    ("ffn_latent_up", "mixer.fc2_latent_proj"),
    ("exp_probs_b.bias", "mixer.gate.e_score_correction_bias"),
];

/// Delta nets of Qwen 3.5 and Qwen 3 Next.
const DELTA_NETS: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("attn_qkv", "linear_attn.in_proj_qkv"),
    ("attn_gate", "linear_attn.in_proj_z"),
    ("ssm_in", "linear_attn.in_proj_qkvz"),
    ("ssm_ba", "linear_attn.in_proj_ba"),
    ("ssm_beta", "linear_attn.in_proj_b"),
    ("ssm_alpha", "linear_attn.in_proj_a"),
    ("ssm_conv1d", "linear_attn.conv1d"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    ("ssm_a", "linear_attn.A_log"),
    ("ssm_norm", "linear_attn.norm"),
    ("ssm_out", "linear_attn.out_proj"),
];

/// Both forms of LFM2; networks without experts have other names in one that has some.
const LFM2: Names = &[
    ("attn_norm", "operator_norm"),
    ("attn_output", "self_attn.out_proj"),
    ("attn_q_norm", "self_attn.q_layernorm"),
    ("attn_k_norm", "self_attn.k_layernorm"),
    ("ffn_norm", "ffn_norm"),
    ("ffn_gate", "feed_forward.w1"),
    ("ffn_up", "feed_forward.w3"),
    ("ffn_down", "feed_forward.w2"),
    ("ffn_gate_inp", "feed_forward.gate"),
    ("ffn_gate_exps", "feed_forward.switch_mlp.gate_proj"),
    ("ffn_up_exps", "feed_forward.switch_mlp.up_proj"),
    ("ffn_down_exps", "feed_forward.switch_mlp.down_proj"),
    ("exp_probs_b.bias", "feed_forward.expert_bias"),
    ("shortconv.conv", "conv.conv"),
    ("shortconv.in_proj", "conv.in_proj"),
    ("shortconv.out_proj", "conv.out_proj"),
];

const LFM2_MODEL: Names =
    &[("token_embd_norm", "model.embedding_norm"), ("output_norm", "model.embedding_norm")];
