//! What is computed from a NaN is one. A model that has gone wrong is to be noticed by its logits, not to go on talking.

use super::{
    array::{Array, Random},
    check::Check,
    elementwise::{ACTIVATIONS, gates},
};
use crate::{
    AttentionSpec, Backend, Batch, Input, KvCacheSpec, KvFormat, Reach, SequenceRows, StepLimits, ValueStore,
    Want,
};

/// Every activation and gate makes NaN of NaN, and of nothing else.
pub fn nan_elements<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(31);
    for columns in [1, 5, 16, 37] {
        let clean = Array::random(random, 2, columns);
        let places = [0, columns / 2, 2 * columns - 1];
        let mut spoiled = clean.clone();
        places.iter().for_each(|place| spoiled.values[*place] = f64::NAN);
        let (clean, spoiled) = (clean.upload(backend), spoiled.upload(backend));
        let judge = |case: &dyn std::fmt::Debug, result: crate::Result<B::Tensor>| {
            let Some(result) = check.supported(case, result) else { return };
            for (place, value) in backend.read(&result).unwrap().iter().enumerate() {
                assert_eq!(value.is_nan(), places.contains(&place), "{case:?}, {columns} columns: {value}");
            }
        };
        for kind in ACTIVATIONS {
            judge(&kind, backend.activate(&spoiled, kind));
        }
        for kind in gates() {
            judge(&("gate", kind), backend.gated(&spoiled, &clean, kind));
            judge(&("up", kind), backend.gated(&clean, &spoiled, kind));
        }
    }
}

/// What is wrong with the keys and values that a query sees.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Query,
    Key(usize),
    EveryKey,
    Value(usize),
}

/// [`Backend::attention`] and [`Backend::attention_over`]: a NaN in a query, or in any key or value that it sees, is one in the
/// head's output.
pub fn nan_scores<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(32);
    for (length, key_dim, value_dim) in
        [(1, 20, 12), (3, 20, 12), (40, 20, 12), (700, 20, 12), (1, 64, 64), (300, 64, 64)]
    {
        for wrong in [
            Wrong::Query,
            Wrong::Key(0),
            Wrong::Key(length - 1),
            Wrong::Key(length / 2),
            Wrong::EveryKey,
            Wrong::Value(length / 2),
        ] {
            let spec = AttentionSpec {
                heads: 2,
                kv_heads: 2,
                key_dim,
                value_dim,
                scale: 0.2,
                reach: Reach::All,
                softcap: None,
            };
            // The first head is spoiled, the second one is not.
            let mut query = Array::random(random, 1, 2 * key_dim);
            let mut keys = Array::random(random, length, 2 * key_dim);
            let mut values = Array::random(random, length, 2 * value_dim);
            match wrong {
                Wrong::Query => query.values[7] = f64::NAN,
                Wrong::Key(row) => keys.values[row * 2 * key_dim + 19] = f64::NAN,
                Wrong::EveryKey => (0..length).for_each(|row| keys.values[row * 2 * key_dim] = f64::NAN),
                Wrong::Value(row) => values.values[row * 2 * value_dim..][..value_dim].fill(f64::NAN),
            }
            let tensors = [&query, &keys, &values].map(|array| array.upload(backend));
            for (softcap, sinks) in [(None, false), (Some(3.0), false), (None, true)] {
                let spec = AttentionSpec { softcap, ..spec };
                let sinks = sinks.then(|| Array::random(random, 1, 2).upload(backend));
                for format in KvFormat::ALL {
                    let case = (length, key_dim, wrong, softcap, sinks.is_some(), format);
                    let result = attended(backend, &spec, &tensors, length, format, sinks.as_ref());
                    let Some(result) = check.supported(&case, result) else { continue };
                    judge(backend, &case, &result);
                }
                if sinks.is_none() {
                    let [query, keys, values] = &tensors;
                    let span = backend.indices(&[0, length as u32]).unwrap();
                    let case = (length, key_dim, wrong, softcap, "without a cache");
                    let result = backend.attention_over(query, keys, values, &span, &spec);
                    let Some(result) = check.supported(&case, result) else { continue };
                    judge(backend, &case, &result);
                }
            }
        }
    }
}

fn judge<B: Backend>(backend: &B, case: &dyn std::fmt::Debug, result: &B::Tensor) {
    let result = backend.read(result).unwrap();
    let (spoiled, clean) = result.split_at(result.len() / 2);
    assert!(spoiled.iter().all(|value| value.is_nan()), "{case:?}: {spoiled:?}");
    assert!(clean.iter().all(|value| value.is_finite()), "{case:?}: {clean:?}");
}

/// Attention of the last row of a sequence whose keys and values are written first.
fn attended<B: Backend>(
    backend: &B,
    spec: &AttentionSpec,
    [query, keys, values]: &[B::Tensor; 3],
    length: usize,
    format: KvFormat,
    sinks: Option<&B::Tensor>,
) -> crate::Result<B::Tensor> {
    const PAGE: usize = 32;
    let pages = length.div_ceil(PAGE);
    let AttentionSpec { kv_heads, key_dim, value_dim, .. } = *spec;
    let values_at = ValueStore::Own(value_dim);
    let mut cache = backend.kv_cache(&KvCacheSpec {
        pages,
        page_size: PAGE,
        kv_heads,
        key_dim,
        values: values_at,
        format,
    })?;
    let rows: Vec<u32> = (0..length as u32).collect();
    backend.kv_write(&mut cache, keys, Some(values), &backend.indices(&rows)?)?;
    let limits = StepLimits { vocab: 1, slots: 1, page_size: PAGE, pages: vec![pages], axes: 1 };
    let mut batch = Batch::new(&limits);
    let table: Vec<u32> = (0..pages as u32).collect();
    let pages: [&[u32]; 1] = [&table];
    batch.push(SequenceRows::text(0, Input::Tokens(&[0]), length - 1, &pages, Want::Nothing))?;
    backend.attention(query, &cache, &backend.upload(&batch)?, 0, spec, sinks)
}
