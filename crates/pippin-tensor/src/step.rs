//! What one step computes: on the host ([`Batch`]) and on a device ([`StepInputs`]).

use std::collections::HashSet;

use crate::{Backend, Result, TensorError};

/// Rows of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// The last row only: the end of a prompt, or a decode step.
    Last,
    /// Every row: perplexity, scoring, verification of drafted tokens.
    All,
}

/// What a sequence's part of a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Want {
    /// Only its keys, values and state: a chunk of a prompt that goes on in a later step.
    Nothing,
    /// The next token, drawn by the sampler of its slot.
    Sample,
    /// The tokens after the first row, which are guesses, checked: after each row, in order, the sampler of the slot draws
    /// a token, until one is not the token of the next row. What is drawn is what it would be one row at a time; the rows
    /// after the last draw hold tokens that the sequence does not have.
    Verify,
    /// Logits.
    Logits(LogitRows),
    /// What the last layer's norm returns: the representation of a text.
    Hidden(LogitRows),
}

/// The new tokens of a sequence.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// These; at least one.
    Tokens(&'a [u32]),
    /// The one that the sequence's slot drew in the step before, whether or not the host knows it already.
    Sampled,
}

impl Input<'_> {
    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Sampled => 1,
        }
    }

    /// Whether there are no rows, which no step accepts.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Stands in a page list for a page that was given back because no token to come sees it any more.
pub const GIVEN_BACK: u32 = u32::MAX;

/// One sequence's part of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct SequenceRows<'a> {
    /// The sequence's place on the device: what it keeps besides pages (recurrent state, sampler) is there.
    pub slot: usize,
    /// The new tokens, in order.
    pub input: Input<'a>,
    /// The index of the first of them: how many tokens of this sequence the KV cache already holds.
    pub start: usize,
    /// For each cache group, the sequence's pages in order, [`GIVEN_BACK`] for those it no longer has; together they have
    /// room for `start + input.len()` tokens.
    pub pages: &'a [&'a [u32]],
    /// What is wanted of them.
    pub want: Want,
    /// How far each new token sees, as the end of a range of indices; without, up to itself. Tokens of an image that see each
    /// other have the image's end.
    pub visible_ends: Option<&'a [u32]>,
    /// The new tokens' positions, where they are not their indices: those of the first axis, then those of the next, ….
    pub positions: Option<&'a [u32]>,
}

impl<'a> SequenceRows<'a> {
    /// Tokens of a text: each sees what is before it, and its position is its index.
    pub fn text(slot: usize, input: Input<'a>, start: usize, pages: &'a [&'a [u32]], want: Want) -> Self {
        Self { slot, input, start, pages, want, visible_ends: None, positions: None }
    }
}

/// What indices in a batch must stay below. A model says it once its cache is allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepLimits {
    /// Token ids.
    pub vocab: usize,
    /// Slots.
    pub slots: usize,
    /// Tokens per page, of every group.
    pub page_size: usize,
    /// Pages of each cache group.
    pub pages: Vec<usize>,
    /// Axes of positions; 1 for text.
    pub axes: usize,
}

/// Rows of one cache group in a batch.
#[derive(Clone, Debug, Default)]
struct GroupRows {
    /// Where each row's keys and values go: `page * page_size + offset`.
    rows: Vec<u32>,
    /// The pages of each sequence.
    tables: Vec<Vec<u32>>,
    /// Pages that are written to; no two sequences may share one.
    written: HashSet<u32>,
}

/// The host-side description of one step: the new tokens of every sequence in it and where their keys and values go.
///
/// Sequences are ragged; any mixture of prompt chunks and single decode tokens is one batch. This is where indices enter:
/// every one is checked here, so that devices need not.
#[derive(Clone, Debug)]
pub struct Batch {
    limits: StepLimits,
    tokens: Vec<u32>,
    /// The slot whose last drawn token a row is; `u32::MAX` for rows with tokens of their own.
    fed: Vec<u32>,
    /// For each axis, the position of each row.
    positions: Vec<Vec<u32>>,
    indices: Vec<u32>,
    visible_ends: Vec<u32>,
    query_starts: Vec<u32>,
    lengths: Vec<u32>,
    slots: Vec<u32>,
    groups: Vec<GroupRows>,
    wants: Vec<Want>,
    head_rows: Vec<u32>,
    hidden_rows: Vec<u32>,
}

impl Batch {
    /// An empty batch.
    pub fn new(limits: &StepLimits) -> Self {
        Self {
            tokens: Vec::new(),
            fed: Vec::new(),
            positions: vec![Vec::new(); limits.axes.max(1)],
            indices: Vec::new(),
            visible_ends: Vec::new(),
            query_starts: vec![0],
            lengths: Vec::new(),
            slots: Vec::new(),
            groups: vec![GroupRows::default(); limits.pages.len()],
            wants: Vec::new(),
            head_rows: Vec::new(),
            hidden_rows: Vec::new(),
            limits: limits.clone(),
        }
    }

    /// Adds a sequence's rows. After an error the batch is as it was.
    ///
    /// # Errors
    ///
    /// [`TensorError::Shape`] when there are no tokens, the pages have no room for them, or what goes with them has another
    /// number of rows; [`TensorError::Index`] for a token, slot or page beyond the limits; [`TensorError::Conflict`] for a
    /// slot or a page to write to that another sequence of the batch has.
    pub fn push(&mut self, sequence: SequenceRows<'_>) -> Result<()> {
        let rows = sequence.input.len();
        let end = self.check(&sequence, rows)?;
        let page_size = self.limits.page_size;
        let first_row = self.tokens.len();
        match sequence.input {
            Input::Tokens(tokens) => {
                self.tokens.extend_from_slice(tokens);
                self.fed.resize(self.tokens.len(), u32::MAX);
            }
            Input::Sampled => {
                self.tokens.push(0);
                self.fed.push(sequence.slot as u32);
            }
        }
        let indices = sequence.start as u32..end as u32;
        for (axis, positions) in self.positions.iter_mut().enumerate() {
            match sequence.positions {
                Some(given) => positions.extend_from_slice(&given[axis * rows..][..rows]),
                None => positions.extend(indices.clone()),
            }
        }
        match sequence.visible_ends {
            Some(ends) => self.visible_ends.extend_from_slice(ends),
            None => self.visible_ends.extend(indices.clone().map(|index| index + 1)),
        }
        for (group, pages) in self.groups.iter_mut().zip(sequence.pages) {
            let needed = &pages[..end.div_ceil(page_size)];
            group.written.extend(&needed[sequence.start / page_size..]);
            group.rows.extend(indices.clone().map(|index| {
                let index = index as usize;
                (needed[index / page_size] as usize * page_size + index % page_size) as u32
            }));
            group.tables.push(needed.to_vec());
        }
        self.indices.extend(indices);
        self.query_starts.push(self.tokens.len() as u32);
        self.lengths.push(end as u32);
        self.slots.push(sequence.slot as u32);
        self.wants.push(sequence.want);
        let all = first_row as u32..self.tokens.len() as u32;
        let last = all.end - 1..all.end;
        match sequence.want {
            Want::Nothing => {}
            Want::Sample | Want::Logits(LogitRows::Last) => self.head_rows.extend(last),
            Want::Verify | Want::Logits(LogitRows::All) => self.head_rows.extend(all),
            Want::Hidden(LogitRows::Last) => self.hidden_rows.extend(last),
            Want::Hidden(LogitRows::All) => self.hidden_rows.extend(all),
        }
        Ok(())
    }

    /// Checks a sequence's rows; returns the sequence's length after the step.
    fn check(&self, sequence: &SequenceRows<'_>, rows: usize) -> Result<usize> {
        let StepLimits { vocab, slots, page_size, axes, .. } = self.limits;
        let index = |operation, index: u64, limit: usize| {
            if index < limit as u64 {
                Ok(())
            } else {
                Err(TensorError::Index { operation, index, limit: limit as u64 })
            }
        };
        if rows == 0 {
            return Err(TensorError::shape("batch", "at least one token per sequence", 0));
        }
        // Positions and rows of the cache are 32 bits wide on every device.
        let end = sequence.start.checked_add(rows).filter(|end| u32::try_from(*end).is_ok());
        let end = end.filter(|_| page_size > 0).ok_or_else(|| {
            let found = format!("{rows} after {} on pages of {page_size}", sequence.start);
            TensorError::shape("batch", "indices below 2^32 and pages of at least one token", found)
        })?;
        if let Input::Tokens(tokens) = sequence.input {
            let largest = tokens.iter().copied().max().unwrap_or(0);
            index("batch: token", u64::from(largest), vocab)?;
        }
        index("batch: slot", sequence.slot as u64, slots)?;
        if self.slots.contains(&(sequence.slot as u32)) {
            return Err(TensorError::Conflict { what: "slot", index: sequence.slot as u64 });
        }
        if sequence.pages.len() != self.groups.len() {
            let expected = format!("pages of {} cache groups", self.groups.len());
            return Err(TensorError::shape("batch", expected, sequence.pages.len()));
        }
        for ((pages, group), limit) in sequence.pages.iter().zip(&self.groups).zip(&self.limits.pages) {
            let needed = end.div_ceil(page_size);
            let Some(pages) = pages.get(..needed) else {
                return Err(TensorError::shape("batch", format!("{needed} pages"), pages.len()));
            };
            let largest = pages.iter().copied().filter(|page| *page != GIVEN_BACK).max().unwrap_or(0);
            index("batch: page", u64::from(largest), *limit)?;
            index(
                "batch: page",
                (u64::from(largest) + 1).saturating_mul(page_size as u64) - 1,
                u32::MAX as usize,
            )?;
            let written = &pages[sequence.start / page_size..];
            for (i, page) in written.iter().enumerate() {
                index("batch: page to write to", u64::from(*page), *limit)?;
                if group.written.contains(page) || written[..i].contains(page) {
                    return Err(TensorError::Conflict { what: "page", index: u64::from(*page) });
                }
            }
        }
        if let Some(ends) = sequence.visible_ends {
            let fits = |(i, visible): (usize, &u32)| {
                (sequence.start + i) < *visible as usize && *visible as usize <= end
            };
            if ends.len() != rows || !ends.iter().enumerate().all(fits) {
                let expected = format!("{rows} ends of what rows see, from themselves to {end}");
                return Err(TensorError::shape("batch", expected, format!("{ends:?}")));
            }
        }
        if let Some(positions) = sequence.positions
            && positions.len() != rows * axes.max(1)
        {
            let expected = format!("{} positions", rows * axes.max(1));
            return Err(TensorError::shape("batch", expected, positions.len()));
        }
        Ok(end)
    }

    /// The limits that its indices were checked against.
    pub fn limits(&self) -> &StepLimits {
        &self.limits
    }

    /// Number of rows: new tokens over all sequences.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// The new tokens of all sequences, one after another; 0 in place of those that slots have drawn.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// For each row, the slot whose last drawn token it is, or `u32::MAX`.
    pub fn fed(&self) -> &[u32] {
        &self.fed
    }

    /// Puts known tokens in the place of those that slots have drawn: `last` gives a slot's, unless it is still on the device.
    pub fn resolve(&mut self, last: impl Fn(usize) -> Option<u32>) {
        for (token, slot) in self.tokens.iter_mut().zip(&mut self.fed).filter(|(_, slot)| **slot != u32::MAX)
        {
            if let Some(known) = last(*slot as usize) {
                (*token, *slot) = (known, u32::MAX);
            }
        }
    }

    /// First row of each sequence, and the number of rows at the end.
    pub fn query_starts(&self) -> &[u32] {
        &self.query_starts
    }

    /// The index of each row in its sequence.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The slot of each sequence.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The pages of each sequence in a cache group.
    pub fn page_tables(&self, group: usize) -> &[Vec<u32>] {
        &self.groups[group].tables
    }

    /// Where each row's keys and values go in a cache group: `page * page_size + offset`.
    pub fn cache_rows(&self, group: usize) -> &[u32] {
        &self.groups[group].rows
    }

    /// What each sequence wants.
    pub fn wants(&self) -> &[Want] {
        &self.wants
    }

    /// The rows whose logits are computed, in the order of their sequences.
    pub fn head_rows(&self) -> &[u32] {
        &self.head_rows
    }

    /// The rows whose representation is wanted, in the order of their sequences.
    pub fn hidden_rows(&self) -> &[u32] {
        &self.hidden_rows
    }

    /// What a recorded step depends on.
    pub fn shape(&self) -> StepShape {
        StepShape {
            rows: self.rows(),
            sequences: self.sequences(),
            head_rows: self.head_rows.len(),
            hidden_rows: self.hidden_rows.len(),
            pages: self.groups.iter().map(GroupRows::width).collect(),
            is_fed: self.is_fed(),
            is_whole: self.outputs().is_none(),
        }
    }

    /// Whether there are rows whose tokens are on the device.
    fn is_fed(&self) -> bool {
        self.fed.iter().any(|slot| *slot != u32::MAX)
    }

    /// The rows that leave the last layer, `None` where that is every row in order.
    fn outputs(&self) -> Option<Vec<u32>> {
        let outputs: Vec<u32> = self.head_rows.iter().chain(&self.hidden_rows).copied().collect();
        let is_all = outputs.len() == self.rows() && outputs.iter().zip(0..).all(|(row, i)| *row == i);
        (!is_all).then_some(outputs)
    }
}

impl GroupRows {
    /// The longest page list.
    fn width(&self) -> usize {
        self.tables.iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// What must be equal for a recorded step to be valid for another batch. Everything else an operation reads is in a device
/// buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepShape {
    /// New tokens over all sequences.
    pub rows: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Rows whose logits are computed.
    pub head_rows: usize,
    /// Rows whose representation is wanted.
    pub hidden_rows: usize,
    /// Width of each cache group's page tables.
    pub pages: Vec<usize>,
    /// Whether there are rows whose tokens are on the device ([`StepInputs::fed`]).
    pub is_fed: bool,
    /// Whether all rows leave the last layer, in order ([`StepInputs::output_rows`]).
    pub is_whole: bool,
}

/// A cache group's part of a step's inputs.
#[derive(Debug)]
pub struct CacheInputs<B: Backend> {
    /// Width of `page_tables`.
    pub pages_per_sequence: usize,
    /// Where each row's keys and values go, `page * page_size + offset`, `[rows]`. All different.
    pub rows: B::Indices,
    /// Pages of each sequence, `[sequences, pages_per_sequence]`. Places that no row sees hold 0.
    pub page_tables: B::Indices,
}

/// One step's inputs on the device; see [`Backend::upload`].
#[derive(Debug)]
pub struct StepInputs<B: Backend> {
    /// New tokens over all sequences.
    pub rows: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Axes of `positions`.
    pub axes: usize,
    /// Token ids, `[rows]`.
    pub tokens: B::Indices,
    /// For each row, the slot whose last drawn token takes the place of the one in `tokens`, or `u32::MAX`, `[rows]`. `None`
    /// where no row has one.
    pub fed: Option<B::Indices>,
    /// Position of each row in its sequence, `[axes, rows]`.
    pub positions: B::Indices,
    /// Index of each row in its sequence, `[rows]`. Rows of a sequence have indices one after the other.
    pub indices: B::Indices,
    /// How far each row sees: the end of a range of indices, `[rows]`.
    pub visible_ends: B::Indices,
    /// First row of each sequence, and `rows` at the end, `[sequences + 1]`.
    pub query_starts: B::Indices,
    /// Tokens of each sequence after this step, `[sequences]`.
    pub lengths: B::Indices,
    /// Slot of each sequence, `[sequences]`. All different.
    pub slots: B::Indices,
    /// What each cache group has of its own.
    pub groups: Vec<CacheInputs<B>>,
    /// The rows that leave the last layer: first those whose logits are computed, then those whose representation is
    /// wanted. `None` where that is every row in order.
    pub output_rows: Option<B::Indices>,
}

impl<B: Backend> StepInputs<B> {
    /// Copies a batch to a device, a buffer for each kind of index.
    ///
    /// # Errors
    ///
    /// Whatever [`Backend::indices`] returns.
    pub fn new(backend: &B, batch: &Batch) -> Result<Self> {
        Self::padded(backend, batch, |width| width)
    }

    /// The same with page tables as wide as `pad` makes of their width, which is no less: zeros follow. So that steps have the
    /// same shape while a sequence grows.
    ///
    /// # Errors
    ///
    /// Whatever [`Backend::indices`] returns.
    pub fn padded(backend: &B, batch: &Batch, pad: impl Fn(usize) -> usize) -> Result<Self> {
        let groups = batch.groups.iter().map(|group| {
            let pages_per_sequence = pad(group.width()).max(group.width());
            let mut tables = Vec::with_capacity(group.tables.len() * pages_per_sequence);
            for table in &group.tables {
                tables.extend(table.iter().map(|page| if *page == GIVEN_BACK { 0 } else { *page }));
                tables.resize(tables.len() + pages_per_sequence - table.len(), 0);
            }
            Ok(CacheInputs {
                pages_per_sequence,
                rows: backend.indices(&group.rows)?,
                page_tables: backend.indices(&tables)?,
            })
        });
        Ok(Self {
            rows: batch.rows(),
            sequences: batch.sequences(),
            axes: batch.positions.len(),
            tokens: backend.indices(&batch.tokens)?,
            fed: if batch.is_fed() { Some(backend.indices(&batch.fed)?) } else { None },
            positions: backend.indices(&batch.positions.concat())?,
            indices: backend.indices(&batch.indices)?,
            visible_ends: backend.indices(&batch.visible_ends)?,
            query_starts: backend.indices(&batch.query_starts)?,
            lengths: backend.indices(&batch.lengths)?,
            slots: backend.indices(&batch.slots)?,
            groups: groups.collect::<Result<_>>()?,
            output_rows: batch.outputs().map(|rows| backend.indices(&rows)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> StepLimits {
        StepLimits { vocab: 100, slots: 4, page_size: 4, pages: vec![10, 3], axes: 1 }
    }

    fn rows<'a>(slot: usize, tokens: &'a [u32], start: usize, pages: &'a [&'a [u32]]) -> SequenceRows<'a> {
        SequenceRows::text(slot, Input::Tokens(tokens), start, pages, Want::Sample)
    }

    #[test]
    fn rows_of_the_cache_follow_the_page_tables() {
        let mut batch = Batch::new(&limits());
        batch.push(rows(2, &[1, 2, 3], 3, &[&[7, 2], &[0, 1]])).unwrap();
        batch.push(rows(0, &[9], 4, &[&[0, 5], &[GIVEN_BACK, 2]])).unwrap();
        assert_eq!(batch.cache_rows(0), [31, 8, 9, 20]);
        assert_eq!(batch.cache_rows(1), [3, 4, 5, 8]);
        assert_eq!(batch.indices(), [3, 4, 5, 4]);
        assert_eq!(batch.visible_ends, [4, 5, 6, 5]);
        assert_eq!(batch.query_starts(), [0, 3, 4]);
        assert_eq!(batch.lengths, [6, 5]);
        assert_eq!(batch.page_tables(1), [vec![0, 1], vec![GIVEN_BACK, 2]]);
        assert_eq!(batch.head_rows(), [2, 3]);
        let shape = batch.shape();
        assert_eq!((shape.rows, shape.sequences, shape.head_rows, shape.pages), (4, 2, 2, vec![2, 2]));
    }

    #[test]
    fn drawn_tokens_are_put_in_place() {
        let mut batch = Batch::new(&limits());
        let pages: [&[u32]; 2] = [&[1], &[1]];
        batch.push(SequenceRows::text(3, Input::Sampled, 2, &pages, Want::Nothing)).unwrap();
        assert_eq!((batch.tokens(), batch.fed()), (&[0][..], &[3][..]));
        let shape = batch.shape();
        batch.resolve(|_| None);
        assert_eq!((batch.fed(), batch.shape()), (&[3][..], shape.clone()));
        batch.resolve(|slot| Some(slot as u32 + 50));
        assert_eq!((batch.tokens(), batch.fed()), (&[53][..], &[u32::MAX][..]));
        // What is recorded for a step whose tokens are on the device reads them there.
        assert_ne!(batch.shape(), shape);
    }

    /// Steps with as many rows of each kind are alike only if the rows leave the last layer alike.
    #[test]
    fn the_order_of_the_outputs_is_part_of_the_shape() {
        let pages: [&[u32]; 2] = [&[1], &[1]];
        let others: [&[u32]; 2] = [&[2], &[2]];
        let shape = |wants: [Want; 2]| {
            let mut batch = Batch::new(&limits());
            batch.push(SequenceRows { want: wants[0], ..rows(0, &[1], 0, &pages) }).unwrap();
            batch.push(SequenceRows { want: wants[1], ..rows(1, &[1], 0, &others) }).unwrap();
            batch.shape()
        };
        let hidden = Want::Hidden(LogitRows::Last);
        assert_ne!(shape([Want::Sample, hidden]), shape([hidden, Want::Sample]));
        assert_eq!(shape([Want::Sample, hidden]), shape([Want::Logits(LogitRows::Last), hidden]));
    }

    #[test]
    fn impossible_rows_are_errors_and_change_nothing() {
        let two: [&[u32]; 2] = [&[0, 1], &[0, 1]];
        let refused: [SequenceRows<'_>; 12] = [
            rows(0, &[], 0, &two),
            rows(0, &[1, 2], 7, &two),
            rows(0, &[1], usize::MAX, &two),
            rows(0, &[1], u32::MAX as usize, &two),
            rows(0, &[100], 0, &two),
            rows(4, &[1], 0, &two),
            rows(0, &[1], 0, &[&[0]]),
            rows(0, &[1], 0, &[&[0], &[3]]),
            rows(0, &[1], 0, &[&[GIVEN_BACK], &[0]]),
            rows(0, &[1; 5], 0, &[&[3, 3], &[0, 1]]),
            SequenceRows { visible_ends: Some(&[2]), ..rows(0, &[1], 0, &two) },
            SequenceRows { positions: Some(&[2, 3]), ..rows(0, &[1], 0, &two) },
        ];
        for sequence in refused {
            let mut batch = Batch::new(&limits());
            assert!(batch.push(sequence).is_err(), "{sequence:?}");
            assert_eq!((batch.rows(), batch.sequences()), (0, 0));
        }
        assert!(Batch::new(&StepLimits { page_size: 0, ..limits() }).push(rows(0, &[1], 0, &two)).is_err());
    }

    #[test]
    fn two_sequences_share_neither_slots_nor_pages_to_write_to() {
        let mut batch = Batch::new(&limits());
        // Both read page 0 of the first group; each writes to pages of its own.
        batch.push(rows(0, &[1], 4, &[&[0, 1], &[0, 1]])).unwrap();
        let error = batch.push(rows(0, &[1], 4, &[&[0, 2], &[0, 2]])).unwrap_err();
        assert!(matches!(error, TensorError::Conflict { what: "slot", index: 0 }), "{error}");
        let error = batch.push(rows(1, &[1], 4, &[&[0, 2], &[0, 1]])).unwrap_err();
        assert!(matches!(error, TensorError::Conflict { what: "page", index: 1 }), "{error}");
        batch.push(rows(1, &[1], 4, &[&[0, 2], &[0, 2]])).unwrap();
    }
}
