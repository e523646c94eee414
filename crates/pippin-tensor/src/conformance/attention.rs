//! Attention over the KV cache, and without one.

use std::ops::Range;

use super::{
    array::{Array, Random},
    check::{Check, assert_refused, assert_same_bits},
    paged::{Among, Case, Layer, attended},
};
use crate::{AttentionSpec, Backend, KvFormat, Reach, ValueStore};

/// What a layer's scores may have beyond products of queries and keys.
#[derive(Clone, Copy)]
struct Options {
    reach: Reach,
    softcap: Option<f32>,
    sinks: bool,
    /// Whether some tokens see each other.
    blocks: bool,
}

const PLAIN: Options = Options { reach: Reach::All, softcap: None, sinks: false, blocks: false };

/// Heads, key and value heads, dimensions of keys and of values.
type Geometry = (usize, usize, usize, ValueStore);

fn layer(random: &mut Random, geometry: Geometry, options: Options, format: KvFormat) -> Layer {
    let (heads, kv_heads, key_dim, store) = geometry;
    let Options { reach, softcap, .. } = options;
    let scale = (key_dim as f32).powf(-0.5);
    let spec = AttentionSpec { heads, kv_heads, key_dim, value_dim: store.dim(), scale, reach, softcap };
    let sinks = options.sinks.then(|| Array::random(random, 1, heads).operand(|v| 2.0 * v));
    Layer { spec, store, format, sinks }
}

/// Every geometry with every option; with every format where keys and values are alike, with one of them elsewhere.
fn cases(random: &mut Random) -> Vec<Case> {
    use ValueStore::{InKeys, Own};
    let geometries = [
        (1, 1, 4, Own(4)),
        (4, 2, 20, Own(20)),
        (4, 1, 64, Own(64)),
        (6, 6, 80, Own(80)),
        (16, 2, 128, Own(128)),
    ];
    let others = [(4, 2, 24, Own(10)), (3, 3, 8, Own(40)), (8, 1, 72, InKeys(64)), (6, 2, 20, InKeys(20))];
    let classic = [
        PLAIN,
        Options { reach: Reach::Window(5), ..PLAIN },
        Options { reach: Reach::Window(32), softcap: Some(2.0), ..PLAIN },
        Options { softcap: Some(0.5), ..PLAIN },
    ];
    let newer = [
        Options { reach: Reach::Chunk(16), ..PLAIN },
        Options { reach: Reach::Chunk(33), softcap: Some(2.0), ..PLAIN },
        Options { sinks: true, ..PLAIN },
        Options { sinks: true, reach: Reach::Window(9), ..PLAIN },
        Options { sinks: true, reach: Reach::Window(1), ..PLAIN },
        Options { blocks: true, ..PLAIN },
        Options { blocks: true, reach: Reach::Window(8), ..PLAIN },
        Options { blocks: true, reach: Reach::Chunk(16), sinks: true, ..PLAIN },
    ];
    let mut cases = Vec::new();
    let mut add = |geometry: Geometry, options: Options, format: KvFormat| {
        cases.push(Case {
            layers: vec![layer(random, geometry, options, format)],
            page_size: if geometry.2 == 64 || geometry.2 == 24 { 7 } else { 32 },
            lengths: vec![1, 70, 32, 33],
            // At the start, in the middle, in the last row of a page, and cut short by the end of a sequence.
            blocks: if options.blocks { vec![0..3, 13..29, 31..34, 60..90] } else { vec![] },
        });
    };
    for geometry in geometries {
        for options in classic {
            KvFormat::ALL.iter().for_each(|format| add(geometry, options, *format));
        }
    }
    let rest = geometries.iter().flat_map(|geometry| newer.map(|options| (*geometry, options)));
    let rest = rest.chain(others.iter().flat_map(|geometry| classic.map(|options| (*geometry, options))));
    let rest = rest.chain(others.iter().flat_map(|geometry| newer.map(|options| (*geometry, options))));
    // Formats take turns, so that an option meets another one with each geometry.
    for (i, (geometry, options)) in rest.enumerate() {
        add(geometry, options, KvFormat::ALL[(i + i / 4) % 4]);
    }
    // Widths and groups of heads that backends may have kernels of their own for: odd ones, and such as fill no tile of theirs.
    let wide = [
        (7, 1, 64, Own(64)),
        (3, 1, 96, Own(96)),
        (24, 2, 80, Own(80)),
        (17, 1, 64, Own(64)),
        (4, 2, 192, Own(192)),
        (8, 4, 256, Own(256)),
    ];
    for (i, geometry) in wide.into_iter().enumerate() {
        for (j, format) in [KvFormat::F16, KvFormat::Bf16, KvFormat::Int8].into_iter().enumerate() {
            add(geometry, classic[(i + j) % 4], format);
            add(geometry, newer[(3 * i + j) % 8], format);
        }
    }
    cases
}

/// Contexts longer than what a backend is likely to compute in one piece, and lengths just beyond powers of two, where
/// its pieces are likely to end; windows that are shorter and longer than a piece and begin in the middle of one. In
/// chunks of one token, a context has every length up to the last.
fn long_cases(random: &mut Random) -> Vec<Case> {
    let own = ValueStore::Own(16);
    let cases = [
        (PLAIN, own, 32, KvFormat::F16),
        (Options { softcap: Some(2.0), ..PLAIN }, own, 32, KvFormat::Int8),
        (Options { reach: Reach::Window(300), ..PLAIN }, own, 7, KvFormat::Int8),
        (Options { reach: Reach::Window(700), softcap: Some(2.0), ..PLAIN }, own, 32, KvFormat::F32),
        (Options { reach: Reach::Window(512), ..PLAIN }, own, 16, KvFormat::Bf16),
        (Options { reach: Reach::Chunk(512), ..PLAIN }, ValueStore::Own(8), 32, KvFormat::F32),
        (Options { reach: Reach::Chunk(700), sinks: true, ..PLAIN }, own, 16, KvFormat::F16),
        (Options { sinks: true, ..PLAIN }, ValueStore::InKeys(12), 32, KvFormat::Int8),
        (Options { blocks: true, ..PLAIN }, own, 32, KvFormat::F32),
        (Options { blocks: true, reach: Reach::Window(300), ..PLAIN }, own, 32, KvFormat::Bf16),
    ];
    let case = |(options, store, page_size, format): (Options, ValueStore, usize, KvFormat)| Case {
        layers: vec![layer(random, (2, 1, 16, store), options, format)],
        page_size,
        lengths: vec![513, 1030],
        // Across the ends of pieces, and longer than one.
        blocks: if options.blocks { vec![1..5, 500..530, 600..1028] } else { vec![] },
    };
    let mut cases: Vec<Case> = cases.map(case).into();
    // The same with heads that are wide enough for kernels of their own.
    let wide = ValueStore::Own(64);
    let options = [
        PLAIN,
        Options { reach: Reach::Window(300), ..PLAIN },
        Options { reach: Reach::Chunk(700), sinks: true, softcap: Some(2.0), ..PLAIN },
        Options { blocks: true, reach: Reach::Window(300), ..PLAIN },
    ];
    for (i, options) in options.into_iter().enumerate() {
        let format = [KvFormat::Bf16, KvFormat::F16, KvFormat::Int8, KvFormat::Bf16][i];
        cases.push(Case {
            layers: vec![layer(random, (3, 1, 64, wide), options, format)],
            page_size: [32, 7, 16, 32][i],
            lengths: vec![513, 300],
            blocks: if options.blocks { vec![1..5, 100..180, 240..300] } else { vec![] },
        });
    }
    cases
}

/// Layers of two cache groups in one step, which have pages of their own, as many as they need of their reach.
fn grouped_cases(random: &mut Random) -> Vec<Case> {
    let window = Options { reach: Reach::Window(9), ..PLAIN };
    let chunk = Options { reach: Reach::Chunk(32), sinks: true, ..PLAIN };
    let mut case = |other: Options, page_size: usize| Case {
        layers: vec![
            layer(random, (4, 2, 32, ValueStore::Own(32)), PLAIN, KvFormat::F32),
            layer(random, (6, 1, 16, ValueStore::Own(24)), other, KvFormat::Int8),
        ],
        page_size,
        lengths: vec![70, 5, 33],
        blocks: vec![],
    };
    vec![case(window, 8), case(chunk, 5)]
}

/// [`Backend::kv_write`] and [`Backend::attention`]: grouped queries, windows and chunks, soft caps, sinks, tokens that see
/// each other, values in keys, scattered pages, ragged batches, every format of the cache.
pub fn attention<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(20);
    for case in cases(random) {
        case.judge(&check, &case.sequences(random));
    }
}

/// The same over long contexts.
pub fn long_attention<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(21);
    for case in long_cases(random) {
        case.judge(&check, &case.sequences(random));
    }
}

/// What a row does not see does nothing to it, not even where it is no number and a row of the same step sees it.
pub fn unseen_values<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(46);
    for (i, format) in KvFormat::ALL.into_iter().enumerate() {
        for options in [PLAIN, Options { reach: Reach::Window(20), ..PLAIN }] {
            let case = Case {
                layers: vec![layer(random, (3, 1, 64, ValueStore::Own(64)), options, format)],
                page_size: if i % 2 == 0 { 32 } else { 16 },
                lengths: vec![150],
                blocks: vec![],
            };
            // The token with this index spoils the rows that see it.
            let (spoiled, reach) = (70, case.layers[0].spec.reach);
            let sees = |row: usize| reach.first(row) <= spoiled && spoiled <= row;
            let clean = case.sequences(random);
            let found = |value: Option<f64>| {
                let mut sequences = clean.clone();
                if let Some(value) = value {
                    sequences[0][0].values.values[spoiled * 64 + 3] = value;
                }
                check.supported(&case, case.attend(backend, &sequences))
            };
            let Some(expected) = found(None) else { continue };
            for value in [f64::NAN, f64::INFINITY] {
                let Some(found) = found(Some(value)) else { continue };
                for (row, (expected, found)) in expected.chunks(192).zip(found.chunks(192)).enumerate() {
                    if !sees(row) {
                        assert_same_bits(expected, found, &|| {
                            format!("{case:?}: row {row} does not see {value} at {spoiled}")
                        });
                    } else {
                        assert!(!found[3].is_finite(), "{case:?}: row {row} sees {value} at {spoiled}");
                    }
                }
            }
        }
    }
}

/// The same with layers of different cache groups.
pub fn cache_groups<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(22);
    for case in grouped_cases(random) {
        case.judge(&check, &case.sequences(random));
    }
}

/// [`Backend::attention`] where scores are too large to exponentiate, of either sign: only their differences count.
pub fn extreme_scores<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(25);
    for factor in [-3000.0, 3000.0] {
        // Sinks that count as much as one key, more than all of them, and nothing.
        for sink in [None, Some(0.0), Some(1000.0), Some(-1000.0)] {
            let mut layer = layer(random, (2, 1, 16, ValueStore::Own(16)), PLAIN, KvFormat::F32);
            layer.spec.scale = 1.0;
            layer.sinks = sink.map(|sink| Array::filled(1, 2, 16.0 * factor + sink));
            let case = Case { layers: vec![layer], page_size: 16, lengths: vec![40, 520], blocks: vec![] };
            let mut sequences = case.sequences(random);
            for heads in sequences.iter_mut().flatten() {
                heads.queries.values.fill(factor);
                heads.keys.values.fill(1.0);
            }
            case.judge(&check, &sequences);
        }
    }
}

/// [`Backend::choose_keys`] and [`Backend::attention_among`]: an index that chooses fewer keys than there are, one key, and
/// all of them, with several formats, and one whose keys are all alike to it, of which the first count.
pub fn attention_among<B: Backend>(backend: &B, tolerance: f64) {
    use ValueStore::{InKeys, Own};
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(27);
    // Geometries of the layer and of its index, keys that are chosen, and lengths.
    let short = vec![1, 70, 32, 33];
    let cases = [
        ((8, 1, 72, InKeys(64)), (4, 1, 16, InKeys(16)), 20, short.clone(), false),
        ((4, 2, 20, Own(12)), (3, 1, 20, InKeys(20)), 7, short.clone(), false),
        ((2, 2, 16, Own(16)), (1, 1, 64, InKeys(64)), 1, short.clone(), false),
        ((4, 1, 40, InKeys(32)), (8, 1, 32, InKeys(32)), 70, short.clone(), false),
        ((2, 1, 16, InKeys(12)), (5, 1, 12, InKeys(12)), 9, short, true),
        ((2, 1, 16, InKeys(16)), (2, 1, 16, InKeys(16)), 530, vec![513, 600], false),
        ((3, 1, 64, Own(64)), (3, 1, 20, InKeys(20)), 70, vec![1, 70, 32, 33], false),
        ((4, 2, 64, Own(64)), (1, 1, 16, InKeys(16)), 200, vec![200, 150], false),
        ((4, 2, 64, Own(64)), (1, 1, 16, InKeys(16)), 40, vec![200, 150], false),
    ];
    for (case, (geometry, index, top_k, lengths, alike)) in cases.into_iter().enumerate() {
        for (page_size, i) in [(7, 0), (32, 1)] {
            let format = |of: usize| KvFormat::ALL[(case + i + of) % 4];
            let layers =
                vec![layer(random, geometry, PLAIN, format(0)), layer(random, index, PLAIN, format(1))];
            let case = Case { layers, page_size, lengths: lengths.clone(), blocks: vec![] };
            let mut sequences = case.sequences(random);
            if alike {
                sequences.iter_mut().for_each(|heads| heads[1].queries.values.fill(0.0));
            }
            // Of either sign.
            let weights: Vec<Array> =
                lengths.iter().map(|length| Array::random(random, *length, index.0).operand(|v| v)).collect();
            case.judge_among(&check, &sequences, &weights, &Among { top_k, stride: 1, blocks: None });
        }
    }
}

/// The same with what else such layers have: keys that stand for several tokens, a choice of blocks of keys before that of keys,
/// keys of another cache besides, and sinks.
pub fn attention_beside<B: Backend>(backend: &B, tolerance: f64) {
    use ValueStore::{InKeys, Own};
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(44);
    let window = Options { reach: Reach::Window(9), ..PLAIN };
    let sinks = Options { sinks: true, ..PLAIN };
    let lengths = vec![1, 70, 32, 33];
    let among = |top_k, stride, blocks| Among { top_k, stride, blocks };
    let cases = [
        ((8, 1, 72, InKeys(64)), sinks, Some(window), among(5, 4, None)),
        ((4, 1, 32, InKeys(32)), sinks, Some(window), among(6, 2, Some((4, 3)))),
        ((4, 2, 20, Own(12)), PLAIN, Some(PLAIN), among(70, 3, None)),
        ((2, 1, 16, InKeys(16)), sinks, None, among(7, 1, Some((5, 2)))),
        ((2, 1, 16, Own(16)), PLAIN, Some(window), among(1, 100, None)),
    ];
    for (case, (geometry, options, beside, among)) in cases.into_iter().enumerate() {
        for (page_size, i) in [(7, 0), (32, 1)] {
            let format = KvFormat::ALL[(case + i) % 4];
            let index = (3, 1, 16, InKeys(16));
            let mut layers = vec![
                layer(random, geometry, options, format),
                layer(random, index, PLAIN, KvFormat::ALL[(case + i + 1) % 4]),
            ];
            layers.extend(beside.map(|options| layer(random, geometry, options, format)));
            let case = Case { layers, page_size, lengths: lengths.clone(), blocks: vec![] };
            let sequences = case.sequences(random);
            let weights: Vec<Array> =
                lengths.iter().map(|length| Array::random(random, *length, index.0).operand(|v| v)).collect();
            case.judge_among(&check, &sequences, &weights, &among);
        }
    }
}

/// [`Backend::attention_over`]: encoders, whose rows see all rows of their sequence, cross attention, whose rows see those
/// of another, windows from the end of what a row sees, and rows that see nothing. What no row sees is NaN.
pub fn attention_over<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(26);
    let window = Options { reach: Reach::Window(5), ..PLAIN };
    let chunk = Options { reach: Reach::Chunk(16), ..PLAIN };
    let geometries = [(1, 1, 4, 4), (4, 2, 20, 12), (16, 2, 128, 128), (3, 3, 64, 64)];
    // Queries, keys, and those of the keys that rows see.
    let cases = [(1, 1, 0..1), (5, 3, 0..3), (40, 70, 0..70), (6, 90, 37..81), (9, 1200, 0..1200)];
    for options in [PLAIN, Options { softcap: Some(0.5), ..PLAIN }, window, chunk] {
        for (heads, kv_heads, key_dim, value_dim) in geometries {
            let geometry = (heads, kv_heads, key_dim, ValueStore::Own(value_dim));
            let mut spec = layer(random, geometry, options, KvFormat::F32).spec;
            spec.scale *= 4.0;
            for (rows, length, seen) in cases.clone() {
                let queries = Array::random(random, rows, heads * key_dim);
                let mut context = |columns: usize| {
                    let mut array = Array::filled(length, columns, f64::NAN);
                    let values = random.values(seen.len() * columns).into_iter().map(f64::from);
                    array.values.splice(seen.start * columns..seen.end * columns, values);
                    array
                };
                let (keys, values) = (context(kv_heads * key_dim), context(kv_heads * value_dim));
                let mut span = |row: usize| match row % 4 {
                    0 => seen.clone(),
                    // Nothing.
                    3 => seen.end - random.below(seen.len())..seen.start,
                    _ => {
                        let start = random.below(seen.len());
                        let end = start + 1 + random.below(seen.len() - start);
                        seen.start + start..seen.start + end
                    }
                };
                let spans: Vec<Range<usize>> = (0..rows).map(&mut span).collect();
                let visible = |row: usize| {
                    let Range { start, end } = spans[row].clone();
                    if end <= start { 0..0 } else { start.max(spec.reach.first(end - 1))..end }
                };
                let expected = attended([&queries, &keys, &values], &spec, None, visible);
                let ends = spans.iter().flat_map(|span| [span.start as u32, span.end as u32]);
                let (ends, keys, values) =
                    (ends.collect::<Vec<u32>>(), keys.upload(backend), values.upload(backend));
                check.rows((&spec, rows, length), rows, &expected, |part| {
                    let (queries, spans) = (part.tensor(&queries), part.indices(&ends));
                    backend.attention_over(&queries, &keys, &values, &spans, &spec)
                });
            }
        }
    }
}

/// [`Backend::attention_over`] refuses operands that do not fit, and spans beyond the keys do no harm.
pub fn spans_are_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(27);
    let Layer { spec, .. } = layer(random, (4, 2, 8, ValueStore::Own(6)), PLAIN, KvFormat::F32);
    let mut tensor = |rows: usize, columns: usize| Array::random(random, rows, columns).upload(backend);
    let (queries, keys, values) = (tensor(3, 32), tensor(5, 16), tensor(5, 12));
    let (short_keys, narrow) = (tensor(4, 16), tensor(3, 24));
    let spans = |spans: &[u32]| backend.indices(spans).unwrap();
    let good = spans(&[0, 5, 1, 2, 0, 0]);
    let over = |[queries, keys, values]: [&B::Tensor; 3], spans: &B::Indices, spec: AttentionSpec| {
        backend.attention_over(queries, keys, values, spans, &spec)
    };
    let operands = [&queries, &keys, &values];
    over(operands, &good, spec).unwrap();
    assert_refused("queries", over([&narrow, &keys, &values], &good, spec));
    assert_refused("keys", over([&queries, &values, &values], &good, spec));
    assert_refused("values", over([&queries, &keys, &keys], &good, spec));
    assert_refused("keys without values", over([&queries, &short_keys, &values], &good, spec));
    assert_refused("few spans", over(operands, &spans(&[0, 5, 1, 2]), spec));
    assert_refused("half a span", over(operands, &spans(&[0, 5, 1, 2, 0]), spec));
    for wrong in [
        AttentionSpec { heads: 3, ..spec },
        AttentionSpec { kv_heads: 3, ..spec },
        AttentionSpec { kv_heads: 0, ..spec },
        AttentionSpec { heads: 0, ..spec },
        AttentionSpec { key_dim: 4, ..spec },
        AttentionSpec { value_dim: 4, ..spec },
        // Numbers may come from a model's file, and products wrap around to what would fit.
        AttentionSpec { heads: usize::MAX - 1, ..spec },
        AttentionSpec { heads: spec.heads + usize::MAX / spec.key_dim + 1, ..spec },
        AttentionSpec { heads: usize::MAX, kv_heads: usize::MAX, ..spec },
        AttentionSpec { key_dim: usize::MAX, ..spec },
        AttentionSpec { value_dim: usize::MAX, ..spec },
        AttentionSpec { heads: 8, key_dim: 4, kv_heads: 4, value_dim: 6, ..spec },
    ] {
        assert_refused(wrong, over(operands, &good, wrong));
    }
    // Three query heads do not share two key heads.
    assert_refused("groups", over([&narrow, &keys, &values], &good, AttentionSpec { heads: 3, ..spec }));
    let beyond = spans(&[0, 6, 5, 9, 1 << 31, u32::MAX]);
    for reach in [Reach::All, Reach::Window(2), Reach::Chunk(4)] {
        if let Ok(output) = over(operands, &beyond, AttentionSpec { reach, ..spec }) {
            assert_eq!(backend.read(&output).unwrap().len(), 3 * 24);
        }
    }
}
