//! The CPU backend.
//!
//! Weight matrices stay where the checkpoint is mapped: a quantized matrix is dequantized in registers, a vector at a
//! time, as it is multiplied. Kernels are written once over a small vector abstraction and instantiated for every
//! instruction set (portable Rust, AVX2, AVX-512, NEON); the choice is made at run time. One persistent pool of threads
//! serves every model of the process.
//!
//! Arithmetic is `f32`; with [`Numerics::Fast`] the products within a group of weights are of 8-bit integers, and exact. A
//! row's result depends neither on the other rows of a call nor on how they are batched, bit for bit; see
//! `kernels::matmul` for how.
//!
//! # Example
//!
//! ```
//! use pippin_cpu::CpuBackend;
//! use pippin_tensor::{Backend, MatrixData, Numerics, TensorData};
//!
//! let cpu = CpuBackend::new(Numerics::Exact);
//! let weight = TensorData::from_f32("weight", &[2, 3], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0])?;
//! let weight = cpu.matrix(MatrixData::Dense(weight))?;
//! let x = cpu.tensor(&TensorData::from_f32("x", &[1, 3], &[1.0, 2.0, 3.0])?)?;
//! assert_eq!(cpu.read(&cpu.matmul(&x, &weight)?)?, [1.0, 6.0]);
//! # Ok::<(), pippin_tensor::TensorError>(())
//! ```

mod attention;
mod backend;
mod heads;
mod kernels;
mod kv;
mod matrix;
mod pool;
mod products;
mod recurrence;
mod rope;
mod router;
mod rows;
mod simd;
mod sparse;
mod tensor;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use pippin_tensor::{Numerics, Result, TensorError};

pub use crate::{
    kernels::InstructionSet,
    kv::CpuKvCache,
    matrix::CpuMatrix,
    recurrence::CpuState,
    tensor::{CpuIndices, CpuTensor},
};
use crate::{
    kernels::Kernels,
    matrix::Region,
    pool::Pool,
    tensor::{Buffer, Recycler},
};

/// The CPU as a backend. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    numerics: Numerics,
    set: InstructionSet,
    kernels: KernelTable,
    pool: Arc<Pool>,
    recycler: Arc<Recycler>,
}

#[derive(Clone, Copy)]
struct KernelTable(&'static Kernels);

impl std::fmt::Debug for KernelTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelTable")
    }
}

/// What the processor computes at most, all threads together; a multiplication and an addition count as two operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakRates {
    /// Operations on `f32` per second.
    pub floats: f64,
    /// Operations on products of bytes per second.
    pub bytes: f64,
}

/// Threads used when nothing else is said: those the process may run on.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl CpuBackend {
    /// The CPU with its best instruction set and [`default_threads`] threads, which all backends made this way share.
    pub fn new(numerics: Numerics) -> Self {
        static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
        let pool = POOL.get_or_init(|| Arc::new(Pool::new(default_threads())));
        let set = InstructionSet::available()[0];
        Self::with_pool(numerics, set, Arc::clone(pool))
            .unwrap_or_else(|| unreachable!("{set:?} is available"))
    }

    /// The CPU with a number of threads and an instruction set of the caller's choice; `None` where this machine lacks
    /// the instruction set.
    pub fn with(numerics: Numerics, set: InstructionSet, threads: usize) -> Option<Self> {
        Self::with_pool(numerics, set, Arc::new(Pool::new(threads)))
    }

    fn with_pool(numerics: Numerics, set: InstructionSet, pool: Arc<Pool>) -> Option<Self> {
        let kernels = KernelTable(Kernels::of(set)?);
        Some(Self { numerics, set, kernels, pool, recycler: Arc::default() })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// The number of threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// What may be approximated. The kernels of today compute in `f32` either way.
    pub fn numerics(&self) -> Numerics {
        self.numerics
    }

    /// Measures what the processor computes when nothing waits for memory, within about a tenth of a second.
    pub fn peak_rates(&self) -> PeakRates {
        let rate = |kernel: unsafe fn(usize) -> (usize, f32)| {
            let best = (0..5).map(|_| {
                let operations = AtomicUsize::new(0);
                let start = Instant::now();
                self.pool.run(self.threads(), &|_| {
                    // SAFETY: the table belongs to an instruction set of this machine.
                    let (count, sum) = unsafe { kernel(1 << 20) };
                    std::hint::black_box(sum);
                    operations.fetch_add(count, Ordering::Relaxed);
                });
                operations.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
            });
            best.fold(0.0, f64::max)
        };
        PeakRates { floats: rate(self.kernels.0.peak_floats), bytes: rate(self.kernels.0.integer.peak_bytes) }
    }

    fn buffer(&self, len: usize) -> Result<Buffer> {
        Buffer::new(&self.recycler, len)
    }

    fn region(&self) -> Region<'_> {
        let integer = self.numerics == Numerics::Fast;
        Region { kernels: self.kernels.0, pool: &self.pool, recycler: &self.recycler, integer }
    }

    /// Calls `task` for every row, in parallel where that pays.
    fn rows(&self, rows: usize, columns: usize, task: &(dyn Fn(usize) + Sync)) {
        self.tasks(rows, rows * columns, task);
    }

    /// Calls `task` for each of `count` tasks that take some steps all together, in parallel where that pays.
    fn tasks(&self, count: usize, steps: usize, task: &(dyn Fn(usize) + Sync)) {
        // Below this a region costs more than it saves.
        if steps < 32 << 10 {
            (0..count).for_each(task);
        } else {
            self.pool.run(count, task);
        }
    }
}

fn shape_of(tensor: &CpuTensor) -> String {
    format!("[{}, {}]", tensor.rows, tensor.columns)
}

fn same_shape(operation: &'static str, a: &CpuTensor, b: &CpuTensor) -> Result<()> {
    if a.rows == b.rows && a.columns == b.columns {
        Ok(())
    } else {
        Err(TensorError::shape(operation, shape_of(a), shape_of(b)))
    }
}
