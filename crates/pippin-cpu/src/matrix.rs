//! Weight matrices in the mapped file, and the driver of matrix products.

use std::{cell::RefCell, ops::Range, sync::Arc};

use pippin_tensor::{Dtype, MatrixData, QuantMode, QuantizedData, TensorData, TensorError};

use crate::{
    kernels::{
        Kernels, integer,
        matmul::{DIRECT_COLUMNS, DenseRows, Element, Order, Output, Packed, QuantRows, Tile},
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
    Dense { data: TensorData, element: Element },
    Quantized { data: Box<QuantizedData>, biases: TensorData, element: Element },
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
    pub(crate) fn new(data: MatrixData) -> Result<Self, TensorError> {
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
                if data.spec.mode != QuantMode::Affine {
                    return Err(unsupported(format!("{} weights ({name})", data.spec)));
                }
                let biases = data
                    .biases
                    .clone()
                    .ok_or_else(|| TensorError::shape("matrix", format!("biases beside {name}"), "none"))?;
                let element = element_of(data.scales.dtype())
                    .filter(|_| biases.dtype() == data.scales.dtype())
                    .ok_or_else(|| {
                        unsupported(format!(
                            "{} scales with {} biases ({name})",
                            data.scales.dtype(),
                            biases.dtype()
                        ))
                    })?;
                let (rows, columns) = (data.rows, data.cols);
                // The kernels read without further checks: the sizes must be what the shape says.
                let groups = columns / data.spec.group_size;
                let words = columns * data.spec.bits as usize / 32;
                if data.weight.bytes().len() != 4 * rows * words
                    || data.scales.bytes().len() != element.size() * rows * groups
                    || biases.bytes().len() != element.size() * rows * groups
                    || !columns.is_multiple_of(data.spec.group_size)
                {
                    return Err(TensorError::shape(
                        "matrix",
                        format!("[{rows}, {columns}] as {}", data.spec),
                        format!("{name} with other sizes"),
                    ));
                }
                Ok(Self { rows, columns, kind: Kind::Quantized { data: Box::new(data), biases, element } })
            }
        }
    }

    /// The packing its activations need. `integer` asks for eight bits, which dense matrices have no use for.
    fn packing(&self, integer: bool) -> Packing {
        match &self.kind {
            Kind::Dense { .. } => Packing::Floats(Order::Natural),
            Kind::Quantized { data, .. } => {
                let spec = data.spec;
                // Widths that are not a power of two are unpacked first.
                let fields = if spec.bits.is_power_of_two() { Some(32 / spec.bits as usize) } else { None };
                if integer {
                    Packing::Bytes { fields: fields.unwrap_or(4), group_size: spec.group_size }
                } else {
                    Packing::Floats(fields.map_or(Order::Natural, |fields| Order::Interleaved { fields }))
                }
            }
        }
    }

    /// Whether rows can be multiplied as they are read. The other widths cross word boundaries and go through a panel.
    fn direct(&self) -> bool {
        match &self.kind {
            Kind::Dense { .. } => true,
            Kind::Quantized { data, .. } => data.spec.bits.is_power_of_two(),
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
            Kind::Quantized { data, biases, element } => SCRATCH.with_borrow_mut(|scratch| {
                let spec = data.spec;
                scratch.load_groups(kernels, self, row..row + 1, &data.scales, biases, *element);
                let row_bytes = self.columns * spec.bits as usize / 8;
                let words = &data.weight.bytes()[row * row_bytes..][..row_bytes];
                unpack_bits(words, spec.bits, spec.group_size, &scratch.scales, &scratch.biases, out);
            }),
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

/// Calls `f` with every field of a row of any bit width: a little-endian stream of `bits`-wide fields.
fn for_each_field(words: &[u8], bits: u32, columns: usize, mut f: impl FnMut(usize, u32)) {
    let mask = (1u32 << bits) - 1;
    for column in 0..columns {
        let bit = column * bits as usize;
        // A field of up to 8 bits lies within two bytes.
        let low = u32::from(words[bit / 8]);
        let high = u32::from(words.get(bit / 8 + 1).copied().unwrap_or(0));
        f(column, ((low | high << 8) >> (bit % 8)) & mask);
    }
}

/// Dequantizes a row of any bit width.
fn unpack_bits(words: &[u8], bits: u32, group_size: usize, scales: &[f32], biases: &[f32], out: &mut [f32]) {
    for_each_field(words, bits, out.len(), |column, q| {
        let group = column / group_size;
        out[column] = q as f32 * scales[group] + biases[group];
    });
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
}

impl Scratch {
    /// Widens the scales and biases of some rows; returns the number of groups per row.
    fn load_groups(
        &mut self,
        kernels: &Kernels,
        matrix: &CpuMatrix,
        rows: Range<usize>,
        scales: &TensorData,
        biases: &TensorData,
        element: Element,
    ) -> usize {
        let groups = scales.bytes().len() / element.size() / matrix.rows;
        let len = rows.len() * groups;
        for (data, to) in [(scales, &mut self.scales), (biases, &mut self.biases)] {
            // Vectors that reach over the end multiply what they read with zero; it must be finite.
            to.resize(len + MAX_LANES, 0.0);
            to[len..].fill(0.0);
            let from =
                &data.bytes()[rows.start * groups * element.size()..rows.end * groups * element.size()];
            // SAFETY: `from` holds as many elements as `to[..len]`.
            unsafe { (kernels.widen)(from.as_ptr(), element, &mut to[..len]) };
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

impl Region<'_> {
    /// Computes all jobs on `x`.
    pub(crate) fn run(&self, x: &CpuTensor, jobs: &[Job<'_>]) {
        let mut packed: Vec<(Packing, PackedActivations)> = Vec::new();
        for product in jobs.iter().flat_map(|job| &job.products) {
            let packing = product.matrix.packing(self.integer);
            if !packed.iter().any(|(known, _)| *known == packing) {
                packed.push((packing, self.pack(x, packing)));
            }
        }
        let pieces = self.cut(x, jobs);
        self.pool.run(pieces.len(), &|piece| {
            let Piece { job, weights, activations } = &pieces[piece];
            let job = &jobs[*job];
            for product in &job.products {
                let packing = product.matrix.packing(self.integer);
                for (_, packed) in packed.iter().filter(|(known, _)| *known == packing) {
                    self.multiply(product, weights.clone(), activations.clone(), packed);
                }
            }
            if let Some(finish) = job.finish {
                finish(activations.clone(), weights.clone());
            }
        });
    }

    fn pack(&self, x: &CpuTensor, packing: Packing) -> PackedActivations {
        let for_each_row = |task: &(dyn Fn(usize) + Sync)| {
            if x.rows < 8 {
                (0..x.rows).for_each(task);
            } else {
                self.pool.run(x.rows, task);
            }
        };
        let buffer = |len| Buffer::new(self.recycler, len);
        match packing {
            Packing::Floats(order) => {
                let stride = order.packed_len(x.columns, self.kernels.lanes);
                let mut values = buffer(x.rows * stride);
                let to = Shared::new(&mut values);
                for_each_row(&|row| {
                    // SAFETY: each row is written by one task.
                    order.pack(x.row(row), self.kernels.lanes, unsafe { to.slice(row * stride, stride) });
                });
                PackedActivations::Floats { values, stride }
            }
            Packing::Bytes { fields, group_size } => {
                let Kernels { lanes, integer, .. } = self.kernels;
                let layout = integer::Layout::new(x.rows, x.columns, group_size, *lanes, integer.tile_rows);
                let mut values = buffer(layout.values_len().div_ceil(4));
                let (mut scales, mut sums) = (buffer(layout.groups_len()), buffer(layout.groups_len()));
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
                    unsafe { (integer.quantize)(x.row(row), group_size, fields, &to) };
                });
                PackedActivations::Bytes { values, scales, sums, layout }
            }
        }
    }

    /// Cuts the jobs into pieces for the pool.
    fn cut(&self, x: &CpuTensor, jobs: &[Job<'_>]) -> Vec<Piece> {
        let total: usize = jobs.iter().map(|job| job.products[0].matrix.rows).sum();
        let mut pieces = Vec::new();
        let row_bytes = if self.integer { x.columns } else { 4 * x.columns };
        let columns = if self.integer { self.kernels.integer.tile_rows } else { self.kernels.tile_columns };
        let (activation_block, weight_block) = if x.rows <= DIRECT_COLUMNS {
            // Several pieces per thread, so that a thread that was interrupted does not hold the others up.
            (x.rows, (total / (8 * self.pool.threads())).clamp(16, 128))
        } else {
            let activations = (ACTIVATION_BLOCK / row_bytes / columns * columns).max(2 * columns);
            (activations, (PANEL / row_bytes).clamp(MAX_LANES, 32))
        };
        let weight_block = weight_block / MAX_LANES * MAX_LANES;
        for start in (0..x.rows).step_by(activation_block.max(1)) {
            let activations = start..(start + activation_block).min(x.rows);
            for (job, rows) in jobs.iter().map(|job| job.products[0].matrix.rows).enumerate() {
                for start in (0..rows).step_by(weight_block) {
                    let weights = start..(start + weight_block).min(rows);
                    pieces.push(Piece { job, weights, activations: activations.clone() });
                }
            }
        }
        pieces
    }

    /// One product's piece, bias included.
    fn multiply(
        &self,
        product: &Product<'_>,
        rows: Range<usize>,
        activations: Range<usize>,
        packed: &PackedActivations,
    ) {
        let Product { matrix, bias, out } = product;
        let y = Output { values: out.at(activations.start * matrix.rows + rows.start), stride: matrix.rows };
        SCRATCH.with_borrow_mut(|scratch| match packed {
            PackedActivations::Floats { values, stride } => {
                let x = Packed {
                    values: values[activations.start * stride..].as_ptr(),
                    stride: *stride,
                    rows: activations.len(),
                };
                self.multiply_floats(matrix, rows.clone(), x, y, scratch);
            }
            PackedActivations::Bytes { values, scales, sums, layout } => {
                let x = integer::Activations {
                    values: values.as_ptr().cast(),
                    scales: scales.as_ptr(),
                    sums: sums.as_ptr(),
                    layout: *layout,
                };
                self.multiply_bytes(matrix, rows.clone(), x.rows(activations.clone()), y, scratch);
            }
        });
        if let Some(bias) = bias {
            for m in activations {
                // SAFETY: this piece of the output is this task's.
                let y = unsafe { out.slice(m * matrix.rows + rows.start, rows.len()) };
                for (y, bias) in y.iter_mut().zip(&bias.values()[rows.clone()]) {
                    *y += bias;
                }
            }
        }
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
        let Kind::Quantized { data, biases, element } = &matrix.kind else { return };
        let spec = data.spec;
        let groups = x.layout.groups;
        let first_group = rows.start * groups * element.size();
        let row_bytes = matrix.columns * spec.bits as usize / 8;
        let words = &data.weight.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        let args = integer::IntegerRows {
            words: words.as_ptr(),
            row_words: row_bytes / 4,
            rows: rows.len(),
            scales: &data.scales.bytes()[first_group..],
            biases: &biases.bytes()[first_group..],
            element: *element,
            groups,
            group_size: spec.group_size,
            x,
            y,
        };
        let kernels = &kernels.integer;
        // SAFETY: `args` describes rows of the matrix, activations packed for it, and an output piece that only this
        // task writes; scales and biases are padded by a vector.
        unsafe {
            match spec.bits {
                2 => (kernels.rows_2)(&args, &mut scratch.integer),
                4 => (kernels.rows_4)(&args, &mut scratch.integer),
                8 => (kernels.rows_8)(&args, &mut scratch.integer),
                bits => {
                    scratch.bytes.resize(rows.len() * matrix.columns, 0);
                    let unpacked = scratch.bytes.chunks_exact_mut(matrix.columns);
                    for (words, out) in words.chunks_exact(row_bytes).zip(unpacked) {
                        for_each_field(words, bits, out.len(), |column, q| out[column] = q as u8);
                    }
                    let args = integer::IntegerRows {
                        words: scratch.bytes.as_ptr(),
                        row_words: matrix.columns / 4,
                        ..args
                    };
                    (kernels.byte_rows)(&args, &mut scratch.integer);
                }
            }
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
            Kind::Quantized { data, biases, element } => {
                let groups =
                    scratch.load_groups(kernels, matrix, rows.clone(), &data.scales, biases, *element);
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
                // SAFETY: as above; scales and biases are padded by a vector.
                unsafe {
                    match (spec.bits, direct) {
                        (2, true) => (kernels.quant_rows_2)(&args),
                        (4, true) => (kernels.quant_rows_4)(&args),
                        (8, true) => (kernels.quant_rows_8)(&args),
                        (2, false) => (kernels.quant_unpack_2)(&args, panel),
                        (4, false) => (kernels.quant_unpack_4)(&args, panel),
                        (8, false) => (kernels.quant_unpack_8)(&args, panel),
                        _ => {
                            let groups =
                                scratch.scales.chunks_exact(groups).zip(scratch.biases.chunks_exact(groups));
                            let panel = scratch.panel.chunks_exact_mut(x.stride);
                            for ((words, (scales, biases)), out) in
                                words.chunks_exact(row_bytes).zip(groups).zip(panel)
                            {
                                let (out, padding) = out.split_at_mut(matrix.columns);
                                unpack_bits(words, spec.bits, spec.group_size, scales, biases, out);
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
