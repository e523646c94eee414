//! Memory of the device: tensors in recycled blocks, and what is kept for as long as a model lives.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{CudaEvent, CudaStream, DriverError, result, sys};
use pippin_tensor::{Result, TensorError};

use crate::recorder::{Place, Recorder};

/// The least that a block has, in bytes.
const LEAST: usize = 512;

/// The memory of a device. What tensors give back is used again: all work is on one stream, so whoever gets a block comes after those
/// who had it. While steps are recorded or repeated ([`crate::recorder`]), their tape says where blocks are.
#[derive(Debug)]
pub(crate) struct Memory {
    stream: Arc<CudaStream>,
    /// For copies while the other stream is captured.
    side: Arc<CudaStream>,
    device: String,
    /// By size.
    free: RefCell<BTreeMap<usize, Vec<sys::CUdeviceptr>>>,
    /// Memory of the host that kernels write to, by size.
    mailboxes: RefCell<BTreeMap<usize, Vec<Mailbox>>>,
    pub(crate) recorder: Recorder,
}

impl Memory {
    pub(crate) fn new(stream: Arc<CudaStream>, side: Arc<CudaStream>, device: &str) -> Rc<Self> {
        let (free, mailboxes, recorder) = (RefCell::default(), RefCell::default(), Recorder::default());
        Rc::new(Self { stream, side, device: device.to_owned(), free, mailboxes, recorder })
    }

    pub(crate) fn failed(&self, error: DriverError) -> TensorError {
        let (device, message) = (self.device.clone(), error.to_string());
        match crate::device::is_lost(error) {
            true => {
                crate::device::let_go();
                TensorError::DeviceLost { device, message }
            }
            false => TensorError::Device { device, message },
        }
    }

    /// A block that goes back to be used again.
    pub(crate) fn take(self: &Rc<Self>, bytes: usize, what: &'static str) -> Result<Block> {
        self.take_for(bytes, what, false)
    }

    /// The same for what is copied from the host.
    pub(crate) fn take_for(
        self: &Rc<Self>,
        bytes: usize,
        what: &'static str,
        is_from_host: bool,
    ) -> Result<Block> {
        let size = size_class(bytes);
        let (at, owner) = match self.recorder.place(size, is_from_host)? {
            Place::Free => (self.find(size, what)?, Owner::Pool),
            Place::Known(at) => (at, Owner::Tape),
            Place::New => {
                let at = self.find(size, what)?;
                self.recorder.placed(at, size, is_from_host);
                (at, Owner::Tape)
            }
        };
        Ok(Block { at, size, owner, memory: Rc::clone(self) })
    }

    /// A place that nobody uses.
    fn find(&self, size: usize, what: &'static str) -> Result<sys::CUdeviceptr> {
        let known = self.free.borrow_mut().get_mut(&size).and_then(Vec::pop);
        match known {
            Some(at) => Ok(at),
            None => self.allocate(size, what),
        }
    }

    /// Takes places back.
    pub(crate) fn give(&self, places: impl IntoIterator<Item = (sys::CUdeviceptr, usize)>) {
        let mut free = self.free.borrow_mut();
        places.into_iter().for_each(|(at, size)| free.entry(size).or_default().push(at));
    }

    /// A block of its own.
    pub(crate) fn keep(self: &Rc<Self>, bytes: usize, what: &'static str) -> Result<Block> {
        self.recorder.interrupt(self)?;
        let size = bytes.max(LEAST);
        Ok(Block { at: self.allocate(size, what)?, size, owner: Owner::Nobody, memory: Rc::clone(self) })
    }

    fn allocate(&self, bytes: usize, what: &'static str) -> Result<sys::CUdeviceptr> {
        self.stream.context().bind_to_thread().map_err(|error| self.failed(error))?;
        // SAFETY: a context is current.
        let allocate = || unsafe { result::malloc_sync(bytes) };
        match allocate() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                self.recorder.interrupt(self)?;
                self.clear();
                allocate().map_err(|error| match error {
                    DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {
                        TensorError::OutOfMemory { device: self.device.clone(), bytes: bytes as u64, what }
                    }
                    error => self.failed(error),
                })
            }
            outcome => outcome.map_err(|error| self.failed(error)),
        }
    }

    /// Gives back to the device what nobody uses.
    fn clear(&self) {
        let free = self.free.take();
        // What the stream still does with it comes first.
        let _ = self.stream.synchronize();
        for at in free.into_values().flatten() {
            // SAFETY: allocated by this context, and in nobody's hands.
            let _ = unsafe { result::free_sync(at) };
        }
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.stream.context().bind_to_thread().is_ok() {
            let _ = self.stream.synchronize();
            self.give(self.recorder.forget());
            self.clear();
            for mailbox in self.mailboxes.take().into_values().flatten() {
                // SAFETY: allocated by this context, and in nobody's hands.
                let _ = unsafe { result::free_host(mailbox.at.cast()) };
            }
        }
    }
}

/// Memory of the host that the device can write to, and the event after which it has.
#[derive(Debug)]
struct Mailbox {
    at: *mut u32,
    event: CudaEvent,
}

/// Words that a kernel sends to the host by itself: they are there as soon as it is done, whatever has been asked for after it.
#[derive(Debug)]
pub(crate) struct Letter {
    mailbox: Option<Mailbox>,
    words: usize,
    memory: Rc<Memory>,
}

impl Letter {
    /// Room for so many words.
    pub(crate) fn new(memory: &Rc<Memory>, words: usize) -> Result<Self> {
        let words = words.next_power_of_two().max(64);
        let known = memory.mailboxes.borrow_mut().get_mut(&words).and_then(Vec::pop);
        let mailbox = match known {
            Some(mailbox) => mailbox,
            None => {
                let context = memory.stream.context();
                context.bind_to_thread().map_err(|error| memory.failed(error))?;
                let event = context.new_event(None).map_err(|error| memory.failed(error))?;
                // SAFETY: a context is current. Kernels see the memory at the same address.
                let at = unsafe { result::malloc_host(4 * words, sys::CU_MEMHOSTALLOC_DEVICEMAP) }
                    .map_err(|error| memory.failed(error))?;
                Mailbox { at: at.cast(), event }
            }
        };
        Ok(Self { mailbox: Some(mailbox), words, memory: Rc::clone(memory) })
    }

    /// Where kernels write.
    pub(crate) fn at(&self) -> sys::CUdeviceptr {
        self.mailbox.as_ref().map_or(0, |mailbox| mailbox.at as sys::CUdeviceptr)
    }

    /// All that writes to it has been launched.
    pub(crate) fn send(&self) -> Result<()> {
        let Some(mailbox) = &self.mailbox else { return Ok(()) };
        mailbox.event.record(&self.memory.stream).map_err(|error| self.memory.failed(error))
    }

    /// Waits until it has come, and copies some of its words.
    fn read(&self, first: usize, to: &mut [u32]) -> Result<()> {
        let Some(mailbox) = &self.mailbox else { return Ok(()) };
        if first.checked_add(to.len()).is_none_or(|end| end > self.words) {
            let found = format!("{} at {first}", to.len());
            return Err(TensorError::shape("letter", format!("{} words", self.words), found));
        }
        mailbox.event.synchronize().map_err(|error| self.memory.failed(error))?;
        for (i, word) in to.iter_mut().enumerate() {
            // SAFETY: inside the mailbox, and nobody writes to it any more. The compiler knows nothing of the device.
            *word = unsafe { mailbox.at.add(first + i).read_volatile() };
        }
        Ok(())
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        // Who gets it next is written to after this one: all kernels are on one stream.
        if let Some(mailbox) = self.mailbox.take() {
            self.memory.mailboxes.borrow_mut().entry(self.words).or_default().push(mailbox);
        }
    }
}

/// Sizes are rounded up to eighths of a power of two, so that nearly equal ones can take each other's place.
fn size_class(bytes: usize) -> usize {
    let step = (bytes.max(LEAST).next_power_of_two() / 8).max(LEAST);
    bytes.max(1).next_multiple_of(step)
}

/// Bytes of the device.
#[derive(Debug)]
pub(crate) struct Block {
    at: sys::CUdeviceptr,
    size: usize,
    owner: Owner,
    memory: Rc<Memory>,
}

/// Whom a block goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Those who want one.
    Pool,
    /// The step that it is part of.
    Tape,
    /// The device.
    Nobody,
}

impl Block {
    pub(crate) fn at(&self) -> sys::CUdeviceptr {
        self.at
    }

    fn check(&self, offset: usize, bytes: usize) -> Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(TensorError::shape(
                "copy",
                format!("at most {} bytes", self.size),
                format!("{bytes} at {offset}"),
            )),
        }
    }

    /// Copies bytes of the host to it, after all that was asked for before.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        // What the host gives is no part of a recording: it is another every time.
        let stream = if self.memory.recorder.records() { &self.memory.side } else { &self.memory.stream };
        stream.context().bind_to_thread().map_err(|error| self.memory.failed(error))?;
        // SAFETY: the range is inside the block. Memory that is not pinned has been read when the call returns.
        unsafe { result::memcpy_htod_async(self.at + offset as u64, bytes, stream.cu_stream()) }
            .map_err(|error| self.memory.failed(error))?;
        match self.memory.recorder.records() {
            true => stream.synchronize().map_err(|error| self.memory.failed(error)),
            false => Ok(()),
        }
    }

    /// Copies bytes to the host, when all that was asked for before is done.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        self.check(offset, to.len())?;
        self.memory.recorder.interrupt(&self.memory)?;
        let stream = &self.memory.stream;
        stream.context().bind_to_thread().map_err(|error| self.memory.failed(error))?;
        if !to.is_empty() {
            // SAFETY: the range is inside the block; `to` is not touched before the stream has been waited for.
            unsafe { result::memcpy_dtoh_async(to, self.at + offset as u64, stream.cu_stream()) }
                .map_err(|error| self.memory.failed(error))?;
        }
        stream.synchronize().map_err(|error| self.memory.failed(error))
    }

    /// Makes bytes zero.
    pub(crate) fn clear(&self, offset: usize, bytes: usize) -> Result<()> {
        self.check(offset, bytes)?;
        if bytes == 0 || self.memory.recorder.repeats() {
            return Ok(());
        }
        let stream = &self.memory.stream;
        stream.context().bind_to_thread().map_err(|error| self.memory.failed(error))?;
        // SAFETY: the range is inside the block.
        unsafe { result::memset_d8_async(self.at + offset as u64, 0, bytes, stream.cu_stream()) }
            .map_err(|error| self.memory.failed(error))
    }

    /// Copies bytes within it; the ranges do not overlap.
    pub(crate) fn copy_within(&self, from: usize, to: usize, bytes: usize) -> Result<()> {
        self.check(from, bytes)?;
        self.check(to, bytes)?;
        if bytes == 0 || from == to || self.memory.recorder.repeats() {
            return Ok(());
        }
        let stream = &self.memory.stream;
        stream.context().bind_to_thread().map_err(|error| self.memory.failed(error))?;
        // SAFETY: both ranges are inside the block.
        unsafe {
            result::memcpy_dtod_async(self.at + to as u64, self.at + from as u64, bytes, stream.cu_stream())
        }
        .map_err(|error| self.memory.failed(error))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match self.owner {
            Owner::Pool => self.memory.give([(self.at, self.size)]),
            Owner::Tape => self.memory.recorder.give(self.at, self.size),
            Owner::Nobody => {
                if self.memory.stream.context().bind_to_thread().is_ok() {
                    let _ = self.memory.stream.synchronize();
                    // SAFETY: allocated by this context, and in nobody else's hands.
                    let _ = unsafe { result::free_sync(self.at) };
                }
            }
        }
    }
}

/// A tensor `[rows, columns]` of `f32` on a device.
#[derive(Clone, Debug)]
pub struct CudaTensor {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    block: Rc<Block>,
    /// Where the host has it too, and from which word on.
    letter: Option<(Rc<Letter>, usize)>,
}

fn tensor_bytes(rows: usize, columns: usize) -> Result<usize> {
    let bytes = rows.checked_mul(columns).and_then(|count| count.checked_mul(4));
    bytes.ok_or_else(|| {
        TensorError::shape("tensor", "a size that memory can have", format!("[{rows}, {columns}]"))
    })
}

impl CudaTensor {
    /// A tensor whose contents are unspecified.
    pub(crate) fn new(memory: &Rc<Memory>, rows: usize, columns: usize) -> Result<Self> {
        let block = Rc::new(memory.take(tensor_bytes(rows, columns)?, "activations")?);
        Ok(Self { rows, columns, block, letter: None })
    }

    pub(crate) fn of(memory: &Rc<Memory>, rows: usize, columns: usize, values: &[f32]) -> Result<Self> {
        let block = memory.take_for(tensor_bytes(rows, columns)?, "activations", true)?;
        block.write(0, bytes_of(values))?;
        Ok(Self { rows, columns, block: Rc::new(block), letter: None })
    }

    /// The same, whose values are words of a letter too.
    pub(crate) fn sent(self, letter: &Rc<Letter>, first: usize) -> Self {
        Self { letter: Some((Rc::clone(letter), first)), ..self }
    }

    pub(crate) fn at(&self) -> sys::CUdeviceptr {
        self.block.at()
    }

    pub(crate) fn count(&self) -> usize {
        self.rows * self.columns
    }

    pub(crate) fn reshaped(&self, rows: usize, columns: usize) -> Self {
        Self { rows, columns, block: Rc::clone(&self.block), letter: self.letter.clone() }
    }

    pub(crate) fn read(&self) -> Result<Vec<f32>> {
        if let Some((letter, first)) = &self.letter {
            let mut words = vec![0; self.count()];
            letter.read(*first, &mut words)?;
            return Ok(words.into_iter().map(f32::from_bits).collect());
        }
        let mut values = vec![0.0_f32; self.count()];
        self.block.read(0, bytes_of_mut(&mut values))?;
        Ok(values)
    }
}

/// Indices on a device.
#[derive(Clone, Debug)]
pub struct CudaIndices {
    pub(crate) len: usize,
    block: Rc<Block>,
    /// Those that came from the host.
    host: Option<Arc<[u32]>>,
    /// Where the host has those that the device has computed, from the first word on.
    letter: Option<Rc<Letter>>,
    /// What has been made of them.
    derived: Rc<OnceCell<CudaIndices>>,
}

impl CudaIndices {
    pub(crate) fn new(memory: &Rc<Memory>, len: usize) -> Result<Self> {
        let block = Rc::new(memory.take(4 * len, "indices")?);
        Ok(Self { len, block, host: None, letter: None, derived: Rc::default() })
    }

    /// Indices that a step begins with, although they do not come from the host: a recorded step finds them where they were.
    pub(crate) fn of_step(memory: &Rc<Memory>, len: usize) -> Result<Self> {
        let block = Rc::new(memory.take_for(4 * len, "indices", true)?);
        Ok(Self { len, block, host: None, letter: None, derived: Rc::default() })
    }

    /// The same, whose values are the first words of a letter too.
    pub(crate) fn sent(self, letter: &Rc<Letter>) -> Self {
        Self { letter: Some(Rc::clone(letter)), ..self }
    }

    pub(crate) fn of(memory: &Rc<Memory>, values: &[u32]) -> Result<Self> {
        let block = memory.take_for(size_of_val(values), "indices", true)?;
        block.write(0, bytes_of(values))?;
        let host = Some(values.into());
        Ok(Self { len: values.len(), block: Rc::new(block), host, letter: None, derived: Rc::default() })
    }

    pub(crate) fn at(&self) -> sys::CUdeviceptr {
        self.block.at()
    }

    /// The values, which are waited for where the device has computed them.
    pub(crate) fn values(&self) -> Result<Arc<[u32]>> {
        if let Some(values) = &self.host {
            return Ok(Arc::clone(values));
        }
        let mut values = vec![0_u32; self.len];
        if let Some(letter) = &self.letter {
            letter.read(0, &mut values)?;
            return Ok(values.into());
        }
        self.block.read(0, bytes_of_mut(&mut values))?;
        Ok(values.into())
    }

    /// Other indices that are made of these, once.
    pub(crate) fn derived(
        &self,
        memory: &Rc<Memory>,
        make: impl FnOnce(&[u32]) -> Vec<u32>,
    ) -> Result<&CudaIndices> {
        if let Some(known) = self.derived.get() {
            return Ok(known);
        }
        let made = Self::of(memory, &make(&self.values()?))?;
        Ok(self.derived.get_or_init(|| made))
    }
}

/// Numbers without padding, every byte of which means something.
pub(crate) trait Number: Copy {}
impl Number for f32 {}
impl Number for u32 {}

pub(crate) fn bytes_of<T: Number>(values: &[T]) -> &[u8] {
    // SAFETY: numbers have no padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Number>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: numbers have no padding, and any bytes make one.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_by_little() {
        assert_eq!(size_class(0), LEAST);
        for bytes in [1, 511, 513, 5000, 1 << 20, (1 << 20) + 1, 123_456_789] {
            let size = size_class(bytes);
            assert!(
                size >= bytes && (size <= bytes + bytes / 4 || size <= 2 * LEAST.max(bytes)),
                "{bytes}: {size}"
            );
            assert_eq!(size_class(size), size, "{bytes}");
        }
    }
}
