//! The conformance suite, on every instruction set this machine has.

use std::time::Duration;

use pippin_cpu::{CpuBackend, InstructionSet};
use pippin_tensor::testing::Late;
use pippin_tensor::{
    AttentionSpec, Backend, Batch, Dtype, Input, KvCacheSpec, KvFormat, MatrixData, Numerics, QuantSpec,
    QuantizedData, Reach, SequenceRows, StepLimits, TensorData, ValueStore, Want, conformance,
    conformance_suite,
};

fn exact(set: InstructionSet) -> Option<CpuBackend> {
    CpuBackend::with(Numerics::Exact, set, 2)
}

fn fast(set: InstructionSet) -> Option<CpuBackend> {
    CpuBackend::with(Numerics::Fast, set, 2)
}

conformance_suite!(portable, exact(InstructionSet::Portable), 1e-5);
conformance_suite!(avx2, exact(InstructionSet::Avx2), 1e-5);
conformance_suite!(avx512, exact(InstructionSet::Avx512), 1e-5);
conformance_suite!(neon, exact(InstructionSet::Neon), 1e-5);
conformance_suite!(one_thread, CpuBackend::with(Numerics::Exact, InstructionSet::available()[0], 1), 1e-5);

// Activations of eight bits deviate by up to half a step of 1/127 of their group's largest, which a single
// output may feel in full.
conformance_suite!(portable_fast, fast(InstructionSet::Portable), 2e-2);
conformance_suite!(avx2_fast, fast(InstructionSet::Avx2), 2e-2);
conformance_suite!(avx_vnni_fast, fast(InstructionSet::AvxVnni), 2e-2);
conformance_suite!(avx512_fast, fast(InstructionSet::Avx512), 2e-2);
conformance_suite!(avx512_vnni_fast, fast(InstructionSet::Avx512Vnni), 2e-2);
conformance_suite!(neon_fast, fast(InstructionSet::Neon), 2e-2);
conformance_suite!(neon_dotprod_fast, fast(InstructionSet::NeonDotprod), 2e-2);
conformance_suite!(neon_i8mm_fast, fast(InstructionSet::NeonI8mm), 2e-2);

// The fused operations by their definitions, and tokens that are drawn on the device.
conformance_suite!(
    late,
    exact(InstructionSet::available()[0]).map(|cpu| Late::new(cpu, Duration::ZERO)),
    1e-5
);

/// The suite passes over what a backend lacks, and the CPU lacks nothing.
#[test]
fn nothing_is_unsupported() {
    for set in InstructionSet::available() {
        conformance::nothing_is_unsupported(&exact(set).unwrap());
        conformance::nothing_is_unsupported(&fast(set).unwrap());
    }
}

/// Activations that eight bits hold exactly lose nothing: the products are those of the exact path up to rounding.
/// Weights and activations are at their extremes, where sums of products would saturate first.
#[test]
fn integer_products_are_exact() {
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            for extreme in [false, true] {
                let (rows, columns) = (37, 384);
                let words: Vec<u32> = (0..rows * columns * bits as usize / 32)
                    .map(|_| if extreme { u32::MAX } else { random() << 16 ^ random() })
                    .collect();
                let shape = [rows, columns / group_size];
                let values: Vec<f32> =
                    (0..shape[0] * shape[1]).map(|_| (random() % 64) as f32 / 32.0).collect();
                let matrix = QuantizedData::new(
                    QuantSpec::affine(bits, group_size),
                    rows,
                    columns,
                    TensorData::from_u32("weight", &[rows, words.len() / rows], &words).unwrap(),
                    TensorData::from_f32_as("scales", Dtype::F16, &shape, &values).unwrap(),
                    Some(TensorData::from_f32_as("biases", Dtype::F16, &shape, &values).unwrap()),
                )
                .unwrap();
                let weights = matrix.dequantize().unwrap();
                for x_rows in [1, 2, 3, 4, 5, 17] {
                    let x: Vec<f32> = (0..x_rows * columns)
                        .map(|i| {
                            let step = 1.0 / (1 << (i / group_size % 4)) as f32;
                            let value = if extreme || i % group_size == 0 { 127 } else { random() % 255 };
                            (value as f32 - if value > 127 { 255.0 } else { 0.0 }) * step
                        })
                        .collect();
                    for set in InstructionSet::available() {
                        let backend = fast(set).unwrap();
                        let uploaded = backend.matrix(MatrixData::Quantized(matrix.clone())).unwrap();
                        let x_tensor = TensorData::from_f32("x", &[x_rows, columns], &x).unwrap();
                        let x_tensor = backend.tensor(&x_tensor).unwrap();
                        let y = backend.read(&backend.matmul(&x_tensor, &uploaded).unwrap()).unwrap();
                        for (m, x) in x.chunks(columns).enumerate() {
                            for (o, w) in weights.chunks(columns).enumerate() {
                                let terms = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                                let size: f64 = terms.clone().map(f64::abs).sum();
                                let (expected, actual) = (terms.sum::<f64>(), f64::from(y[m * rows + o]));
                                assert!(
                                    (expected - actual).abs() <= 1e-6 * size,
                                    "{set:?}, {bits} bits, groups of {group_size}, row {m} of {x_rows}, \
                                     output {o}: {actual} instead of {expected}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A NaN or an infinity among the activations reaches the output: quantization does not hide it.
#[test]
fn non_finite_activations_are_not_hidden() {
    let words = [0x7777_7777u32; 8];
    let one = |name| TensorData::from_f32(name, &[1, 1], &[1.0]).unwrap();
    let weight = TensorData::from_u32("weight", &[1, 8], &words).unwrap();
    let spec = QuantSpec::affine(4, 64);
    let matrix = QuantizedData::new(spec, 1, 64, weight, one("scales"), Some(one("biases"))).unwrap();
    for set in InstructionSet::available() {
        let backend = fast(set).unwrap();
        let uploaded = backend.matrix(MatrixData::Quantized(matrix.clone())).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 64];
            x[17] = bad;
            let x = backend.tensor(&TensorData::from_f32("x", &[1, 64], &x).unwrap()).unwrap();
            let y = backend.read(&backend.matmul(&x, &uploaded).unwrap()).unwrap();
            assert!(!y[0].is_finite(), "{set:?}: {bad} became {}", y[0]);
        }
    }
}

/// One head's long sequences, divided among many threads or computed by one: the same bits.
#[test]
fn attention_is_independent_of_the_threads() {
    let (dim, pages, page_size) = (64, 70, 32);
    let random = |rows: usize, columns: usize, factor: f32| {
        let values: Vec<f32> =
            (0..rows * columns).map(|i| factor * (((i * i + 7 * i) % 8191) as f32 / 4096.0 - 1.0)).collect();
        TensorData::from_f32("random", &[rows, columns], &values).unwrap()
    };
    let order: Vec<u32> = (0..pages as u32).map(|page| page * 11 % pages as u32).collect();
    let run = |threads: usize, cache: KvCacheSpec, spec: AttentionSpec, context: usize, rows: usize| {
        let backend = CpuBackend::with(Numerics::Exact, InstructionSet::available()[0], threads).unwrap();
        let mut kept = backend.kv_cache(&cache).unwrap();
        let kv = backend.tensor(&random(page_size * pages, dim, 1.0)).unwrap();
        let places: Vec<u32> = (0..(page_size * pages) as u32).collect();
        let own = matches!(cache.values, ValueStore::Own(_)).then_some(&kv);
        backend.kv_write(&mut kept, &kv, own, &backend.indices(&places).unwrap()).unwrap();
        let limits = StepLimits { vocab: 1, slots: 1, page_size, pages: vec![pages], axes: 1 };
        let mut batch = Batch::new(&limits);
        let tokens = vec![0; rows];
        let (input, pages) = (Input::Tokens(&tokens), [&order[..]]);
        batch.push(SequenceRows::text(0, input, context - rows, &pages, Want::Nothing)).unwrap();
        let step = backend.upload(&batch).unwrap();
        let queries = backend.tensor(&random(rows, spec.heads * dim, 3.0)).unwrap();
        let sinks = backend.tensor(&random(1, spec.heads, 2.0)).unwrap();
        backend.read(&backend.attention(&queries, &kept, &step, 0, &spec, Some(&sinks)).unwrap()).unwrap()
    };
    for format in KvFormat::ALL {
        for (reach, values) in [
            (Reach::All, ValueStore::Own(dim)),
            (Reach::Window(700), ValueStore::Own(dim)),
            (Reach::Chunk(1500), ValueStore::InKeys(40)),
        ] {
            for (context, rows, heads) in [(2240, 1, 1), (2049, 1, 4), (2240, 20, 4), (513, 3, 20)] {
                let (value_dim, scale, softcap) = (values.dim(), 0.2, None);
                let spec =
                    AttentionSpec { heads, kv_heads: 1, key_dim: dim, value_dim, scale, reach, softcap };
                let cache = KvCacheSpec { pages, page_size, kv_heads: 1, key_dim: dim, values, format };
                let outputs = [1, 2, 3, 7].map(|threads| run(threads, cache, spec, context, rows));
                let bits = |output: &[f32]| output.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
                let case = (format, reach, context, rows, heads);
                assert!(outputs[0].iter().all(|v| v.is_finite()), "{case:?}");
                assert!(outputs.iter().all(|output| bits(output) == bits(&outputs[0])), "{case:?}");
            }
        }
    }
}

/// The peak that `pippin bench` compares with is of work that was done: a loop that the compiler removed, or operations that
/// are counted more than once, would give more than any processor can.
#[test]
fn peak_rates_are_possible() {
    // 16 lanes, 4 units, 2 threads, 8 GHz; a byte product counts four bytes of a lane.
    let most = 16.0 * 4.0 * 2.0 * 8e9;
    for set in InstructionSet::available() {
        let peak = fast(set).unwrap().peak_rates();
        for (rate, most) in [(peak.floats, 2.0 * most), (peak.bytes, 8.0 * most)] {
            assert!(rate > 0.0 && rate < most, "{set:?}: {peak:?}");
        }
    }
}
