//! A device whose results come late, for tests of what runs on devices.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use pippin_sampling::{Sampler, Scratch};

use crate::{
    Activation, AttentionSpec, Backend, Beside, BlockFloat, CacheInputs, Drawn, Gate, KeyChoice, KvCacheSpec,
    MatrixData, Norm, PositionScale, Reduction, Result, RopeSpec, RouterSpec, ScanInputs, ScanSpec,
    StateSpec, StepInputs, StepShape, TensorData, TensorError,
};

/// What a [`Late`] device has been asked to do.
#[derive(Debug, Default)]
pub struct Counts {
    /// Copies to the device.
    pub uploads: Cell<usize>,
    /// Copies back, each of which waited.
    pub reads: Cell<usize>,
    /// Steps.
    pub steps: Cell<usize>,
    /// The shape of each step.
    pub shapes: RefCell<Vec<StepShape>>,
}

/// A device around another that behaves as a GPU does: what is read from it comes after a delay, reading within a step is
/// refused by a panic, and tokens are drawn on it, for samplers without biases.
#[derive(Debug)]
pub struct Late<B> {
    inner: B,
    delay: Duration,
    counts: Rc<Counts>,
    in_step: Cell<bool>,
    scratch: RefCell<Scratch>,
}

impl<B: Backend> Late<B> {
    /// A device that takes `delay` for each read.
    pub fn new(inner: B, delay: Duration) -> Self {
        let (counts, in_step) = (Rc::default(), Cell::new(false));
        Self { inner, delay, counts, in_step, scratch: RefCell::default() }
    }

    /// What it has been asked to do so far, and from now on.
    pub fn counts(&self) -> Rc<Counts> {
        Rc::clone(&self.counts)
    }

    fn waits(&self) {
        assert!(!self.in_step.get(), "a step waits for the device");
        self.counts.reads.set(self.counts.reads.get() + 1);
        std::thread::sleep(self.delay);
    }

    fn uploads(&self) {
        self.counts.uploads.set(self.counts.uploads.get() + 1);
    }

    /// The step as the other device's.
    fn inner_step(step: &StepInputs<Self>) -> StepInputs<B> {
        let groups = step.groups.iter().map(|group| CacheInputs {
            pages_per_sequence: group.pages_per_sequence,
            rows: group.rows.clone(),
            page_tables: group.page_tables.clone(),
        });
        StepInputs {
            rows: step.rows,
            sequences: step.sequences,
            axes: step.axes,
            tokens: step.tokens.clone(),
            fed: step.fed.clone(),
            positions: step.positions.clone(),
            indices: step.indices.clone(),
            visible_ends: step.visible_ends.clone(),
            query_starts: step.query_starts.clone(),
            lengths: step.lengths.clone(),
            slots: step.slots.clone(),
            groups: groups.collect(),
            output_rows: step.output_rows.clone(),
        }
    }
}

impl<B: Backend> Backend for Late<B> {
    type Tensor = B::Tensor;
    type Indices = B::Indices;
    type Matrix = B::Matrix;
    type KvCache = B::KvCache;
    type State = B::State;

    fn name(&self) -> &'static str {
        "late"
    }

    fn description(&self) -> String {
        format!("{}, late", self.inner.description())
    }

    fn tensor(&self, data: &TensorData) -> Result<B::Tensor> {
        self.uploads();
        self.inner.tensor(data)
    }

    fn matrix(&self, data: MatrixData) -> Result<B::Matrix> {
        self.inner.matrix(data)
    }

    fn indices(&self, values: &[u32]) -> Result<B::Indices> {
        self.uploads();
        self.inner.indices(values)
    }

    fn read(&self, tensor: &B::Tensor) -> Result<Vec<f32>> {
        self.waits();
        self.inner.read(tensor)
    }

    fn read_indices(&self, indices: &B::Indices) -> Result<Vec<u32>> {
        self.waits();
        self.inner.read_indices(indices)
    }

    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<B::KvCache> {
        self.inner.kv_cache(spec)
    }

    fn state(&self, spec: &StateSpec) -> Result<B::State> {
        self.inner.state(spec)
    }

    fn reset_state(&self, state: &mut B::State, slot: usize) -> Result<()> {
        self.inner.reset_state(state, slot)
    }

    fn copy_state(&self, state: &mut B::State, from: usize, to: usize) -> Result<()> {
        self.inner.copy_state(state, from, to)
    }

    fn kept_as(&self) -> Option<String> {
        self.inner.kept_as()
    }

    fn read_page(&self, cache: &B::KvCache, page: usize, to: &mut Vec<u8>) -> Result<()> {
        self.waits();
        self.inner.read_page(cache, page, to)
    }

    fn write_page(&self, cache: &mut B::KvCache, page: usize, bytes: &[u8]) -> Result<()> {
        self.inner.write_page(cache, page, bytes)
    }

    fn read_state(&self, state: &B::State, slot: usize, to: &mut Vec<u8>) -> Result<()> {
        self.waits();
        self.inner.read_state(state, slot, to)
    }

    fn write_state(&self, state: &mut B::State, slot: usize, bytes: &[u8]) -> Result<()> {
        self.inner.write_state(state, slot, bytes)
    }

    fn shape(&self, tensor: &B::Tensor) -> [usize; 2] {
        self.inner.shape(tensor)
    }

    fn matrix_shape(&self, matrix: &B::Matrix) -> [usize; 2] {
        self.inner.matrix_shape(matrix)
    }

    fn record<T, E: From<TensorError>>(
        &self,
        shape: &StepShape,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.counts.steps.set(self.counts.steps.get() + 1);
        self.counts.shapes.borrow_mut().push(shape.clone());
        self.in_step.set(true);
        let result = f();
        self.in_step.set(false);
        result
    }

    fn sample(&self, logits: &B::Tensor, samplers: &mut [&mut Sampler]) -> Result<Option<Drawn<Self>>> {
        if samplers.iter().any(|sampler| !sampler.parameters().logit_bias.is_empty()) {
            return Ok(None);
        }
        let [_, vocab] = self.inner.shape(logits);
        let mut values = self.inner.read(logits)?;
        let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
        for (row, sampler) in values.chunks_exact_mut(vocab.max(1)).zip(samplers.iter_mut()) {
            let sampled = sampler.clone().sample(row, &mut self.scratch.borrow_mut());
            sampler.skip(1);
            tokens.push(sampled.as_ref().map_or(u32::MAX, |sampled| sampled.token));
            logprobs.push(sampled.and_then(|sampled| sampled.logprob).unwrap_or(f32::NAN));
        }
        let logprobs = match samplers.iter().any(|sampler| sampler.parameters().logprobs) {
            true => {
                Some(self.inner.tensor(&TensorData::from_f32("logprobs", &[tokens.len(), 1], &logprobs)?)?)
            }
            false => None,
        };
        Ok(Some(Drawn { tokens: self.inner.indices(&tokens)?, logprobs }))
    }

    fn place(&self, into: &B::Indices, at: &B::Indices, values: &B::Indices) -> Result<B::Indices> {
        let mut placed = self.inner.read_indices(into)?;
        let (at, values) = (self.inner.read_indices(at)?, self.inner.read_indices(values)?);
        for (at, value) in at.into_iter().zip(values) {
            if let Some(place) = placed.get_mut(at as usize) {
                *place = value;
            }
        }
        self.inner.indices(&placed)
    }

    fn choose(&self, choice: &B::Indices, from: &B::Indices, otherwise: &B::Indices) -> Result<B::Indices> {
        let from = self.inner.read_indices(from)?;
        let choice = self.inner.read_indices(choice)?;
        let otherwise = self.inner.read_indices(otherwise)?;
        let chosen: Vec<u32> = choice
            .into_iter()
            .zip(otherwise)
            .map(|(choice, otherwise)| from.get(choice as usize).copied().unwrap_or(otherwise))
            .collect();
        self.inner.indices(&chosen)
    }

    fn embedding(&self, table: &B::Matrix, rows: &B::Indices) -> Result<B::Tensor> {
        self.inner.embedding(table, rows)
    }

    fn matmul(&self, x: &B::Tensor, weight: &B::Matrix) -> Result<B::Tensor> {
        self.inner.matmul(x, weight)
    }

    fn gathered_matmul(
        &self,
        x: &B::Tensor,
        weight: &B::Matrix,
        experts: usize,
        routes: &B::Indices,
    ) -> Result<B::Tensor> {
        self.inner.gathered_matmul(x, weight, experts, routes)
    }

    fn add(&self, a: &B::Tensor, b: &B::Tensor) -> Result<B::Tensor> {
        self.inner.add(a, b)
    }

    fn mul(&self, a: &B::Tensor, b: &B::Tensor) -> Result<B::Tensor> {
        self.inner.mul(a, b)
    }

    fn scale(&self, x: &B::Tensor, factor: f32, offset: f32) -> Result<B::Tensor> {
        self.inner.scale(x, factor, offset)
    }

    fn activate(&self, x: &B::Tensor, activation: Activation) -> Result<B::Tensor> {
        self.inner.activate(x, activation)
    }

    fn gated(&self, gate: &B::Tensor, up: &B::Tensor, kind: Gate) -> Result<B::Tensor> {
        self.inner.gated(gate, up, kind)
    }

    fn norm(&self, x: &B::Tensor, norm: &Norm<B::Tensor>) -> Result<B::Tensor> {
        self.inner.norm(x, norm)
    }

    fn reduce(&self, x: &B::Tensor, reduction: Reduction) -> Result<B::Tensor> {
        self.inner.reduce(x, reduction)
    }

    fn softmax(&self, x: &B::Tensor) -> Result<B::Tensor> {
        self.inner.softmax(x)
    }

    fn sinkhorn(&self, x: &B::Tensor, iterations: usize, eps: f32) -> Result<B::Tensor> {
        self.inner.sinkhorn(x, iterations, eps)
    }

    fn round_blocks(&self, x: &B::Tensor, kind: BlockFloat) -> Result<B::Tensor> {
        self.inner.round_blocks(x, kind)
    }

    fn weighted_sum(&self, x: &B::Tensor, weights: &B::Tensor) -> Result<B::Tensor> {
        self.inner.weighted_sum(x, weights)
    }

    fn reshape(&self, x: &B::Tensor, shape: [usize; 2]) -> Result<B::Tensor> {
        self.inner.reshape(x, shape)
    }

    fn columns(&self, x: &B::Tensor, range: Range<usize>) -> Result<B::Tensor> {
        self.inner.columns(x, range)
    }

    fn join(&self, parts: &[&B::Tensor]) -> Result<B::Tensor> {
        self.inner.join(parts)
    }

    fn select_rows(&self, x: &B::Tensor, rows: &B::Indices) -> Result<B::Tensor> {
        self.inner.select_rows(x, rows)
    }

    fn rope_angles(&self, positions: &B::Indices, axes: usize, spec: &RopeSpec) -> Result<B::Tensor> {
        self.inner.rope_angles(positions, axes, spec)
    }

    fn position_scale(&self, positions: &B::Indices, axes: usize, spec: PositionScale) -> Result<B::Tensor> {
        self.inner.position_scale(positions, axes, spec)
    }

    fn rope(&self, x: &B::Tensor, angles: &B::Tensor, head_dim: usize, spec: &RopeSpec) -> Result<B::Tensor> {
        self.inner.rope(x, angles, head_dim, spec)
    }

    fn kv_write(
        &self,
        cache: &mut B::KvCache,
        keys: &B::Tensor,
        values: Option<&B::Tensor>,
        rows: &B::Indices,
    ) -> Result<()> {
        self.inner.kv_write(cache, keys, values, rows)
    }

    fn attention(
        &self,
        queries: &B::Tensor,
        cache: &B::KvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        sinks: Option<&B::Tensor>,
    ) -> Result<B::Tensor> {
        self.inner.attention(queries, cache, &Self::inner_step(step), group, spec, sinks)
    }

    fn choose_keys(
        &self,
        queries: &B::Tensor,
        weights: &B::Tensor,
        keys: &B::KvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &KeyChoice,
        among: Option<&B::Indices>,
    ) -> Result<B::Indices> {
        self.inner.choose_keys(queries, weights, keys, &Self::inner_step(step), group, spec, among)
    }

    fn attention_among(
        &self,
        queries: &B::Tensor,
        cache: &B::KvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        chosen: &B::Indices,
        beside: Option<Beside<'_, B::KvCache>>,
        sinks: Option<&B::Tensor>,
    ) -> Result<B::Tensor> {
        let step = Self::inner_step(step);
        self.inner.attention_among(queries, cache, &step, group, spec, chosen, beside, sinks)
    }

    fn attention_over(
        &self,
        queries: &B::Tensor,
        keys: &B::Tensor,
        values: &B::Tensor,
        spans: &B::Indices,
        spec: &AttentionSpec,
    ) -> Result<B::Tensor> {
        self.inner.attention_over(queries, keys, values, spans, spec)
    }

    fn route(
        &self,
        logits: &B::Tensor,
        bias: Option<&B::Tensor>,
        spec: &RouterSpec,
    ) -> Result<(B::Indices, B::Tensor)> {
        self.inner.route(logits, bias, spec)
    }

    fn causal_convolution(
        &self,
        x: &B::Tensor,
        weight: &B::Tensor,
        bias: Option<&B::Tensor>,
        state: &mut B::State,
        step: &StepInputs<Self>,
    ) -> Result<B::Tensor> {
        self.inner.causal_convolution(x, weight, bias, state, &Self::inner_step(step))
    }

    fn scan(
        &self,
        inputs: &ScanInputs<'_, B::Tensor>,
        spec: &ScanSpec,
        state: &mut B::State,
        step: &StepInputs<Self>,
    ) -> Result<B::Tensor> {
        self.inner.scan(inputs, spec, state, &Self::inner_step(step))
    }
}
