//! Alternating updates (AltUp, <https://arxiv.org/abs/2301.13310>) as Gemma 3n has them: the residual stream is several
//! streams. Each layer predicts what becomes of all of them, computes one, and corrects the others by what the prediction
//! of that one missed. Beside it stand a learned augmented residual (LAuReL, <https://arxiv.org/abs/2411.07501>), and what
//! the layer makes of an input of its own.

use std::sync::Arc;

use pippin_tensor::{Activation, Backend, Linear, Norm, NormKind, Reduction};

use crate::parts::{Input, NormSpec, Part, PartWeights, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{problem, within};
use crate::{Result, limits};

/// What the layers of such a model share: its streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Streams {
    /// Where their parameters are.
    pub path: String,
    /// Number of streams.
    pub count: usize,
    /// The one that passes through attention and feed-forward network.
    pub active: usize,
    /// Epsilon of the norms.
    pub eps: f32,
}

/// A layer of a model with several streams.
#[derive(Clone, Debug, PartialEq)]
pub struct AltUp {
    /// What its streams are.
    pub streams: Arc<Streams>,
    /// The part in which tokens see each other.
    pub mixer: Part,
    /// The feed-forward network.
    pub network: Part,
    /// What is made of the layer's own input.
    pub own: Part,
    /// Rank of the learned augmented residual.
    pub laurel_rank: usize,
    /// Whether the corrected stream has a factor for each column, on its way to the layer's own input.
    pub scales_output: bool,
}

/// The weights that are not in layers.
#[derive(Debug)]
pub(crate) struct StreamsWeights<L, V> {
    /// The streams but the first from the embedding, and back.
    split: Vec<L>,
    merge: Vec<L>,
    /// Each stream as it is, `[1, count * count]`.
    identity: V,
}

/// The weights of a layer.
#[derive(Debug)]
pub(crate) struct AltUpWeights<L, V> {
    router_norm: Norm<V>,
    router: L,
    prediction: L,
    correction: L,
    output_scale: Option<V>,
    mixer_norm: Norm<V>,
    mixer: PartWeights<L, V>,
    mixer_post: Norm<V>,
    laurel: [L; 2],
    laurel_norm: Norm<V>,
    network_norm: Norm<V>,
    network: PartWeights<L, V>,
    network_post: Norm<V>,
    own: PartWeights<L, V>,
    own_post: Norm<V>,
}

/// The streams of a step's rows on their way through the layers.
#[derive(Debug)]
pub(crate) struct Flow<'a, B: Backend> {
    spec: &'a Streams,
    weights: &'a StreamsWeights<Linear<B>, B::Tensor>,
    streams: Vec<B::Tensor>,
}

impl Streams {
    pub(crate) fn validate(&self) -> Result<()> {
        within("altup_num_inputs", self.count, limits::STREAMS)?;
        if self.active >= self.count {
            let words = format!("is {}, but there are {} streams", self.active, self.count);
            return Err(problem("altup_active_idx", words));
        }
        NormSpec::bare(self.eps).validate()
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        hidden: usize,
    ) -> Result<StreamsWeights<S::Linear, S::Vector>> {
        let count = self.count;
        let path = |name: &str| join(&self.path, name);
        let mut others = |name: &str| -> Result<Vec<S::Linear>> {
            let linear = |stream: usize| {
                source.linear(&path(&format!("{name}.{stream}")), [hidden, hidden], false, Cut::Whole)
            };
            (0..count - 1).map(linear).collect()
        };
        Ok(StreamsWeights {
            split: others("altup_projections")?,
            merge: others("altup_unembed_projections")?,
            identity: source
                .constant([1, count * count], |place| f32::from(place / count == place % count))?,
        })
    }
}

impl<'a, B: Backend> Flow<'a, B> {
    /// The streams of embedded tokens.
    pub(crate) fn begin(
        spec: &'a Streams,
        weights: &'a StreamsWeights<Linear<B>, B::Tensor>,
        backend: &B,
        x: B::Tensor,
    ) -> Result<Self> {
        let magnitude = backend.reduce(&x, Reduction::RootMeanSquare)?;
        let mut streams = vec![x];
        for projection in &weights.split {
            let stream = backend.linear(&streams[0], projection)?;
            streams.push(as_large(backend, &stream, &magnitude)?);
        }
        Ok(Self { spec, weights, streams })
    }

    /// The mean of the streams.
    pub(crate) fn end(self, backend: &B) -> Result<B::Tensor> {
        let mut streams = self.streams.into_iter();
        let mut sum = streams.next().ok_or_else(|| miscounted("streams", self.spec.count, 0))?;
        let magnitude = backend.reduce(&sum, Reduction::RootMeanSquare)?;
        for (stream, projection) in streams.zip(&self.weights.merge) {
            let stream = backend.linear(&stream, projection)?;
            sum = backend.add(&sum, &as_large(backend, &stream, &magnitude)?)?;
        }
        Ok(backend.scale(&sum, 1.0 / self.spec.count as f32, 0.0)?)
    }
}

/// Rows with the root mean squares of other rows.
fn as_large<B: Backend>(backend: &B, x: &B::Tensor, magnitude: &B::Tensor) -> Result<B::Tensor> {
    let [_, width] = backend.shape(x);
    // The reference divides by the root mean square alone; this keeps rows of zeros.
    let unit = Norm { kind: NormKind::Rms, width, eps: 1e-12, weight: None, bias: None };
    Ok(backend.mul(&backend.norm(x, &unit)?, magnitude)?)
}

impl AltUp {
    pub(crate) fn validate(&self) -> Result<()> {
        self.streams.validate()?;
        within("laurel_rank", self.laurel_rank, limits::HIDDEN)?;
        self.parts().into_iter().try_for_each(Part::validate)
    }

    pub(crate) fn parts(&self) -> [&Part; 3] {
        [&self.mixer, &self.network, &self.own]
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<AltUpWeights<S::Linear, S::Vector>> {
        let &Streams { count, eps, .. } = &*self.streams;
        let norm = |source: &mut S, path| NormSpec::rms(path, eps).weights(source, at, hidden);
        let linear =
            |source: &mut S, path: &str, shape| source.linear(&join(at, path), shape, false, Cut::Whole);
        let output_scale = match self.scales_output {
            true => Some(source.vector(&join(at, "altup.correct_output_scale"), &[hidden], same)?),
            false => None,
        };
        Ok(AltUpWeights {
            router_norm: norm(source, "altup.router_norm")?,
            router: linear(source, "altup.modality_router", [count, hidden])?,
            prediction: linear(source, "altup.prediction_coefs", [count * count, count])?,
            correction: linear(source, "altup.correction_coefs", [count, count])?,
            output_scale,
            mixer_norm: norm(source, "input_layernorm")?,
            mixer: self.mixer.weights(source, at, hidden)?,
            mixer_post: norm(source, "post_attention_layernorm")?,
            laurel: [
                linear(source, "laurel.linear_left", [self.laurel_rank, hidden])?,
                linear(source, "laurel.linear_right", [hidden, self.laurel_rank])?,
            ],
            laurel_norm: norm(source, "laurel.post_laurel_norm")?,
            network_norm: norm(source, "pre_feedforward_layernorm")?,
            network: self.network.weights(source, at, hidden)?,
            network_post: norm(source, "post_feedforward_layernorm")?,
            own: self.own.weights(source, at, hidden)?,
            own_post: norm(source, "post_per_layer_input_norm")?,
        })
    }

    /// Computes the layer. `None`: no rows were wanted.
    pub(crate) fn forward<'a, B: Backend>(
        &self,
        weights: &AltUpWeights<Linear<B>, B::Tensor>,
        places: &[Place],
        pass: &mut Pass<'_, B>,
        flow: Flow<'a, B>,
        rows: Rows,
    ) -> Result<Option<Flow<'a, B>>> {
        let backend = pass.backend;
        let Flow { spec, weights: shared, streams } = flow;
        let &Streams { count, active, .. } = spec;
        let [mixer, network, own] = places else { return Err(miscounted("places", 3, places.len())) };

        // Each prediction is the stream and a mixture of all streams.
        let [tokens, hidden] = backend.shape(&streams[active]);
        let mixture = weights.routed(backend, &streams[active], &weights.prediction)?;
        let mixture = backend.add(&mixture, &shared.identity)?;
        let all = backend.join(&streams.iter().collect::<Vec<_>>())?;
        let all = backend.reshape(&all, [tokens * count, hidden])?;
        let predict = |stream: usize| -> Result<B::Tensor> {
            let shares = backend.columns(&mixture, stream * count..(stream + 1) * count)?;
            Ok(backend.weighted_sum(&all, &shares)?)
        };
        let mut streams = (0..count).map(predict).collect::<Result<Vec<_>>>()?;

        let mut x = backend.norm(&streams[active], &weights.mixer_norm)?;
        let input = Input { x: &x, norm: None, residual: None, rows };
        let Some(mixed) = self.mixer.forward(&weights.mixer, mixer, pass, &input)? else { return Ok(None) };
        if rows == Rows::Outputs {
            for rows in streams.iter_mut().chain([&mut x]) {
                *rows = pass.outputs(rows)?;
            }
            pass.narrow()?;
        }
        let mixed = backend.add(&streams[active], &backend.norm(&mixed, &weights.mixer_post)?)?;
        let [left, right] = &weights.laurel;
        let laurel = backend.linear(&backend.linear(&x, left)?, right)?;
        let laurel = backend.add(&x, &backend.norm(&laurel, &weights.laurel_norm)?)?;
        let mixed = backend.scale(&backend.add(&mixed, &laurel)?, std::f32::consts::FRAC_1_SQRT_2, 0.0)?;

        let input = Input { x: &mixed, norm: Some(&weights.network_norm), residual: None, rows: Rows::All };
        let widened = self.network.forward(&weights.network, network, pass, &input)?;
        let widened = widened.ok_or_else(|| miscounted("network", 1, 0))?;
        let activated = backend.add(&mixed, &backend.norm(&widened, &weights.network_post)?)?;

        // Each stream is corrected by a share of what the prediction of the active one missed.
        let shares = weights.routed(backend, &activated, &weights.correction)?;
        let shares = backend.scale(&shares, 1.0, 1.0)?;
        let missed = backend.add(&activated, &backend.scale(&streams[active], -1.0, 0.0)?)?;
        for (index, stream) in streams.iter_mut().enumerate() {
            let share = backend.columns(&shares, index..index + 1)?;
            *stream = backend.add(stream, &backend.mul(&missed, &share)?)?;
        }

        // What is made of the layer's own input is added to all streams but the first.
        let scaled = match &weights.output_scale {
            Some(scale) => backend.mul(&streams[active], scale)?,
            None => streams[active].clone(),
        };
        let input = Input { x: &scaled, norm: None, residual: None, rows: Rows::All };
        let own = self.own.forward(&weights.own, own, pass, &input)?;
        let own = own.ok_or_else(|| miscounted("layer input", 1, 0))?;
        let own = backend.norm(&own, &weights.own_post)?;
        for stream in streams.iter_mut().skip(1) {
            *stream = backend.add(stream, &own)?;
        }
        Ok(Some(Flow { spec, weights: shared, streams }))
    }
}

impl<B: Backend> AltUpWeights<Linear<B>, B::Tensor> {
    /// Coefficients by what kind of vector `x` is.
    fn routed(&self, backend: &B, x: &B::Tensor, coefficients: &Linear<B>) -> Result<B::Tensor> {
        let [_, hidden] = backend.shape(x);
        let kinds = backend.norm_linears(x, Some(&self.router_norm), &[&self.router])?.pop();
        let kinds = kinds.ok_or_else(|| miscounted("norm_linears", 1, 0))?;
        let kinds = backend.activate(&backend.scale(&kinds, 1.0 / hidden as f32, 0.0)?, Activation::Tanh)?;
        Ok(backend.linear(&kinds, coefficients)?)
    }
}
