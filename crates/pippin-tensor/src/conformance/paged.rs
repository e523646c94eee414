//! Sequences in paged caches, and what attention makes of them.

use std::{collections::HashSet, ops::Range};

use super::{
    array::{Array, Random, dot},
    check::Check,
    schedule::{Piece, gather},
};
use crate::{
    AttentionSpec, Backend, Batch, Beside, Dtype, GIVEN_BACK, Input, KeyChoice, KvCacheSpec, KvFormat,
    Result, SequenceRows, StepLimits, TensorData, ValueStore, Want,
};

/// Attention of one layer, and how its cache keeps numbers.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) spec: AttentionSpec,
    pub(super) store: ValueStore,
    pub(super) format: KvFormat,
    pub(super) sinks: Option<Array>,
}

impl Layer {
    pub(super) fn cache(&self, pages: usize, page_size: usize) -> KvCacheSpec {
        let AttentionSpec { kv_heads, key_dim, .. } = self.spec;
        KvCacheSpec { pages, page_size, kv_heads, key_dim, values: self.store, format: self.format }
    }

    fn has_values(&self) -> bool {
        matches!(self.store, ValueStore::Own(_))
    }
}

/// What a layer has of a sequence: all its queries, keys and values, and where they are kept.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    pub(super) queries: Array,
    pub(super) keys: Array,
    pub(super) values: Array,
    pub(super) pages: Vec<u32>,
}

impl Heads {
    /// Random queries, sharp enough that the softmax is not nearly uniform, and random keys and values as the cache will
    /// keep them.
    fn random(random: &mut Random, layer: &Layer, length: usize, pages: Vec<u32>) -> Self {
        let AttentionSpec { heads, kv_heads, key_dim, value_dim, .. } = layer.spec;
        let queries = Array::random(random, length, heads * key_dim).operand(|v| 4.0 * v);
        let keys = rounded(Array::random(random, length, kv_heads * key_dim), key_dim, layer.format);
        let values = match layer.store {
            ValueStore::Own(_) => {
                rounded(Array::random(random, length, kv_heads * value_dim), value_dim, layer.format)
            }
            ValueStore::InKeys(_) => keys
                .map_rows(|_, keys| keys.chunks(key_dim).flat_map(|key| key[..value_dim].to_vec()).collect()),
        };
        Self { queries, keys, values, pages }
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
    let data = TensorData::from_f32_as("kv", dtype, &[array.rows, array.columns], &array.to_f32()).unwrap();
    Array::new(array.rows, array.columns, &data.to_f32().unwrap())
}

/// The reference for attention: query row `i` sees the keys and values `visible(i)`.
pub(super) fn attended<V>(
    [queries, keys, values]: [&Array; 3],
    spec: &AttentionSpec,
    sinks: Option<&Array>,
    visible: impl Fn(usize) -> V,
) -> Array
where
    V: Iterator<Item = usize>,
{
    let AttentionSpec { heads, kv_heads, key_dim, value_dim, .. } = *spec;
    queries.map_rows(|row, queries| {
        let head = |head: usize| {
            let kv_head = head / (heads / kv_heads);
            let query = &queries[head * key_dim..][..key_dim];
            let mut scores: Vec<f64> = visible(row)
                .map(|row| {
                    let score =
                        dot(query, &keys.row(row)[kv_head * key_dim..][..key_dim]) * f64::from(spec.scale);
                    spec.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                })
                .collect();
            scores.extend(sinks.map(|sinks| sinks.values[head]));
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            let mut out = vec![0.0; value_dim];
            for (score, row) in scores.iter().zip(visible(row)) {
                let weight = (score - max).exp() / sum;
                let value = &values.row(row)[kv_head * value_dim..][..value_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
            }
            out
        };
        (0..heads).flat_map(head).collect()
    })
}

/// How an index chooses in a case: of the keys that stand for `stride` tokens each the best `top_k`, of so many blocks of a
/// size if there are some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Among {
    pub(super) top_k: usize,
    pub(super) stride: usize,
    pub(super) blocks: Option<(usize, usize)>,
}

/// The reference for the choice of an index: for each row those of its keys and the ones before that rank highest, in order.
fn chosen(
    index: &Heads,
    weights: &Array,
    choice: &KeyChoice,
    among: Option<&[Vec<usize>]>,
) -> Vec<Vec<usize>> {
    let &KeyChoice { key_dim, top_k, stride, block, .. } = choice;
    let rank = |row: usize, key: usize| -> f64 {
        let queries = index.queries.row(row).chunks(key_dim).zip(weights.row(row));
        queries.map(|(query, weight)| weight * dot(query, index.keys.row(key)).max(0.0)).sum()
    };
    let of_row = |row: usize| {
        let keys: Vec<usize> = match among {
            Some(among) => among[row].clone(),
            None => (0..=row).filter(|key| (key + 1).is_multiple_of(stride)).collect(),
        };
        let mut blocks: Vec<(f64, &[usize])> = keys
            .chunks(block)
            .map(|keys| (keys.iter().map(|key| rank(row, *key)).fold(f64::NEG_INFINITY, f64::max), keys))
            .collect();
        if let Some((best, _)) = blocks.last_mut().filter(|_| block > 1) {
            *best = f64::INFINITY;
        }
        // Stable: of equals the first.
        blocks.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut keys: Vec<usize> =
            blocks.into_iter().take(top_k).flat_map(|(_, keys)| keys).copied().collect();
        keys.sort_unstable();
        keys
    };
    (0..index.queries.rows).map(of_row).collect()
}

/// Sequences whose layers have caches of a group each.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) layers: Vec<Layer>,
    pub(super) page_size: usize,
    pub(super) lengths: Vec<usize>,
    /// Indices of tokens that see each other, in every sequence.
    pub(super) blocks: Vec<Range<usize>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Layer { spec, store, format, sinks } in &self.layers {
            let sinks = if sinks.is_some() { ", sinks" } else { "" };
            write!(f, "{spec:?}, values {store:?}{sinks}, {format} cache; ")?;
        }
        write!(f, "pages of {}, blocks {:?}", self.page_size, self.blocks)
    }
}

impl Case {
    /// Pages of each group: what the sequences need, and some that none has. The first is never a sequence's, because page
    /// tables name it where there is no page.
    fn pages(&self) -> usize {
        self.lengths.iter().map(|length| length.div_ceil(self.page_size)).sum::<usize>() + 4
    }

    /// Random sequences whose pages are scattered over the caches: for each sequence, what each layer has of it.
    pub(super) fn sequences(&self, random: &mut Random) -> Vec<Vec<Heads>> {
        let mut free: Vec<Vec<u32>> = self
            .layers
            .iter()
            .map(|_| random.shuffled(self.pages() - 1).iter().map(|page| page + 1).collect())
            .collect();
        let mut heads = |length: usize| -> Vec<Heads> {
            let layers = self.layers.iter().zip(&mut free);
            let layer = layers.map(|(layer, free)| {
                let pages = free.split_off(free.len() - length.div_ceil(self.page_size));
                Heads::random(random, layer, length, pages)
            });
            layer.collect()
        };
        self.lengths.iter().map(|length| heads(*length)).collect()
    }

    /// How far the token at an index sees in a sequence of some length.
    fn visible_end(&self, index: usize, length: usize) -> usize {
        let block = self.blocks.iter().find(|block| block.contains(&index));
        block.map_or(index + 1, |block| block.end.min(length))
    }

    /// The results of a sequence.
    fn expected(&self, sequence: &[Heads]) -> Vec<Array> {
        let layers = self.layers.iter().zip(sequence);
        let output = |(layer, heads): (&Layer, &Heads)| {
            let visible = |index| layer.spec.reach.first(index)..self.visible_end(index, heads.queries.rows);
            let operands = [&heads.queries, &heads.keys, &heads.values];
            attended(operands, &layer.spec, layer.sinks.as_ref(), visible)
        };
        layers.map(output).collect()
    }

    /// Judges [`Backend::kv_write`] and [`Backend::attention`] on sequences of this case. Whatever no row may see is NaN:
    /// places of the caches that are not written yet, and pages that are given back.
    pub(super) fn judge<B: Backend>(&self, check: &Check<'_, B>, sequences: &[Vec<Heads>]) {
        let backend = check.backend;
        let specs: Vec<KvCacheSpec> =
            self.layers.iter().map(|layer| layer.cache(self.pages(), self.page_size)).collect();
        for spec in &specs {
            if check.supported(spec, backend.kv_cache(spec)).is_none() {
                return;
            }
        }
        let expected: Vec<Vec<Array>> = sequences.iter().map(|sequence| self.expected(sequence)).collect();
        let tolerances = vec![check.tolerance; self.layers.len()];
        let sinks: Vec<Option<B::Tensor>> =
            self.layers.iter().map(|layer| layer.sinks.as_ref().map(|sinks| sinks.upload(backend))).collect();
        let start = || {
            let mut caches: Vec<B::KvCache> =
                specs.iter().map(|spec| backend.kv_cache(spec).unwrap()).collect();
            for (cache, layer) in caches.iter_mut().zip(&self.layers) {
                spoil(backend, cache, layer, 0..self.pages() * self.page_size);
            }
            (caches, HashSet::new())
        };
        check.sequences(self, &expected, &tolerances, &self.blocks, start, |(caches, given_back), pieces| {
            let tables = self.tables(sequences, pieces);
            for (piece, tables) in pieces.iter().zip(&tables) {
                for (group, table) in tables.iter().enumerate() {
                    for (page, now) in sequences[piece.sequence][group].pages.iter().zip(table) {
                        if *now == GIVEN_BACK && given_back.insert((group, *page)) {
                            let first = *page as usize * self.page_size;
                            let rows = first..first + self.page_size;
                            spoil(backend, &mut caches[group], &self.layers[group], rows);
                        }
                    }
                }
            }
            let step = backend.upload(&self.batch(pieces, &tables)?)?;
            let layers = self.layers.iter().zip(caches).zip(&sinks).enumerate();
            let outputs = layers.map(|(group, ((layer, cache), sinks))| {
                let rows = |of: fn(&Heads) -> &Array| {
                    gather(backend, pieces, |sequence| of(&sequences[sequence][group]))
                };
                let values = layer.has_values().then(|| rows(|heads| &heads.values));
                let cache_rows = &step.groups[group].rows;
                backend.kv_write(cache, &rows(|heads| &heads.keys), values.as_ref(), cache_rows)?;
                let queries = rows(|heads| &heads.queries);
                backend.attention(&queries, cache, &step, group, &layer.spec, sinks.as_ref())
            });
            outputs.collect()
        });
    }

    /// What attention of the first layer makes of whole sequences in one step.
    pub(super) fn attend<B: Backend>(&self, backend: &B, sequences: &[Vec<Heads>]) -> Result<Vec<f32>> {
        let layer = &self.layers[0];
        let mut cache = backend.kv_cache(&layer.cache(self.pages(), self.page_size))?;
        let pieces: Vec<Piece> = (0..sequences.len())
            .map(|sequence| Piece { sequence, rows: 0..self.lengths[sequence], spoiled: false })
            .collect();
        let step = backend.upload(&self.batch(&pieces, &self.tables(sequences, &pieces))?)?;
        let rows =
            |of: fn(&Heads) -> &Array| gather(backend, &pieces, |sequence| of(&sequences[sequence][0]));
        let values = layer.has_values().then(|| rows(|heads| &heads.values));
        backend.kv_write(&mut cache, &rows(|heads| &heads.keys), values.as_ref(), &step.groups[0].rows)?;
        let sinks = layer.sinks.as_ref().map(|sinks| sinks.upload(backend));
        let queries = rows(|heads| &heads.queries);
        backend.read(&backend.attention(&queries, &cache, &step, 0, &layer.spec, sinks.as_ref())?)
    }

    /// Judges [`Backend::choose_keys`] and [`Backend::attention_among`] on sequences of this case, whose second layer is the
    /// index that chooses the first layer's keys, and whose third one, if there is one, has keys besides; `weights` are those
    /// of the index's queries, for each sequence.
    pub(super) fn judge_among<B: Backend>(
        &self,
        check: &Check<'_, B>,
        sequences: &[Vec<Heads>],
        weights: &[Array],
        among: &Among,
    ) {
        let backend = check.backend;
        let (layer, index) = (&self.layers[0], &self.layers[1]);
        let specs: Vec<KvCacheSpec> =
            self.layers.iter().map(|layer| layer.cache(self.pages(), self.page_size)).collect();
        for spec in &specs {
            if check.supported(spec, backend.kv_cache(spec)).is_none() {
                return;
            }
        }
        let &Among { top_k, stride, blocks } = among;
        let &AttentionSpec { heads, key_dim, .. } = &index.spec;
        let choice = KeyChoice { heads, key_dim, top_k, stride, block: 1 };
        let of_blocks = blocks.map(|(top_k, block)| KeyChoice { top_k, block, ..choice });
        let expected: Vec<Vec<Array>> = sequences
            .iter()
            .zip(weights)
            .map(|(heads, weights)| {
                let blocks = of_blocks.map(|choice| chosen(&heads[1], weights, &choice, None));
                let chosen = chosen(&heads[1], weights, &choice, blocks.as_deref());
                // Keys of the other cache stand before the first layer's.
                let (reach, [keys, values]) = match (self.layers.get(2), heads.get(2)) {
                    (Some(layer), Some(other)) => {
                        let both = [(&other.keys, &heads[0].keys), (&other.values, &heads[0].values)];
                        (Some(layer.spec.reach), both.map(|(a, b)| a.above(b)))
                    }
                    _ => (None, [heads[0].keys.clone(), heads[0].values.clone()]),
                };
                let others = if reach.is_some() { heads[0].keys.rows } else { 0 };
                let visible = |row: usize| {
                    let besides = reach.map_or(0..0, |reach| reach.first(row)..row + 1);
                    besides.chain(chosen[row].iter().map(move |key| others + key))
                };
                let operands = [&heads[0].queries, &keys, &values];
                vec![attended(operands, &layer.spec, layer.sinks.as_ref(), visible)]
            })
            .collect();
        let start = || {
            let mut caches: Vec<B::KvCache> =
                specs.iter().map(|spec| backend.kv_cache(spec).unwrap()).collect();
            for (cache, layer) in caches.iter_mut().zip(&self.layers) {
                spoil(backend, cache, layer, 0..self.pages() * self.page_size);
            }
            caches
        };
        let sinks = layer.sinks.as_ref().map(|sinks| sinks.upload(backend));
        let case = (self, among);
        check.sequences(&case, &expected, &[check.tolerance], &[], start, |caches, pieces| {
            let step = backend.upload(&self.batch(pieces, &self.tables(sequences, pieces))?)?;
            let rows = |group: usize, of: fn(&Heads) -> &Array| {
                gather(backend, pieces, |sequence| of(&sequences[sequence][group]))
            };
            let indices: Vec<usize> = pieces.iter().flat_map(|piece| piece.rows.clone()).collect();
            for (group, (cache, layer)) in caches.iter_mut().zip(&self.layers).enumerate() {
                let values = layer.has_values().then(|| rows(group, |heads| &heads.values));
                let keys = rows(group, |heads| &heads.keys);
                let mut to = backend.read_indices(&step.groups[group].rows)?;
                for (to, index) in to.iter_mut().zip(&indices) {
                    // Only some tokens have keys of the first two.
                    if group < 2 && !(index + 1).is_multiple_of(stride) {
                        *to = u32::MAX;
                    }
                }
                backend.kv_write(cache, &keys, values.as_ref(), &backend.indices(&to)?)?;
            }
            let weights = gather(backend, pieces, |sequence| &weights[sequence]);
            let index_queries = rows(1, |heads| &heads.queries);
            let choose = |choice: &KeyChoice, among: Option<&B::Indices>| {
                backend.choose_keys(&index_queries, &weights, &caches[1], &step, 1, choice, among)
            };
            let blocks = of_blocks.map(|choice| choose(&choice, None)).transpose()?;
            let chosen = choose(&choice, blocks.as_ref())?;
            let queries = rows(0, |heads| &heads.queries);
            let beside =
                caches.get(2).map(|cache| Beside { cache, group: 2, reach: self.layers[2].spec.reach });
            let output = backend.attention_among(
                &queries,
                &caches[0],
                &step,
                0,
                &layer.spec,
                &chosen,
                beside,
                sinks.as_ref(),
            )?;
            let is_plain = beside.is_none() && blocks.is_none() && stride == 1;
            if is_plain && self.lengths.iter().all(|length| *length <= top_k) {
                let all = backend.attention(&queries, &caches[0], &step, 0, &layer.spec, sinks.as_ref())?;
                let (all, output) = (backend.read(&all)?, backend.read(&output)?);
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(all.iter().zip(&output).all(same), "{case:?}: all keys are chosen, the bits differ");
            }
            Ok(vec![output])
        });
    }

    /// For each piece, each group's pages, without those that no row of the piece sees.
    fn tables(&self, sequences: &[Vec<Heads>], pieces: &[Piece]) -> Vec<Vec<Vec<u32>>> {
        let table = |piece: &Piece, layer: &Layer, heads: &Heads| {
            let first = layer.spec.reach.first(piece.rows.start) / self.page_size;
            let pages = heads.pages.iter().enumerate();
            pages.map(|(i, page)| if i < first { GIVEN_BACK } else { *page }).collect()
        };
        let tables = |piece: &Piece| {
            let layers = self.layers.iter().zip(&sequences[piece.sequence]);
            layers.map(|(layer, heads)| table(piece, layer, heads)).collect()
        };
        pieces.iter().map(tables).collect()
    }

    fn batch(&self, pieces: &[Piece], tables: &[Vec<Vec<u32>>]) -> Result<Batch> {
        let mut batch = Batch::new(&StepLimits {
            vocab: 1,
            slots: self.lengths.len(),
            page_size: self.page_size,
            pages: vec![self.pages(); self.layers.len()],
            axes: 1,
        });
        for (Piece { sequence, rows, .. }, tables) in pieces.iter().zip(tables) {
            let tokens = vec![0; rows.len()];
            let pages: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
            let ends = rows.clone().map(|index| self.visible_end(index, self.lengths[*sequence]) as u32);
            let ends: Vec<u32> = ends.collect();
            let text =
                SequenceRows::text(*sequence, Input::Tokens(&tokens), rows.start, &pages, Want::Nothing);
            let visible_ends = (!self.blocks.is_empty()).then_some(&ends[..]);
            batch.push(SequenceRows { visible_ends, ..text })?;
        }
        Ok(batch)
    }
}

/// Writes NaN into rows of a cache.
fn spoil<B: Backend>(backend: &B, cache: &mut B::KvCache, layer: &Layer, rows: Range<usize>) {
    let AttentionSpec { kv_heads, key_dim, value_dim, .. } = layer.spec;
    let nothing = |dim: usize| Array::filled(rows.len(), kv_heads * dim, f64::NAN).upload(backend);
    let values = layer.has_values().then(|| nothing(value_dim));
    let rows: Vec<u32> = rows.clone().map(|row| row as u32).collect();
    let rows = backend.indices(&rows).unwrap();
    backend.kv_write(cache, &nothing(key_dim), values.as_ref(), &rows).unwrap();
}
