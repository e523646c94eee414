//! Mixers that keep state in slots: short convolutions and linear recurrences.

use std::ops::Range;

use pippin_tensor::{Result, ScanInputs, ScanSpec, ScanUpdate, StateSpec, StepInputs, TensorError};

use crate::{
    CpuBackend, CpuTensor,
    kernels::recurrence::{ScanTask, Update},
    shape_of,
    tensor::{Lines, Shared},
};

/// What a mixer keeps for each slot.
#[derive(Debug)]
pub struct CpuState {
    spec: StateSpec,
    /// Elements from one slot to the next: whole cache lines.
    stride: usize,
    values: Lines,
}

impl CpuState {
    pub(crate) fn new(spec: &StateSpec) -> Result<Self> {
        let stride = spec.columns.checked_next_multiple_of(16);
        let len = stride.and_then(|stride| stride.checked_mul(spec.slots)).unwrap_or(usize::MAX);
        Ok(Self { spec: *spec, stride: stride.unwrap_or(0), values: Lines::new(len)? })
    }

    fn at(&self, slot: usize) -> Result<usize> {
        if slot < self.spec.slots {
            return Ok(slot * self.stride);
        }
        Err(TensorError::Index { operation: "state", index: slot as u64, limit: self.spec.slots as u64 })
    }

    pub(crate) fn reset(&mut self, slot: usize) -> Result<()> {
        let at = self.at(slot)?;
        self.values[at..at + self.spec.columns].fill(0.0);
        Ok(())
    }

    pub(crate) fn copy(&mut self, from: usize, to: usize) -> Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        self.values.copy_within(from..from + self.spec.columns, to);
        Ok(())
    }

    pub(crate) fn read(&self, slot: usize, to: &mut Vec<u8>) -> Result<()> {
        let at = self.at(slot)?;
        to.extend(self.values[at..at + self.spec.columns].iter().flat_map(|value| value.to_ne_bytes()));
        Ok(())
    }

    pub(crate) fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<()> {
        let at = self.at(slot)?;
        let (values, rest) = bytes.as_chunks();
        if values.len() != self.spec.columns || !rest.is_empty() {
            let expected = format!("{} bytes", 4 * self.spec.columns);
            return Err(TensorError::shape("write_state", expected, bytes.len()));
        }
        for (to, value) in self.values[at..at + self.spec.columns].iter_mut().zip(values) {
            *to = f32::from_ne_bytes(*value);
        }
        Ok(())
    }

    /// Checks that each sequence of a step has a slot of its own, and that slots hold what the operation keeps.
    fn check(&self, operation: &'static str, columns: usize, step: &StepInputs<CpuBackend>) -> Result<()> {
        if self.spec.columns != columns {
            let expected = format!("a state of {columns} numbers");
            return Err(TensorError::shape(operation, expected, self.spec.columns));
        }
        if step.slots.len() != step.sequences || !step.slots.are_distinct() {
            let expected = format!("a slot for each of {} sequences", step.sequences);
            return Err(TensorError::shape(operation, expected, format!("{:?}", step.slots)));
        }
        step.slots.iter().try_for_each(|slot| self.at(*slot as usize).map(|_| ()))
    }
}

/// The rows of each sequence of a step.
pub(crate) fn sequence_rows(
    operation: &'static str,
    step: &StepInputs<CpuBackend>,
) -> Result<Vec<Range<usize>>> {
    let starts = &step.query_starts;
    if starts.len() != step.sequences + 1
        || starts.first() != Some(&0)
        || starts.last().is_none_or(|end| *end as usize != step.rows)
        || starts.windows(2).any(|pair| pair[0] > pair[1])
    {
        let expected = format!("{} rows of {} sequences", step.rows, step.sequences);
        return Err(TensorError::shape(operation, expected, format!("{starts:?}")));
    }
    Ok(starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
}

/// Columns that one task of a convolution takes.
const CONVOLUTION_COLUMNS: usize = 256;

impl CpuBackend {
    pub(crate) fn run_causal_convolution(
        &self,
        x: &CpuTensor,
        weight: &CpuTensor,
        bias: Option<&CpuTensor>,
        state: &mut CpuState,
        step: &StepInputs<Self>,
    ) -> Result<CpuTensor> {
        const OPERATION: &str = "causal_convolution";
        let (columns, taps) = (weight.rows, weight.columns);
        if taps == 0 || x.columns != columns || x.rows != step.rows {
            let expected = format!("[{}, {columns}] and at least one tap", step.rows);
            return Err(TensorError::shape(OPERATION, expected, shape_of(x)));
        }
        if let Some(bias) = bias
            && (bias.rows != 1 || bias.columns != columns)
        {
            return Err(TensorError::shape(OPERATION, format!("a bias of [1, {columns}]"), shape_of(bias)));
        }
        let sequences = sequence_rows(OPERATION, step)?;
        state.check(OPERATION, (taps - 1) * columns, step)?;
        let mut out = self.buffer(x.rows * columns)?;
        let to = Shared::new(&mut out);
        let stride = state.stride;
        let states = Shared::new(&mut state.values);
        let blocks = columns.div_ceil(CONVOLUTION_COLUMNS);
        self.tasks(sequences.len() * blocks, x.rows * columns * taps, &|task| {
            let (rows, slot) = (sequences[task / blocks].clone(), step.slots[task / blocks] as usize);
            let first = task % blocks * CONVOLUTION_COLUMNS;
            let block = first..(first + CONVOLUTION_COLUMNS).min(columns);
            // The row that is `back` rows before row `row` of the sequence, from the step or from before it.
            let past = |row: usize, back: usize| {
                if back <= row {
                    x.row(rows.start + row - back)[block.clone()].as_ptr()
                } else {
                    // The state holds the last `taps - 1` rows, the last one last.
                    states.at(slot * stride + (taps - 1 + row - back) * columns + block.start).cast_const()
                }
            };
            for row in 0..rows.len() {
                // SAFETY: each block of each row is written by one task, and slots differ.
                let out = unsafe { to.slice((rows.start + row) * columns + block.start, block.len()) };
                match bias {
                    Some(bias) => out.copy_from_slice(&bias.values()[block.clone()]),
                    None => out.fill(0.0),
                }
                for tap in 0..taps {
                    // SAFETY: a row of the step, or one of the state's.
                    let x = unsafe { std::slice::from_raw_parts(past(row, taps - 1 - tap), block.len()) };
                    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                        *out += x * weight.row(block.start + i)[tap];
                    }
                }
            }
            // Oldest first: a row moves to an earlier place that has been read already.
            for place in 0..taps - 1 {
                let back = taps - 2 - place;
                let to = states.at(slot * stride + place * columns + block.start);
                if let Some(last) = rows.len().checked_sub(1) {
                    // SAFETY: source and destination are rows of the step or the state, and this task's block of them.
                    unsafe { std::ptr::copy(past(last, back), to, block.len()) };
                }
            }
        });
        Ok(CpuTensor::new(x.rows, columns, out))
    }

    pub(crate) fn run_scan(
        &self,
        inputs: &ScanInputs<'_, CpuTensor>,
        spec: &ScanSpec,
        state: &mut CpuState,
        step: &StepInputs<Self>,
    ) -> Result<CpuTensor> {
        const OPERATION: &str = "scan";
        let &ScanSpec { heads, key_heads, key_dim, value_dim } = spec;
        if key_heads == 0 || heads == 0 || !heads.is_multiple_of(key_heads) {
            let expected = "heads in groups of equal size";
            return Err(TensorError::shape(OPERATION, expected, format!("{spec:?}")));
        }
        let check = |tensor: &CpuTensor, columns: usize| {
            if tensor.rows == step.rows && tensor.columns == columns {
                return Ok(());
            }
            Err(TensorError::shape(OPERATION, format!("[{}, {columns}]", step.rows), shape_of(tensor)))
        };
        let &ScanInputs { queries, keys, values, decay, update } = inputs;
        check(queries, key_heads.saturating_mul(key_dim))?;
        check(keys, key_heads.saturating_mul(key_dim))?;
        check(values, heads.saturating_mul(value_dim))?;
        let decay_columns = decay.columns != heads;
        check(decay, if decay_columns { heads.saturating_mul(key_dim) } else { heads })?;
        match update {
            ScanUpdate::Add => {}
            ScanUpdate::Delta { beta } => check(beta, heads)?,
            ScanUpdate::LowRank { a, b } => {
                check(a, heads.saturating_mul(key_dim))?;
                check(b, heads.saturating_mul(key_dim))?;
            }
        }
        let sequences = sequence_rows(OPERATION, step)?;
        state.check(OPERATION, spec.state_columns(), step)?;

        let mut out = self.buffer(step.rows * heads * value_dim)?;
        let to = Shared::new(&mut out);
        let stride = state.stride;
        let states = Shared::new(&mut state.values);
        // Heads of a single number are many and small: a task takes a run of them.
        let run = (1024 / (key_dim * value_dim).max(1)).clamp(1, heads);
        let runs = heads.div_ceil(run);
        self.tasks(sequences.len() * runs, step.rows * spec.state_columns(), &|task| {
            let (rows, slot) = (&sequences[task / runs], step.slots[task / runs] as usize);
            let first = task % runs * run;
            for head in first..(first + run).min(heads) {
                let key_head = head / (heads / key_heads);
                let at = |tensor: &CpuTensor, column: usize| {
                    tensor.values().as_ptr().wrapping_add(rows.start * tensor.columns + column)
                };
                let decay_width = if decay_columns { key_dim } else { 1 };
                let task = ScanTask {
                    state: states.at(slot * stride + head * value_dim * key_dim),
                    rows: rows.len(),
                    key_dim,
                    value_dim,
                    queries: at(queries, key_head * key_dim),
                    keys: at(keys, key_head * key_dim),
                    key_stride: keys.columns,
                    values: at(values, head * value_dim),
                    out: to.at(rows.start * heads * value_dim + head * value_dim),
                    value_stride: values.columns,
                    decay: at(decay, head * decay_width),
                    decay_stride: decay.columns,
                    decay_columns,
                    update: match update {
                        ScanUpdate::Add => Update::Add,
                        ScanUpdate::Delta { beta } => {
                            Update::Delta { beta: at(beta, head), stride: beta.columns }
                        }
                        ScanUpdate::LowRank { a, b } => Update::LowRank {
                            a: at(a, head * key_dim),
                            b: at(b, head * key_dim),
                            stride: a.columns,
                        },
                    },
                };
                // SAFETY: shapes were checked; each head of each sequence is one task's, and slots differ.
                unsafe { (self.kernels.0.scan)(&task) };
            }
        });
        Ok(CpuTensor::new(step.rows, heads * value_dim, out))
    }
}
