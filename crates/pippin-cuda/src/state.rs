//! What recurrent mixers keep for each slot.

use std::rc::Rc;

use pippin_tensor::{Result, StateSpec, StepInputs, TensorError};

use crate::CudaBackend;
use crate::memory::{Block, Memory};

/// What a mixer keeps for each slot: rows of `f32` on a device.
#[derive(Debug)]
pub struct CudaState {
    spec: StateSpec,
    pub(crate) block: Block,
}

impl CudaState {
    pub(crate) fn new(memory: &Rc<Memory>, spec: &StateSpec) -> Result<Self> {
        let bytes = spec.slots.checked_mul(spec.columns).and_then(|count| count.checked_mul(4));
        let bytes = bytes.ok_or_else(|| TensorError::OutOfMemory {
            device: crate::NAME.to_owned(),
            bytes: u64::MAX,
            what: "recurrent state",
        })?;
        let block = memory.keep(bytes, "recurrent state")?;
        block.clear(0, bytes)?;
        Ok(Self { spec: *spec, block })
    }

    /// Where a slot begins, and its bytes.
    fn at(&self, slot: usize) -> Result<(usize, usize)> {
        if slot < self.spec.slots {
            return Ok((4 * slot * self.spec.columns, 4 * self.spec.columns));
        }
        Err(TensorError::Index { operation: "state", index: slot as u64, limit: self.spec.slots as u64 })
    }

    pub(crate) fn reset(&mut self, slot: usize) -> Result<()> {
        let (at, bytes) = self.at(slot)?;
        self.block.clear(at, bytes)
    }

    pub(crate) fn copy(&mut self, from: usize, to: usize) -> Result<()> {
        let ((from, bytes), (to, _)) = (self.at(from)?, self.at(to)?);
        self.block.copy_within(from, to, bytes)
    }

    pub(crate) fn read(&self, slot: usize, to: &mut Vec<u8>) -> Result<()> {
        let (at, bytes) = self.at(slot)?;
        let begin = to.len();
        to.resize(begin + bytes, 0);
        self.block.read(at, &mut to[begin..])
    }

    pub(crate) fn write(&mut self, slot: usize, bytes: &[u8]) -> Result<()> {
        let (at, expected) = self.at(slot)?;
        if bytes.len() != expected {
            return Err(TensorError::shape("write_state", format!("{expected} bytes"), bytes.len()));
        }
        self.block.write(at, bytes)
    }

    /// Checks that each sequence of a step has a slot of its own, and that slots hold what the operation keeps.
    pub(crate) fn check(
        &self,
        operation: &'static str,
        columns: usize,
        step: &StepInputs<CudaBackend>,
    ) -> Result<()> {
        if self.spec.columns != columns {
            return Err(TensorError::shape(
                operation,
                format!("a state of {columns} numbers"),
                self.spec.columns,
            ));
        }
        let slots = step.slots.values()?;
        let mut sorted = slots.to_vec();
        sorted.sort_unstable();
        if slots.len() != step.sequences || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            let expected = format!("a slot for each of {} sequences", step.sequences);
            return Err(TensorError::shape(operation, expected, format!("{slots:?}")));
        }
        slots.iter().try_for_each(|slot| self.at(*slot as usize).map(|_| ()))
    }
}

/// Checks the rows of each sequence of a step.
pub(crate) fn check_rows(operation: &'static str, step: &StepInputs<CudaBackend>) -> Result<()> {
    let starts = step.query_starts.values()?;
    if starts.len() != step.sequences + 1
        || starts.first() != Some(&0)
        || starts.last().is_none_or(|end| *end as usize != step.rows)
        || starts.windows(2).any(|pair| pair[0] > pair[1])
    {
        let expected = format!("{} rows of {} sequences", step.rows, step.sequences);
        return Err(TensorError::shape(operation, expected, format!("{starts:?}")));
    }
    Ok(())
}
