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
    Architecture::new("gemma", "gemma").config(gemma::gemma).finish(gemma::norms_without_one),
    Architecture::new("gemma2", "gemma2")
        .config(gemma::gemma)
        .layer(SANDWICH)
        .finish(gemma::norms_without_one),
    Architecture::new("gemma3", "gemma3_text")
        .config(gemma::gemma)
        .layer(SANDWICH)
        .finish(gemma::norms_without_one),
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
    Architecture::new("granite", "granite").config(dense::granite).permuted(),
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
        .model(&[("token_embd", "backbone.embeddings"), ("output_norm", "backbone.norm_f")])
        .finish(recurrent::state_spaces),
    Architecture::new("minicpm", "granite").config(dense::minicpm).permuted(),
    Architecture::new("minimax-m2", "minimax").config(mixtures::minimax).layer(BLOCK_SPARSE),
    Architecture::new("mistral3", "ministral3").or(&["mistral"]).config(dense::mistral3).permuted(),
    Architecture::new("mistral4", "mistral4").config(mixtures::mistral4).layer(LATENT),
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
    Architecture::new("qwen3moe", "qwen3_moe").config(mixtures::qwen_moe),
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
