//! The KV cache itself: what it keeps, and what it refuses.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused, assert_same_bits},
    paged::{Case, Heads, Layer},
};
use crate::{
    AttentionSpec, Backend, Batch, HeadSpec, Input, KvCacheSpec, KvFormat, Reach, Result, SequenceRows,
    StepInputs, StepLimits, TensorError, ValueStore, Want,
};

/// Attention with as many heads of queries as of keys and values.
fn spec(heads: usize, key_dim: usize, value_dim: usize) -> AttentionSpec {
    let (kv_heads, scale) = (heads, (key_dim as f32).powf(-0.5));
    AttentionSpec { heads, kv_heads, key_dim, value_dim, scale, reach: Reach::All, softcap: None }
}

fn cache_spec(spec: &AttentionSpec, format: KvFormat) -> KvCacheSpec {
    let AttentionSpec { kv_heads, key_dim, value_dim, .. } = *spec;
    KvCacheSpec { pages: 3, page_size: 4, kv_heads, key_dim, values: ValueStore::Own(value_dim), format }
}

/// A step of one sequence: its last rows, on these pages.
fn step<B: Backend>(backend: &B, rows: usize, start: usize, pages: &[u32]) -> StepInputs<B> {
    let limits = StepLimits { vocab: 1, slots: 1, page_size: 4, pages: vec![u32::MAX as usize], axes: 1 };
    let mut batch = Batch::new(&limits);
    let tokens = vec![0; rows];
    batch.push(SequenceRows::text(0, Input::Tokens(&tokens), start, &[pages], Want::Nothing)).unwrap();
    backend.upload(&batch).unwrap()
}

/// What comes back of one token's values: with a single key to see, attention returns its value.
fn stored<B: Backend>(
    backend: &B,
    spec: &AttentionSpec,
    format: KvFormat,
    values: &Array,
) -> Result<Vec<f32>> {
    let mut cache = backend.kv_cache(&cache_spec(spec, format))?;
    let key = Array::filled(1, spec.kv_heads * spec.key_dim, 0.5).upload(backend);
    backend.kv_write(&mut cache, &key, Some(&values.upload(backend)), &backend.indices(&[8])?)?;
    backend.read(&backend.attention(&key, &cache, &step(backend, 1, 0, &[2]), 0, spec, None)?)
}

/// What a cache of eight bits loses: half a step, a 254th of the largest magnitude of a token's head, and no more.
pub fn eight_bit_kv<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(24);
    let check = Check::new(backend, tolerance);
    let spec = AttentionSpec { heads: 6, scale: 0.15, ..spec(3, 40, 40) };
    // Magnitudes from almost the smallest to almost the largest, and zero.
    for factor in [0.0, 1e-35, 1e-3, 1.0, 1e6, 1e36] {
        let values = Array::random(random, 1, 3 * 40).operand(|v| v * factor);
        let stored = stored(backend, &AttentionSpec { heads: 3, ..spec }, KvFormat::Int8, &values);
        let Some(stored) = check.supported(&KvFormat::Int8, stored) else { return };
        for (expected, stored) in values.values.chunks(40).zip(stored.chunks(40)) {
            let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
            for (expected, stored) in expected.iter().zip(stored) {
                let deviation = (expected - f64::from(*stored)).abs();
                let allowed = largest * (0.5 / 127.0 + tolerance.min(1e-4));
                assert!(deviation <= allowed, "{expected} became {stored}, largest {largest}");
            }
        }
    }
    // Each value is off by at most 0.4 % of the largest, each score by 0.15 * 40 * 0.4 % for queries of about one.
    let layer = Layer { spec, store: ValueStore::Own(40), format: KvFormat::Int8, sinks: None };
    let case = Case { layers: vec![layer], page_size: 16, lengths: vec![60], blocks: vec![] };
    let mut array = |heads: usize| Array::random(random, 60, heads * 40);
    let heads = Heads { queries: array(6), keys: array(3), values: array(3), pages: vec![5, 1, 7, 2] };
    case.judge(&Check::new(backend, 3e-2), &[vec![heads]]);
}

/// Numbers that are not finite come back as such, from every format.
pub fn non_finite_kv<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(28);
    let spec = spec(2, 20, 20);
    for format in KvFormat::ALL {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in [0, 17, 19] {
                let mut values = Array::random(random, 1, 40);
                values.values[place] = bad;
                let Some(stored) = check.supported(&format, stored(backend, &spec, format, &values)) else {
                    break;
                };
                assert!(
                    stored[..20].iter().any(|v| !v.is_finite()),
                    "{format}: {bad} became {:?}",
                    &stored[..20]
                );
                assert!(stored[20..].iter().all(|v| v.is_finite()), "{format}: {bad} in another head");
            }
        }
    }
}

/// Attention of a single row with a step that contradicts itself is refused, or has the shape that it should have.
fn assert_harmless<B: Backend>(
    check: &Check<'_, B>,
    spec: &AttentionSpec,
    cache: &B::KvCache,
    step: &StepInputs<B>,
) {
    let backend = check.backend;
    let queries = Array::filled(1, spec.heads * spec.key_dim, 0.5).upload(backend);
    for reach in [Reach::All, Reach::Window(6), Reach::Chunk(6)] {
        if let Ok(output) =
            backend.attention(&queries, cache, step, 0, &AttentionSpec { reach, ..*spec }, None)
        {
            assert_eq!(check.output(&output).shape, [1, spec.heads * spec.value_dim]);
        }
    }
}

/// What is written beyond a cache is lost, and what is read beyond it is anything; neither does any harm.
pub fn kv_bounds<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(23);
    let both = [spec(2, 8, 12), spec(2, 64, 64)];
    for (spec, format) in both.into_iter().flat_map(|spec| KvFormat::ALL.map(|format| (spec, format))) {
        let Some(mut cache) = check.supported(&format, backend.kv_cache(&cache_spec(&spec, format))) else {
            continue;
        };
        let mut write = |cache: &mut B::KvCache, rows: &[u32]| {
            let [keys, values] = [2 * spec.key_dim, 2 * spec.value_dim]
                .map(|width| Array::random(random, rows.len(), width).upload(backend));
            backend.kv_write(cache, &keys, Some(&values), &backend.indices(rows).unwrap()).unwrap();
        };
        let queries = Array::filled(1, 2 * spec.key_dim, 0.5).upload(backend);
        let seen = |cache: &B::KvCache, index: usize, pages: &[u32]| {
            let step = step(backend, 1, index, pages);
            backend.read(&backend.attention(&queries, cache, &step, 0, &spec, None).unwrap()).unwrap()
        };
        let all: Vec<u32> = (0..12).collect();
        write(&mut cache, &all);
        let before = seen(&cache, 11, &[2, 0, 1]);
        write(&mut cache, &[12, 13, u32::MAX, 1 << 31, u32::MAX / 8, u32::MAX / 16 + 1]);
        assert_same_bits(&before, &seen(&cache, 11, &[2, 0, 1]), &|| {
            format!("{format}: written beyond the end")
        });
        let first = seen(&cache, 0, &[1]);
        write(&mut cache, &[u32::MAX, 4, 12]);
        assert!(
            first != seen(&cache, 0, &[1]),
            "{format}: what is there is written, whatever stands beside it"
        );

        let good = || step(backend, 1, 11, &[2, 0, 1]);
        for pages in [[3, 0, 1], [2, 1000, u32::MAX], [u32::MAX, u32::MAX >> 3, 0], [1 << 30, 1 << 31, 0]] {
            let mut wrong = good();
            wrong.groups[0].page_tables = backend.indices(&pages).unwrap();
            assert_harmless(&check, &spec, &cache, &wrong);
        }
        // What a row sees may be said to end beyond the pages, its index may be, and so may its sequence's rows.
        for beyond in [13, 1000, u32::MAX] {
            let mut wrong = [(); 4].map(|()| good());
            wrong[0].visible_ends = backend.indices(&[beyond]).unwrap();
            wrong[1].indices = backend.indices(&[beyond]).unwrap();
            wrong[2].lengths = backend.indices(&[beyond]).unwrap();
            wrong[3].query_starts = backend.indices(&[beyond - 13, beyond]).unwrap();
            wrong.iter().for_each(|wrong| assert_harmless(&check, &spec, &cache, wrong));
        }
    }
}

/// Many rows of one step for the same place of a cache, which no [`Batch`] has: one of them is there in the end.
pub fn duplicated_kv_rows<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let spec = AttentionSpec { reach: Reach::Window(1), ..spec(2, 64, 64) };
    let heads = HeadSpec { key_dim: 64, query_norm: None, key_norm: None, rotation: None };
    // So many that backends which share the work among threads do so.
    let rows = 1000;
    let keys = Array::filled(rows, 128, 0.0).upload(backend);
    let values = Array::from_rows(rows, 128, |row| vec![if row % 2 == 0 { 1.0 } else { -1.0 }; 128]);
    let values = values.upload(backend);
    let places = backend.indices(&vec![5; rows]).unwrap();
    let query = Array::filled(1, 128, 0.0).upload(backend);
    for format in KvFormat::ALL {
        for fused in [false, true] {
            let cache = backend.kv_cache(&cache_spec(&spec, format));
            let Some(mut cache) = check.supported(&format, cache) else { continue };
            if fused {
                backend.write_heads(&keys, &keys, Some(&values), heads, &mut cache, &places).unwrap();
            } else {
                backend.kv_write(&mut cache, &keys, Some(&values), &places).unwrap();
            }
            let step = step(backend, 1, 1, &[1]);
            let found = backend.attention(&query, &cache, &step, 0, &spec, None).unwrap();
            for head in backend.read(&found).unwrap().chunks(64) {
                assert!((head[0].abs() - 1.0).abs() < 0.01, "{format}: {head:?}");
                assert!(head.iter().all(|v| *v == head[0]), "{format}: two rows in one: {head:?}");
            }
        }
    }
}

/// Caches, keys, values and queries that do not fit each other are refused.
pub fn kv_shapes_are_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(29);
    let spec = spec(2, 8, 12);
    let kept = cache_spec(&spec, KvFormat::F32);
    let mut cache = backend.kv_cache(&kept).unwrap();
    let mut in_keys = backend.kv_cache(&KvCacheSpec { values: ValueStore::InKeys(6), ..kept }).unwrap();
    let mut tensor = |rows: usize, columns: usize| Array::random(random, rows, columns).upload(backend);
    let (keys, values) = (tensor(2, 16), tensor(2, 24));
    let rows = |rows: &[u32]| backend.indices(rows).unwrap();
    let mut write = |case: &str, keys: &B::Tensor, values: Option<&B::Tensor>, rows: &B::Indices| {
        assert_refused(case, backend.kv_write(&mut cache, keys, values, rows));
    };
    write("keys", &values, Some(&values), &rows(&[0, 1]));
    write("values", &keys, Some(&keys), &rows(&[0, 1]));
    write("no values", &keys, None, &rows(&[0, 1]));
    write("fewer values", &keys, Some(&tensor(1, 24)), &rows(&[0, 1]));
    write("fewer rows", &keys, Some(&values), &rows(&[0]));
    write("more rows", &keys, Some(&values), &rows(&[0, 1, 2]));
    let both = backend.kv_write(&mut in_keys, &keys, Some(&values), &rows(&[0, 1]));
    assert_refused("values of their own", both);

    // Steps that have fewer of something than they say.
    let queries = tensor(2, 16);
    for case in 0..4 {
        let mut short = step(backend, 2, 0, &[1]);
        match case {
            0 => short.indices = rows(&[0]),
            1 => short.visible_ends = rows(&[1]),
            2 => short.query_starts = rows(&[0]),
            _ => short.groups[0].page_tables = rows(&[]),
        }
        assert_refused(("short", case), backend.attention(&queries, &cache, &short, 0, &spec, None));
    }
    let step = step(backend, 2, 0, &[1]);
    let attend =
        |case: &str, queries: &B::Tensor, group: usize, spec: &AttentionSpec, sinks: Option<&B::Tensor>| {
            assert_refused((case, spec), backend.attention(queries, &cache, &step, group, spec, sinks));
        };
    attend("columns", &tensor(2, 24), 0, &spec, None);
    attend("rows", &tensor(3, 16), 0, &spec, None);
    attend("rows", &tensor(1, 16), 0, &spec, None);
    attend("group", &queries, 1, &spec, None);
    attend("sinks", &queries, 0, &spec, Some(&tensor(1, 3)));
    attend("sinks", &queries, 0, &spec, Some(&tensor(2, 2)));
    for wrong in [
        AttentionSpec { kv_heads: 1, ..spec },
        AttentionSpec { kv_heads: 0, ..spec },
        AttentionSpec { heads: 0, ..spec },
        AttentionSpec { heads: 4, key_dim: 4, ..spec },
        AttentionSpec { value_dim: 8, ..spec },
        // Numbers may come from a model's file, and products wrap around to what would fit.
        AttentionSpec { heads: usize::MAX - 1, ..spec },
        AttentionSpec { heads: spec.heads + usize::MAX / spec.key_dim + 1, ..spec },
        AttentionSpec { heads: usize::MAX, kv_heads: usize::MAX, ..spec },
        AttentionSpec { key_dim: usize::MAX, ..spec },
        AttentionSpec { value_dim: usize::MAX, ..spec },
    ] {
        attend("cache", &queries, 0, &wrong, None);
    }
    attend("groups", &tensor(2, 24), 0, &AttentionSpec { heads: 3, ..spec }, None);

    // No memory holds as much, no page is empty, and no key holds a longer value.
    for format in KvFormat::ALL {
        let kept = KvCacheSpec { format, ..kept };
        for wrong in [
            KvCacheSpec { pages: usize::MAX / 4, ..kept },
            KvCacheSpec { page_size: usize::MAX, ..kept },
            KvCacheSpec { page_size: 0, ..kept },
            KvCacheSpec { kv_heads: usize::MAX, ..kept },
            KvCacheSpec { key_dim: usize::MAX, ..kept },
            KvCacheSpec { values: ValueStore::Own(usize::MAX), ..kept },
            KvCacheSpec { values: ValueStore::InKeys(9), ..kept },
        ] {
            assert!(backend.kv_cache(&wrong).is_err(), "{wrong:?}");
        }
    }
}

/// What a page gives has the same bits in another page of another cache, and bytes that are not a page's are refused.
/// ([`state`](super::state) has the same for slots.)
pub fn kept_pages<B: Backend>(backend: &B, tolerance: f64) {
    if backend.kept_as().is_none() {
        eprintln!("skipped: the {} backend keeps no pages", backend.name());
        return;
    }
    assert_eq!(backend.kept_as(), backend.kept_as());
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(91);
    for (format, in_keys) in KvFormat::ALL.into_iter().flat_map(|format| [(format, false), (format, true)]) {
        let spec = spec(3, 20, if in_keys { 12 } else { 24 });
        let values = if in_keys { ValueStore::InKeys(12) } else { ValueStore::Own(24) };
        let layout = KvCacheSpec { values, ..cache_spec(&spec, format) };
        let Some(mut from) = check.supported(&format, backend.kv_cache(&layout)) else { continue };
        let mut to = backend.kv_cache(&KvCacheSpec { pages: 5, ..layout }).unwrap();
        let rows = |pages: [u32; 2]| -> Vec<u32> {
            pages.into_iter().flat_map(|page| 4 * page..4 * page + 4).collect()
        };
        let mut fill = |cache: &mut B::KvCache, rows: &[u32]| {
            let keys = Array::random(random, rows.len(), 3 * 20).upload(backend);
            let values = Array::random(random, rows.len(), 3 * 24).upload(backend);
            let values = (!in_keys).then_some(&values);
            backend.kv_write(cache, &keys, values, &backend.indices(rows).unwrap()).unwrap();
        };
        fill(&mut from, &rows([2, 0]));
        fill(&mut to, &(0..20).collect::<Vec<u32>>());
        let queries = Array::random(&mut Random::new(92), 1, 3 * 20).upload(backend);
        let seen = |cache: &B::KvCache, pages: &[u32], index: usize| {
            let step = step(backend, 1, index, pages);
            backend.read(&backend.attention(&queries, cache, &step, 0, &spec, None).unwrap()).unwrap()
        };
        let expected = seen(&from, &[2, 0], 7);
        let untouched = seen(&to, &[3, 0], 7);
        for (page, other) in [(2, 4), (0, 1)] {
            let mut bytes = vec![7];
            backend.read_page(&from, page, &mut bytes).unwrap();
            assert_eq!((bytes[0], bytes.len()), (7, 1 + layout.page_bytes()), "{format}: bytes are appended");
            backend.write_page(&mut to, other, &bytes[1..]).unwrap();
            let mut again = Vec::new();
            backend.read_page(&to, other, &mut again).unwrap();
            assert!(again == bytes[1..], "{format}: a page gives what it was given");
        }
        let what = || format!("{format}, in keys: {in_keys}");
        assert_same_bits(&expected, &seen(&to, &[4, 1], 7), &what);
        assert_same_bits(&untouched, &seen(&to, &[3, 0], 7), &what);

        let mut bytes = Vec::new();
        backend.read_page(&to, 3, &mut bytes).unwrap();
        for wrong in [&bytes[1..], &[], &[&bytes[..], &[0]].concat()] {
            assert_refused(what(), backend.write_page(&mut to, 3, wrong));
        }
        for beyond in [5, usize::MAX] {
            let refused = |result: Result<()>| {
                assert!(matches!(result, Err(TensorError::Index { .. })), "page {beyond}: {result:?}");
            };
            refused(backend.read_page(&to, beyond, &mut Vec::new()));
            refused(backend.write_page(&mut to, beyond, &bytes));
        }
        assert_same_bits(&untouched, &seen(&to, &[3, 0], 7), &what);
        // Whatever the bytes are, a page of them can be read.
        backend.write_page(&mut to, 3, &vec![0xff; bytes.len()]).unwrap();
        seen(&to, &[3], 3);
    }
}
