//! The contract, operation by operation; the work is in the modules beside this one.

use std::ops::Range;

use pippin_tensor::{
    Activation, AttentionSpec, Backend, Beside, BlockFloat, Gate, HeadSpec, KeyChoice, KvCacheSpec, Linear,
    MatrixData, Norm, PositionScale, Reduction, Result, RopeSpec, RouterSpec, ScanInputs, ScanSpec,
    StateSpec, StepInputs, TensorData, TensorError,
};

use crate::{
    CpuBackend, CpuIndices, CpuKvCache, CpuMatrix, CpuState, CpuTensor, kernels::elementwise::Binary,
    shape_of,
};

impl Backend for CpuBackend {
    type Tensor = CpuTensor;
    type Indices = CpuIndices;
    type Matrix = CpuMatrix;
    type KvCache = CpuKvCache;
    type State = CpuState;

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
        let mut buffer = self.buffer(values.len())?;
        buffer[..values.len()].copy_from_slice(&values);
        Ok(CpuTensor::new(rows, columns, buffer))
    }

    fn matrix(&self, data: MatrixData) -> Result<CpuMatrix> {
        CpuMatrix::new(data)
    }

    fn indices(&self, values: &[u32]) -> Result<CpuIndices> {
        Ok(CpuIndices::new(values))
    }

    fn read(&self, tensor: &CpuTensor) -> Result<Vec<f32>> {
        Ok(tensor.values().to_vec())
    }

    fn read_indices(&self, indices: &CpuIndices) -> Result<Vec<u32>> {
        Ok(indices.to_vec())
    }

    fn lend<T>(&self, mut tensor: CpuTensor, f: impl FnOnce(&mut [f32]) -> T) -> Result<T> {
        match tensor.values_mut() {
            Some(values) => Ok(f(values)),
            None => Ok(f(&mut self.read(&tensor)?)),
        }
    }

    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<CpuKvCache> {
        CpuKvCache::new(spec)
    }

    fn state(&self, spec: &StateSpec) -> Result<CpuState> {
        CpuState::new(spec)
    }

    fn reset_state(&self, state: &mut CpuState, slot: usize) -> Result<()> {
        state.reset(slot)
    }

    fn copy_state(&self, state: &mut CpuState, from: usize, to: usize) -> Result<()> {
        state.copy(from, to)
    }

    fn kept_as(&self) -> Option<String> {
        // Threads change no bit; instruction sets add in other orders. Numbers lie in the order of the machine's bytes.
        let order = if cfg!(target_endian = "little") { "little" } else { "big" };
        Some(format!("cpu, {}, {:?}, {order} endian", self.set.name(), self.numerics))
    }

    fn read_page(&self, cache: &CpuKvCache, page: usize, to: &mut Vec<u8>) -> Result<()> {
        cache.read_page(page, to)
    }

    fn write_page(&self, cache: &mut CpuKvCache, page: usize, bytes: &[u8]) -> Result<()> {
        cache.write_page(page, bytes)
    }

    fn read_state(&self, state: &CpuState, slot: usize, to: &mut Vec<u8>) -> Result<()> {
        state.read(slot, to)
    }

    fn write_state(&self, state: &mut CpuState, slot: usize, bytes: &[u8]) -> Result<()> {
        state.write(slot, bytes)
    }

    fn shape(&self, tensor: &CpuTensor) -> [usize; 2] {
        [tensor.rows, tensor.columns]
    }

    fn matrix_shape(&self, matrix: &CpuMatrix) -> [usize; 2] {
        [matrix.rows, matrix.columns]
    }

    fn embedding(&self, table: &CpuMatrix, rows: &CpuIndices) -> Result<CpuTensor> {
        self.run_embedding(table, rows)
    }

    fn matmul(&self, x: &CpuTensor, weight: &CpuMatrix) -> Result<CpuTensor> {
        self.run_matmul(x, weight)
    }

    fn gathered_matmul(
        &self,
        x: &CpuTensor,
        weight: &CpuMatrix,
        experts: usize,
        routes: &CpuIndices,
    ) -> Result<CpuTensor> {
        self.run_gathered_matmul(x, weight, experts, routes)
    }

    fn add(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        self.broadcast("add", a, b)
    }

    fn mul(&self, a: &CpuTensor, b: &CpuTensor) -> Result<CpuTensor> {
        self.broadcast("mul", a, b)
    }

    fn scale(&self, x: &CpuTensor, factor: f32, offset: f32) -> Result<CpuTensor> {
        self.map_rows(x, x.columns, |x, out| {
            for (out, x) in out.iter_mut().zip(x) {
                *out = x * factor + offset;
            }
        })
    }

    fn activate(&self, x: &CpuTensor, activation: Activation) -> Result<CpuTensor> {
        self.run_activate(x, activation)
    }

    fn gated(&self, gate: &CpuTensor, up: &CpuTensor, kind: Gate) -> Result<CpuTensor> {
        self.check_gate(kind)?;
        self.run_binary("gated", Binary::Gate(kind), gate, up)
    }

    fn norm(&self, x: &CpuTensor, norm: &Norm<CpuTensor>) -> Result<CpuTensor> {
        self.run_norm(x, norm)
    }

    fn reduce(&self, x: &CpuTensor, reduction: Reduction) -> Result<CpuTensor> {
        self.run_reduce(x, reduction)
    }

    fn softmax(&self, x: &CpuTensor) -> Result<CpuTensor> {
        self.run_softmax(x)
    }

    fn sinkhorn(&self, x: &CpuTensor, iterations: usize, eps: f32) -> Result<CpuTensor> {
        self.run_sinkhorn(x, iterations, eps)
    }

    fn round_blocks(&self, x: &CpuTensor, kind: BlockFloat) -> Result<CpuTensor> {
        self.run_round_blocks(x, kind)
    }

    fn weighted_sum(&self, x: &CpuTensor, weights: &CpuTensor) -> Result<CpuTensor> {
        self.run_weighted_sum(x, weights)
    }

    fn reshape(&self, x: &CpuTensor, [rows, columns]: [usize; 2]) -> Result<CpuTensor> {
        if rows.checked_mul(columns) != Some(x.rows * x.columns) {
            return Err(TensorError::shape("reshape", format!("[{rows}, {columns}]"), shape_of(x)));
        }
        Ok(x.reshaped(rows, columns))
    }

    fn columns(&self, x: &CpuTensor, range: Range<usize>) -> Result<CpuTensor> {
        if range.start > range.end || range.end > x.columns {
            return Err(TensorError::shape("columns", format!("columns {range:?}"), shape_of(x)));
        }
        self.map_rows(x, range.len(), |x, out| out.copy_from_slice(&x[range.clone()]))
    }

    fn join(&self, parts: &[&CpuTensor]) -> Result<CpuTensor> {
        self.run_join(parts)
    }

    fn select_rows(&self, x: &CpuTensor, rows: &CpuIndices) -> Result<CpuTensor> {
        self.run_select_rows(x, rows)
    }

    fn rope_angles(&self, positions: &CpuIndices, axes: usize, spec: &RopeSpec) -> Result<CpuTensor> {
        self.run_rope_angles(positions, axes, spec)
    }

    fn position_scale(&self, positions: &CpuIndices, axes: usize, spec: PositionScale) -> Result<CpuTensor> {
        self.run_position_scale(positions, axes, spec)
    }

    fn rope(&self, x: &CpuTensor, angles: &CpuTensor, head_dim: usize, spec: &RopeSpec) -> Result<CpuTensor> {
        self.run_rope(x, angles, head_dim, spec)
    }

    fn kv_write(
        &self,
        cache: &mut CpuKvCache,
        keys: &CpuTensor,
        values: Option<&CpuTensor>,
        rows: &CpuIndices,
    ) -> Result<()> {
        self.run_kv_write(cache, keys, values, rows)
    }

    fn attention(
        &self,
        queries: &CpuTensor,
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        sinks: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        self.run_attention(queries, cache, step, group, spec, sinks)
    }

    fn choose_keys(
        &self,
        queries: &CpuTensor,
        weights: &CpuTensor,
        keys: &CpuKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &KeyChoice,
        among: Option<&CpuIndices>,
    ) -> Result<CpuIndices> {
        self.run_choose_keys([queries, weights], keys, step, group, spec, among)
    }

    fn attention_among(
        &self,
        queries: &CpuTensor,
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        chosen: &CpuIndices,
        beside: Option<Beside<'_, CpuKvCache>>,
        sinks: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        self.run_attention_among(queries, cache, step, group, spec, chosen, beside, sinks)
    }

    fn attention_over(
        &self,
        queries: &CpuTensor,
        keys: &CpuTensor,
        values: &CpuTensor,
        spans: &CpuIndices,
        spec: &AttentionSpec,
    ) -> Result<CpuTensor> {
        self.run_attention_over([queries, keys, values], spans, spec)
    }

    fn route(
        &self,
        logits: &CpuTensor,
        bias: Option<&CpuTensor>,
        spec: &RouterSpec,
    ) -> Result<(CpuIndices, CpuTensor)> {
        self.run_route(logits, bias, spec)
    }

    fn causal_convolution(
        &self,
        x: &CpuTensor,
        weight: &CpuTensor,
        bias: Option<&CpuTensor>,
        state: &mut CpuState,
        step: &StepInputs<Self>,
    ) -> Result<CpuTensor> {
        self.run_causal_convolution(x, weight, bias, state, step)
    }

    fn scan(
        &self,
        inputs: &ScanInputs<'_, CpuTensor>,
        spec: &ScanSpec,
        state: &mut CpuState,
        step: &StepInputs<Self>,
    ) -> Result<CpuTensor> {
        self.run_scan(inputs, spec, state, step)
    }

    fn hadamard(&self, x: &CpuTensor, block: usize) -> Result<CpuTensor> {
        self.run_hadamard(x, block)
    }

    fn linear(&self, x: &CpuTensor, linear: &Linear<Self>) -> Result<CpuTensor> {
        let mut outputs = self.norm_linears(x, None, &[linear])?;
        outputs.pop().ok_or_else(|| TensorError::shape("linear", "one output", "none"))
    }

    fn norm_linears(
        &self,
        x: &CpuTensor,
        norm: Option<&Norm<CpuTensor>>,
        linears: &[&Linear<Self>],
    ) -> Result<Vec<CpuTensor>> {
        self.run_linears(x, norm, linears)
    }

    fn norm_gated(
        &self,
        x: &CpuTensor,
        norm: Option<&Norm<CpuTensor>>,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        kind: Gate,
    ) -> Result<CpuTensor> {
        self.run_gated_linears(x, norm, [gate, up], kind)
    }

    fn linear_add(&self, x: &CpuTensor, linear: &Linear<Self>, residual: &CpuTensor) -> Result<CpuTensor> {
        self.run_linear_add(x, linear, residual)
    }

    fn write_heads(
        &self,
        queries: &CpuTensor,
        keys: &CpuTensor,
        values: Option<&CpuTensor>,
        spec: HeadSpec<'_, Self>,
        cache: &mut CpuKvCache,
        rows: &CpuIndices,
    ) -> Result<CpuTensor> {
        self.run_write_heads(queries, keys, values, spec, cache, rows)
    }
}
