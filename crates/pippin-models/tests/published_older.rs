//! Checkpoints of older decoders, and of some that transformers does not have, under the names and in the shapes that they
//! were published in, or that mlx-lm's converter gives them: the same logits.

mod support;

use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{load_from, testing};
use pippin_tensor::{Dtype, KvFormat, Numerics};
use pippin_weights::{Checkpoint, TensorData};
use support::{Golden, Runner, TOLERANCE, agrees_with_mlx, worst};

/// Runs a golden model whose tensors were each replaced by others.
fn agrees_when(name: &str, published: impl Fn(TensorData) -> Vec<TensorData>) {
    let golden = Golden::read(name);
    let tensors = testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap();
    let checkpoint = Checkpoint::from_tensors(tensors.into_iter().flat_map(published).collect());
    let model = load_from(&golden.config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
    agrees_with_mlx(&golden, Runner::new(model, KvFormat::F32));
}

/// A stack as its members, each without the first axis, under the name that `name` gives their numbers.
fn members(tensor: &TensorData, name: impl Fn(usize) -> String) -> Vec<TensorData> {
    let member = |index: usize| {
        let member = tensor.slice_rows(index..index + 1).unwrap();
        member.reshape(&tensor.shape()[1..]).unwrap().renamed(&name(index))
    };
    (0..tensor.shape()[0]).map(member).collect()
}

/// The last two axes exchanged, of one matrix or of each of a stack.
fn turned(tensor: &TensorData) -> TensorData {
    let mut shape = tensor.shape().to_vec();
    let axes = shape.len();
    let (rows, columns) = (shape[axes - 2], shape[axes - 1]);
    shape.swap(axes - 2, axes - 1);
    let values = tensor.to_f32().unwrap();
    let matrices = values.chunks(rows * columns);
    let turned: Vec<f32> = matrices
        .flat_map(|matrix| (0..rows * columns).map(|i| matrix[i % rows * columns + i / rows]))
        .collect();
    TensorData::from_f32(tensor.name(), &shape, &turned).unwrap()
}

#[test]
fn gpt2_has_matrices_the_other_way_round_and_no_prefix() {
    agrees_when("gpt2", |tensor| {
        let name = tensor.name().strip_prefix("model.").unwrap().to_owned();
        let is_matrix = name.contains(".c_") && name.ends_with(".weight");
        vec![if is_matrix { turned(&tensor).renamed(&name) } else { tensor.renamed(&name) }]
    });
}

#[test]
fn gptj_has_another_prefix() {
    agrees_when("gptj", |tensor| match tensor.name().strip_prefix("model.") {
        Some(rest) => vec![tensor.renamed(&format!("transformer.{rest}"))],
        None => vec![tensor],
    });
}

#[test]
fn afm7_has_layers_that_share_keys_in_a_list_of_their_own() {
    agrees_when("afm7", |tensor| {
        let (number, rest) = match tensor.name().strip_prefix("model.layers.") {
            Some(rest) => rest.split_once('.').unwrap(),
            None => return vec![tensor],
        };
        match number.parse::<usize>().unwrap().checked_sub(2) {
            Some(number) => vec![tensor.renamed(&format!("model.kv_reuse_layers.{number}.{rest}"))],
            None => vec![tensor],
        }
    });
}

#[test]
fn baichuan_m1_may_have_a_head_of_any_length() {
    agrees_when("baichuan_m1", |tensor| {
        if tensor.name() != "lm_head.weight" {
            return vec![tensor];
        }
        let values: Vec<f32> = tensor.to_f32().unwrap().into_iter().map(|value| 8.0 * value).collect();
        vec![TensorData::from_f32(tensor.name(), tensor.shape(), &values).unwrap()]
    });
}

#[test]
fn bitnet_is_packed() {
    let golden = Golden::read("bitnet");
    let tensors = testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap();
    let logits = |stored: &dyn Fn(TensorData) -> Vec<TensorData>| {
        let checkpoint = Checkpoint::from_tensors(tensors.iter().cloned().flat_map(stored).collect());
        let model =
            load_from(&golden.config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
        Runner::new(model, KvFormat::F32).prompt(0, &golden.prompt, usize::MAX)
    };
    // -1, 0 or 1, and the factor on them.
    let ternary = |tensor: &TensorData| -> Vec<i8> {
        tensor.to_f32().unwrap().iter().map(|weight| (weight * 20.0).clamp(-1.0, 1.0) as i8).collect()
    };
    const SCALE: f32 = 0.125;
    let dense = logits(&|tensor| match tensor.name().ends_with("_proj.weight") {
        true => {
            let values: Vec<f32> = ternary(&tensor).iter().map(|weight| SCALE * f32::from(*weight)).collect();
            vec![TensorData::from_f32(tensor.name(), tensor.shape(), &values).unwrap()]
        }
        false => vec![tensor],
    });
    let packed = logits(&|tensor| match tensor.name().strip_suffix("_proj.weight") {
        Some(at) => {
            let [rows, columns] = *tensor.shape() else { panic!("a matrix") };
            let weights = ternary(&tensor);
            let quarter = weights.len() / 4;
            let byte = |i| {
                (0..4).fold(0, |byte, part| byte | ((weights[part * quarter + i] + 1) as u8) << (2 * part))
            };
            let (bytes, shape) = ((0..quarter).map(byte).collect(), [rows / 4, columns]);
            vec![
                TensorData::new(tensor.name(), Dtype::U8, &shape, bytes).unwrap(),
                TensorData::from_f32(format!("{at}_proj.weight_scale"), &[1], &[SCALE]).unwrap(),
            ]
        }
        None => vec![tensor],
    });
    assert!(worst(packed.iter().zip(&dense)) < TOLERANCE);
}

#[test]
fn longcat_flash_has_experts_one_by_one() {
    agrees_when("longcat_flash_ngram", |tensor| {
        let name = tensor.name().replace("model.ngram_embeddings.word_embeddings.", "model.embed_tokens.");
        match name.split_once(".switch_mlp.") {
            Some((at, rest)) => members(&tensor, |expert| format!("{at}.experts.{expert}.{rest}")),
            None => vec![tensor.renamed(&name)],
        }
    });
}

#[test]
fn talkie_has_a_head_without_a_module() {
    agrees_when("talkie", |tensor| match tensor.name() {
        "lm_head.weight" => vec![tensor.renamed("lm_head")],
        _ => vec![tensor],
    });
}

#[test]
fn dbrx_has_experts_one_below_the_other() {
    agrees_when("dbrx", |tensor| match tensor.name().split_once(".experts.") {
        Some((at, rest)) => {
            let name = rest.strip_suffix(".weight").unwrap();
            let stack = if name == "w2" { turned(&tensor) } else { tensor.clone() };
            let [experts, rows, columns] = stack.shape() else { panic!("three axes") };
            let flat = stack.reshape(&[experts * rows, *columns]).unwrap();
            vec![flat.renamed(&format!("{at}.experts.mlp.{name}"))]
        }
        None => vec![tensor],
    });
}

#[test]
fn dbrx_is_converted_to_a_module_for_each_expert() {
    agrees_when("dbrx-4bit", |tensor| match tensor.name().split_once(".experts.") {
        Some((at, rest)) => members(&tensor, |expert| format!("{at}.experts.{expert}.{rest}")),
        None => vec![tensor],
    });
}

#[test]
fn phixtral_has_a_network_for_each_expert() {
    for name in ["phixtral", "phixtral-4bit"] {
        agrees_when(name, |tensor| match tensor.name().split_once(".switch_mlp.") {
            Some((at, rest)) => members(&tensor, |expert| format!("{at}.mlp.{expert}.{rest}")),
            None => vec![tensor],
        });
    }
}

/// Nobody draws a token that nothing was trained for.
#[test]
fn phi3small_has_unused_tokens() {
    let golden = Golden::read("phi3small");
    let mut value = golden.config.value().clone();
    value["dummy_token_indices"] = serde_json::json!([3, 50, 4000]);
    let config = pippin_models::Config::new(value).unwrap();
    let mut model = golden.model_on(CpuBackend::new(Numerics::Exact), &config, KvFormat::F32);
    let logits = model.prompt(0, &golden.prompt, usize::MAX);
    let mut all = golden.model(Numerics::Exact, KvFormat::F32);
    for (masked, row) in logits.iter().zip(all.prompt(0, &golden.prompt, usize::MAX)) {
        for (token, (masked, logit)) in masked.iter().zip(&row).enumerate() {
            let expected = if [3, 50].contains(&token) { f32::NEG_INFINITY } else { *logit };
            assert!(*masked == expected, "token {token}: {masked}, {expected}");
        }
    }
}

#[test]
fn kimi_k3_has_queries_keys_and_values_apart_and_experts_one_by_one() {
    agrees_when("kimi_k3", |tensor| {
        let name = tensor.name().strip_prefix("language_model.").unwrap().to_owned();
        for mix in ["self_attention_res", "mlp_res", "output_attn_res"] {
            for part in ["proj", "norm"] {
                if let Some(at) = name.strip_suffix(&format!("{mix}_{part}.weight")) {
                    return vec![tensor.renamed(&format!("{at}{mix}.{part}_weight"))];
                }
            }
        }
        if let Some((at, rest)) = name.split_once(".qkv_") {
            let width = tensor.shape()[0] / 3;
            let third = |(index, letter): (usize, &str)| {
                let part = tensor.slice_rows(index * width..(index + 1) * width).unwrap();
                let (rest, shape) = match rest.strip_prefix("conv.conv") {
                    Some(rest) => (format!("conv1d{rest}"), vec![width, 1, tensor.shape()[1]]),
                    None => (rest.to_owned(), part.shape().to_vec()),
                };
                part.reshape(&shape).unwrap().renamed(&format!("{at}.{letter}_{rest}"))
            };
            return ["q", "k", "v"].into_iter().enumerate().map(third).collect();
        }
        // The first layer's network is dense.
        let name = match name.starts_with("model.layers.0.") {
            true => name,
            false => name.replace(".mlp.", ".block_sparse_moe."),
        };
        for (own, published) in [("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")] {
            if let Some(at) = name.strip_suffix(&format!("switch_mlp.{own}.weight")) {
                return members(&tensor, |expert| format!("{at}experts.{expert}.{published}.weight"));
            }
        }
        match name.strip_suffix("A_log") {
            Some(_) => vec![tensor.reshape(&[1, 1, tensor.len(), 1]).unwrap().renamed(&name)],
            None => vec![tensor.renamed(&name)],
        }
    });
}

#[test]
fn deepseek_v41_has_names_of_its_own_and_experts_one_by_one() {
    agrees_when("deepseek_v41", |tensor| {
        let name = match tensor.name() {
            "lm_head.weight" => "head.weight".to_owned(),
            "model.embed_tokens.weight" => "embed.weight".to_owned(),
            name => name.strip_prefix("model.").unwrap().to_owned(),
        };
        let names = [
            ("indexer.q_b_proj", "indexer.wq_b"),
            ("indexer.k_proj", "indexer.wk"),
            ("compressor.kv_norm", "compressor.norm"),
            ("self_attn.q_a_norm", "self_attn.q_norm"),
            ("e_score_correction_bias", "bias"),
            ("post_attention_layernorm", "ffn_norm"),
            ("input_layernorm", "attn_norm"),
            ("attn_hc.fn.weight", "hc_attn_fn"),
            ("attn_hc.fn.bias", "hc_attn_base"),
            ("attn_hc.scale", "hc_attn_scale"),
            ("ffn_hc.fn.weight", "hc_ffn_fn"),
            ("ffn_hc.fn.bias", "hc_ffn_base"),
            ("ffn_hc.scale", "hc_ffn_scale"),
            ("compressor.gate_proj", "compressor.wgate"),
            ("kv_proj", "wkv"),
            ("q_a_proj", "wq_a"),
            ("q_b_proj", "wq_b"),
            ("o_a_proj", "wo_a"),
            ("o_b_proj", "wo_b"),
            ("self_attn.sinks", "self_attn.attn_sink"),
            ("shared_experts.gate_proj", "shared_experts.w1"),
            ("shared_experts.down_proj", "shared_experts.w2"),
            ("shared_experts.up_proj", "shared_experts.w3"),
            (".self_attn.", ".attn."),
            (".mlp.", ".ffn."),
        ];
        let name = names.iter().fold(name, |name, (own, published)| name.replace(own, published));
        for (own, published) in [("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")] {
            if let Some(at) = name.strip_suffix(&format!("switch_mlp.{own}.weight")) {
                return members(&tensor, |expert| format!("{at}{expert}.{published}.weight"));
            }
        }
        if let [groups, rows, columns] = *tensor.shape() {
            return vec![tensor.reshape(&[groups * rows, columns]).unwrap().renamed(&name)];
        }
        vec![tensor.renamed(&name)]
    });
}

/// Experts one by one, the router's matrix without a module of its own, and convolutions with the taps last.
fn as_bailing_has_them(tensor: TensorData) -> Vec<TensorData> {
    let name = tensor.name().to_owned();
    if let Some((at, rest)) = name.split_once(".switch_mlp.") {
        return members(&tensor, |expert| format!("{at}.experts.{expert}.{rest}"));
    }
    if name.ends_with("_conv1d.weight") {
        let [columns, taps, _] = tensor.shape() else { panic!("three axes") };
        return vec![tensor.reshape(&[*columns, 1, *taps]).unwrap()];
    }
    vec![tensor.renamed(&name.replace(".mlp.gate.gate_proj.", ".mlp.gate."))]
}

#[test]
fn bailing_has_experts_one_by_one() {
    agrees_when("bailing_moe_linear", as_bailing_has_them);
    agrees_when("bailing_hybrid", as_bailing_has_them);
    agrees_when("bailing_moe_v3", as_bailing_has_them);
}

#[test]
fn plamo2_has_norms_without_modules() {
    agrees_when("plamo2", |tensor| {
        let name = tensor.name().replace("mixer.q_norm.", "mixer.q_").replace("mixer.k_norm.", "mixer.k_");
        vec![tensor.renamed(&name)]
    });
}

#[test]
fn iquestloopcoder_has_gates_beside_its_layers() {
    agrees_when("iquestloopcoder", |tensor| match tensor.name().split_once(".self_attn.loop_gate.") {
        Some((layer, parameter)) => {
            let number = layer.rsplit('.').next().unwrap();
            vec![tensor.renamed(&format!("model.gate_projections.{number}.{parameter}"))]
        }
        None => vec![tensor],
    });
}
