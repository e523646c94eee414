//! Products with weight matrices.

use std::ops::Range;

use pippin_tensor::{Backend, Gate, Linear, Norm, Result, TensorError};

use crate::{
    CpuBackend, CpuIndices, CpuMatrix, CpuTensor,
    kernels::elementwise::Binary,
    matrix::{Input, Job, Product},
    rows::row_norm,
    shape_of,
    tensor::{Buffer, Shared},
};

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

fn input<'a>(x: &'a CpuTensor, norm: Option<&'a Norm<CpuTensor>>) -> Result<Input<'a>> {
    Ok(Input { norm: norm.map(|norm| row_norm(x.columns, norm)).transpose()?, ..x.into() })
}

impl CpuBackend {
    pub(crate) fn run_embedding(&self, table: &CpuMatrix, rows: &CpuIndices) -> Result<CpuTensor> {
        let columns = table.columns;
        let mut out = self.buffer(rows.len() * columns)?;
        let to = Shared::new(&mut out);
        self.rows(rows.len(), columns, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * columns, columns) };
            match rows[i] as usize {
                row if row < table.rows => table.read_row(self.kernels.0, row, to),
                _ => to.fill(0.0),
            }
        });
        Ok(CpuTensor::new(rows.len(), columns, out))
    }

    pub(crate) fn run_matmul(&self, x: &CpuTensor, weight: &CpuMatrix) -> Result<CpuTensor> {
        check_linear("matmul", x, weight, None)?;
        let mut out = self.buffer(x.rows * weight.rows)?;
        let product = Product { matrix: weight, bias: None, out: Shared::new(&mut out) };
        self.region().run(x.into(), &[Job { products: vec![product], finish: None }])?;
        Ok(CpuTensor::new(x.rows, weight.rows, out))
    }

    pub(crate) fn run_gathered_matmul(
        &self,
        x: &CpuTensor,
        weight: &CpuMatrix,
        experts: usize,
        routes: &CpuIndices,
    ) -> Result<CpuTensor> {
        check_linear("gathered_matmul", x, weight, None)?;
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
            return Ok(CpuTensor::new(0, weight.rows / experts, self.buffer(0)?));
        }
        let out = self.region().run_experts(x, weight, experts, routes)?;
        Ok(CpuTensor::new(routes.len(), weight.rows / experts, out))
    }

    /// The Walsh-Hadamard transform of each run of columns.
    pub(crate) fn run_hadamard(&self, x: &CpuTensor, block: usize) -> Result<CpuTensor> {
        if !block.is_power_of_two() || !x.columns.is_multiple_of(block) {
            return Err(TensorError::shape("hadamard", format!("runs of {block} columns"), shape_of(x)));
        }
        let factor = (block as f32).sqrt().recip();
        self.map_rows(x, x.columns, |x, out| {
            out.copy_from_slice(x);
            for run in out.chunks_exact_mut(block) {
                let mut half = 1;
                while half < block {
                    for pair in run.chunks_exact_mut(2 * half) {
                        let (first, second) = pair.split_at_mut(half);
                        for (a, b) in first.iter_mut().zip(second) {
                            (*a, *b) = (*a + *b, *a - *b);
                        }
                    }
                    half *= 2;
                }
                run.iter_mut().for_each(|value| *value *= factor);
            }
        })
    }

    /// A linear layer by itself, of what is rotated for it.
    fn run_rotated(&self, x: &CpuTensor, linear: &Linear<Self>) -> Result<CpuTensor> {
        let x = self.rotated(x, linear)?;
        check_linear("linear", &x, &linear.weight, linear.bias.as_ref())?;
        let y = self.run_matmul(&x, &linear.weight)?;
        match &linear.bias {
            Some(bias) => self.broadcast("add", &y, bias),
            None => Ok(y),
        }
    }

    /// What a linear layer is given, rotated if its matrix was made for that.
    fn rotated(&self, x: &CpuTensor, linear: &Linear<Self>) -> Result<CpuTensor> {
        match &linear.hadamard {
            Some(rotation) => rotation.apply(self, x),
            None => Ok(x.clone()),
        }
    }

    /// Several linear layers of one input, in one parallel region.
    pub(crate) fn run_linears(
        &self,
        x: &CpuTensor,
        norm: Option<&Norm<CpuTensor>>,
        linears: &[&Linear<Self>],
    ) -> Result<Vec<CpuTensor>> {
        if linears.iter().any(|linear| linear.hadamard.is_some()) {
            let normed = norm.map(|norm| self.run_norm(x, norm)).transpose()?;
            let x = normed.as_ref().unwrap_or(x);
            return linears.iter().map(|linear| self.run_rotated(x, linear)).collect();
        }
        let input = input(x, norm)?;
        for linear in linears {
            check_linear("linear", x, &linear.weight, linear.bias.as_ref())?;
        }
        let mut outputs: Vec<Buffer> =
            linears.iter().map(|linear| self.buffer(x.rows * linear.weight.rows)).collect::<Result<_>>()?;
        let jobs: Vec<Job<'_>> = linears
            .iter()
            .zip(&mut outputs)
            .map(|(linear, out)| {
                let product =
                    Product { matrix: &linear.weight, bias: linear.bias.as_ref(), out: Shared::new(out) };
                Job { products: vec![product], finish: None }
            })
            .collect();
        self.region().run(input, &jobs)?;
        Ok(linears
            .iter()
            .zip(outputs)
            .map(|(linear, out)| CpuTensor::new(x.rows, linear.weight.rows, out))
            .collect())
    }

    /// The gate of two linear layers of one input.
    pub(crate) fn run_gated_linears(
        &self,
        x: &CpuTensor,
        norm: Option<&Norm<CpuTensor>>,
        [gate, up]: [&Linear<Self>; 2],
        kind: Gate,
    ) -> Result<CpuTensor> {
        self.check_gate(kind)?;
        if gate.hadamard.is_some() || up.hadamard.is_some() {
            let both = self.run_linears(x, norm, &[gate, up])?;
            return match both.as_slice() {
                [gate, up] => Backend::gated(self, gate, up, kind),
                both => Err(TensorError::shape("norm_gated", "two outputs", both.len())),
            };
        }
        let input = input(x, norm)?;
        for linear in [gate, up] {
            check_linear("norm_gated", x, &linear.weight, linear.bias.as_ref())?;
        }
        let width = gate.weight.rows;
        if up.weight.rows != width {
            return Err(TensorError::shape("norm_gated", format!("{width} outputs"), up.weight.rows));
        }
        let kernel = self.kernels.0.binary;
        let mut gates = self.buffer(x.rows * width)?;
        let mut ups = self.buffer(x.rows * width)?;
        let (gates_to, ups_to) = (Shared::new(&mut gates), Shared::new(&mut ups));
        let finish = |activations: Range<usize>, weights: Range<usize>| {
            for m in activations {
                // SAFETY: this piece of both outputs was written by the task that now finishes it. The result goes to
                // the gate buffer by way of another, because the kernel's operands must not overlap.
                unsafe {
                    let (start, len) = (m * width + weights.start, weights.len());
                    let up = std::slice::from_raw_parts(ups_to.at(start), len);
                    let mut out = [0.0; 128];
                    let gate = gates_to.slice(start, len);
                    for (gate, up) in gate.chunks_mut(out.len()).zip(up.chunks(out.len())) {
                        let out = &mut out[..gate.len()];
                        kernel(Binary::Gate(kind), gate, up, out);
                        gate.copy_from_slice(out);
                    }
                }
            }
        };
        let products = vec![
            Product { matrix: &gate.weight, bias: gate.bias.as_ref(), out: gates_to },
            Product { matrix: &up.weight, bias: up.bias.as_ref(), out: ups_to },
        ];
        self.region().run(input, &[Job { products, finish: Some(&finish) }])?;
        Ok(CpuTensor::new(x.rows, width, gates))
    }

    pub(crate) fn run_linear_add(
        &self,
        x: &CpuTensor,
        linear: &Linear<Self>,
        residual: &CpuTensor,
    ) -> Result<CpuTensor> {
        let x = &self.rotated(x, linear)?;
        check_linear("linear_add", x, &linear.weight, linear.bias.as_ref())?;
        let width = linear.weight.rows;
        if residual.rows != x.rows || residual.columns != width {
            return Err(TensorError::shape(
                "linear_add",
                format!("[{}, {width}]", x.rows),
                shape_of(residual),
            ));
        }
        let mut out = self.buffer(x.rows * width)?;
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
        self.region().run(x.into(), &[Job { products: vec![product], finish: Some(&finish) }])?;
        Ok(CpuTensor::new(x.rows, width, out))
    }
}
