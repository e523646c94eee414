//! Trained models in GGUF files, where `tools/gguf/real.py` has put them: the tokens that other implementations choose.

use std::path::PathBuf;
use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, LanguageModel, Output, SlotEdit, describe, load};
use pippin_tensor::{Batch, Input, KvFormat, LogitRows, Numerics, QuantSpec, SequenceRows, Want};
use serde_json::Value;

/// A file of a trained model, if it is there.
fn file(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/real").join(name);
    if !path.exists() {
        println!("not tested: {name} is not in target/real, where tools/gguf/real.py puts it");
        return None;
    }
    Some(path)
}

struct Model(Box<dyn LanguageModel>);

impl Model {
    fn load(path: &std::path::Path, numerics: Numerics) -> Self {
        let mut model = load(path, Arc::new(CpuBackend::new(numerics))).unwrap();
        let pages = vec![64; model.info().cache.groups.len()];
        model.allocate(&CachePlan { page_size: 16, format: KvFormat::F32, pages, slots: 1 }).unwrap();
        Self(model)
    }

    /// The logits after some tokens, of which the first `start` have been given before.
    fn logits(&mut self, tokens: &[u32], start: usize) -> Vec<f32> {
        let mut batch = Batch::new(self.0.limits());
        if start == 0 {
            self.0.edit(vec![SlotEdit::Reset { slot: 0 }]).unwrap();
        }
        let pages: Vec<u32> = (0..64).collect();
        let tables: Vec<&[u32]> = self.0.info().cache.groups.iter().map(|_| pages.as_slice()).collect();
        let want = Want::Logits(LogitRows::Last);
        batch.push(SequenceRows::text(0, Input::Tokens(&tokens[start..]), start, &tables, want)).unwrap();
        let step = self.0.submit(batch).unwrap();
        match self.0.finish(step.id).unwrap().remove(0) {
            Output::Logits(logits) => logits.row(0).to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn greedy(&mut self, prompt: &[u32], count: usize) -> Vec<u32> {
        let (mut tokens, mut start) = (prompt.to_vec(), 0);
        for _ in 0..count {
            let logits = self.logits(&tokens, start);
            start = tokens.len();
            tokens.push(best(&logits));
        }
        tokens.split_off(prompt.len())
    }
}

fn best(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

#[test]
fn smollm2_chooses_the_tokens_that_others_do() {
    let Some(path) = file("smollm2-135m-instruct-q4_1.gguf") else { return };
    let info = describe(&path).unwrap();
    assert_eq!(
        (info.parameters, info.vocab_size, info.quantization),
        (134_515_008, 49_152, Some(QuantSpec::affine(4, 32)))
    );
    assert!(info.copied_bytes > 90_000_000 && info.copied_bytes < info.weight_bytes);
    let prompt = [6403, 1980, 253, 655];
    let expected =
        [28, 260, 2240, 282, 23324, 27108, 436, 253, 15114, 39228, 28, 351, 25854, 41658, 284, 14055];
    let mut model = Model::load(&path, Numerics::Exact);
    assert_eq!(model.greedy(&prompt, 16), expected);
    assert_eq!(Model::load(&path, Numerics::Fast).greedy(&prompt, 3), expected[..3]);

    // The same weights, repacked by another program beforehand.
    let Some(folder) = file("smollm2-135m-4bit") else { return };
    let mut converted = Model::load(&folder, Numerics::Exact);
    assert_eq!(converted.greedy(&prompt, 16), expected);
    assert!(converted.logits(&prompt, 0) == model.logits(&prompt, 0), "not the same bits");
}

#[test]
fn gemma_3_chooses_the_tokens_that_others_do() {
    let Some(path) = file("gemma-3-270m-q4_k_m.gguf") else { return };
    let mut model = Model::load(&path, Numerics::Exact);
    assert_eq!(model.0.info().parameters, 268_098_176);
    let capital = model.greedy(&[2, 818, 5279, 529, 7001, 563], 14);
    assert_eq!(capital, [506, 5279, 529, 506, 2891, 529, 7001, 236_761, 1030, 563, 506, 7488, 3207, 528]);
    let once = model.greedy(&[2, 14_946, 3324, 496, 990], 14);
    assert_eq!(once, [236_764, 993, 691, 496, 2268, 3953, 7489, 60_708, 236_761, 2625, 691, 496, 1401, 6538]);
}

/// Beyond the sliding window, beside llama.cpp, which rounds activations to eight bits.
#[test]
fn gemma_3_agrees_with_llama_cpp_on_a_long_prompt() {
    let Some(path) = file("gemma-3-270m-q4_k_m.gguf") else { return };
    let reference: Value = serde_json::from_str(include_str!("real_gguf.json")).unwrap();
    let ids = |field: &str| -> Vec<u32> {
        reference[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let prompt = ids("prompt");
    assert_eq!(prompt.len(), 700);
    let logits = Model::load(&path, Numerics::Exact).logits(&prompt, 0);
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    for pair in reference["top"].as_array().unwrap() {
        let (id, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
        let found = f64::from(logits[id]) - largest - total.ln();
        println!("token {id}: {found:.3}, llama.cpp {expected:.3}");
        assert!((found - expected).abs() < 0.25, "token {id}: {found}, llama.cpp has {expected}");
    }
    assert_eq!(best(&logits), ids("greedy")[0]);
}
