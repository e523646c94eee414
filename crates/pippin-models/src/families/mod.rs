//! The families: one file each, from `config.json` to a [`DecoderSpec`].

mod afm7;
mod afmoe;
mod apertus;
mod baichuan_m1;
mod bailing_moe;
mod bailing_moe_linear;
mod bailing_moe_v3;
mod bitnet;
mod cohere;
mod common;
mod dbrx;
mod deepseek;
mod deepseek_v1;
mod deepseek_v41;
mod ernie4_5_moe;
mod exaone;
mod exaone_moe;
mod falcon_h1;
mod gear;
mod gemma;
mod gemma3n;
mod gemma4;
mod glm;
mod glm4_moe;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod helium;
mod hunyuan;
mod internlm2;
mod internlm3;
mod iquestloopcoder;
mod jamba;
mod kimi_k3;
mod kimi_linear;
mod klear;
mod laguna;
mod lfm2;
mod lfm2_moe;
mod lille;
mod llama;
mod llama4;
mod llama4_text;
mod longcat_flash;
mod mamba;
mod mamba2;
mod mellum;
mod mimo_v2_flash;
mod minicpm;
mod minicpm3;
mod minimax;
mod minimax_m3_vl;
mod ministral3;
mod mistral;
mod mistral3;
mod mixtral;
mod muse_glimmer;
mod muse_spark;
mod nanochat;
mod near_llama;
mod nemotron;
mod nemotron_h;
mod nemotron_nas;
mod olmo;
mod olmo2;
mod olmo_hybrid;
mod olmoe;
mod openelm;
mod phi;
mod phi3;
mod phi3small;
mod phimoe;
mod phixtral;
mod plamo;
mod plamo2;
mod plamo3;
mod qwen;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod qwen_vl;
mod recurrent_gemma;
mod rwkv7;
mod spark2_5;
mod stablelm;
mod standard;
mod starcoder2;
mod step3p5;
mod talkie;
mod youtu_llm;

pub(crate) use gemma3n::normal_quantile;
use pippin_weights::Checkpoint;

use crate::published::Tensors;
use crate::{Config, DecoderSpec, Result};

/// A family of models: the values of `model_type` it answers to, and how it reads their configuration and their tensors.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The family's name.
    pub name: &'static str,
    /// The values of `model_type` that belong to it.
    pub model_types: &'static [&'static str],
    /// Architectures that belong to it though their `model_type` is another family's: both names.
    pub architectures: &'static [(&'static str, &'static str)],
    /// Where its results are not mlx-lm's, in a few words for the table of models; empty if nowhere.
    pub note: &'static str,
    read: fn(&Config) -> Result<DecoderSpec>,
    prepare: fn(&Config, &mut Tensors) -> Result<()>,
}

impl Family {
    const fn new(
        name: &'static str,
        model_types: &'static [&'static str],
        read: fn(&Config) -> Result<DecoderSpec>,
    ) -> Self {
        Self { name, model_types, architectures: &[], note: "", read, prepare: |_, _| Ok(()) }
    }

    const fn architectures(self, architectures: &'static [(&'static str, &'static str)]) -> Self {
        Self { architectures, ..self }
    }

    /// How the tensors of a published checkpoint become those that the parts ask for.
    const fn published(self, prepare: fn(&Config, &mut Tensors) -> Result<()>) -> Self {
        Self { prepare, ..self }
    }

    const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// Turns a configuration into a description of the model.
    ///
    /// # Errors
    ///
    /// A field is missing or holds an impossible value.
    pub fn spec(&self, config: &Config) -> Result<DecoderSpec> {
        let read = || {
            let spec = (self.read)(config)?;
            spec.validate()?;
            Ok(spec)
        };
        read().map_err(|error| config.located(error))
    }

    /// The checkpoint with the names and shapes that the parts of [`spec`](Self::spec) ask for.
    pub(crate) fn prepare(&self, config: &Config, checkpoint: &Checkpoint) -> Result<Checkpoint> {
        let mut tensors = Tensors::of(checkpoint);
        (self.prepare)(config, &mut tensors).map_err(|error| config.located(error))?;
        Ok(tensors.into_checkpoint(checkpoint))
    }
}

/// Every family this version knows, in alphabetical order.
const FAMILIES: &[Family] = &[
    Family::new("afm7", &["afm7"], afm7::spec).published(afm7::published),
    Family::new("afmoe", &["afmoe"], afmoe::spec).published(afmoe::published),
    Family::new("apertus", &["apertus"], apertus::spec).published(apertus::published),
    Family::new("baichuan_m1", &["baichuan_m1"], baichuan_m1::spec).published(baichuan_m1::published),
    Family::new("bailing_hybrid", &["bailing_hybrid"], bailing_moe_linear::bailing_hybrid)
        .published(bailing_moe::published_experts),
    Family::new("bailing_moe", &["bailing_moe"], bailing_moe::spec).published(bailing_moe::published),
    Family::new("bailing_moe_linear", &["bailing_moe_linear"], bailing_moe_linear::bailing_moe_linear)
        .published(bailing_moe::published),
    Family::new("bailing_moe_v3", &["bailing_moe_v3"], bailing_moe_v3::spec)
        .architectures(&[("bailing_hybrid", "BailingMoeV3ForCausalLM")])
        .published(|_, tensors| common::stack_experts(tensors, "mlp.experts")),
    Family::new("bitnet", &["bitnet"], bitnet::spec),
    Family::new("cohere", &["cohere"], cohere::cohere),
    Family::new("cohere2", &["cohere2"], cohere::cohere2),
    Family::new("dbrx", &["dbrx"], dbrx::spec).published(dbrx::published),
    Family::new("deepseek", &["deepseek"], deepseek_v1::spec)
        .published(|_, tensors| common::stack_experts(tensors, "mlp.experts"))
        .note("`norm_topk_prob`"),
    Family::new("deepseek_v2", &["deepseek_v2"], deepseek::deepseek_v2)
        .published(deepseek::published)
        .note("`rope_scaling` may be absent"),
    Family::new("deepseek_v3", &["deepseek_v3", "joyai_llm_flash", "kimi_k2"], deepseek::deepseek_v3)
        .published(deepseek::published),
    Family::new("deepseek_v32", &["deepseek_v32"], deepseek::deepseek_v32)
        .published(deepseek::published)
        .note("the index's norm has an epsilon of 1e-6, as in transformers"),
    Family::new("deepseek_v41", &["deepseek_v41", "deepseek_v41_text"], deepseek_v41::spec)
        .published(deepseek_v41::published),
    Family::new("dots1", &["dots1"], glm4_moe::dots1)
        .published(glm4_moe::published_in_place)
        .note("`layer_types` is not read"),
    Family::new("ernie4_5", &["ernie4_5"], near_llama::ernie4_5).note("a scaling of the rotation"),
    Family::new("ernie4_5_moe", &["ernie4_5_moe"], ernie4_5_moe::spec)
        .published(|_, tensors| common::stack_experts(tensors, "mlp.experts")),
    Family::new("exaone", &["exaone"], exaone::exaone),
    Family::new("exaone4", &["exaone4"], exaone::exaone4),
    Family::new("exaone_moe", &["exaone_moe"], exaone_moe::spec).published(exaone_moe::published),
    Family::new("falcon_h1", &["falcon_h1"], falcon_h1::spec)
        .published(falcon_h1::published)
        .note("the gated norm is by group, and published weights get every factor"),
    Family::new("gear", &["gear"], gear::spec),
    Family::new("gemma", &["gemma"], gemma::gemma).note("GELU is approximated, as in transformers"),
    Family::new("gemma2", &["gemma2"], gemma::gemma2)
        .note("windows in every other layer, as in transformers"),
    Family::new("gemma3", &["gemma3", "gemma3_text"], gemma::gemma3).published(gemma::published),
    Family::new("gemma3n", &["gemma3n", "gemma3n_text"], gemma3n::spec)
        .published(gemma3n::published)
        .note("coefficients are not clipped, as in inference with transformers"),
    Family::new("gemma4", &["gemma4", "gemma4_text", "gemma4_unified"], gemma4::spec)
        .published(gemma4::published),
    Family::new("glm", &["glm"], glm::glm).note("heads rotate by `partial_rotary_factor`"),
    Family::new("glm4", &["glm4"], glm::glm4),
    Family::new("glm4_moe", &["glm4_moe"], glm4_moe::glm4_moe)
        .published(glm4_moe::published)
        .note("a scaling of the rotation, as in transformers"),
    Family::new("glm4_moe_lite", &["glm4_moe_lite"], deepseek::glm4_moe_lite).published(deepseek::published),
    Family::new("glm_moe_dsa", &["glm_moe_dsa"], deepseek::glm_moe_dsa)
        .published(deepseek::published)
        .note("the index's norm has an epsilon of 1e-6, as in transformers"),
    Family::new("gpt2", &["gpt2"], gpt2::gpt2).published(gpt2::published_gpt2),
    Family::new("gpt_bigcode", &["gpt_bigcode"], gpt2::gpt_bigcode)
        .note("GELU as the configuration says, and projections as published without `multi_query`"),
    Family::new("gpt_neox", &["gpt_neox"], gpt_neox::spec)
        .published(gpt_neox::published)
        .note("GELU is exact where `hidden_act` says so"),
    Family::new("gpt_oss", &["gpt_oss"], gpt_oss::spec)
        .published(gpt_oss::published)
        .note("yarn's bounds are not rounded where `truncate` is false"),
    Family::new("gptj", &["gptj"], gpt2::gptj).published(gpt2::published_gptj),
    Family::new("granite", &["granite"], granite::spec),
    Family::new("granitemoe", &["granitemoe"], granitemoe::spec).published(granitemoe::published),
    Family::new("granitemoehybrid", &["granitemoehybrid"], granitemoehybrid::spec)
        .published(granitemoehybrid::published)
        .note("time steps are clamped only where the configuration says so"),
    Family::new("helium", &["helium"], helium::spec),
    Family::new("hunyuan", &["hunyuan"], hunyuan::spec)
        .published(hunyuan::published)
        .note("`norm_topk_prob`"),
    Family::new("hunyuan_v1_dense", &["hunyuan_v1_dense"], near_llama::hunyuan_v1_dense),
    Family::new("internlm2", &["internlm2"], internlm2::spec),
    Family::new("internlm3", &["internlm3"], internlm3::spec),
    Family::new("iquestloopcoder", &["iquestloopcoder"], iquestloopcoder::spec)
        .published(iquestloopcoder::published),
    Family::new("jamba", &["jamba"], jamba::spec)
        .published(jamba::published)
        .note("experts' weights are their shares among all, as in transformers"),
    Family::new("kimi_k3", &["kimi_k3"], kimi_k3::spec).published(kimi_k3::published),
    Family::new("kimi_linear", &["kimi_linear"], kimi_linear::spec).published(kimi_linear::published),
    Family::new("kimi_vl", &["kimi_vl", "kimi_k25"], deepseek::kimi).published(deepseek::published),
    Family::new("klear", &["Klear"], klear::spec).published(klear::published),
    Family::new("laguna", &["laguna"], laguna::spec).published(laguna::published),
    Family::new("lfm2", &["lfm2"], lfm2::spec),
    Family::new("lfm2_moe", &["lfm2_moe"], lfm2_moe::spec).published(lfm2_moe::published),
    Family::new("lfm2_vl", &["lfm2-vl", "lfm2_vl"], lfm2::vision).published(|_, tensors| {
        common::nest_text(tensors);
        Ok(())
    }),
    Family::new("lille-130m", &["lille-130m"], lille::spec),
    // mlx-lm takes the other two for llama, too.
    Family::new("llama", &["llama", "iquestcoder", "xverse"], llama::spec),
    Family::new("llama4", &["llama4"], llama4::spec).published(llama4::published),
    Family::new("llama4_text", &["llama4_text"], llama4_text::spec)
        .published(llama4_text::published)
        .note("chunks and factors by position, as in transformers"),
    Family::new("longcat_flash", &["longcat_flash"], longcat_flash::longcat_flash)
        .published(longcat_flash::published)
        .note("an epsilon of 1e-6 in latent norms, as in transformers"),
    Family::new("longcat_flash_ngram", &["longcat_flash_ngram"], longcat_flash::longcat_flash_ngram)
        .published(longcat_flash::published_ngram)
        .note("an epsilon of 1e-6 in latent norms"),
    Family::new("mamba", &["mamba", "falcon_mamba"], mamba::spec),
    Family::new("mamba2", &["mamba2"], mamba2::spec).note("the gated norm is by group"),
    Family::new("mellum", &["mellum"], mellum::spec)
        .published(qwen3_moe::published)
        .note("linear scaling of the rotation"),
    Family::new("mimo", &["mimo"], near_llama::mimo),
    Family::new("mimo_v2_flash", &["mimo_v2_flash"], mimo_v2_flash::spec).published(mimo_v2_flash::published),
    Family::new("minicpm", &["minicpm"], minicpm::spec)
        .note("`rope_theta` is 10,000 where there is none; a tied head has its factor"),
    Family::new("minicpm3", &["minicpm3"], minicpm3::spec)
        .note("an epsilon of 1e-6 in latent norms, and logits of tied embeddings scaled, as in transformers"),
    Family::new("minimax", &["minimax", "minimax_m2"], minimax::spec).published(mixtral::published),
    Family::new("minimax_m3_vl", &["minimax_m3_vl"], minimax_m3_vl::spec)
        .published(minimax_m3_vl::published)
        .note("contexts in which no block of keys is left out"),
    Family::new("ministral3", &["ministral3"], ministral3::spec),
    Family::new("mistral", &["mistral"], mistral::spec).note("`sliding_window` without `layer_types`"),
    // As mlx-lm takes it; the text model alone.
    Family::new("mistral3", &["mistral3", "llava"], mistral3::mistral3).published(mistral3::published),
    Family::new("mistral4", &["mistral4"], deepseek::mistral4).published(deepseek::mistral4_published),
    Family::new("mixtral", &["mixtral"], mixtral::spec)
        .published(mixtral::published)
        .note("`sliding_window`, as in transformers"),
    Family::new("muse_glimmer", &["muse_glimmer", "muse_glimmer_text"], muse_glimmer::spec)
        .published(muse_glimmer::published),
    Family::new("muse_spark", &["muse_spark"], muse_spark::spec)
        .published(muse_spark::published)
        .note("computed in f32, where mlx-lm rounds what enters layers to bf16"),
    Family::new("nanbeige", &["nanbeige"], near_llama::nanbeige),
    Family::new("nanochat", &["nanochat"], nanochat::spec)
        .published(nanochat::published)
        .note("`rms_norm_eps` and `final_logit_softcapping` where they are there"),
    Family::new("nemotron", &["nemotron"], nemotron::spec),
    Family::new("nemotron-nas", &["nemotron-nas"], nemotron_nas::spec),
    Family::new("nemotron_h", &["nemotron_h"], nemotron_h::spec).published(nemotron_h::published),
    // It is not in mlx-lm, but in mlx-swift-lm.
    Family::new("nemotron_labs_diffusion", &["nemotron_labs_diffusion"], ministral3::nemotron_labs_diffusion)
        .note("token by token"),
    Family::new("olmo", &["olmo"], olmo::spec).note("causal; `clip_qkv`"),
    Family::new("olmo2", &["olmo2"], olmo2::olmo2),
    Family::new("olmo3", &["olmo3"], olmo2::olmo3),
    Family::new("olmo_hybrid", &["olmo_hybrid"], olmo_hybrid::spec),
    Family::new("olmoe", &["olmoe"], olmoe::spec)
        .published(|_, tensors| common::stack_experts(tensors, "mlp.experts")),
    Family::new("openelm", &["openelm"], openelm::spec),
    Family::new("phi", &["phi"], phi::spec),
    Family::new("phi3", &["phi3"], phi3::spec).note("`sliding_window`, as in transformers"),
    Family::new("phi3small", &["phi3small"], phi3small::spec)
        .note("attention in blocks is causal; the context ends where it begins to leave some out"),
    Family::new("phimoe", &["phimoe"], phimoe::spec)
        .published(mixtral::published)
        .note("`sliding_window`, as in transformers"),
    Family::new("phixtral", &["phixtral", "phi-msft"], phixtral::spec)
        .published(phixtral::published)
        .note("`activation_function`"),
    Family::new("pixtral", &["pixtral"], mistral3::pixtral).published(mistral3::published),
    Family::new("plamo", &["plamo"], plamo::spec),
    Family::new("plamo2", &["plamo2"], plamo2::spec)
        .published(plamo2::published)
        .note("windows, and time steps without limits, as in the model's own code"),
    Family::new("plamo3", &["plamo3"], plamo3::spec)
        .published(plamo3::published)
        .note("windows are as long in prompts as in decoding"),
    Family::new("qwen", &["qwen"], qwen::spec)
        .note("the context ends where its positions would change; `rotary_emb_base` is read"),
    Family::new("qwen2", &["qwen2", "acereason"], qwen2::spec),
    Family::new("qwen2_moe", &["qwen2_moe"], qwen2_moe::spec)
        .published(qwen3_moe::published)
        .note("`norm_topk_prob`, `decoder_sparse_step`, `mlp_only_layers`, windows"),
    Family::new("qwen2_vl", &["qwen2_vl", "qwen2_5_vl"], qwen_vl::qwen2_vl).published(qwen_vl::published),
    Family::new("qwen3", &["qwen3"], qwen3::spec),
    Family::new(
        "qwen3_5",
        &["qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "prism_hadamard_qwen35"],
        qwen3_5::spec,
    )
    .published(qwen3_5::published),
    Family::new("qwen3_moe", &["qwen3_moe"], qwen3_moe::spec).published(qwen3_moe::published),
    Family::new("qwen3_next", &["qwen3_next"], qwen3_next::spec).published(qwen3_next::published),
    Family::new("qwen3_vl", &["qwen3_vl"], qwen_vl::qwen3_vl).published(qwen_vl::published),
    Family::new("qwen3_vl_moe", &["qwen3_vl_moe"], qwen_vl::qwen3_vl_moe)
        .published(qwen_vl::published_experts),
    Family::new("recurrent_gemma", &["recurrent_gemma"], recurrent_gemma::spec)
        .note("embeddings are scaled by a bf16 number, and some fields are read that mlx-lm has fixed"),
    Family::new("rwkv7", &["rwkv7"], rwkv7::spec),
    Family::new("seed_oss", &["seed_oss"], near_llama::seed_oss),
    Family::new("smollm3", &["smollm3"], near_llama::smollm3),
    Family::new("solar_open", &["solar_open"], glm4_moe::solar_open)
        .published(glm4_moe::published)
        .note("a scaling of the rotation"),
    Family::new("spark2_5", &["spark2_5"], spark2_5::spec).published(spark2_5::published),
    Family::new("stablelm", &["stablelm"], stablelm::spec).published(stablelm::published),
    Family::new("starcoder2", &["starcoder2"], starcoder2::spec)
        .note("GELU and `sliding_window` as the configuration says"),
    Family::new("step3p5", &["step3p5"], step3p5::spec).published(step3p5::published),
    Family::new("talkie", &["talkie"], talkie::spec).published(talkie::published),
    Family::new("telechat3", &["telechat3"], near_llama::telechat3),
    Family::new("youtu_llm", &["youtu_llm"], youtu_llm::spec),
];

/// Which family runs which `model_type`.
#[derive(Clone, Copy, Debug)]
pub struct ModelTypeRegistry;

impl ModelTypeRegistry {
    /// Every family.
    pub fn families() -> &'static [Family] {
        FAMILIES
    }

    /// Every supported `model_type`.
    pub fn model_types() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().flat_map(|family| family.model_types.iter().copied())
    }

    /// The family of a `model_type`.
    pub fn get(model_type: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|family| family.model_types.contains(&model_type))
    }

    /// The family of a configuration.
    ///
    /// # Errors
    ///
    /// `model_type` is missing, or none that this version knows; the message lists those it does, or says that the model's
    /// own code would be needed, which is never run.
    pub fn find(config: &Config) -> Result<&'static Family> {
        let model_type = config.model_type()?;
        let fields = config.fields();
        let own = config.architectures().into_iter().find_map(|architecture| {
            FAMILIES.iter().find(|family| family.architectures.contains(&(model_type, architecture)))
        });
        own.or_else(|| Self::get(model_type)).ok_or_else(|| {
            fields.custom_code(model_type).unwrap_or_else(|| {
                fields.unsupported("model_type", model_type, &Self::model_types().collect::<Vec<_>>())
            })
        })
    }
}
