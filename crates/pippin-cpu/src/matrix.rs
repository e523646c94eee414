//! Weight matrices in the mapped file, and the driver of matrix products.

use std::{cell::RefCell, ops::Range, sync::Arc};

use pippin_tensor::{
    Dtype, MatrixData, QuantMode, QuantSpec, QuantizedData, Result, TensorData, TensorError,
};

use crate::{
    kernels::{
        Kernels,
        elementwise::RowNorm,
        integer,
        matmul::{DIRECT_COLUMNS, DenseRows, Element, Order, Output, Packed, QuantRows, Tile},
        unpack::{Codes, E2M1_FACTOR, E2M1_OFFSET},
    },
    pool::Pool,
    simd::MAX_LANES,
    tensor::{Buffer, CpuTensor, Recycler, Shared},
};

/// A weight matrix `[outputs, inputs]`, read where the checkpoint is mapped.
#[derive(Debug)]
pub struct CpuMatrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Dense {
        data: TensorData,
        element: Element,
    },
    /// `element` is the type of scales and biases.
    Quantized {
        data: Box<QuantizedData>,
        element: Element,
    },
}

pub(crate) fn element_of(dtype: Dtype) -> Option<Element> {
    match dtype {
        Dtype::F32 => Some(Element::F32),
        Dtype::F16 => Some(Element::F16),
        Dtype::Bf16 => Some(Element::Bf16),
        _ => None,
    }
}

fn unsupported(what: String) -> TensorError {
    TensorError::Unsupported { backend: "cpu", what }
}

impl CpuMatrix {
    pub(crate) fn new(data: MatrixData) -> Result<Self> {
        match data {
            MatrixData::Dense(data) => {
                let &[rows, columns] = data.shape() else {
                    return Err(TensorError::shape(
                        "matrix",
                        "two dimensions",
                        format!("{:?}", data.shape()),
                    ));
                };
                let element = element_of(data.dtype())
                    .ok_or_else(|| unsupported(format!("{} matrices ({})", data.dtype(), data.name())))?;
                Ok(Self { rows, columns, kind: Kind::Dense { data, element } })
            }
            MatrixData::Quantized(data) => {
                let name = data.weight.name();
                let biases_match = match (&data.biases, data.spec.mode) {
                    (Some(biases), QuantMode::Affine) => biases.dtype() == data.scales.dtype(),
                    (biases, mode) => biases.is_none() && mode != QuantMode::Affine,
                };
                if !biases_match {
                    let biases =
                        data.biases.as_ref().map_or("none".into(), |biases| biases.dtype().to_string());
                    return Err(TensorError::shape(
                        "matrix",
                        format!("biases as {} asks for beside {name}", data.spec),
                        biases,
                    ));
                }
                let element = match data.spec.mode {
                    QuantMode::Affine => element_of(data.scales.dtype())
                        .ok_or_else(|| unsupported(format!("{} scales ({name})", data.scales.dtype())))?,
                    QuantMode::Mxfp4 | QuantMode::Mxfp8 => Element::E8m0,
                    QuantMode::Nvfp4 => Element::E4m3,
                };
                let (rows, columns) = (data.rows, data.cols);
                // The kernels read without further checks: the sizes must be what the shape says.
                let groups = columns / data.spec.group_size;
                let words = columns * data.spec.bits as usize / 32;
                let group_bytes = element.size() * rows * groups;
                if data.weight.byte_len() != 4 * rows * words
                    || data.scales.byte_len() != group_bytes
                    || data.biases.as_ref().is_some_and(|biases| biases.byte_len() != group_bytes)
                    || !columns.is_multiple_of(data.spec.group_size)
                {
                    return Err(TensorError::shape(
                        "matrix",
                        format!("[{rows}, {columns}] as {}", data.spec),
                        format!("{name} with other sizes"),
                    ));
                }
                Ok(Self { rows, columns, kind: Kind::Quantized { data: Box::new(data), element } })
            }
        }
    }

    /// The packing its activations need. `integer` asks for eight bits, which dense matrices have no use for.
    fn packing(&self, integer: bool) -> Packing {
        match &self.kind {
            Kind::Dense { .. } => Packing::Floats(Order::Natural),
            Kind::Quantized { data, .. } => {
                let QuantSpec { mode, bits, group_size } = data.spec;
                let fields = 32 / bits as usize;
                match (integer, codes_of(data.spec)) {
                    (true, None) if mode == QuantMode::Affine => Packing::Bytes { fields, group_size },
                    (true, Some(_)) => Packing::Bytes { fields: 4, group_size },
                    (false, None) if mode == QuantMode::Affine => {
                        Packing::Floats(Order::Interleaved { fields })
                    }
                    _ => Packing::Floats(Order::Natural),
                }
            }
        }
    }

    /// Whether `f32` activations are multiplied with rows as they are read. Other codes go through a panel.
    fn direct(&self) -> bool {
        match &self.kind {
            Kind::Dense { .. } => true,
            Kind::Quantized { data, .. } => {
                data.spec.mode == QuantMode::Affine && codes_of(data.spec).is_none()
            }
        }
    }

    /// Dequantizes one row in natural order.
    pub(crate) fn read_row(&self, kernels: &Kernels, row: usize, out: &mut [f32]) {
        match &self.kind {
            Kind::Dense { data, element } => {
                let start = row * self.columns * element.size();
                // SAFETY: the row is inside the matrix, whose size was checked when it was made.
                unsafe { (kernels.widen)(data.bytes()[start..].as_ptr(), *element, out) };
            }
            Kind::Quantized { data, element } => SCRATCH.with_borrow_mut(|scratch| {
                let groups = scratch.load_groups(kernels, data, row..row + 1, *element);
                let row_bytes = self.columns * data.spec.bits as usize / 8;
                let words = &data.weight.bytes()[row * row_bytes..][..row_bytes];
                debug_assert_eq!(groups * data.spec.group_size, self.columns);
                let Scratch { scales, biases, bytes, .. } = scratch;
                dequantize_row(kernels, data.spec, words, scales, biases, bytes, out);
            }),
        }
    }
}

/// How rows become bytes, if their fields are not numbers with a power of two of bits.
fn codes_of(spec: QuantSpec) -> Option<Codes> {
    match (spec.mode, spec.bits) {
        (QuantMode::Affine, 3) => Some(Codes::Three),
        (QuantMode::Affine, 5) => Some(Codes::Five),
        (QuantMode::Affine, 6) => Some(Codes::Six),
        (QuantMode::Mxfp4 | QuantMode::Nvfp4, _) => Some(Codes::E2m1),
        _ => None,
    }
}

/// Dequantizes a row of any kind, in natural order. `bytes` is a buffer.
fn dequantize_row(
    kernels: &Kernels,
    spec: QuantSpec,
    words: &[u8],
    scales: &[f32],
    biases: &[f32],
    bytes: &mut Vec<u8>,
    out: &mut [f32],
) {
    let columns = out.len();
    let groups = out.chunks_exact_mut(spec.group_size).zip(scales.iter().zip(biases));
    if spec.mode == QuantMode::Mxfp8 {
        for ((out, (scale, _)), words) in groups.zip(words.chunks_exact(spec.group_size)) {
            // SAFETY: there are as many codes as elements.
            unsafe { (kernels.widen)(words.as_ptr(), Element::E4m3, out) };
            out.iter_mut().for_each(|weight| *weight *= scale);
        }
        return;
    }
    bytes.resize(columns, 0);
    match codes_of(spec) {
        // SAFETY: the instruction set is there.
        Some(codes) => unsafe { (kernels.unpack)(words, codes, bytes) },
        None => {
            let fields = 8 / spec.bits as usize;
            for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(fields)) {
                for (field, byte) in bytes.iter_mut().enumerate() {
                    *byte = (u32::from(*word) >> (field as u32 * spec.bits) & ((1 << spec.bits) - 1)) as u8;
                }
            }
        }
    }
    for ((out, (scale, bias)), bytes) in groups.zip(bytes.chunks_exact(spec.group_size)) {
        for (out, q) in out.iter_mut().zip(bytes) {
            *out = f32::from(*q) * scale + bias;
        }
    }
}

/// How activations are laid out for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// As `f32`.
    Floats(Order),
    /// Quantized to eight bits per group, for weights with so many fields per word.
    Bytes { fields: usize, group_size: usize },
}

/// A thread's buffers for dequantization.
#[derive(Default)]
struct Scratch {
    scales: Vec<f32>,
    biases: Vec<f32>,
    panel: Vec<f32>,
    bytes: Vec<u8>,
    integer: integer::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static NORMALISED: RefCell<Vec<f32>> = RefCell::default();
}

impl Scratch {
    /// Widens the scales and biases of some rows; returns the number of groups per row.
    fn load_groups(
        &mut self,
        kernels: &Kernels,
        data: &QuantizedData,
        rows: Range<usize>,
        element: Element,
    ) -> usize {
        let groups = data.cols / data.spec.group_size;
        let len = rows.len() * groups;
        let Self { scales, biases, .. } = self;
        for (data, to) in [(Some(&data.scales), &mut *scales), (data.biases.as_ref(), &mut *biases)] {
            // Vectors that reach over the end multiply what they read with zero; it must be finite.
            to.resize(len + MAX_LANES, 0.0);
            to[len..].fill(0.0);
            let Some(data) = data else { continue };
            let from =
                &data.bytes()[rows.start * groups * element.size()..rows.end * groups * element.size()];
            // SAFETY: `from` holds as many elements as `to[..len]`.
            unsafe { (kernels.widen)(from.as_ptr(), element, &mut to[..len]) };
        }
        if codes_of(data.spec) == Some(Codes::E2m1) {
            for (scale, bias) in scales[..len].iter_mut().zip(biases) {
                *scale *= E2M1_FACTOR;
                *bias = *scale * -f32::from(E2M1_OFFSET);
            }
        }
        groups
    }
}

/// One product of a [`Region`]: a matrix, an optional bias, and its output `[x.rows, matrix.rows]`.
pub(crate) struct Product<'a> {
    pub(crate) matrix: &'a CpuMatrix,
    pub(crate) bias: Option<&'a CpuTensor>,
    pub(crate) out: Shared,
}

/// Products whose rows are computed together, and what happens to each finished piece: activation rows, weight rows.
pub(crate) struct Job<'a> {
    pub(crate) products: Vec<Product<'a>>,
    pub(crate) finish: Option<&'a (dyn Fn(Range<usize>, Range<usize>) + Sync)>,
}

/// What a region multiplies: rows of a tensor, normalised as they are packed if there is a norm.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) x: &'a CpuTensor,
    /// The rows to take; without, all of them in order.
    pub(crate) rows: Option<&'a [u32]>,
    /// The norm they pass through.
    pub(crate) norm: Option<RowNorm<'a>>,
}

impl<'a> From<&'a CpuTensor> for Input<'a> {
    fn from(x: &'a CpuTensor) -> Self {
        Self { x, rows: None, norm: None }
    }
}

impl Input<'_> {
    fn len(self) -> usize {
        self.rows.map_or(self.x.rows, <[u32]>::len)
    }

    /// Calls `f` with a row.
    fn with_row(self, kernels: &Kernels, row: usize, f: impl FnOnce(&[f32])) {
        let row = self.x.row(self.rows.map_or(row, |rows| rows[row] as usize));
        match self.norm {
            None => f(row),
            Some(norm) => NORMALISED.with_borrow_mut(|normalised| {
                normalised.resize(row.len(), 0.0);
                // SAFETY: the instruction set is there, and both are equally long.
                unsafe { (kernels.norm)(&norm, row, normalised) };
                f(normalised);
            }),
        }
    }
}

/// A parallel region of matrix products that share their input.
pub(crate) struct Region<'a> {
    pub(crate) kernels: &'static Kernels,
    pub(crate) pool: &'a Pool,
    pub(crate) recycler: &'a Arc<Recycler>,
    /// Whether activations may be quantized to eight bits.
    pub(crate) integer: bool,
}

/// Activations as a kernel reads them.
enum PackedActivations {
    Floats { values: Buffer, stride: usize },
    Bytes { values: Buffer, scales: Buffer, sums: Buffer, layout: integer::Layout },
}

/// A piece of work: a job's weight rows times a block of activation rows.
struct Piece {
    job: usize,
    weights: Range<usize>,
    activations: Range<usize>,
}

/// Bytes of packed activations that one pass over a panel may touch: half of a typical second-level cache.
const ACTIVATION_BLOCK: usize = 512 << 10;
/// Bytes of an unpacked panel.
const PANEL: usize = 256 << 10;

/// Adds a bias to a piece of an output that is `width` wide.
fn add_bias(out: &Shared, width: usize, bias: &CpuTensor, rows: Range<usize>, activations: Range<usize>) {
    for m in activations {
        // SAFETY: this piece of the output is this task's.
        let y = unsafe { out.slice(m * width + rows.start, rows.len()) };
        for (y, bias) in y.iter_mut().zip(&bias.values()[rows.clone()]) {
            *y += bias;
        }
    }
}

impl Region<'_> {
    /// Computes all jobs on the input.
    pub(crate) fn run(&self, input: Input<'_>, jobs: &[Job<'_>]) -> Result<()> {
        let mut packed: Vec<(Packing, PackedActivations)> = Vec::new();
        for product in jobs.iter().flat_map(|job| &job.products) {
            let packing = product.matrix.packing(self.integer);
            if !packed.iter().any(|(known, _)| *known == packing) {
                packed.push((packing, self.pack(input, packing)?));
            }
        }
        let outputs: Vec<usize> = jobs.iter().map(|job| job.products[0].matrix.rows).collect();
        let pieces = self.cut(input.len(), input.x.columns, &outputs);
        self.pool.run(pieces.len(), &|piece| {
            let Piece { job, weights, activations } = &pieces[piece];
            let job = &jobs[*job];
            for product in &job.products {
                let packing = product.matrix.packing(self.integer);
                for (_, packed) in packed.iter().filter(|(known, _)| *known == packing) {
                    let Product { matrix, bias, out } = product;
                    let y = Output {
                        values: out.at(activations.start * matrix.rows + weights.start),
                        stride: matrix.rows,
                    };
                    self.multiply(matrix, weights.clone(), activations.clone(), packed, y);
                    if let Some(bias) = bias {
                        add_bias(out, matrix.rows, bias, weights.clone(), activations.clone());
                    }
                }
            }
            if let Some(finish) = job.finish {
                finish(activations.clone(), weights.clone());
            }
        });
        Ok(())
    }

    /// Multiplies each row of `x` with the matrix of its expert: one of `experts` matrices of equal size, one below the
    /// other in `matrix`. The `i`-th of `routes` says which expert takes row `i / repeat`; its result, as wide as an
    /// expert has rows, is the `i`-th of the output. A route to no
    /// expert gives zeros.
    pub(crate) fn run_experts(
        &self,
        x: &CpuTensor,
        matrix: &CpuMatrix,
        experts: usize,
        routes: &[u32],
    ) -> Result<Buffer> {
        let outputs = matrix.rows / experts;
        let repeat = routes.len() / x.rows;
        // Routes in the order of their experts: all rows of an expert are multiplied while its weights are read.
        let mut order: Vec<u32> = (0..routes.len() as u32).collect();
        order.sort_by_key(|route| routes[*route as usize]);
        let rows: Vec<u32> = order.iter().map(|route| *route / repeat as u32).collect();
        let mut groups = Vec::new();
        let mut pieces = Vec::new();
        let mut start = 0;
        let mut beyond = order.len();
        for chosen in order.chunk_by(|a, b| routes[*a as usize] == routes[*b as usize]) {
            let expert = routes[chosen[0] as usize] as usize;
            if expert >= experts {
                beyond = start;
                break;
            }
            let input = Input { rows: Some(&rows[start..start + chosen.len()]), ..x.into() };
            for piece in self.cut(chosen.len(), x.columns, &[outputs]) {
                pieces.push(Piece { job: groups.len(), ..piece });
            }
            groups.push((expert, start, self.pack(input, matrix.packing(self.integer))?));
            start += chosen.len();
        }
        let mut sorted = Buffer::new(self.recycler, routes.len() * outputs)?;
        let to = Shared::new(&mut sorted);
        self.pool.run(pieces.len(), &|piece| {
            let Piece { job, weights, activations } = &pieces[piece];
            let (expert, start, packed) = &groups[*job];
            let y = Output {
                values: to.at((start + activations.start) * outputs + weights.start),
                stride: outputs,
            };
            let first = expert * outputs;
            let weights = first + weights.start..first + weights.end;
            self.multiply(matrix, weights, activations.clone(), packed, y);
        });
        let mut out = Buffer::new(self.recycler, routes.len() * outputs)?;
        sorted[beyond * outputs..routes.len() * outputs].fill(0.0);
        for (from, route) in sorted.chunks_exact(outputs.max(1)).zip(&order) {
            out[*route as usize * outputs..][..outputs].copy_from_slice(from);
        }
        Ok(out)
    }

    fn pack(&self, input: Input<'_>, packing: Packing) -> Result<PackedActivations> {
        let (rows, columns) = (input.len(), input.x.columns);
        let for_each_row = |task: &(dyn Fn(usize) + Sync)| {
            if rows < 8 {
                (0..rows).for_each(task);
            } else {
                self.pool.run(rows, task);
            }
        };
        let buffer = |len| Buffer::new(self.recycler, len);
        match packing {
            Packing::Floats(order) => {
                let stride = order.packed_len(columns, self.kernels.lanes);
                let mut values = buffer(rows * stride)?;
                let to = Shared::new(&mut values);
                for_each_row(&|row| {
                    // SAFETY: each row is written by one task.
                    let to = unsafe { to.slice(row * stride, stride) };
                    input.with_row(self.kernels, row, |row| order.pack(row, self.kernels.lanes, to));
                });
                Ok(PackedActivations::Floats { values, stride })
            }
            Packing::Bytes { fields, group_size } => {
                let Kernels { lanes, integer, .. } = self.kernels;
                let layout = integer::Layout::new(rows, columns, group_size, *lanes, integer.tile_rows);
                let mut values = buffer(layout.values_len().div_ceil(4))?;
                let (mut scales, mut sums) = (buffer(layout.groups_len())?, buffer(layout.groups_len())?);
                // Buffers are used again and again: the rows that fill up the last tile must be cleared.
                if let Some(tile) = layout.unfilled_tile() {
                    values[tile * layout.columns / 4..].fill(0.0);
                    scales[tile * layout.groups..].fill(0.0);
                    sums[tile * layout.groups..].fill(0.0);
                }
                let [values_to, scales_to, sums_to] =
                    [&mut values, &mut scales, &mut sums].map(|buffer| Shared::new(buffer));
                for_each_row(&|row| {
                    let to = layout.row(row, values_to.at(0).cast(), scales_to.at(0), sums_to.at(0));
                    // SAFETY: each row is written by one task, to its own places; four bytes are as large as a float.
                    input.with_row(self.kernels, row, |row| unsafe {
                        (integer.quantize)(row, group_size, fields, &to);
                    });
                });
                Ok(PackedActivations::Bytes { values, scales, sums, layout })
            }
        }
    }

    /// Cuts products of `rows` activation rows of `columns` values into pieces for the pool. `outputs` are the weight rows
    /// of each job.
    fn cut(&self, rows: usize, columns: usize, outputs: &[usize]) -> Vec<Piece> {
        let total: usize = outputs.iter().sum();
        let mut pieces = Vec::new();
        let row_bytes = if self.integer { columns } else { 4 * columns };
        let tile = if self.integer { self.kernels.integer.tile_rows } else { self.kernels.tile_columns };
        let (activation_block, weight_block) = if rows <= DIRECT_COLUMNS {
            // Several pieces per thread, so that a thread that was interrupted does not hold the others up.
            (rows, (total / (8 * self.pool.threads())).clamp(16, 128))
        } else {
            let activations = (ACTIVATION_BLOCK / row_bytes / tile * tile).max(2 * tile);
            (activations, (PANEL / row_bytes).clamp(MAX_LANES, 32))
        };
        let weight_block = weight_block / MAX_LANES * MAX_LANES;
        for start in (0..rows).step_by(activation_block.max(1)) {
            let activations = start..(start + activation_block).min(rows);
            for (job, outputs) in outputs.iter().enumerate() {
                for start in (0..*outputs).step_by(weight_block) {
                    let weights = start..(start + weight_block).min(*outputs);
                    pieces.push(Piece { job, weights, activations: activations.clone() });
                }
            }
        }
        pieces
    }

    /// One product's piece.
    fn multiply(
        &self,
        matrix: &CpuMatrix,
        rows: Range<usize>,
        activations: Range<usize>,
        packed: &PackedActivations,
        y: Output,
    ) {
        SCRATCH.with_borrow_mut(|scratch| match packed {
            PackedActivations::Floats { values, stride } => {
                let x = Packed {
                    values: values[activations.start * stride..].as_ptr(),
                    stride: *stride,
                    rows: activations.len(),
                };
                self.multiply_floats(matrix, rows, x, y, scratch);
            }
            PackedActivations::Bytes { values, scales, sums, layout } => {
                let x = integer::Activations {
                    values: values.as_ptr().cast(),
                    scales: scales.as_ptr(),
                    sums: sums.as_ptr(),
                    layout: *layout,
                };
                self.multiply_bytes(matrix, rows, x.rows(activations), y, scratch);
            }
        });
    }

    fn multiply_bytes(
        &self,
        matrix: &CpuMatrix,
        rows: Range<usize>,
        x: integer::Activations,
        y: Output,
        scratch: &mut Scratch,
    ) {
        let kernels = self.kernels;
        // Dense matrices are never packed as bytes.
        let Kind::Quantized { data, element } = &matrix.kind else { return };
        let spec = data.spec;
        let groups = x.layout.groups;
        let row_bytes = matrix.columns * spec.bits as usize / 8;
        let group_bytes = groups * element.size();
        let codes = codes_of(spec);
        // Rows that are unpacked to bytes first are so a vector of outputs at a time, while the bytes are near.
        let step = if codes.is_some() { MAX_LANES } else { rows.len().max(1) };
        for start in rows.clone().step_by(step) {
            let end = (start + step).min(rows.end);
            let words = &data.weight.bytes()[start * row_bytes..end * row_bytes];
            let (words, row_words) = match codes {
                None => (words.as_ptr(), row_bytes / 4),
                Some(codes) => {
                    scratch.bytes.resize((end - start) * matrix.columns, 0);
                    // SAFETY: the instruction set is there.
                    unsafe { (kernels.unpack)(words, codes, &mut scratch.bytes) };
                    (scratch.bytes.as_ptr(), matrix.columns / 4)
                }
            };
            let args = integer::IntegerRows {
                words,
                row_words,
                rows: end - start,
                scales: &data.scales.bytes()[start * group_bytes..],
                biases: data.biases.as_ref().map(|biases| &biases.bytes()[start * group_bytes..]),
                element: *element,
                groups,
                group_size: spec.group_size,
                x,
                y: Output { values: y.values.wrapping_add(start - rows.start), ..y },
            };
            let product = match (codes, spec.bits) {
                (Some(_), _) => kernels.integer.byte_rows,
                (None, 2) => kernels.integer.rows_2,
                (None, 4) => kernels.integer.rows_4,
                (None, _) => kernels.integer.rows_8,
            };
            // SAFETY: `args` describes rows of the matrix, activations packed for it, and an output piece that only
            // this task writes.
            unsafe { product(&args, &mut scratch.integer) };
        }
    }

    fn multiply_floats(
        &self,
        matrix: &CpuMatrix,
        rows: Range<usize>,
        x: Packed,
        y: Output,
        scratch: &mut Scratch,
    ) {
        let kernels = self.kernels;
        let direct = x.rows <= DIRECT_COLUMNS && matrix.direct();
        if !direct {
            scratch.panel.resize(rows.len() * x.stride, 0.0);
        }
        match &matrix.kind {
            Kind::Dense { data, element } => {
                let row_bytes = matrix.columns * element.size();
                let args = DenseRows {
                    values: &data.bytes()[rows.start * row_bytes..rows.end * row_bytes],
                    element: *element,
                    columns: matrix.columns,
                    rows: rows.len(),
                    x,
                    y,
                };
                // SAFETY: `args` describes rows of the matrix, packed activations as wide as it, and an output
                // piece that only this task writes; the panel has been given room for the rows.
                unsafe {
                    if direct {
                        (kernels.dense_rows)(&args);
                    } else {
                        (kernels.dense_unpack)(&args, scratch.panel.as_mut_ptr());
                    }
                }
            }
            Kind::Quantized { data, element } => {
                let groups = scratch.load_groups(kernels, data, rows.clone(), *element);
                let spec = data.spec;
                let row_bytes = matrix.columns * spec.bits as usize / 8;
                let words = &data.weight.bytes()[rows.start * row_bytes..rows.end * row_bytes];
                let args = QuantRows {
                    words: words.as_ptr(),
                    row_words: row_bytes / 4,
                    rows: rows.len(),
                    scales: &scratch.scales,
                    biases: &scratch.biases,
                    groups,
                    group_words: spec.group_size * spec.bits as usize / 32,
                    x,
                    y,
                };
                let panel = scratch.panel.as_mut_ptr();
                let interleaved = matrix.direct();
                // SAFETY: as above; scales and biases are padded by a vector.
                unsafe {
                    match (spec.bits, direct) {
                        (2, true) => (kernels.quant_rows_2)(&args),
                        (4, true) => (kernels.quant_rows_4)(&args),
                        (8, true) => (kernels.quant_rows_8)(&args),
                        (2, false) if interleaved => (kernels.quant_unpack_2)(&args, panel),
                        (4, false) if interleaved => (kernels.quant_unpack_4)(&args, panel),
                        (8, false) if interleaved => (kernels.quant_unpack_8)(&args, panel),
                        _ => {
                            let Scratch { scales, biases, bytes, panel, .. } = scratch;
                            let groups = scales.chunks_exact(groups).zip(biases.chunks_exact(groups));
                            let panel = panel.chunks_exact_mut(x.stride);
                            for ((words, (scales, biases)), out) in
                                words.chunks_exact(row_bytes).zip(groups).zip(panel)
                            {
                                let (out, padding) = out.split_at_mut(matrix.columns);
                                dequantize_row(kernels, spec, words, scales, biases, bytes, out);
                                padding.fill(0.0);
                            }
                        }
                    }
                }
            }
        }
        if !direct {
            let tile =
                Tile { panel: scratch.panel.as_ptr(), panel_rows: rows.len(), panel_stride: x.stride, x, y };
            // SAFETY: the panel holds `rows` packed rows, and the output piece is this task's.
            unsafe { (kernels.tile)(&tile) };
        }
    }
}
