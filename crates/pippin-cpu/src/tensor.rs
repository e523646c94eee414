//! Tensors in recycled host memory.

use std::alloc::{Layout, alloc_zeroed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pippin_tensor::{Result, TensorError};

/// A cache line of elements. Vectors that begin at one never lie across two, which would cost a second access each.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Elements of a cache line.
const LINE: usize = 16;

/// Elements that begin at a cache line.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<Line>);

impl Lines {
    /// Room for `len` elements, initialised but unspecified.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let lines = len.div_ceil(LINE);
        if lines == 0 {
            return Ok(Self::default());
        }
        let failed = || TensorError::OutOfMemory {
            device: "cpu".into(),
            bytes: (len as u64).saturating_mul(4),
            what: "activations",
        };
        let layout = Layout::array::<Line>(lines).map_err(|_| failed())?;
        // SAFETY: the size is not zero.
        let lines_at = unsafe { alloc_zeroed(layout) };
        if lines_at.is_null() {
            return Err(failed());
        }
        // SAFETY: allocated just now by the global allocator for so many lines, whose bytes are all zero, which are
        // numbers.
        Ok(Self(unsafe { Vec::from_raw_parts(lines_at.cast(), lines, lines) }))
    }

    /// Room for at least `len` elements; what is there already stays. Contents are unspecified.
    pub(crate) fn reserve(&mut self, len: usize) -> &mut [f32] {
        if self.len() < len {
            self.0.resize(len.div_ceil(LINE), Line([0.0; LINE]));
        }
        self
    }
}

impl std::ops::Deref for Lines {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: a line is its elements, without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), LINE * self.0.len()) }
    }
}

impl std::ops::DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), LINE * self.0.len()) }
    }
}

/// Buffers given back by dropped tensors. A step asks for the same sizes again and again; memory fresh from the system
/// would cost a page fault per 4 KiB every time.
#[derive(Debug, Default)]
pub(crate) struct Recycler {
    free: Mutex<Vec<Lines>>,
}

/// Elements kept at most. What a step of 512 prompt tokens of an 8B model needs at once is below this.
const KEEP: usize = 24 << 20;

impl Recycler {
    /// A buffer of `len` elements with unspecified (but initialised) contents.
    pub(crate) fn take(&self, len: usize) -> Result<Lines> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.len() >= len && buffer.len() <= 2 * len.max(1024))
            .min_by_key(|(_, buffer)| buffer.len())
            .map(|(i, _)| i);
        match best {
            Some(i) => Ok(free.swap_remove(i)),
            None => {
                drop(free);
                Lines::new(len)
            }
        }
    }

    fn give(&self, buffer: Lines) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept: usize = free.iter().map(|buffer| buffer.len()).sum();
        // The oldest go first: sizes change between prefill and decode.
        while !free.is_empty() && kept + buffer.len() > KEEP {
            kept -= free.remove(0).len();
        }
        if buffer.len() <= KEEP {
            free.push(buffer);
        }
    }
}

/// A buffer that returns to its recycler when dropped. It may be longer than what was asked for.
#[derive(Debug)]
pub(crate) struct Buffer {
    values: Lines,
    recycler: Arc<Recycler>,
}

impl Buffer {
    pub(crate) fn new(recycler: &Arc<Recycler>, len: usize) -> Result<Self> {
        Ok(Self { values: recycler.take(len)?, recycler: Arc::clone(recycler) })
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.recycler.give(std::mem::take(&mut self.values));
    }
}

/// A tensor `[rows, columns]` of `f32` in host memory.
#[derive(Clone, Debug)]
pub struct CpuTensor {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    buffer: Arc<Buffer>,
}

impl CpuTensor {
    pub(crate) fn new(rows: usize, columns: usize, buffer: Buffer) -> Self {
        debug_assert!(buffer.len() >= rows * columns);
        Self { rows, columns, buffer: Arc::new(buffer) }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.buffer[..self.rows * self.columns]
    }

    /// The values, to be changed, if nobody else has the tensor.
    pub(crate) fn values_mut(&mut self) -> Option<&mut [f32]> {
        let len = self.rows * self.columns;
        Arc::get_mut(&mut self.buffer).map(|buffer| &mut buffer[..len])
    }

    /// The same elements in rows of another length.
    pub(crate) fn reshaped(&self, rows: usize, columns: usize) -> Self {
        debug_assert!(rows * columns == self.rows * self.columns);
        Self { rows, columns, buffer: Arc::clone(&self.buffer) }
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.columns..][..self.columns]
    }
}

/// Indices in host memory.
#[derive(Clone, Debug)]
pub struct CpuIndices {
    values: Arc<[u32]>,
    /// Whether no index occurs twice, once somebody has asked.
    distinct: Arc<OnceLock<bool>>,
}

impl CpuIndices {
    pub(crate) fn new(values: &[u32]) -> Self {
        Self { values: values.into(), distinct: Arc::default() }
    }

    /// Whether no index occurs twice: then tasks that each write where one of them says do not meet.
    pub(crate) fn are_distinct(&self) -> bool {
        *self.distinct.get_or_init(|| {
            let mut sorted = self.values.to_vec();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        })
    }
}

impl std::ops::Deref for CpuIndices {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.values
    }
}

/// A mutable pointer that tasks of a parallel region share, each writing its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: whoever dereferences the pointer writes elements no other task touches.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// A slice for one task.
    ///
    /// # Safety
    /// The range is inside the buffer and no other task uses it meanwhile.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's contract")]
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: by contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_bounded() {
        let recycler = Arc::new(Recycler::default());
        let first = Buffer::new(&recycler, 5000).unwrap();
        let address = first.as_ptr();
        drop(first);
        let second = Buffer::new(&recycler, 4000).unwrap();
        assert_eq!(second.as_ptr(), address);
        drop(second);
        for len in [KEEP / 2, KEEP / 2, KEEP, KEEP / 4] {
            drop(Buffer::new(&recycler, len).unwrap());
            let kept: usize = recycler.free.lock().unwrap().iter().map(|buffer| buffer.len()).sum();
            assert!(kept <= KEEP);
        }
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let recycler = Arc::new(Recycler::default());
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4] {
            assert!(matches!(Buffer::new(&recycler, len), Err(TensorError::OutOfMemory { .. })), "{len}");
        }
    }
}
