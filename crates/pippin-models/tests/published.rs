//! Checkpoints as they are published: what a family makes of their tensors is what mlx-lm's converter makes of them, number by
//! number, and the model that results can be described and run.
//!
//! The files in `published/` come from `tools/goldens/published.py`: names and shapes as transformers saves a model, and shapes and
//! checksums of mlx-lm's parameters. Values follow from the names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use pippin_cpu::CpuBackend;
use pippin_models::{Config, describe_from, load_from, testing};
use pippin_tensor::Numerics;
use pippin_weights::{Checkpoint, TensorData};
use serde_json::Value;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let trial = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        Trial::test(name, move || {
            agrees(&path);
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), files.into_iter().map(trial).collect()).exit();
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
}

/// Sum of `bits[i] * (2 i + 1)`.
fn checksum(tensor: &TensorData) -> u64 {
    let values = tensor.to_f32().unwrap();
    values.iter().enumerate().fold(0u64, |sum, (i, value)| {
        sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(2 * i as u64 + 1))
    })
}

fn agrees(path: &Path) {
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let config = Config::new(file["config"].clone()).unwrap();
    let tensors = file["tensors"].as_object().unwrap().iter().map(|(name, shape)| {
        let shape = sizes(shape);
        let values = testing::stream_of("published", name).take(shape.iter().product());
        let values: Vec<f32> = values.map(testing::uniform).collect();
        TensorData::from_f32(name, &shape, &values).unwrap()
    });
    let published = Checkpoint::from_tensors(tensors.collect());
    let prepared = testing::prepared(&config, &published).unwrap();

    let expected: BTreeMap<&str, &Value> =
        file["expected"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut missing = BTreeSet::new();
    for (name, value) in expected {
        // The matrix that latent attention absorbs is divided where it is read, of which a golden test makes sure.
        if name.ends_with(".embed_q.weight") || name.ends_with(".unembed_out.weight") {
            continue;
        }
        let Some(tensor) = prepared.get(name) else {
            missing.insert(name);
            continue;
        };
        // Where an axis of one stands makes no difference.
        let shape: Vec<usize> = sizes(&value[0]).into_iter().filter(|size| *size != 1).collect();
        let found: Vec<usize> = tensor.shape().iter().copied().filter(|size| *size != 1).collect();
        assert_eq!(found, shape, "{name}");
        assert_eq!(format!("{:016x}", checksum(tensor)), value[1].as_str().unwrap(), "{name}");
    }
    // What no part asks for may be absent: the model tells below whether one does.
    println!("{}: {} of mlx-lm's parameters have no counterpart {missing:?}", path.display(), missing.len());
    describe_from(&config, &published).unwrap();
    load_from(&config, &published, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
}
