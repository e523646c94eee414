//! The contract, operation by operation; the work is in the modules beside this one.

use std::ops::Range;

use pippin_tensor::sampling::Sampler;
use pippin_tensor::{
    Activation, AttentionSpec, Backend, Batch, Beside, BlockFloat, Drawn, Gate, HeadSpec, KeyChoice,
    KvCacheSpec, Linear, MatrixData, Norm, Numerics, PositionScale, Reduction, Result, RopeSpec, RouterSpec,
    ScanInputs, ScanSpec, StateSpec, StepInputs, StepShape, TensorData, TensorError,
};

use crate::kv::shape_of;
use crate::{CudaBackend, CudaIndices, CudaKvCache, CudaMatrix, CudaState, CudaTensor};

impl Backend for CudaBackend {
    type Tensor = CudaTensor;
    type Indices = CudaIndices;
    type Matrix = CudaMatrix;
    type KvCache = CudaKvCache;
    type State = CudaState;

    fn name(&self) -> &'static str {
        crate::NAME
    }

    fn description(&self) -> String {
        let (major, minor) = self.capability();
        let gigabytes = self.total_memory() as f64 / 1e9;
        format!("{}, compute capability {major}.{minor}, {gigabytes:.0} GB", self.device_name())
    }

    fn tensor(&self, data: &TensorData) -> Result<CudaTensor> {
        let (rows, columns) = match *data.shape() {
            [] => (1, 1),
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => {
                let found = format!("{:?}", data.shape());
                return Err(TensorError::shape("tensor", "at most two dimensions", found));
            }
        };
        CudaTensor::of(self.memory(), rows, columns, &data.to_f32()?)
    }

    fn matrix(&self, data: MatrixData) -> Result<CudaMatrix> {
        let matrix = CudaMatrix::new(self.memory(), &data)?;
        match self.numerics() {
            Numerics::Fast => matrix.in_tiles(self),
            Numerics::Exact => Ok(matrix),
        }
    }

    fn indices(&self, values: &[u32]) -> Result<CudaIndices> {
        CudaIndices::of(self.memory(), values)
    }

    fn read(&self, tensor: &CudaTensor) -> Result<Vec<f32>> {
        tensor.read()
    }

    fn read_indices(&self, indices: &CudaIndices) -> Result<Vec<u32>> {
        Ok(indices.values()?.to_vec())
    }

    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<CudaKvCache> {
        let cache = CudaKvCache::new(self.memory(), spec)?;
        self.prepare_flash(&cache)?;
        Ok(cache)
    }

    fn state(&self, spec: &StateSpec) -> Result<CudaState> {
        CudaState::new(self.memory(), spec)
    }

    fn reset_state(&self, state: &mut CudaState, slot: usize) -> Result<()> {
        state.reset(slot)
    }

    fn copy_state(&self, state: &mut CudaState, from: usize, to: usize) -> Result<()> {
        state.copy(from, to)
    }

    fn kept_as(&self) -> Option<String> {
        let (major, minor) = self.capability();
        Some(format!("cuda, sm_{major}{minor}, {:?}", self.numerics()))
    }

    fn read_page(&self, cache: &CudaKvCache, page: usize, to: &mut Vec<u8>) -> Result<()> {
        cache.read_page(page, to)
    }

    fn write_page(&self, cache: &mut CudaKvCache, page: usize, bytes: &[u8]) -> Result<()> {
        cache.write_page(page, bytes)
    }

    fn read_state(&self, state: &CudaState, slot: usize, to: &mut Vec<u8>) -> Result<()> {
        state.read(slot, to)
    }

    fn write_state(&self, state: &mut CudaState, slot: usize, bytes: &[u8]) -> Result<()> {
        state.write(slot, bytes)
    }

    fn shape(&self, tensor: &CudaTensor) -> [usize; 2] {
        [tensor.rows, tensor.columns]
    }

    fn matrix_shape(&self, matrix: &CudaMatrix) -> [usize; 2] {
        [matrix.rows, matrix.columns]
    }

    fn upload(&self, batch: &Batch) -> Result<StepInputs<Self>> {
        let mut shape = batch.shape();
        shape.pages.iter_mut().for_each(|width| *width = padded(*width));
        self.memory().recorder.begin_inputs(self.memory(), shape);
        StepInputs::padded(self, batch, padded)
    }

    fn record<T, E: From<TensorError>>(
        &self,
        _shape: &StepShape,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.memory().recorder.run(self.memory(), f)
    }

    fn sample(&self, logits: &CudaTensor, samplers: &mut [&mut Sampler]) -> Result<Option<Drawn<Self>>> {
        self.run_sample(logits, samplers)
    }

    fn place(&self, into: &CudaIndices, at: &CudaIndices, values: &CudaIndices) -> Result<CudaIndices> {
        self.run_place(into, at, values)
    }

    fn choose(
        &self,
        choice: &CudaIndices,
        from: &CudaIndices,
        otherwise: &CudaIndices,
    ) -> Result<CudaIndices> {
        self.run_choose(choice, from, otherwise)
    }

    fn embedding(&self, table: &CudaMatrix, rows: &CudaIndices) -> Result<CudaTensor> {
        self.run_embedding(table, rows)
    }

    fn matmul(&self, x: &CudaTensor, weight: &CudaMatrix) -> Result<CudaTensor> {
        self.run_matmul(x, weight, None, None)
    }

    fn gathered_matmul(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        experts: usize,
        routes: &CudaIndices,
    ) -> Result<CudaTensor> {
        self.run_gathered_matmul(x, weight, experts, routes)
    }

    fn add(&self, a: &CudaTensor, b: &CudaTensor) -> Result<CudaTensor> {
        self.broadcast("add", a, b)
    }

    fn mul(&self, a: &CudaTensor, b: &CudaTensor) -> Result<CudaTensor> {
        self.broadcast("mul", a, b)
    }

    fn scale(&self, x: &CudaTensor, factor: f32, offset: f32) -> Result<CudaTensor> {
        self.run_scale(x, factor, offset)
    }

    fn activate(&self, x: &CudaTensor, activation: Activation) -> Result<CudaTensor> {
        self.run_activate(x, activation)
    }

    fn gated(&self, gate: &CudaTensor, up: &CudaTensor, kind: Gate) -> Result<CudaTensor> {
        self.run_gated(gate, up, kind)
    }

    fn norm(&self, x: &CudaTensor, norm: &Norm<CudaTensor>) -> Result<CudaTensor> {
        self.run_norm(x, norm)
    }

    fn reduce(&self, x: &CudaTensor, reduction: Reduction) -> Result<CudaTensor> {
        self.run_reduce(x, reduction)
    }

    fn softmax(&self, x: &CudaTensor) -> Result<CudaTensor> {
        self.run_softmax(x)
    }

    fn sinkhorn(&self, x: &CudaTensor, iterations: usize, eps: f32) -> Result<CudaTensor> {
        self.run_sinkhorn(x, iterations, eps)
    }

    fn round_blocks(&self, x: &CudaTensor, kind: BlockFloat) -> Result<CudaTensor> {
        self.run_round_blocks(x, kind)
    }

    fn weighted_sum(&self, x: &CudaTensor, weights: &CudaTensor) -> Result<CudaTensor> {
        self.run_weighted_sum(x, weights)
    }

    fn reshape(&self, x: &CudaTensor, [rows, columns]: [usize; 2]) -> Result<CudaTensor> {
        if rows.checked_mul(columns) != Some(x.count()) {
            return Err(TensorError::shape("reshape", format!("[{rows}, {columns}]"), shape_of(x)));
        }
        Ok(x.reshaped(rows, columns))
    }

    fn columns(&self, x: &CudaTensor, range: Range<usize>) -> Result<CudaTensor> {
        self.run_columns(x, range)
    }

    fn join(&self, parts: &[&CudaTensor]) -> Result<CudaTensor> {
        self.run_join(parts)
    }

    fn select_rows(&self, x: &CudaTensor, rows: &CudaIndices) -> Result<CudaTensor> {
        self.run_select_rows(x, rows)
    }

    fn rope_angles(&self, positions: &CudaIndices, axes: usize, spec: &RopeSpec) -> Result<CudaTensor> {
        self.run_rope_angles(positions, axes, spec)
    }

    fn position_scale(
        &self,
        positions: &CudaIndices,
        axes: usize,
        spec: PositionScale,
    ) -> Result<CudaTensor> {
        self.run_position_scale(positions, axes, spec)
    }

    fn rope(
        &self,
        x: &CudaTensor,
        angles: &CudaTensor,
        head_dim: usize,
        spec: &RopeSpec,
    ) -> Result<CudaTensor> {
        self.run_rope(x, angles, head_dim, spec)
    }

    fn kv_write(
        &self,
        cache: &mut CudaKvCache,
        keys: &CudaTensor,
        values: Option<&CudaTensor>,
        rows: &CudaIndices,
    ) -> Result<()> {
        self.run_kv_write(cache, keys, values, rows)
    }

    fn attention(
        &self,
        queries: &CudaTensor,
        cache: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        sinks: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        self.run_attention(queries, cache, step, group, spec, sinks)
    }

    fn choose_keys(
        &self,
        queries: &CudaTensor,
        weights: &CudaTensor,
        keys: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &KeyChoice,
        among: Option<&CudaIndices>,
    ) -> Result<CudaIndices> {
        self.run_choose_keys([queries, weights], keys, step, group, spec, among)
    }

    fn attention_among(
        &self,
        queries: &CudaTensor,
        cache: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        chosen: &CudaIndices,
        beside: Option<Beside<'_, CudaKvCache>>,
        sinks: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        self.run_attention_among(queries, cache, step, group, spec, chosen, beside, sinks)
    }

    fn attention_over(
        &self,
        queries: &CudaTensor,
        keys: &CudaTensor,
        values: &CudaTensor,
        spans: &CudaIndices,
        spec: &AttentionSpec,
    ) -> Result<CudaTensor> {
        self.run_attention_over([queries, keys, values], spans, spec)
    }

    fn route(
        &self,
        logits: &CudaTensor,
        bias: Option<&CudaTensor>,
        spec: &RouterSpec,
    ) -> Result<(CudaIndices, CudaTensor)> {
        self.run_route(logits, bias, spec)
    }

    fn causal_convolution(
        &self,
        x: &CudaTensor,
        weight: &CudaTensor,
        bias: Option<&CudaTensor>,
        state: &mut CudaState,
        step: &StepInputs<Self>,
    ) -> Result<CudaTensor> {
        self.run_causal_convolution(x, weight, bias, state, step)
    }

    fn scan(
        &self,
        inputs: &ScanInputs<'_, CudaTensor>,
        spec: &ScanSpec,
        state: &mut CudaState,
        step: &StepInputs<Self>,
    ) -> Result<CudaTensor> {
        self.run_scan(inputs, spec, state, step)
    }

    fn linear(&self, x: &CudaTensor, linear: &Linear<Self>) -> Result<CudaTensor> {
        self.run_matmul(&self.rotated(x, linear)?, &linear.weight, linear.bias.as_ref(), None)
    }

    fn norm_linears(
        &self,
        x: &CudaTensor,
        norm: Option<&Norm<CudaTensor>>,
        linears: &[&Linear<Self>],
    ) -> Result<Vec<CudaTensor>> {
        if let Some(outputs) = self.tile_linears(x, norm, linears)? {
            return Ok(outputs);
        }
        let x = &self.normalised(x, norm)?;
        if linears.iter().any(|linear| linear.hadamard.is_some()) {
            return linears.iter().map(|linear| self.linear(x, linear)).collect();
        }
        self.run_linears(x, linears)
    }

    fn norm_gated(
        &self,
        x: &CudaTensor,
        norm: Option<&Norm<CudaTensor>>,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        kind: Gate,
    ) -> Result<CudaTensor> {
        if let Some(outputs) = self.tile_gated(x, norm, gate, up, kind)? {
            return Ok(outputs);
        }
        let x = &self.normalised(x, norm)?;
        let shape = |linear: &Linear<Self>| (linear.weight.kind, linear.weight.rows, linear.weight.columns);
        if shape(gate) != shape(up) || gate.hadamard.is_some() || up.hadamard.is_some() {
            return self.gated(&self.linear(x, gate)?, &self.linear(x, up)?, kind);
        }
        self.run_gated_linears(x, gate, up, kind)
    }

    fn linear_add(&self, x: &CudaTensor, linear: &Linear<Self>, residual: &CudaTensor) -> Result<CudaTensor> {
        self.run_matmul(&self.rotated(x, linear)?, &linear.weight, linear.bias.as_ref(), Some(residual))
    }

    fn write_heads(
        &self,
        queries: &CudaTensor,
        keys: &CudaTensor,
        values: Option<&CudaTensor>,
        spec: HeadSpec<'_, Self>,
        cache: &mut CudaKvCache,
        rows: &CudaIndices,
    ) -> Result<CudaTensor> {
        self.run_write_heads(queries, keys, values, spec, cache, rows)
    }
}

impl CudaBackend {
    /// `x` through a norm, if there is one.
    pub(crate) fn normalised(&self, x: &CudaTensor, norm: Option<&Norm<CudaTensor>>) -> Result<CudaTensor> {
        norm.map_or_else(|| Ok(x.clone()), |norm| self.run_norm(x, norm))
    }

    /// What a linear layer is given, rotated if its matrix was made for that.
    fn rotated(&self, x: &CudaTensor, linear: &Linear<Self>) -> Result<CudaTensor> {
        linear.hadamard.as_ref().map_or_else(|| Ok(x.clone()), |rotation| rotation.apply(self, x))
    }
}

/// Widths of page tables are rounded up, so that a sequence that grows has steps of the same shape for a while.
fn padded(width: usize) -> usize {
    width.next_power_of_two().max(8)
}
