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
mod kernels;
mod kv;
mod matrix;
mod pool;
mod rope;
mod simd;
mod tensor;

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use pippin_tensor::{
    Activation, AttentionSpec, Backend, HeadNorms, KvCacheSpec, Linear, MatrixData, Numerics, Result,
    RopeSpec, StepInputs, TensorData, TensorError,
};

pub use crate::{kernels::InstructionSet, kv::CpuKvCache, matrix::CpuMatrix, tensor::CpuTensor};
use crate::{
    kernels::Kernels,
    matrix::{Input, Job, Product, Region},
    pool::Pool,
    tensor::{Buffer, Recycler, Shared},
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

    fn buffer(&self, len: usize) -> Buffer {
        Buffer::new(&self.recycler, len)
    }

    fn region(&self) -> Region<'_> {
        let integer = self.numerics == Numerics::Fast;
        Region { kernels: self.kernels.0, pool: &self.pool, recycler: &self.recycler, integer }
    }

    /// Calls `task` for every row, in parallel where that pays.
    fn rows(&self, rows: usize, columns: usize, task: &(dyn Fn(usize) + Sync)) {
        // Below this a region costs more than it saves.
        if rows * columns < 32 << 10 {
            (0..rows).for_each(task);
        } else {
            self.pool.run(rows, task);
        }
    }

    fn check_linear(
        operation: &'static str,
        x: &CpuTensor,
        weight: &CpuMatrix,
        bias: Option<&CpuTensor>,
    ) -> Result<()> {
        if x.columns != weight.columns {
            return Err(TensorError::shape(operation, format!("[_, {}]", weight.columns), shape_of(x)));
        }
        match bias {
            Some(bias) if bias.rows != 1 || bias.columns != weight.rows => {
                Err(TensorError::shape(operation, format!("a bias of [1, {}]", weight.rows), shape_of(bias)))
            }
            _ => Ok(()),
        }
    }

    /// `rms_norm` of one row into `out`.
    fn norm_row(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let runs = x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len()));
        for (x, out) in runs {
            // SAFETY: the table belongs to an instruction set of this machine; the slices are equally long.
            unsafe { (self.kernels.0.rms_norm)(x, weight, eps, out) };
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

fn check_norm(x: &CpuTensor, weight: &CpuTensor) -> Result<()> {
    if weight.rows == 1 && weight.columns > 0 && x.columns.is_multiple_of(weight.columns) {
        Ok(())
    } else {
        Err(TensorError::shape(
            "rms_norm",
            format!("a weight that divides {} columns", x.columns),
            shape_of(weight),
        ))
    }
}

fn check_indices(operation: &'static str, indices: &[u32], limit: usize) -> Result<()> {
    match indices.iter().find(|index| **index as usize >= limit) {
        Some(index) => Err(TensorError::Index { operation, index: u64::from(*index), limit: limit as u64 }),
        None => Ok(()),
    }
}

impl Backend for CpuBackend {
    type Tensor = CpuTensor;
    type Indices = Arc<[u32]>;
    type Matrix = CpuMatrix;
    type KvCache = CpuKvCache;

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn description(&self) -> String {
        let threads = self.threads();
        format!("CPU, {}, {threads} thread{}", self.set.name(), if threads == 1 { "" } else { "s" })
    }

    fn tensor(&self, data: &TensorData) -> Result<CpuTensor> {
        let (rows, columns) = match *data.shape() {
            [] => (1, 1),
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => {
                return Err(TensorError::shape(
                    "tensor",
                    "at most two dimensions",
                    format!("{:?}", data.shape()),
                ));
            }
        };
        let values = data.to_f32()?;
        let mut buffer = self.buffer(values.len());
        buffer[..values.len()].copy_from_slice(&values);
        Ok(CpuTensor::new(rows, columns, buffer))
    }

    fn matrix(&self, data: MatrixData) -> Result<CpuMatrix> {
        CpuMatrix::new(data)
    }

    fn indices(&self, values: &[u32]) -> Result<Arc<[u32]>> {
        Ok(values.into())
    }

    fn read(&self, tensor: &CpuTensor) -> Result<Vec<f32>> {
        Ok(tensor.values().to_vec())
    }

    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<CpuKvCache> {
        CpuKvCache::new(spec)
    }

    fn shape(&self, tensor: &CpuTensor) -> [usize; 2] {
        [tensor.rows, tensor.columns]
    }

    fn matrix_shape(&self, matrix: &CpuMatrix) -> [usize; 2] {
        [matrix.rows, matrix.columns]
    }

    fn embedding(&self, table: &CpuMatrix, rows: &Arc<[u32]>) -> Result<CpuTensor> {
        check_indices("embedding", rows, table.rows)?;
        let columns = table.columns;
        let mut out = self.buffer(rows.len() * columns);
        let to = Shared::new(&mut out);
        self.rows(rows.len(), columns, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * columns, columns) };
            table.read_row(self.kernels.0, rows[i] as usize, to);
        });
        Ok(CpuTensor::new(rows.len(), columns, out))
    }

    fn matmul(&self, x: &CpuTensor, weight: &CpuMatrix) -> Result<CpuTensor> {
        Self::check_linear("matmul", x, weight, None)?;
        let mut out = self.buffer(x.rows * weight.rows);
        let product = Product { matrix: weight, bias: None, out: Shared::new(&mut out) };
        self.region().run(x.into(), &[Job { products: vec![product], finish: None }]);
        Ok(CpuTensor::new(x.rows, weight.rows, out))
    }

    fn gathered_matmul(
        &self,
        x: &CpuTensor,
        weight: &CpuMatrix,
        experts: usize,
        routes: &Arc<[u32]>,
    ) -> Result<CpuTensor> {
        Self::check_linear("gathered_matmul", x, weight, None)?;
        check_indices("gathered_matmul", routes, experts)?;
        if experts == 0 || !weight.rows.is_multiple_of(experts) {
            return Err(TensorError::shape(
                "gathered_matmul",
                format!("rows of {experts} equal matrices"),
                weight.rows,
            ));
        }
        if x.rows == 0 && !routes.is_empty() || x.rows > 0 && !routes.len().is_multiple_of(x.rows) {
            return Err(TensorError::shape(
                "gathered_matmul",
                format!("as many routes for each of {} rows", x.rows),
                routes.len(),
            ));
        }
        if routes.is_empty() {
            return Ok(CpuTensor::new(0, weight.rows / experts, self.buffer(0)));
        }
        let out = self.region().run_experts(x, weight, experts, routes);
        Ok(CpuTensor::new(routes.len(), weight.rows / experts, out))
    }

    fn add(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        if b.rows != 1 || b.columns != a.columns {
            same_shape("add", a, b)?;
        }
        let mut out = self.buffer(a.rows * a.columns);
        let to = Shared::new(&mut out);
        self.rows(a.rows, a.columns, &|i| {
            // SAFETY: each row is written by one task; the table belongs to this machine.
            unsafe {
                let to = to.slice(i * a.columns, a.columns);
                (self.kernels.0.add)(a.row(i), b.row(if b.rows == 1 { 0 } else { i }), to);
            }
        });
        Ok(CpuTensor::new(a.rows, a.columns, out))
    }

    fn gated(&self, gate: &CpuTensor, up: &CpuTensor, activation: Activation) -> Result<CpuTensor> {
        same_shape("gated", gate, up)?;
        let kernel = self.gated_kernel(activation)?;
        let mut out = self.buffer(gate.rows * gate.columns);
        let to = Shared::new(&mut out);
        self.rows(gate.rows, gate.columns, &|i| {
            // SAFETY: each row is written by one task; the table belongs to this machine.
            unsafe { kernel(gate.row(i), up.row(i), to.slice(i * gate.columns, gate.columns)) };
        });
        Ok(CpuTensor::new(gate.rows, gate.columns, out))
    }

    fn rms_norm(&self, x: &CpuTensor, weight: &CpuTensor, eps: f32) -> Result<CpuTensor> {
        check_norm(x, weight)?;
        let mut out = self.buffer(x.rows * x.columns);
        let to = Shared::new(&mut out);
        self.rows(x.rows, x.columns, &|i| {
            // SAFETY: each row is written by one task.
            self.norm_row(x.row(i), weight.values(), eps, unsafe { to.slice(i * x.columns, x.columns) });
        });
        Ok(CpuTensor::new(x.rows, x.columns, out))
    }

    fn rope_angles(&self, positions: &Arc<[u32]>, spec: &RopeSpec) -> Result<CpuTensor> {
        rope::check(spec)?;
        let mut out = self.buffer(positions.len() * spec.dims);
        let to = Shared::new(&mut out);
        self.rows(positions.len(), 32 * spec.dims, &|i| {
            // SAFETY: each row is written by one task.
            rope::angles(positions[i], spec, unsafe { to.slice(i * spec.dims, spec.dims) });
        });
        Ok(CpuTensor::new(positions.len(), spec.dims, out))
    }

    fn rope(&self, x: &CpuTensor, angles: &CpuTensor, head_dim: usize, spec: &RopeSpec) -> Result<CpuTensor> {
        rope::check_operands(x, angles, head_dim, spec)?;
        let mut out = self.buffer(x.rows * x.columns);
        let to = Shared::new(&mut out);
        self.rows(x.rows, x.columns, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * x.columns, x.columns) };
            to.copy_from_slice(x.row(i));
            rope::rotate(to, angles.row(i), head_dim, spec);
        });
        Ok(CpuTensor::new(x.rows, x.columns, out))
    }

    fn kv_write(
        &self,
        cache: &mut CpuKvCache,
        keys: &CpuTensor,
        values: &CpuTensor,
        slots: &Arc<[u32]>,
    ) -> Result<()> {
        cache.check_write(keys, values, slots)?;
        let (columns, writer) = (keys.columns, cache.writer());
        self.rows(keys.rows, columns, &|i| {
            // SAFETY: slots were checked; the engine gives each row its own.
            unsafe { writer.write(slots[i] as usize, keys.row(i), values.row(i)) };
        });
        Ok(())
    }

    fn attention(
        &self,
        queries: &CpuTensor,
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        spec: &AttentionSpec,
    ) -> Result<CpuTensor> {
        self.run_attention(queries, cache, step, spec)
    }

    fn select_rows(&self, x: &CpuTensor, rows: &Arc<[u32]>) -> Result<CpuTensor> {
        check_indices("select_rows", rows, x.rows)?;
        let mut out = self.buffer(rows.len() * x.columns);
        for (row, to) in rows.iter().zip(out.chunks_exact_mut(x.columns.max(1))) {
            to.copy_from_slice(x.row(*row as usize));
        }
        Ok(CpuTensor::new(rows.len(), x.columns, out))
    }

    fn linear(&self, x: &CpuTensor, linear: &Linear<Self>) -> Result<CpuTensor> {
        let mut outputs = self.linears(x.into(), &[linear])?;
        outputs.pop().ok_or_else(|| TensorError::shape("linear", "one output", "none"))
    }

    fn rms_norm_matmul(
        &self,
        x: &CpuTensor,
        norm: &CpuTensor,
        eps: f32,
        linears: &[&Linear<Self>],
    ) -> Result<Vec<CpuTensor>> {
        check_norm(x, norm)?;
        if norm.columns != x.columns {
            return self.linears((&self.rms_norm(x, norm, eps)?).into(), linears);
        }
        self.linears(Input { norm: Some((norm.values(), eps)), ..x.into() }, linears)
    }

    fn rms_norm_gated_matmul(
        &self,
        x: &CpuTensor,
        norm: &CpuTensor,
        eps: f32,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        activation: Activation,
    ) -> Result<CpuTensor> {
        check_norm(x, norm)?;
        // A norm over parts of rows is not part of the packing.
        let normalised;
        let input = if norm.columns == x.columns {
            Input { norm: Some((norm.values(), eps)), ..x.into() }
        } else {
            normalised = self.rms_norm(x, norm, eps)?;
            (&normalised).into()
        };
        for linear in [gate, up] {
            Self::check_linear("rms_norm_gated_matmul", x, &linear.weight, linear.bias.as_ref())?;
        }
        let width = gate.weight.rows;
        if up.weight.rows != width {
            return Err(TensorError::shape(
                "rms_norm_gated_matmul",
                format!("{width} outputs"),
                up.weight.rows,
            ));
        }
        let kernel = self.gated_kernel(activation)?;
        let mut gates = self.buffer(x.rows * width);
        let mut ups = self.buffer(x.rows * width);
        let (gates_to, ups_to) = (Shared::new(&mut gates), Shared::new(&mut ups));
        let finish = |activations: Range<usize>, weights: Range<usize>| {
            for m in activations {
                // SAFETY: this piece of both outputs was written by the task that now finishes it. The result goes to
                // the up buffer by way of a register: the kernel reads each vector before it writes it.
                unsafe {
                    let (start, len) = (m * width + weights.start, weights.len());
                    let up = std::slice::from_raw_parts(ups_to.at(start), len);
                    let mut out = [0.0; 128];
                    let gate = gates_to.slice(start, len);
                    for (gate, up) in gate.chunks_mut(out.len()).zip(up.chunks(out.len())) {
                        let out = &mut out[..gate.len()];
                        kernel(gate, up, out);
                        gate.copy_from_slice(out);
                    }
                }
            }
        };
        let products = vec![
            Product { matrix: &gate.weight, bias: gate.bias.as_ref(), out: gates_to },
            Product { matrix: &up.weight, bias: up.bias.as_ref(), out: ups_to },
        ];
        self.region().run(input, &[Job { products, finish: Some(&finish) }]);
        Ok(CpuTensor::new(x.rows, width, gates))
    }

    fn linear_add(&self, x: &CpuTensor, linear: &Linear<Self>, residual: &CpuTensor) -> Result<CpuTensor> {
        Self::check_linear("linear_add", x, &linear.weight, linear.bias.as_ref())?;
        let width = linear.weight.rows;
        if residual.rows != x.rows || residual.columns != width {
            return Err(TensorError::shape(
                "linear_add",
                format!("[{}, {width}]", x.rows),
                shape_of(residual),
            ));
        }
        let mut out = self.buffer(x.rows * width);
        let to = Shared::new(&mut out);
        let finish = |activations: Range<usize>, weights: Range<usize>| {
            for m in activations {
                // SAFETY: this piece of the output was written by the task that now finishes it.
                let out = unsafe { to.slice(m * width + weights.start, weights.len()) };
                for (out, residual) in out.iter_mut().zip(&residual.row(m)[weights.clone()]) {
                    *out += residual;
                }
            }
        };
        let product = Product { matrix: &linear.weight, bias: linear.bias.as_ref(), out: to };
        self.region().run(x.into(), &[Job { products: vec![product], finish: Some(&finish) }]);
        Ok(CpuTensor::new(x.rows, width, out))
    }

    fn qkv_rope(
        &self,
        [queries, keys, values]: [&CpuTensor; 3],
        norms: Option<HeadNorms<'_, Self>>,
        angles: &CpuTensor,
        rope: &RopeSpec,
        cache: &mut CpuKvCache,
        slots: &Arc<[u32]>,
        head_dim: usize,
    ) -> Result<CpuTensor> {
        rope::check_operands(queries, angles, head_dim, rope)?;
        rope::check_operands(keys, angles, head_dim, rope)?;
        if let Some(norms) = &norms {
            check_norm(queries, norms.query)?;
            check_norm(keys, norms.key)?;
        }
        cache.check_write(keys, values, slots)?;
        let writer = cache.writer();
        let mut out = self.buffer(queries.rows * queries.columns);
        let mut rotated = self.buffer(keys.rows * keys.columns);
        let (out_to, keys_to) = (Shared::new(&mut out), Shared::new(&mut rotated));
        self.rows(queries.rows, queries.columns + keys.columns, &|i| {
            // SAFETY: each row is written by one task; slots were checked, and the engine gives each row its own.
            unsafe {
                let query = out_to.slice(i * queries.columns, queries.columns);
                let key = keys_to.slice(i * keys.columns, keys.columns);
                match &norms {
                    Some(norms) => {
                        self.norm_row(queries.row(i), norms.query.values(), norms.eps, query);
                        self.norm_row(keys.row(i), norms.key.values(), norms.eps, key);
                    }
                    None => {
                        query.copy_from_slice(queries.row(i));
                        key.copy_from_slice(keys.row(i));
                    }
                }
                rope::rotate(query, angles.row(i), head_dim, rope);
                rope::rotate(key, angles.row(i), head_dim, rope);
                writer.write(slots[i] as usize, key, values.row(i));
            }
        });
        Ok(CpuTensor::new(queries.rows, queries.columns, out))
    }
}

type GatedKernel = unsafe fn(&[f32], &[f32], &mut [f32]);

impl CpuBackend {
    fn gated_kernel(&self, activation: Activation) -> Result<GatedKernel> {
        match activation {
            Activation::Silu => Ok(self.kernels.0.silu_mul),
            other => {
                Err(TensorError::Unsupported { backend: "cpu", what: format!("the activation {other:?}") })
            }
        }
    }

    /// Several linear layers of one input, in one parallel region.
    fn linears(&self, input: Input<'_>, linears: &[&Linear<Self>]) -> Result<Vec<CpuTensor>> {
        let x = input.x;
        for linear in linears {
            Self::check_linear("linear", x, &linear.weight, linear.bias.as_ref())?;
        }
        let mut outputs: Vec<Buffer> =
            linears.iter().map(|linear| self.buffer(x.rows * linear.weight.rows)).collect();
        let jobs: Vec<Job<'_>> = linears
            .iter()
            .zip(&mut outputs)
            .map(|(linear, out)| {
                let product =
                    Product { matrix: &linear.weight, bias: linear.bias.as_ref(), out: Shared::new(out) };
                Job { products: vec![product], finish: None }
            })
            .collect();
        self.region().run(input, &jobs);
        Ok(linears
            .iter()
            .zip(outputs)
            .map(|(linear, out)| CpuTensor::new(x.rows, linear.weight.rows, out))
            .collect())
    }
}
