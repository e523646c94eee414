//! Tensors in recycled host memory.

use std::sync::{Arc, Mutex, PoisonError};

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
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![Line([0.0; LINE]); len.div_ceil(LINE)])
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
    pub(crate) fn take(&self, len: usize) -> Lines {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.len() >= len && buffer.len() <= 2 * len.max(1024))
            .min_by_key(|(_, buffer)| buffer.len())
            .map(|(i, _)| i);
        match best {
            Some(i) => free.swap_remove(i),
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
    pub(crate) fn new(recycler: &Arc<Recycler>, len: usize) -> Self {
        Self { values: recycler.take(len), recycler: Arc::clone(recycler) }
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

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.columns..][..self.columns]
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
        let first = Buffer::new(&recycler, 5000);
        let address = first.as_ptr();
        drop(first);
        let second = Buffer::new(&recycler, 4000);
        assert_eq!(second.as_ptr(), address);
        drop(second);
        for len in [KEEP / 2, KEEP / 2, KEEP, KEEP / 4] {
            drop(Buffer::new(&recycler, len));
            let kept: usize = recycler.free.lock().unwrap().iter().map(|buffer| buffer.len()).sum();
            assert!(kept <= KEEP);
        }
    }
}
