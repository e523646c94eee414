//! Transfers, and the inputs of steps.

use super::array::{Array, Random, upload};
use super::check::{Check, assert_same_bits};
use super::elementwise::{ACTIVATIONS, gates};
use super::weights::Weights;
use crate::{
    Backend, Batch, Dtype, GIVEN_BACK, Input, KvCacheSpec, KvFormat, LogitRows, PositionScale, SequenceRows,
    StepInputs, StepLimits, TensorData, TensorError, ValueStore, Want,
};

/// [`Backend::tensor`] of every dense type and of few dimensions, [`Backend::read`] and [`Backend::shape`].
pub fn transfers<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(80);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for (dimensions, shape) in [(&[][..], [1, 1]), (&[7], [1, 7]), (&[3, 5], [3, 5]), (&[0, 4], [0, 4])] {
            let values = random.values(shape[0] * shape[1]);
            let data = TensorData::from_f32_as("data", dtype, dimensions, &values).unwrap();
            let tensor = backend.tensor(&data).unwrap();
            assert_eq!(backend.shape(&tensor), shape, "{dtype}, {dimensions:?}");
            let found = backend.read(&tensor).unwrap();
            let expected = data.to_f32().unwrap();
            assert_eq!(found.len(), expected.len(), "{dtype}, {dimensions:?}");
            for (expected, found) in expected.iter().zip(&found) {
                assert!(
                    f64::from((expected - found).abs()) <= tolerance,
                    "{dtype}: {expected} became {found}"
                );
            }
        }
    }
}

/// [`Backend::lend`]: the values are those of [`Backend::read`], and what the host makes of them is nobody else's.
pub fn lend<B: Backend>(backend: &B, _tolerance: f64) {
    let x = Array::random(&mut Random::new(81), 5, 33).upload(backend);
    let values = backend.read(&x).unwrap();
    let same = |what: &str, found: &[f32]| assert_same_bits(&values, found, &|| what.into());
    let spoiled = |lent: &mut [f32]| {
        let found = lent.to_vec();
        lent.fill(f32::NAN);
        found
    };
    same("lent while others have it", &backend.lend(x.clone(), spoiled).unwrap());
    same("read after", &backend.read(&x).unwrap());
    // A part of a tensor may be the same memory.
    let part = backend.columns(&x, 0..33).unwrap();
    let reshaped = backend.reshape(&x, [33, 5]).unwrap();
    let selected = backend.select_rows(&x, &backend.indices(&[0, 1, 2, 3, 4]).unwrap()).unwrap();
    for other in [part, reshaped, selected] {
        same("lent by another", &backend.lend(other, spoiled).unwrap());
        same("read after", &backend.read(&x).unwrap());
    }
    same("the only one", &backend.lend(x, spoiled).unwrap());
    // Memory that is used again does not keep what the host wrote.
    let zeros = backend.scale(&upload(backend, [5, 33], &values), 0.0, 0.0).unwrap();
    assert!(backend.read(&zeros).unwrap().iter().all(|v| *v == 0.0));
}

/// [`Backend::indices`], [`Backend::read_indices`] and [`Backend::checked_indices`].
pub fn indices<B: Backend>(backend: &B, _tolerance: f64) {
    for list in [&[][..], &[0], &[7, 0, u32::MAX, 1 << 31, 7]] {
        let read = |indices: &B::Indices| backend.read_indices(indices).unwrap();
        assert_eq!(read(&backend.indices(list).unwrap()), list);
        assert_eq!(read(&backend.checked_indices(list, 1 << 32).unwrap()), list);
    }
    assert!(backend.checked_indices(&[], 0).is_ok());
    assert!(backend.checked_indices(&[2, 0, 1], 3).is_ok());
    for (list, wrong, limit) in [(&[0, 3, 9, 2][..], 3, 3), (&[0], 0, 0), (&[u32::MAX], u32::MAX, 1 << 31)] {
        let error = backend.checked_indices(list, limit).unwrap_err();
        let TensorError::Index { index, limit: found, .. } = error else { panic!("{list:?}: {error}") };
        assert_eq!((index, found), (u64::from(wrong), limit as u64));
    }
}

/// [`Backend::upload`]: the inputs are those of the batch. [`Backend::record`] returns what its steps return.
pub fn step_inputs<B: Backend>(backend: &B, _tolerance: f64) {
    let limits = StepLimits { vocab: 100, slots: 6, page_size: 4, pages: vec![20, 9], axes: 2 };
    let mut batch = Batch::new(&limits);
    let text = |slot, input, start, pages, want| SequenceRows::text(slot, input, start, pages, want);
    let pages: [&[u32]; 2] = [&[7, 2, 19], &[GIVEN_BACK, 3, 8]];
    let image = SequenceRows {
        visible_ends: Some(&[9, 9, 10]),
        positions: Some(&[50, 51, 52, 60, 61, 62]),
        ..text(5, Input::Tokens(&[11, 12, 13]), 7, &pages, Want::Hidden(LogitRows::All))
    };
    batch.push(image).unwrap();
    batch.push(text(0, Input::Sampled, 2, &[&[1], &[5]], Want::Sample)).unwrap();
    batch.push(text(3, Input::Tokens(&[99, 98]), 0, &[&[0], &[6]], Want::Logits(LogitRows::All))).unwrap();
    batch.push(text(1, Input::Tokens(&[4]), 4, &[&[1, 3], &[5, 0]], Want::Nothing)).unwrap();

    let step = backend.record(&batch.shape(), || backend.upload(&batch)).unwrap();
    let read = |indices: &B::Indices| backend.read_indices(indices).unwrap();
    assert_eq!((step.rows, step.sequences, step.axes), (7, 4, 2));
    assert_eq!(read(&step.tokens), batch.tokens());
    assert_eq!(read(step.fed.as_ref().unwrap()), batch.fed());
    assert_eq!(read(&step.positions), [50, 51, 52, 2, 0, 1, 4, 60, 61, 62, 2, 0, 1, 4]);
    assert_eq!(read(&step.indices), batch.indices());
    assert_eq!(read(&step.visible_ends), [9, 9, 10, 3, 1, 2, 5]);
    assert_eq!(read(&step.query_starts), batch.query_starts());
    assert_eq!(read(&step.lengths), [10, 3, 2, 5]);
    assert_eq!(read(&step.slots), batch.slots());
    assert_eq!(step.groups.len(), 2);
    for (group, cache) in step.groups.iter().enumerate() {
        // A device may have them wider.
        let width = cache.pages_per_sequence;
        assert!(width >= 3, "{width}");
        assert_eq!(read(&cache.rows), batch.cache_rows(group));
        let tables = batch.page_tables(group).iter().flat_map(|table| {
            let pages = table.iter().map(|page| if *page == GIVEN_BACK { 0 } else { *page });
            pages.chain(std::iter::repeat(0)).take(width).collect::<Vec<u32>>()
        });
        assert_eq!(read(&cache.page_tables), tables.collect::<Vec<u32>>());
    }
    // Logits first, then representations.
    assert_eq!(read(step.output_rows.as_ref().unwrap()), [3, 4, 5, 0, 1, 2]);

    batch.resolve(|slot| Some(40 + slot as u32));
    let step = backend.upload(&batch).unwrap();
    assert!(step.fed.is_none());
    assert_eq!(read(&step.tokens), [11, 12, 13, 40, 99, 98, 4]);

    // All rows in their order need no selection.
    let outputs = |wants: [Want; 2]| -> StepInputs<B> {
        let mut batch = Batch::new(&StepLimits { pages: vec![], ..limits.clone() });
        batch.push(text(1, Input::Tokens(&[5, 6]), 0, &[], wants[0])).unwrap();
        batch.push(text(2, Input::Tokens(&[7]), 3, &[], wants[1])).unwrap();
        backend.upload(&batch).unwrap()
    };
    let all = Want::Logits(LogitRows::All);
    assert!(outputs([all, Want::Sample]).output_rows.is_none());
    let last = outputs([Want::Logits(LogitRows::Last), Want::Hidden(LogitRows::Last)]);
    assert_eq!(read(last.output_rows.as_ref().unwrap()), [1, 2]);
    assert!(read(outputs([Want::Nothing; 2]).output_rows.as_ref().unwrap()).is_empty());
}

/// Fails unless the backend has everything that the contract lets a backend lack: every kind of matrix, activation, gate,
/// factor and format. It is no part of [`conformance_suite`](crate::conformance_suite), whose checks pass over what is not
/// there.
pub fn nothing_is_unsupported<B: Backend>(backend: &B) {
    let x = Array::filled(1, 1, 0.5).upload(backend);
    for kind in ACTIVATIONS {
        backend.activate(&x, kind).unwrap();
    }
    for kind in gates() {
        backend.gated(&x, &x, kind).unwrap();
    }
    for format in KvFormat::ALL {
        for values in [ValueStore::Own(8), ValueStore::InKeys(8)] {
            let spec = KvCacheSpec { pages: 1, page_size: 1, kv_heads: 1, key_dim: 8, values, format };
            backend.kv_cache(&spec).unwrap();
        }
    }
    for matrix in Weights::kinds(&mut Random::new(82), 4, 128) {
        assert!(matrix.upload(&Check::new(backend, 0.0)).is_some(), "{}", matrix.kind);
    }
    let kind = PositionScale::Logarithmic { floor: 8.0, scale: 1.0, first: 1.0 };
    backend.position_scale(&backend.indices(&[3]).unwrap(), 1, kind).unwrap();
}
