use crate::{Backend, Result, StepInputs, TensorError};

/// Which rows of a sequence need logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// None: a chunk of a prompt that goes on in a later step.
    None,
    /// The last row only: the end of a prompt, or a decode step.
    Last,
    /// Every row: perplexity, scoring, verification of drafted tokens.
    All,
}

/// One sequence's part of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct SequenceRows<'a> {
    /// The new tokens, in order; at least one.
    pub tokens: &'a [u32],
    /// The position of the first of them: how many tokens of this sequence the KV cache already holds.
    pub start: usize,
    /// The sequence's pages in order; together they have room for `start + tokens.len()` tokens.
    pub pages: &'a [u32],
    /// The rows whose logits are wanted.
    pub logits: LogitRows,
}

/// The host-side description of one step: the new tokens of every sequence in it and where their keys and values go.
///
/// Sequences are ragged; any mixture of prompt chunks and single decode tokens is one batch.
#[derive(Clone, Debug)]
pub struct Batch {
    page_size: usize,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    query_starts: Vec<u32>,
    context_lengths: Vec<u32>,
    page_tables: Vec<Vec<u32>>,
    logit_rows: Vec<u32>,
}

impl Batch {
    /// An empty batch for a KV cache whose pages hold `page_size` tokens.
    pub fn new(page_size: usize) -> Self {
        Self {
            page_size,
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            query_starts: vec![0],
            context_lengths: Vec::new(),
            page_tables: Vec::new(),
            logit_rows: Vec::new(),
        }
    }

    /// Adds a sequence's rows.
    ///
    /// # Errors
    ///
    /// [`TensorError::Shape`] when there are no tokens or the pages have no room for them; [`TensorError::Index`] for a page
    /// whose slots do not fit in 32 bits.
    pub fn push(&mut self, sequence: SequenceRows<'_>) -> Result<()> {
        if sequence.tokens.is_empty() {
            return Err(TensorError::shape("batch", "at least one token per sequence", 0));
        }
        // Positions and slots are 32 bits wide on every device.
        let end = sequence.start.checked_add(sequence.tokens.len()).filter(|end| u32::try_from(*end).is_ok());
        let end = end.filter(|_| self.page_size > 0).ok_or_else(|| {
            let found =
                format!("{} after {} on pages of {}", sequence.tokens.len(), sequence.start, self.page_size);
            TensorError::shape("batch", "positions below 2^32 and pages of at least one token", found)
        })?;
        let needed = end.div_ceil(self.page_size);
        let Some(pages) = sequence.pages.get(..needed) else {
            return Err(TensorError::shape("batch", format!("{needed} pages"), sequence.pages.len()));
        };
        let last_page = pages.iter().copied().max().unwrap_or(0) as usize;
        if u32::try_from((last_page + 1).saturating_mul(self.page_size)).is_err() {
            return Err(TensorError::Index {
                operation: "batch",
                index: last_page as u64,
                limit: (u32::MAX as usize / self.page_size) as u64,
            });
        }
        let first_row = self.tokens.len();
        self.tokens.extend_from_slice(sequence.tokens);
        for position in sequence.start..end {
            self.positions.push(position as u32);
            let page = pages[position / self.page_size] as usize;
            self.slots.push((page * self.page_size + position % self.page_size) as u32);
        }
        self.query_starts.push(self.tokens.len() as u32);
        self.context_lengths.push(end as u32);
        self.page_tables.push(pages.to_vec());
        match sequence.logits {
            LogitRows::None => {}
            LogitRows::Last => self.logit_rows.push(self.tokens.len() as u32 - 1),
            LogitRows::All => self.logit_rows.extend(first_row as u32..self.tokens.len() as u32),
        }
        Ok(())
    }

    /// Tokens per page of the KV cache that this batch is meant for.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Number of rows: new tokens over all sequences.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.context_lengths.len()
    }

    /// The new tokens of all sequences, one after another.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The rows whose logits are wanted, in the order in which the model returns them.
    pub fn logit_rows(&self) -> &[u32] {
        &self.logit_rows
    }

    /// Copies the step's inputs to the device.
    ///
    /// # Errors
    ///
    /// Whatever [`Backend::indices`] returns.
    pub fn upload<B: Backend>(&self, backend: &B) -> Result<StepInputs<B>> {
        let pages_per_sequence = self.page_tables.iter().map(Vec::len).max().unwrap_or(0);
        let mut tables = Vec::with_capacity(self.page_tables.len() * pages_per_sequence);
        for table in &self.page_tables {
            tables.extend_from_slice(table);
            // Entries past a sequence's end are never read; zero keeps them valid page numbers.
            tables.resize(tables.len() + pages_per_sequence - table.len(), 0);
        }
        Ok(StepInputs {
            rows: self.rows(),
            sequences: self.sequences(),
            pages_per_sequence,
            tokens: backend.indices(&self.tokens)?,
            positions: backend.indices(&self.positions)?,
            slots: backend.indices(&self.slots)?,
            query_starts: backend.indices(&self.query_starts)?,
            context_lengths: backend.indices(&self.context_lengths)?,
            page_tables: backend.indices(&tables)?,
            logit_rows: backend.indices(&self.logit_rows)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows<'a>(tokens: &'a [u32], start: usize, pages: &'a [u32]) -> SequenceRows<'a> {
        SequenceRows { tokens, start, pages, logits: LogitRows::Last }
    }

    #[test]
    fn slots_follow_the_page_table() {
        let mut batch = Batch::new(4);
        batch.push(rows(&[1, 2, 3], 3, &[7, 2])).unwrap();
        batch.push(rows(&[9], 0, &[0, 5])).unwrap();
        assert_eq!(batch.slots, [31, 8, 9, 0]);
        assert_eq!(batch.positions, [3, 4, 5, 0]);
        assert_eq!(batch.query_starts, [0, 3, 4]);
        assert_eq!(batch.context_lengths, [6, 1]);
        assert_eq!(batch.page_tables, [vec![7, 2], vec![0]]);
        assert_eq!(batch.logit_rows, [2, 3]);
    }

    #[test]
    fn impossible_rows_are_errors() {
        assert!(Batch::new(4).push(rows(&[], 0, &[0])).is_err());
        assert!(Batch::new(4).push(rows(&[1, 2], 3, &[0])).is_err());
        assert!(Batch::new(0).push(rows(&[1], 0, &[0])).is_err());
        assert!(Batch::new(4).push(rows(&[1], usize::MAX, &[0])).is_err());
        assert!(Batch::new(1 << 20).push(rows(&[1], u32::MAX as usize, &[0])).is_err());
        assert!(Batch::new(4).push(rows(&[1], 0, &[u32::MAX])).is_err());
    }
}
