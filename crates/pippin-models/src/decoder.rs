//! The decoder that runs every description, and how it is asked to.

use std::collections::VecDeque;
use std::sync::Arc;

use pippin_sampling::{Sampled, Sampler, Scratch, TokenMask};
use pippin_tensor::{
    Activation, Backend, Batch, Drawn, KvFormat, Linear, StateSpec, StepInputs, StepLimits, TensorError, Want,
};

use crate::altup::Flow;
use crate::cache::CachePlan;
use crate::hyper::HyperFlow;
use crate::model::{LanguageModel, Logits, ModelInfo, Output, SlotEdit, StepId, Submitted};
use crate::parts::{Compressed, Input, Pass, Place, Rows, Strides};
use crate::plan::Plan;
use crate::spec::{Block, DecoderSpec, LayerSpec};
use crate::weights::{BlockWeights, LayerWeights, Weights};
use crate::{ModelError, Result};

type DeviceWeights<B> = Weights<Linear<B>, <B as Backend>::Tensor>;

/// The decoder that runs every [`DecoderSpec`] on every [`Backend`].
#[derive(Debug)]
pub struct Decoder<B: Backend> {
    backend: Arc<B>,
    spec: DecoderSpec,
    info: ModelInfo,
    weights: DeviceWeights<B>,
    plan: Plan,
    last_mixing: Option<(usize, usize)>,
    last_keeping: Option<(usize, usize)>,
    limits: StepLimits,
    /// How the caches store their numbers, once there are any.
    format: Option<KvFormat>,
    caches: Vec<B::KvCache>,
    states: Vec<B::State>,
    slots: Vec<Slot>,
    /// The tokens that slots drew last, on the device, once one has drawn them there.
    drawn: Option<B::Indices>,
    pending: VecDeque<Pending<B>>,
    next_step: u64,
    scratch: Scratch,
}

/// What the host knows of a slot.
#[derive(Debug, Default)]
struct Slot {
    sampler: Option<Box<Sampler>>,
    /// The token drawn last.
    last: u32,
    /// The masks after the guesses that are checked next.
    ahead: Vec<Option<Arc<TokenMask>>>,
    /// The last tokens of its sequence, where n-grams are made of them.
    history: Vec<u32>,
    /// Counts what the sampler was changed by.
    epoch: u64,
}

/// A step that is not finished.
#[derive(Debug)]
struct Pending<B: Backend> {
    id: StepId,
    /// The slot of each sequence, and the state of its sampler.
    slots: Vec<(usize, u64)>,
    wants: Vec<Want>,
    /// Rows of each sequence.
    rows: Vec<usize>,
    /// The guesses of the sequences that have some to be checked, one after another.
    guesses: Vec<u32>,
    results: Results<B>,
    /// Whether a step may begin with what this one draws before it is finished.
    feeds: bool,
    hidden: Option<B::Tensor>,
}

#[derive(Debug)]
enum Results<B: Backend> {
    Logits(Option<B::Tensor>),
    Drawn {
        drawn: Drawn<B>,
        /// Whose log-probabilities are reported.
        reports: Vec<bool>,
        /// Whether a sampler has to know its token before it draws the next.
        looks_back: bool,
    },
}

/// What leaves the last layer.
struct Outputs<B: Backend> {
    logits: Option<B::Tensor>,
    hidden: Option<B::Tensor>,
}

impl<B: Backend> Decoder<B> {
    /// Puts the parts together: a validated spec and the weights that were read for it.
    pub(crate) fn new(
        spec: DecoderSpec,
        weights: DeviceWeights<B>,
        info: ModelInfo,
        backend: Arc<B>,
    ) -> Self {
        let plan = Plan::new(&spec);
        let limits = StepLimits {
            vocab: spec.vocab_size,
            slots: 0,
            page_size: 1,
            pages: vec![0; plan.groups.len()],
            axes: 1,
        };
        Self {
            last_mixing: spec.last_mixing_block(),
            last_keeping: spec.last_keeping_block(),
            backend,
            spec,
            info,
            weights,
            plan,
            limits,
            format: None,
            caches: Vec::new(),
            states: Vec::new(),
            slots: Vec::new(),
            drawn: None,
            pending: VecDeque::new(),
            next_step: 0,
            scratch: Scratch::default(),
        }
    }

    /// One step on uploaded inputs.
    fn forward(
        &mut self,
        batch: &Batch,
        step: &StepInputs<B>,
        tokens: &B::Indices,
        routes: &[B::Indices],
        strides: &[Strides<B>],
        ngrams: &[B::Indices],
    ) -> Result<Outputs<B>> {
        let Self { backend, spec, info, weights, plan, caches, states, last_mixing, last_keeping, .. } = self;
        let backend = &**backend;
        let angles: Vec<B::Tensor> = plan
            .ropes
            .iter()
            .map(|rope| backend.rope_angles(&step.positions, step.axes, rope))
            .collect::<Result<_, TensorError>>()?;
        let mut x = backend.embedding(&weights.embedding.weight, tokens)?;
        if let Some(rotation) = &weights.embedding.hadamard {
            x = rotation.invert(backend, &x)?;
        }
        if let Some(spec) = &spec.ngrams {
            x = spec.add(&weights.ngrams, backend, x, ngrams)?;
        }
        let scale = spec.embedding_scale.for_type(info.dtype);
        if scale != 1.0 {
            x = backend.scale(&x, scale, 0.0)?;
        }
        if let Some(table) = &weights.position_embedding {
            x = backend.add(&x, &backend.embedding(&table.weight, &step.positions)?)?;
        }
        if let Some(norm) = &weights.embedding_norm {
            x = backend.norm(&x, norm)?;
        }

        let wanted = [batch.head_rows().len(), batch.hidden_rows().len()];
        let mut flow = match (spec.streams(), &weights.streams) {
            (Some(spec), Some(weights)) => Some(Flow::begin(spec, weights, backend, x.clone())?),
            _ => None,
        };
        let mut hyper = match spec.connections() {
            Some(connections) => Some(HyperFlow::begin(connections, backend, &x)?),
            None => None,
        };
        let layer_inputs = match (&spec.layer_inputs, &weights.layer_inputs) {
            (Some(spec), Some(weights)) => Some(spec.of(weights, backend, tokens, &x)?),
            _ => None,
        };
        let mut pass = Pass {
            backend,
            step,
            angles: &angles,
            routes,
            strides,
            caches,
            states,
            first_values: None,
            first_input: plan.recalls.then(|| x.clone()),
            kept: None,
            projected: None,
            layer_inputs,
            sums: Vec::new(),
            compressed: Compressed::default(),
        };
        let rows = |block: (usize, usize)| match (wanted, &step.output_rows) {
            ([0, 0], _) if *last_keeping == Some(block) => Rows::None,
            ([0, 0], _) => Rows::All,
            (_, Some(_)) if *last_mixing == Some(block) => Rows::Outputs,
            _ => Rows::All,
        };
        let nothing = Outputs { logits: None, hidden: None };
        for (index, layer) in spec.layers.iter().enumerate() {
            let places = &plan.places[index];
            let own = index % weights.layers.len();
            if index > 0 && own == 0 && spec.norm_between_passes {
                x = backend.norm(&x, &weights.final_norm)?;
            }
            match (layer, &weights.layers[own], flow.take()) {
                (LayerSpec::Blocks(blocks), LayerWeights::Blocks(weights), _) => {
                    let mut places = places.iter();
                    for (number, (block, weights)) in blocks.iter().zip(weights).enumerate() {
                        let rows = rows((index, number));
                        match run_block(&mut pass, block, weights, &mut places, x, rows)? {
                            Some(next) => x = next,
                            None => return Ok(nothing),
                        }
                    }
                }
                (LayerSpec::AltUp(layer), LayerWeights::AltUp(weights), Some(before)) => {
                    let rows = rows((index, 0));
                    match layer.forward(weights, places, &mut pass, before, rows)? {
                        Some(next) => flow = Some(next),
                        None => return Ok(nothing),
                    }
                }
                (LayerSpec::Hyper(layer), LayerWeights::Hyper(weights), _) => {
                    for (number, ((block, weights), place)) in
                        layer.blocks.iter().zip(weights).zip(places).enumerate()
                    {
                        let Some(flow) = hyper.take() else { break };
                        let rows = rows((index, number));
                        match block.forward(weights, &layer.connections, place, &mut pass, flow, rows)? {
                            Some(next) => hyper = Some(next),
                            None => return Ok(nothing),
                        }
                    }
                }
                // Weights are read for the layer that they are handed to, and all layers have streams, or none.
                _ => return Err(TensorError::shape("layer", "the weights of its kind", "others").into()),
            }
        }
        if let Some(flow) = flow {
            x = flow.end(backend)?;
        }
        if let (Some(flow), Some(connections)) = (hyper, spec.connections()) {
            x = flow.mixture(connections, backend)?;
        }
        if let Some(mix) = &weights.final_mix {
            x = mix.of(&pass, &x)?;
        }
        if last_mixing.is_none() {
            x = pass.outputs(&x)?;
        }
        self.outputs(&x, wanted)
    }

    /// Where groups of tokens begin and end in a batch, for each length that the model has.
    fn strides(&self, batch: &Batch) -> Result<Vec<Strides<B>>> {
        let backend = &*self.backend;
        let indices = batch.indices();
        let of = |(length, groups): &(usize, Vec<usize>)| -> Result<Strides<B>> {
            let length = *length as u32;
            let ends = |index: &u32| (index + 1).is_multiple_of(length);
            let goes_on: Vec<u32> = indices.iter().map(|i| u32::from(!i.is_multiple_of(length))).collect();
            let firsts: Vec<u32> = indices.iter().map(|i| (i + 1).saturating_sub(length)).collect();
            let rows = |group: &usize| -> Result<(usize, B::Indices)> {
                let rows = batch.cache_rows(*group).iter().zip(indices);
                let rows: Vec<u32> = rows.map(|(row, i)| if ends(i) { *row } else { u32::MAX }).collect();
                Ok((*group, backend.indices(&rows)?))
            };
            Ok(Strides {
                goes_on: backend.indices(&goes_on)?,
                firsts: backend.indices(&firsts)?,
                rows: groups.iter().map(rows).collect::<Result<_>>()?,
            })
        };
        self.plan.strides.iter().map(of).collect()
    }

    /// Logits and representations of the rows that left the last layer: first those whose logits are wanted.
    fn outputs(&self, x: &B::Tensor, [heads, hidden]: [usize; 2]) -> Result<Outputs<B>> {
        let backend = &*self.backend;
        let some = |rows: std::ops::Range<usize>| -> Result<Option<B::Tensor>> {
            if rows.is_empty() {
                return Ok(None);
            }
            if rows.len() == heads + hidden {
                return Ok(Some(x.clone()));
            }
            let rows: Vec<u32> = rows.map(|row| row as u32).collect();
            Ok(Some(backend.select_rows(x, &backend.indices(&rows)?)?))
        };
        let norm = &self.weights.final_norm;
        let logits = match some(0..heads)? {
            Some(x) => {
                let mut logits = backend.norm_linears(&x, Some(norm), &[self.weights.head()])?;
                let logits = logits.pop();
                let mut logits = logits.ok_or_else(|| TensorError::shape("norm_linears", "one output", 0))?;
                if self.spec.head.scale != 1.0 {
                    logits = backend.scale(&logits, self.spec.head.scale, 0.0)?;
                }
                if let Some(gain) = &self.weights.head_gain {
                    logits = backend.mul(&logits, gain)?;
                }
                if let Some(cap) = self.spec.head.softcap {
                    logits = backend.activate(&logits, Activation::SoftCap(cap))?;
                }
                if let Some(mask) = &self.weights.mask {
                    logits = backend.add(&logits, mask)?;
                }
                Some(logits)
            }
            None => None,
        };
        let hidden = some(heads..heads + hidden)?.map(|x| backend.norm(&x, norm)).transpose()?;
        Ok(Outputs { logits, hidden })
    }

    /// Checks that a batch can be run.
    fn check(&self, batch: &Batch) -> Result<()> {
        if batch.limits() != &self.limits {
            let problem = format!("it was made for {:?}, the model has {:?}", batch.limits(), self.limits);
            return Err(ModelError::Step { problem });
        }
        for (slot, want) in batch.slots().iter().zip(batch.wants()) {
            let draws = matches!(want, Want::Sample | Want::Verify);
            if draws && self.slots[*slot as usize].sampler.is_none() {
                return Err(ModelError::Step { problem: format!("slot {slot} has no sampler") });
            }
        }
        // Tokens that were drawn on the host are known once their step is finished, and some samplers wait for those of devices.
        let waits = |slot: u32| {
            let mut steps =
                self.pending.iter().filter(|step| step.slots.iter().any(|(s, _)| *s == slot as usize));
            steps.any(|step| !step.feeds)
        };
        match batch.fed().iter().find(|slot| **slot != u32::MAX && waits(**slot)) {
            Some(slot) => {
                let problem = format!("the token of slot {slot} is not drawn before its step is finished");
                Err(ModelError::Step { problem })
            }
            None => Ok(()),
        }
    }

    /// Draws tokens on the device, if all that is wanted of the logits is that, and the device can.
    fn draw(
        &mut self,
        batch: &Batch,
        step: &StepInputs<B>,
        logits: &B::Tensor,
    ) -> Result<Option<Results<B>>> {
        // The host numbers the next step's n-grams, and has to know the tokens.
        if self.spec.ngrams.is_some() {
            return Ok(None);
        }
        let mut samplers: Vec<&mut Sampler> = Vec::with_capacity(batch.sequences());
        let mut slots: Vec<u32> = Vec::new();
        let mut by_slot: Vec<Option<&mut Sampler>> =
            self.slots.iter_mut().map(|slot| slot.sampler.as_deref_mut()).collect();
        for (slot, want) in batch.slots().iter().zip(batch.wants()) {
            match want {
                Want::Sample => {
                    samplers.extend(by_slot[*slot as usize].take());
                    slots.push(*slot);
                }
                // How many tokens guesses give is for the host to see.
                Want::Verify | Want::Logits(_) => return Ok(None),
                _ => {}
            }
        }
        // No device reports what else it could have drawn.
        if samplers.iter().any(|sampler| sampler.parameters().top_logprobs > 0) {
            return Ok(None);
        }
        let backend = &*self.backend;
        let Some(drawn) = backend.sample(logits, &mut samplers)? else { return Ok(None) };
        let known = match self.drawn.take() {
            Some(known) => known,
            None => backend.indices(&vec![0; self.limits.slots])?,
        };
        let reports = samplers.iter().map(|sampler| sampler.parameters().logprobs).collect();
        let looks_back = samplers.iter().any(|sampler| sampler.looks_back());
        let slots = if slots == batch.slots() { step.slots.clone() } else { backend.indices(&slots)? };
        self.drawn = Some(backend.place(&known, &slots, &drawn.tokens)?);
        Ok(Some(Results::Drawn { drawn, reports, looks_back }))
    }

    /// Whether a step on its way draws a slot's token on the device.
    fn is_on_its_way(&self, slot: usize) -> bool {
        self.pending.iter().any(|step| {
            let mut wants = step.slots.iter().zip(&step.wants);
            matches!(step.results, Results::Drawn { .. })
                && wants.any(|((of, _), want)| *of == slot && *want == Want::Sample)
        })
    }

    /// Draws a token on the host.
    fn draw_from(slot: &mut Slot, logits: &mut [f32], scratch: &mut Scratch) -> Option<Sampled> {
        let sampled = slot.sampler.as_mut()?.sample(logits, scratch)?;
        slot.last = sampled.token;
        Some(sampled)
    }

    /// Draws tokens on the host, one after each row, as long as they are those that were guessed.
    fn verify(
        slot: &mut Slot,
        guesses: &[u32],
        logits: &mut [f32],
        vocab: usize,
        scratch: &mut Scratch,
    ) -> Vec<Option<Sampled>> {
        let mut drawn = Vec::with_capacity(guesses.len() + 1);
        for (row, logits) in logits.chunks_exact_mut(vocab.max(1)).enumerate() {
            let sampled = Self::draw_from(slot, logits, scratch);
            let token = sampled.as_ref().map(|sampled| sampled.token);
            drawn.push(sampled);
            if token.is_none() || token != guesses.get(row).copied() {
                break;
            }
            if let (Some(sampler), Some(mask)) = (&mut slot.sampler, slot.ahead.get_mut(row)) {
                sampler.set_mask(mask.take());
            }
        }
        slot.ahead.clear();
        drawn
    }

    /// Bytes of a page of a cache group over all its layers.
    fn bytes_of_page(&self, group: usize) -> Result<usize> {
        let limit = self.plan.groups.len() as u64;
        self.kept_bytes(Some(group))
            .ok_or_else(|| TensorError::Index { operation: "cache group", index: group as u64, limit }.into())
    }

    fn slot(&mut self, slot: usize) -> Result<&mut Slot> {
        let limit = self.slots.len();
        self.slots.get_mut(slot).ok_or_else(|| {
            TensorError::Index { operation: "slot", index: slot as u64, limit: limit as u64 }.into()
        })
    }
}

/// A block: its parts, added to the residual stream.
fn run_block<'p, B: Backend>(
    pass: &mut Pass<'_, B>,
    block: &Block,
    weights: &BlockWeights<Linear<B>, B::Tensor>,
    places: &mut impl Iterator<Item = &'p Place>,
    x: B::Tensor,
    rows: Rows,
) -> Result<Option<B::Tensor>> {
    let backend = pass.backend;
    let narrow = |pass: &Pass<'_, B>, x: &B::Tensor| match rows {
        Rows::Outputs => pass.outputs(x),
        _ => Ok(x.clone()),
    };
    // What is added to, if anything is; what parts see, and what those see in which tokens do not see each other.
    let mut base = Some(narrow(pass, &x)?);
    let (x, narrowed) = match (&block.mix, &weights.mix) {
        (Some(mix), Some(weights)) => {
            let mixed = weights.of(pass, &x)?;
            if mix.begins {
                pass.sums.push(x);
                base = None;
            }
            let narrowed = narrow(pass, &mixed)?;
            (mixed, narrowed)
        }
        _ => {
            let narrowed = base.clone().unwrap_or_else(|| x.clone());
            (x, narrowed)
        }
    };
    // Without a norm or a factor in between, each part adds to what is there already.
    let adds = weights.post.is_none()
        && weights.gates.is_none()
        && block.scale == 1.0
        && block.branches.iter().all(|b| b.post.is_none() && b.scaled.is_none());
    let mut sum: Option<B::Tensor> = base.clone().filter(|_| adds);
    for (branch, weights) in block.branches.iter().zip(&weights.branches) {
        let Some(place) = places.next() else { continue };
        let x = if place.mixes { &x } else { &narrowed };
        let residual = if adds && !branch.kept { sum.as_ref() } else { None };
        let input = Input { x, norm: weights.norm.as_ref(), residual, rows };
        let Some(mut y) = branch.part.forward(&weights.part, place, pass, &input)? else { continue };
        if let Some(scaled) = &weights.scaled {
            y = scaled.of(backend, &y)?;
        }
        if let Some(post) = &weights.post {
            y = backend.norm(&y, post)?;
        }
        if branch.kept {
            pass.kept = Some(y);
            continue;
        }
        sum = Some(match sum {
            Some(sum) if !adds => backend.add(&sum, &y)?,
            _ => y,
        });
    }
    match rows {
        Rows::None => return Ok(None),
        Rows::Outputs => pass.narrow()?,
        Rows::All => {}
    }
    let Some(mut y) = sum else { return Ok(base.or(Some(narrowed))) };
    if !adds {
        if let Some(post) = &weights.post {
            y = backend.norm(&y, post)?;
        }
        if block.scale != 1.0 {
            y = backend.scale(&y, block.scale, 0.0)?;
        }
        if let Some((added, stream)) = &weights.gates {
            y = backend.mul(&y, added)?;
            if let (Some(stream), Some(stays)) = (stream, &base) {
                base = Some(backend.mul(stays, stream)?);
            }
        }
        if let Some(base) = &base {
            y = backend.add(base, &y)?;
        }
    }
    if block.adds_kept
        && let Some(kept) = pass.kept.take()
    {
        y = backend.add(&y, &kept)?;
    }
    Ok(Some(match &weights.stream_scale {
        Some(scale) => backend.mul(&y, scale)?,
        None => y,
    }))
}

/// The guesses in a batch, sequence by sequence.
fn guesses(batch: &Batch) -> Vec<u32> {
    let rows = batch.query_starts().windows(2).zip(batch.wants());
    let verified = rows.filter(|(_, want)| **want == Want::Verify).map(|(rows, _)| rows);
    verified.flat_map(|rows| &batch.tokens()[rows[0] as usize + 1..rows[1] as usize]).copied().collect()
}

impl<B: Backend> LanguageModel for Decoder<B> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn allocate(&mut self, plan: &CachePlan) -> Result<()> {
        let CachePlan { page_size, format, pages, slots } = plan;
        if pages.len() != self.plan.groups.len() {
            let problem =
                format!("it has {} cache groups, the plan pages of {}", self.plan.groups.len(), pages.len());
            return Err(ModelError::KvCache { problem });
        }
        for (group, pages) in self.plan.groups.iter().zip(pages) {
            // Rows are numbered with 32 bits, and the byte count of a cache must not overflow on its way to the backend.
            let rows = pages.checked_mul(*page_size).filter(|rows| (1..u32::MAX as usize).contains(rows));
            let bytes = group.page_bytes(*page_size, *format).checked_mul(*pages as u64);
            if rows.is_none() || bytes.is_none() {
                let problem = format!("{pages} pages of {page_size} tokens cannot be addressed");
                return Err(ModelError::KvCache { problem });
            }
        }
        if u32::try_from(*slots).is_err() {
            return Err(ModelError::KvCache { problem: format!("{slots} slots cannot be addressed") });
        }
        // Drop the old caches first: there may be no room for both.
        self.caches.clear();
        self.states.clear();
        self.pending.clear();
        self.drawn = None;
        self.limits.slots = 0;
        for group in &self.plan.caches {
            let spec = self.plan.groups[*group].layer(pages[*group], *page_size, *format);
            self.caches.push(self.backend.kv_cache(&spec)?);
        }
        for columns in &self.plan.states {
            self.states.push(self.backend.state(&StateSpec { slots: *slots, columns: *columns })?);
        }
        self.slots = std::iter::repeat_with(Slot::default).take(*slots).collect();
        self.format = Some(*format);
        self.limits =
            StepLimits { slots: *slots, page_size: *page_size, pages: pages.clone(), ..self.limits.clone() };
        Ok(())
    }

    fn limits(&self) -> &StepLimits {
        &self.limits
    }

    fn submit(&mut self, mut batch: Batch) -> Result<Submitted> {
        self.check(&batch)?;
        let backend = Arc::clone(&self.backend);
        batch.resolve(|slot| (!self.is_on_its_way(slot)).then_some(self.slots[slot].last));
        let step = backend.upload(&batch)?;
        let tokens = match (&step.fed, &self.drawn) {
            (Some(fed), Some(drawn)) => backend.choose(fed, drawn, &step.tokens)?,
            _ => step.tokens.clone(),
        };
        let routes: Vec<B::Indices> = self
            .plan
            .routes
            .iter()
            .map(|heads| {
                let routes: Vec<u32> = (0..batch.rows() * heads).map(|i| (i % heads) as u32).collect();
                backend.indices(&routes)
            })
            .collect::<Result<_, TensorError>>()?;
        let strides = self.strides(&batch)?;
        let ngrams: Vec<B::Indices> = match &self.spec.ngrams {
            Some(ngrams) => {
                let history = |slot: usize| self.slots[slot].history.as_slice();
                let (numbers, histories) = ngrams.numbers(&batch, self.spec.vocab_size, history);
                for (slot, history) in batch.slots().iter().zip(histories) {
                    self.slots[*slot as usize].history = history;
                }
                numbers.iter().map(|numbers| backend.indices(numbers)).collect::<Result<_, TensorError>>()?
            }
            None => Vec::new(),
        };
        let Outputs { logits, hidden } = match batch.rows() {
            0 => Outputs { logits: None, hidden: None },
            _ => backend.record(&batch.shape(), || {
                self.forward(&batch, &step, &tokens, &routes, &strides, &ngrams)
            })?,
        };
        let results = match logits {
            Some(logits) => {
                self.draw(&batch, &step, &logits)?.unwrap_or_else(|| Results::Logits(Some(logits)))
            }
            None => Results::Logits(None),
        };
        let id = StepId(self.next_step);
        self.next_step += 1;
        let feeds = matches!(results, Results::Drawn { looks_back: false, .. });
        self.pending.push_back(Pending {
            id,
            slots: batch
                .slots()
                .iter()
                .map(|slot| *slot as usize)
                .map(|slot| (slot, self.slots[slot].epoch))
                .collect(),
            wants: batch.wants().to_vec(),
            guesses: guesses(&batch),
            rows: batch.query_starts().windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect(),
            results,
            feeds,
            hidden,
        });
        Ok(Submitted { id, feeds })
    }

    fn finish(&mut self, id: StepId) -> Result<Vec<Output>> {
        let oldest = self.pending.front().map(|step| step.id);
        let next = if oldest == Some(id) { self.pending.pop_front() } else { None };
        let Some(step) = next else {
            let problem = format!("{id:?} is to be finished, the oldest step is {oldest:?}");
            return Err(ModelError::Step { problem });
        };
        let Pending { slots, wants, rows, guesses, results, hidden, .. } = step;
        let width = self.spec.hidden_size;
        let hidden = hidden.map(|hidden| self.backend.read(&hidden)).transpose()?.unwrap_or_default();
        let mut hidden = hidden.as_slice();
        let mut take_hidden = |rows: usize| {
            let (own, rest) = hidden.split_at((rows * width).min(hidden.len()));
            hidden = rest;
            Output::Hidden(own.to_vec())
        };
        let count = |want: &Want, rows: usize| match want {
            Want::Verify
            | Want::Logits(pippin_tensor::LogitRows::All)
            | Want::Hidden(pippin_tensor::LogitRows::All) => rows,
            _ => 1,
        };
        match results {
            Results::Drawn { drawn, reports, .. } => {
                let tokens = self.backend.read_indices(&drawn.tokens)?;
                let logprobs = drawn.logprobs.map(|logprobs| self.backend.read(&logprobs)).transpose()?;
                let mut drawn = tokens.into_iter().enumerate();
                let outputs =
                    slots.iter().zip(&wants).zip(&rows).map(|(((slot, epoch), want), rows)| match want {
                        Want::Sample => {
                            let sampled = drawn.next().map(|(i, token)| Sampled {
                                token,
                                logprob: logprobs
                                    .as_ref()
                                    .and_then(|logprobs| logprobs.get(i).copied())
                                    .filter(|_| reports[i]),
                                top_logprobs: Vec::new(),
                            });
                            let slot = &mut self.slots[*slot];
                            if let (Some(sampled), true) = (&sampled, slot.epoch == *epoch) {
                                slot.last = sampled.token;
                                if let Some(sampler) = &mut slot.sampler {
                                    sampler.accept(sampled.token);
                                }
                            }
                            // A token that no vocabulary has says that the logits were not numbers.
                            Output::Sampled(
                                sampled.filter(|sampled| (sampled.token as usize) < self.limits.vocab),
                            )
                        }
                        Want::Hidden(_) => take_hidden(count(want, *rows)),
                        _ => Output::Nothing,
                    });
                Ok(outputs.collect())
            }
            Results::Logits(logits) => {
                let vocab = self.spec.vocab_size;
                let backend = Arc::clone(&self.backend);
                let mut guesses = guesses.as_slice();
                let mut split = |mut values: &mut [f32]| {
                    let outputs = slots.iter().zip(&wants).zip(&rows).map(|(((slot, _), want), rows)| {
                        let rows = count(want, *rows);
                        let mut take = || {
                            let all = std::mem::take(&mut values);
                            let (own, rest) = all.split_at_mut((rows * vocab).min(all.len()));
                            values = rest;
                            own
                        };
                        match want {
                            Want::Sample => {
                                let slot = &mut self.slots[*slot];
                                Output::Sampled(Self::draw_from(slot, take(), &mut self.scratch))
                            }
                            Want::Verify => {
                                let (own, rest) = guesses.split_at((rows - 1).min(guesses.len()));
                                guesses = rest;
                                let slot = &mut self.slots[*slot];
                                Output::Verified(Self::verify(slot, own, take(), vocab, &mut self.scratch))
                            }
                            Want::Logits(_) => {
                                Output::Logits(Logits { rows, vocab, values: take().to_vec() })
                            }
                            Want::Hidden(_) => take_hidden(rows),
                            _ => Output::Nothing,
                        }
                    });
                    outputs.collect::<Vec<Output>>()
                };
                match logits {
                    Some(logits) => Ok(backend.lend(logits, split)?),
                    None => Ok(split(&mut [])),
                }
            }
        }
    }

    fn edit(&mut self, edits: Vec<SlotEdit>) -> Result<()> {
        let backend = Arc::clone(&self.backend);
        for edit in edits {
            match edit {
                SlotEdit::Reset { slot } => {
                    let known = self.slot(slot)?;
                    (known.sampler, known.epoch) = (None, known.epoch + 1);
                    known.history.clear();
                    known.ahead.clear();
                    for state in &mut self.states {
                        backend.reset_state(state, slot)?;
                    }
                }
                SlotEdit::Copy { from, to } => {
                    let history = self.slot(from)?.history.clone();
                    self.slot(to)?.history = history;
                    for state in &mut self.states {
                        backend.copy_state(state, from, to)?;
                    }
                }
                SlotEdit::Sampler { slot, sampler } => {
                    let slot = self.slot(slot)?;
                    slot.ahead.clear();
                    (slot.sampler, slot.epoch) = (Some(sampler), slot.epoch + 1);
                }
                SlotEdit::Mask { slot, mask } => {
                    if let Some(sampler) = &mut self.slot(slot)?.sampler {
                        sampler.set_mask(mask);
                    }
                }
                SlotEdit::MasksAhead { slot, masks } => self.slot(slot)?.ahead = masks,
            }
        }
        Ok(())
    }

    fn kept_as(&self) -> Option<String> {
        let StepLimits { page_size, .. } = self.limits;
        let format = self.format?;
        Some(format!("{}, pages of {page_size} tokens in {format}", self.backend.kept_as()?))
    }

    fn kept_bytes(&self, group: Option<usize>) -> Option<usize> {
        match group {
            Some(group) => {
                let bytes = self.plan.groups.get(group)?.page_bytes(self.limits.page_size, self.format?);
                usize::try_from(bytes).ok()
            }
            // The number of tokens of its history, the tokens, and the states.
            None => Some(4 * (1 + self.plan.history + self.plan.states.iter().sum::<usize>())),
        }
    }

    fn read_page(&mut self, group: usize, page: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes_of_page(group)?);
        for (cache, _) in self.caches.iter().zip(&self.plan.caches).filter(|(_, of)| **of == group) {
            self.backend.read_page(cache, page as usize, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn write_page(&mut self, group: usize, page: u32, bytes: &[u8]) -> Result<()> {
        let expected = self.bytes_of_page(group)?;
        if bytes.len() != expected {
            let expected = format!("{expected} bytes");
            return Err(TensorError::shape("write_page", expected, bytes.len()).into());
        }
        let layers = self.plan.groups[group].layers.max(1);
        let mut parts = bytes.chunks(expected.div_ceil(layers).max(1));
        for (cache, _) in self.caches.iter_mut().zip(&self.plan.caches).filter(|(_, of)| **of == group) {
            self.backend.write_page(cache, page as usize, parts.next().unwrap_or_default())?;
        }
        Ok(())
    }

    fn read_slot(&mut self, slot: usize) -> Result<Vec<u8>> {
        let mut words = vec![0; 1 + self.plan.history];
        let history = &self.slot(slot)?.history;
        words[0] = history.len() as u32;
        words[1..=history.len()].copy_from_slice(history);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for state in &self.states {
            self.backend.read_state(state, slot, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn write_slot(&mut self, slot: usize, bytes: &[u8]) -> Result<()> {
        let expected = self.kept_bytes(None).unwrap_or_default();
        let vocab = self.limits.vocab;
        let words = |bytes: &[u8]| -> Vec<u32> {
            bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let refused = |found: String| {
            let expected = format!("{expected} bytes with tokens of the vocabulary");
            Err(TensorError::shape("write_slot", expected, found).into())
        };
        if bytes.len() != expected {
            return refused(format!("{} bytes", bytes.len()));
        }
        let (history, mut rest) = bytes.split_at(4 * (1 + self.plan.history));
        let history = words(history);
        let history = match history.split_first() {
            Some((length, tokens)) => tokens.get(..*length as usize),
            None => None,
        };
        let Some(history) = history.filter(|tokens| tokens.iter().all(|token| (*token as usize) < vocab))
        else {
            return refused("others".to_owned());
        };
        self.slot(slot)?.history = history.to_vec();
        for (state, columns) in self.states.iter_mut().zip(&self.plan.states) {
            let (own, others) = rest.split_at(4 * columns);
            self.backend.write_state(state, slot, own)?;
            rest = others;
        }
        Ok(())
    }
}
