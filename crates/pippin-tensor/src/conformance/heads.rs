//! What stands between projections and attention.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
    norms::{normalised, upload_norm},
    paged::attended,
    positions::{angles, fixed, rotated},
    schedule::{Piece, gather},
};
use crate::{
    AttentionSpec, Backend, Batch, HeadSpec, Input, KvCacheSpec, KvFormat, Norm, NormKind, Reach, Result,
    RopeSpec, Rotation, SequenceRows, StepInputs, StepLimits, ValueStore, Want,
};

/// The pages of two sequences.
const PAGES: [[u32; 2]; 2] = [[2, 0], [1, 3]];
const PAGE_SIZE: usize = 24;
const LENGTHS: [usize; 2] = [40, 7];

/// One way to go from projections to attention.
struct Path {
    spec: AttentionSpec,
    store: ValueStore,
    query_norm: Option<Norm<Array>>,
    key_norm: Option<Norm<Array>>,
    rotation: Option<RopeSpec>,
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let norm = |norm: &Option<Norm<Array>>| norm.as_ref().map(|norm| (norm.kind, norm.width));
        let (queries, keys) = (norm(&self.query_norm), norm(&self.key_norm));
        write!(
            f,
            "{:?}, values {:?}, norms {queries:?}, {keys:?}, {:?}",
            self.spec, self.store, self.rotation
        )
    }
}

impl Path {
    fn cache(&self) -> KvCacheSpec {
        let AttentionSpec { kv_heads, key_dim, .. } = self.spec;
        let (page_size, format) = (PAGE_SIZE, KvFormat::F32);
        KvCacheSpec { pages: 4, page_size, kv_heads, key_dim, values: self.store, format }
    }

    fn judge<B: Backend>(&self, backend: &B, random: &mut Random, tolerance: f64) {
        let AttentionSpec { heads, kv_heads, key_dim, value_dim, .. } = self.spec;
        let mut arrays = |heads: usize| LENGTHS.map(|length| Array::random(random, length, heads));
        let (queries, keys) = (arrays(heads * key_dim), arrays(kv_heads * key_dim));
        let own = matches!(self.store, ValueStore::Own(_)).then(|| arrays(kv_heads * value_dim));
        let angles = LENGTHS.map(|length| {
            let positions: Vec<u32> = (0..length as u32).collect();
            self.rotation.as_ref().map(|rope| angles(&positions, 1, rope))
        });
        let written = |x: &Array, norm: &Option<Norm<Array>>, sequence: usize| {
            let x = norm.as_ref().map_or(x.clone(), |norm| normalised(x, norm));
            match (&self.rotation, &angles[sequence]) {
                (Some(rope), Some(angles)) => rotated(&x, angles, key_dim, rope),
                _ => x,
            }
        };
        let expected = [0, 1].map(|sequence| {
            let queries = written(&queries[sequence], &self.query_norm, sequence);
            let keys = written(&keys[sequence], &self.key_norm, sequence);
            let values = match &own {
                Some(values) => values[sequence].clone(),
                None => keys.map_rows(|_, row| {
                    row.chunks(key_dim).flat_map(|key| key[..value_dim].to_vec()).collect()
                }),
            };
            let output = attended([&queries, &keys, &values], &self.spec, None, |row| 0..row + 1);
            vec![queries, output]
        });
        let norms = [&self.query_norm, &self.key_norm];
        let norms = norms.map(|norm| norm.as_ref().map(|norm| upload_norm(backend, norm)));
        let start = || backend.kv_cache(&self.cache()).unwrap();
        let tolerances = [2.0 * tolerance, 4.0 * tolerance];
        Check::new(backend, tolerance).sequences(
            self,
            &expected,
            &tolerances,
            &[],
            start,
            |cache, pieces| {
                let step = step(backend, pieces)?;
                let rows = |of: &[Array; 2]| gather(backend, pieces, |sequence| &of[sequence]);
                let angles = angles.each_ref().map(Option::as_ref);
                let angles = angles[0].map(|_| gather(backend, pieces, |sequence| angles[sequence].unwrap()));
                let rotation = angles.as_ref().zip(self.rotation.as_ref());
                let rotation = rotation.map(|(angles, spec)| Rotation { angles, spec });
                let [query_norm, key_norm] = norms.each_ref().map(Option::as_ref);
                let spec = HeadSpec { key_dim, query_norm, key_norm, rotation };
                let cache_rows = &step.groups[0].rows;
                let values = own.as_ref().map(rows);
                let queries = backend.write_heads(
                    &rows(&queries),
                    &rows(&keys),
                    values.as_ref(),
                    spec,
                    cache,
                    cache_rows,
                )?;
                let output = backend.attention(&queries, cache, &step, 0, &self.spec, None)?;
                Ok(vec![queries, output])
            },
        );
    }
}

fn step<B: Backend>(backend: &B, pieces: &[Piece]) -> Result<StepInputs<B>> {
    let limits = StepLimits { vocab: 1, slots: 2, page_size: PAGE_SIZE, pages: vec![4], axes: 1 };
    let mut batch = Batch::new(&limits);
    for Piece { sequence, rows, .. } in pieces {
        let (tokens, pages) = (vec![0; rows.len()], [&PAGES[*sequence][..]]);
        batch.push(SequenceRows::text(
            *sequence,
            Input::Tokens(&tokens),
            rows.start,
            &pages,
            Want::Nothing,
        ))?;
    }
    backend.upload(&batch)
}

/// The norms that heads may have: over each head, with a bias, over all heads at once.
fn norms(random: &mut Random, heads: usize, key_dim: usize) -> [Norm<Array>; 3] {
    let mut row = |width: usize| Array::random(random, 1, width);
    let (kind, width, eps, all) = (NormKind::Layer, key_dim, 1e-4, heads * key_dim);
    let layer = Norm { kind, width, eps, weight: Some(row(width)), bias: Some(row(width)) };
    [Norm::rms(width, 1e-6, row(width)), layer, Norm::rms(all, 1e-6, row(all))]
}

/// [`Backend::write_heads`] with every combination of norms, rotation and values: what it returns, and through attention
/// what it wrote.
pub fn write_heads<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(30);
    for (heads, kv_heads, key_dim, dims, store) in [
        (2, 1, 32, 32, ValueStore::Own(32)),
        (8, 2, 64, 32, ValueStore::Own(64)),
        (16, 8, 128, 128, ValueStore::Own(128)),
        (4, 2, 20, 12, ValueStore::Own(7)),
        (4, 1, 24, 8, ValueStore::InKeys(16)),
    ] {
        let (reach, softcap, value_dim) = (Reach::All, None, store.dim());
        let scale = (key_dim as f32).powf(-0.5);
        let spec = AttentionSpec { heads, kv_heads, key_dim, value_dim, scale, reach, softcap };
        let mut pairs = vec![(None, None)];
        for (query, key) in norms(random, heads, key_dim).into_iter().zip(norms(random, kv_heads, key_dim)) {
            pairs.extend([(Some(query.clone()), Some(key.clone())), (Some(query), None), (None, Some(key))]);
        }
        for (query_norm, key_norm) in pairs {
            for traditional in [None, Some(false), Some(true)] {
                let (query_norm, key_norm) = (query_norm.clone(), key_norm.clone());
                let rotation = traditional.map(|traditional| RopeSpec { traditional, ..fixed(dims, 100.0) });
                Path { spec, store, query_norm, key_norm, rotation }.judge(backend, random, tolerance);
            }
        }
    }
}

/// [`Backend::write_heads`] refuses operands that do not fit.
pub fn heads_are_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(31);
    let (page_size, format) = (4, KvFormat::F32);
    let spec =
        KvCacheSpec { pages: 2, page_size, kv_heads: 2, key_dim: 8, values: ValueStore::Own(8), format };
    let mut cache = backend.kv_cache(&spec).unwrap();
    let rope = fixed(8, 100.0);
    let mut tensor = |rows: usize, columns: usize| Array::random(random, rows, columns).upload(backend);
    let (queries, keys, angles) = (tensor(3, 32), tensor(3, 16), tensor(3, 8));
    let good = HeadSpec {
        key_dim: 8,
        query_norm: None,
        key_norm: None,
        rotation: Some(Rotation { angles: &angles, spec: &rope }),
    };
    let rows = backend.indices(&[1, 2, 3]).unwrap();
    let mut write = |[queries, keys, values]: [&B::Tensor; 3], spec: HeadSpec<'_, B>, rows: &B::Indices| {
        backend.write_heads(queries, keys, Some(values), spec, &mut cache, rows)
    };
    let all = [&queries, &keys, &keys];
    write(all, good, &rows).unwrap();
    let [few, narrow, uneven] = [tensor(2, 16), tensor(3, 8), tensor(3, 12)];
    assert_refused("keys", write([&queries, &narrow, &keys], good, &rows));
    assert_refused("values", write([&queries, &keys, &narrow], good, &rows));
    assert_refused("queries", write([&uneven, &keys, &keys], good, &rows));
    assert_refused("few", write([&queries, &few, &keys], good, &rows));
    assert_refused("rows", write(all, good, &backend.indices(&[1, 2]).unwrap()));
    let (few_angles, wide_rope) = (tensor(2, 8), fixed(16, 100.0));
    let rotation = Some(Rotation { angles: &few_angles, spec: &rope });
    assert_refused("angles", write(all, HeadSpec { rotation, ..good }, &rows));
    let rotation = Some(Rotation { angles: &angles, spec: &wide_rope });
    assert_refused("rotation", write(all, HeadSpec { rotation, ..good }, &rows));
    for norm in [
        Norm::rms(8, 1e-5, tensor(1, 7)),
        Norm::rms(7, 1e-5, tensor(1, 7)),
        Norm::rms(64, 1e-5, tensor(1, 64)),
    ] {
        assert_refused("norm", write(all, HeadSpec { query_norm: Some(&norm), ..good }, &rows));
        assert_refused("norm", write(all, HeadSpec { key_norm: Some(&norm), ..good }, &rows));
    }
}
