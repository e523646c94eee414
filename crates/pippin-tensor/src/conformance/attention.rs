//! The KV cache, attention over it, and what is fused with it.

use super::{
    reference::{Array, Random, assert_close},
    rows::{reference_angles, reference_rope},
};
use crate::{
    AttentionSpec, Backend, Batch, Dtype, HeadNorms, KvCacheSpec, KvFormat, LogitRows, RopeFrequencies,
    RopeSpec, SequenceRows, TensorData, TensorError,
};

/// A sequence of the reference: all its queries, keys and values.
struct Sequence {
    queries: Array,
    keys: Array,
    values: Array,
    pages: Vec<u32>,
}

struct Case {
    spec: AttentionSpec,
    page_size: usize,
    format: KvFormat,
    lengths: Vec<usize>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (heads, kv_heads, head_dim) in [(1, 1, 4), (4, 2, 20), (4, 1, 64), (6, 6, 80), (16, 2, 128)] {
        for (window, softcap) in [(None, None), (Some(5), None), (Some(32), Some(2.0)), (None, Some(0.5))] {
            for format in KvFormat::ALL {
                let spec = AttentionSpec {
                    heads,
                    kv_heads,
                    head_dim,
                    scale: (head_dim as f32).powf(-0.5),
                    window,
                    softcap,
                };
                let page_size = if head_dim == 64 { 7 } else { 32 };
                cases.push(Case { spec, page_size, format, lengths: vec![1, 70, 32, 33] });
            }
        }
    }
    cases
}

/// Contexts longer than what a backend is likely to compute in one piece, and lengths just beyond powers of two, where
/// its pieces are likely to end; windows that are shorter and longer than a piece and begin in the middle of one. In
/// chunks of one token, a context has every length up to the last.
fn long_cases() -> Vec<Case> {
    let options = [
        (None, None, 32, KvFormat::F16),
        (None, Some(2.0), 32, KvFormat::Int8),
        (Some(300), None, 7, KvFormat::Int8),
        (Some(700), Some(2.0), 32, KvFormat::F32),
        (Some(512), None, 16, KvFormat::Bf16),
    ];
    options
        .into_iter()
        .map(|(window, softcap, page_size, format)| {
            let spec = AttentionSpec { heads: 2, kv_heads: 1, head_dim: 16, scale: 0.25, window, softcap };
            Case { spec, page_size, format, lengths: vec![513, 1030] }
        })
        .collect()
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, pages of {}, {} cache", self.spec, self.page_size, self.format)
    }
}

/// Rounds rows of heads of `head_dim` to what the cache can hold.
fn rounded(array: Array, head_dim: usize, format: KvFormat) -> Array {
    let dtype = match format {
        KvFormat::F32 => Dtype::F32,
        KvFormat::F16 => Dtype::F16,
        KvFormat::Bf16 => Dtype::Bf16,
        KvFormat::Int8 => {
            return array.map_rows(|_, row| {
                row.chunks(head_dim)
                    .flat_map(|head| {
                        let largest = head.iter().fold(0f64, |largest, v| largest.max(v.abs()));
                        let scale = f64::from((largest / 127.0) as f32);
                        // Such a row is stored without further loss: its largest is 127 scales.
                        head.iter().map(move |v| f64::from((scale * (v / scale).round()) as f32))
                    })
                    .collect()
            });
        }
    };
    let values: Vec<f32> = array.values.iter().map(|v| *v as f32).collect();
    let data = TensorData::from_f32_as("kv", dtype, &[array.rows, array.columns], &values).unwrap();
    Array::new(array.rows, array.columns, &data.to_f32().unwrap())
}

/// Random sequences whose pages are scattered over the cache.
fn sequences(random: &mut Random, case: &Case) -> (Vec<Sequence>, KvCacheSpec) {
    let total: usize = case.lengths.iter().map(|length| length.div_ceil(case.page_size)).sum();
    let mut free: Vec<u32> = (0..total as u32 + 3).collect();
    let sequences = case
        .lengths
        .iter()
        .map(|length| {
            let AttentionSpec { heads, kv_heads, head_dim, .. } = case.spec;
            let mut array = |heads: usize| Array::random(random, *length, heads * head_dim);
            let mut queries = array(heads);
            // Sharp enough that the softmax is not nearly uniform.
            queries.values.iter_mut().for_each(|v| *v *= 4.0);
            let keys = rounded(array(kv_heads), head_dim, case.format);
            let values = rounded(array(kv_heads), head_dim, case.format);
            let pages = (0..length.div_ceil(case.page_size))
                .map(|_| free.swap_remove(random.below(free.len())))
                .collect();
            Sequence { queries, keys, values, pages }
        })
        .collect();
    let spec = KvCacheSpec {
        pages: total + 3,
        page_size: case.page_size,
        kv_heads: case.spec.kv_heads,
        head_dim: case.spec.head_dim,
        format: case.format,
    };
    (sequences, spec)
}

fn reference(sequence: &Sequence, spec: &AttentionSpec) -> Array {
    let group = spec.heads / spec.kv_heads;
    sequence.queries.map_rows(|position, queries| {
        let first = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
        (0..spec.heads)
            .flat_map(|head| {
                let query = &queries[head * spec.head_dim..][..spec.head_dim];
                fn part(array: &Array, position: usize, kv_head: usize, head_dim: usize) -> &[f64] {
                    &array.row(position)[kv_head * head_dim..][..head_dim]
                }
                let keys = |position| part(&sequence.keys, position, head / group, spec.head_dim);
                let values = |position| part(&sequence.values, position, head / group, spec.head_dim);
                let mut scores: Vec<f64> = (first..=position)
                    .map(|p| {
                        let dot: f64 = keys(p).iter().zip(query).map(|(k, q)| k * q).sum();
                        let score = dot * f64::from(spec.scale);
                        spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                scores.iter_mut().for_each(|score| *score = (*score - max).exp());
                let sum: f64 = scores.iter().sum();
                let mut out = vec![0.0; spec.head_dim];
                for (score, p) in scores.iter().zip(first..) {
                    for (out, value) in out.iter_mut().zip(values(p)) {
                        *out += score / sum * value;
                    }
                }
                out
            })
            .collect()
    })
}

/// Runs the sequences through a fresh cache, `chunk` rows of each per step, all sequences together or one after the
/// other; returns each sequence's output rows.
fn run<B: Backend>(
    backend: &B,
    sequences: &[Sequence],
    cache_spec: &KvCacheSpec,
    spec: &AttentionSpec,
    chunk: usize,
    together: bool,
) -> Vec<Vec<f32>> {
    let mut cache = backend.kv_cache(cache_spec).unwrap();
    let mut outputs = vec![Vec::new(); sequences.len()];
    let longest = sequences.iter().map(|s| s.queries.rows).max().unwrap_or(0);
    let groups: Vec<Vec<usize>> = if together {
        vec![(0..sequences.len()).collect()]
    } else {
        (0..sequences.len()).map(|i| vec![i]).collect()
    };
    for group in groups {
        for start in (0..longest).step_by(chunk) {
            let mut batch = Batch::new(cache_spec.page_size);
            let mut parts = Vec::new();
            for &i in &group {
                let range = start..(start + chunk).min(sequences[i].queries.rows);
                if range.start < range.end {
                    let rows = SequenceRows {
                        tokens: &vec![0; range.len()],
                        start,
                        pages: &sequences[i].pages,
                        logits: LogitRows::None,
                    };
                    batch.push(rows).unwrap();
                    parts.push((i, range));
                }
            }
            if parts.is_empty() {
                continue;
            }
            let gather = |of: &dyn Fn(&Sequence) -> &Array| {
                let rows: Vec<Array> =
                    parts.iter().map(|(i, range)| of(&sequences[*i]).rows_of(range.clone())).collect();
                let values = rows.iter().flat_map(|array| array.values.clone()).collect();
                Array { rows: batch.rows(), columns: rows[0].columns, values }.upload(backend)
            };
            let step = batch.upload(backend).unwrap();
            backend
                .kv_write(&mut cache, &gather(&|s| &s.keys), &gather(&|s| &s.values), &step.slots)
                .unwrap();
            let out = backend.attention(&gather(&|s| &s.queries), &cache, &step, spec).unwrap();
            let out = backend.read(&out).unwrap();
            let mut row = 0;
            for (i, range) in parts {
                let columns = spec.heads * spec.head_dim;
                outputs[i].extend_from_slice(&out[row * columns..(row + range.len()) * columns]);
                row += range.len();
            }
        }
    }
    outputs
}

/// [`Backend::kv_write`] and [`Backend::attention`]: grouped queries, windows, soft caps, scattered pages, ragged
/// batches, long contexts, every format of the cache.
pub fn attention<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(20);
    for case in cases().into_iter().chain(long_cases()) {
        let (sequences, cache_spec) = sequences(random, &case);
        let outputs = run(backend, &sequences, &cache_spec, &case.spec, usize::MAX / 2, true);
        for (i, (sequence, output)) in sequences.iter().zip(&outputs).enumerate() {
            let actual = Array::new(sequence.queries.rows, sequence.queries.columns, output);
            let expected = reference(sequence, &case.spec);
            assert_close(backend, &actual.upload(backend), &expected, tolerance, &(i, &case));
        }
    }
    fused(backend, tolerance);
}

/// Outputs are the same bits whatever the chunks and the batch neighbours.
pub fn attention_is_independent_of_batching<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(21);
    let short = cases().into_iter().zip(std::iter::repeat([(1, true), (9, true), (40, false)]));
    let long = long_cases().into_iter().zip(std::iter::repeat([(1, true), (60, false), (600, true)]));
    for (case, chunks) in short.chain(long) {
        let (sequences, cache_spec) = sequences(random, &case);
        let whole = run(backend, &sequences, &cache_spec, &case.spec, usize::MAX / 2, true);
        for (chunk, together) in [(usize::MAX / 2, false)].into_iter().chain(chunks) {
            let other = run(backend, &sequences, &cache_spec, &case.spec, chunk, together);
            assert!(whole == other, "{case:?}: chunks of {chunk}, together: {together}");
        }
    }
}

/// What a cache of eight bits loses: half a step, a 254th of the largest magnitude of a token's head, and no more.
pub fn eight_bit_kv<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(24);
    let (kv_heads, head_dim) = (3, 40);
    let spec = AttentionSpec { heads: 6, kv_heads, head_dim, scale: 0.15, window: None, softcap: None };
    let cache_spec = KvCacheSpec { pages: 8, page_size: 16, kv_heads, head_dim, format: KvFormat::Int8 };
    let sequence = |random: &mut Random, rows: usize, factor: f64| {
        let mut array = |heads: usize| Array::random(random, rows, heads * head_dim);
        let (queries, keys, mut values) = (array(6), array(kv_heads), array(kv_heads));
        values.values.iter_mut().for_each(|v| *v = f64::from((*v * factor) as f32));
        Sequence { queries, keys, values, pages: vec![5, 0, 7, 2] }
    };
    // With one key, the output is that key's value. Magnitudes from almost the smallest to almost the largest, and zero.
    for factor in [0.0, 1e-35, 1e-3, 1.0, 1e6, 1e36] {
        let sequence = sequence(random, 1, factor);
        let output = run(backend, std::slice::from_ref(&sequence), &cache_spec, &spec, 1, true);
        for (head, out) in output[0].chunks(head_dim).enumerate() {
            let expected = &sequence.values.values[head / 2 * head_dim..][..head_dim];
            let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
            for (expected, actual) in expected.iter().zip(out) {
                let deviation = (expected - f64::from(*actual)).abs();
                let allowed = largest * (0.5 / 127.0 + tolerance.min(1e-4));
                assert!(deviation <= allowed, "{expected} became {actual}, largest {largest}");
            }
        }
    }
    // Each value is off by at most 0.4 % of the largest, each score by 0.15 * 40 * 0.4 % for queries of about one.
    let sequence = sequence(random, 60, 1.0);
    let output = run(backend, std::slice::from_ref(&sequence), &cache_spec, &spec, 60, true);
    let actual = Array::new(60, 6 * head_dim, &output[0]);
    assert_close(backend, &actual.upload(backend), &reference(&sequence, &spec), 3e-2, &"unrounded");
}

/// [`Backend::qkv_rope`] against the reference of its definition: what it returns, and through attention what it wrote.
fn fused<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(22);
    for (heads, kv_heads, head_dim, dims) in [(2, 1, 32, 32), (8, 2, 64, 32), (16, 8, 128, 128)] {
        let frequencies = RopeFrequencies::Fixed(
            (0..dims / 2).map(|i| 100f32.powf(-2.0 * i as f32 / dims as f32)).collect(),
        );
        let rope = RopeSpec { dims, traditional: false, frequencies, scale: 1.0 };
        let scale = (head_dim as f32).powf(-0.5);
        let spec = AttentionSpec { heads, kv_heads, head_dim, scale, window: None, softcap: None };
        let cache_spec = KvCacheSpec { pages: 2, page_size: 32, kv_heads, head_dim, format: KvFormat::F32 };
        for rows in [1, 5, 40] {
            for with_norms in [false, true] {
                let mut array = |heads: usize| Array::random(random, rows, heads * head_dim);
                let (queries, keys, values) = (array(heads), array(kv_heads), array(kv_heads));
                let norms = [(); 2].map(|()| Array::random(random, 1, head_dim));
                let uploaded = norms.each_ref().map(|norm| norm.upload(backend));
                let positions: Vec<u32> = (0..rows as u32).collect();
                let angles = reference_angles(&positions, &rope);
                let normed = |x: &Array, i: usize| {
                    if with_norms { x.rms_norm(&norms[i], 1e-6) } else { x.clone() }
                };
                let rotated = |x: &Array, i: usize| reference_rope(&normed(x, i), &angles, head_dim, &rope);

                let mut batch = Batch::new(32);
                let tokens = vec![0; rows];
                let sequence =
                    SequenceRows { tokens: &tokens, start: 0, pages: &[1, 0], logits: LogitRows::None };
                batch.push(sequence).unwrap();
                let step = batch.upload(backend).unwrap();
                let mut cache = backend.kv_cache(&cache_spec).unwrap();
                let head_norms =
                    with_norms.then(|| HeadNorms { query: &uploaded[0], key: &uploaded[1], eps: 1e-6 });
                let inputs = [&queries, &keys, &values].map(|array| array.upload(backend));
                let actual = backend
                    .qkv_rope(
                        inputs.each_ref(),
                        head_norms,
                        &angles.upload(backend),
                        &rope,
                        &mut cache,
                        &step.slots,
                        head_dim,
                    )
                    .unwrap();
                let case = (heads, kv_heads, head_dim, rows, with_norms);
                assert_close(backend, &actual, &rotated(&queries, 0), 2.0 * tolerance, &("qkv_rope", case));

                let sequence = Sequence {
                    queries: rotated(&queries, 0),
                    keys: rotated(&keys, 1),
                    values,
                    pages: vec![],
                };
                let out = backend.attention(&sequence.queries.upload(backend), &cache, &step, &spec).unwrap();
                assert_close(backend, &out, &reference(&sequence, &spec), 4.0 * tolerance, &("cache", case));
            }
        }
    }
}

/// Slots and pages outside the cache, and shapes that do not fit it, are errors.
pub fn kv_bounds<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(23);
    let cache_spec = KvCacheSpec { pages: 2, page_size: 4, kv_heads: 2, head_dim: 8, format: KvFormat::F32 };
    let mut cache = backend.kv_cache(&cache_spec).unwrap();
    let rows = Array::random(random, 1, 16).upload(backend);
    let outside = backend.indices(&[8]).unwrap();
    let error = backend.kv_write(&mut cache, &rows, &rows, &outside).unwrap_err();
    assert!(matches!(error, TensorError::Index { index: 8, limit: 8, .. }), "{error}");
    let narrow = Array::random(random, 1, 8).upload(backend);
    let slot = backend.indices(&[0]).unwrap();
    assert!(backend.kv_write(&mut cache, &narrow, &rows, &slot).is_err());
    assert!(backend.kv_write(&mut cache, &rows, &narrow, &slot).is_err());

    let spec = AttentionSpec { heads: 2, kv_heads: 2, head_dim: 8, scale: 1.0, window: None, softcap: None };
    let mut batch = Batch::new(4);
    batch.push(SequenceRows { tokens: &[0], start: 0, pages: &[2], logits: LogitRows::None }).unwrap();
    let step = batch.upload(backend).unwrap();
    assert!(matches!(backend.attention(&rows, &cache, &step, &spec), Err(TensorError::Index { .. })));
    assert!(backend.attention(&narrow, &cache, &step, &spec).is_err());
    let other = AttentionSpec { kv_heads: 1, ..spec };
    assert!(backend.attention(&rows, &cache, &step, &other).is_err());

    let pages = usize::MAX / 4;
    assert!(backend.kv_cache(&KvCacheSpec { pages, ..cache_spec }).is_err());
}
