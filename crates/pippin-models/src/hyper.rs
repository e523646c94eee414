//! Hyper-connections (<https://arxiv.org/abs/2409.19606>) whose mixtures are doubly stochastic
//! (<https://arxiv.org/abs/2512.24880>), as DeepSeek V4.1 has them: the residual stream is several streams. A part is given a
//! mixture of them; what it returns is added to each of other mixtures by a share of its own. All shares follow from the
//! streams as they are before the part; those of its input, before the part before it.

use pippin_tensor::{Activation, Backend, Linear, Norm, NormKind};

use crate::parts::{Input, NormSpec, Part, PartWeights, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{positive, within};
use crate::{Result, limits};

/// How the streams of a model are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HyperConnections {
    /// Number of streams.
    pub count: usize,
    /// How often rows of the mixture are divided by their sums.
    pub iterations: usize,
    /// Added to those sums, and to shares.
    pub eps: f32,
    /// Epsilon of the norm of the streams, all together.
    pub norm_eps: f32,
}

/// A layer of such a model: parts, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperLayer {
    /// How its streams are mixed.
    pub connections: HyperConnections,
    /// Its parts.
    pub blocks: Vec<HyperBlock>,
}

/// A part, and what mixes the streams around it.
#[derive(Clone, Debug, PartialEq)]
pub struct HyperBlock {
    /// Where the parameters of the mixture are.
    pub path: &'static str,
    /// The norm of what the part is given.
    pub norm: NormSpec,
    /// The part.
    pub part: Part,
}

#[derive(Debug)]
pub(crate) struct HyperBlockWeights<L, V> {
    streams_norm: Norm<V>,
    /// Linear layers to shares: of each stream in the next part's input, of this part's result in each stream, and of each stream in
    /// each new one. Their biases are added after the factors.
    shares: [L; 3],
    /// A factor on the results of each of them.
    factors: V,
    norm: Norm<V>,
    part: PartWeights<L, V>,
}

/// The streams of a step's rows on their way through the layers.
#[derive(Debug)]
pub(crate) struct HyperFlow<B: Backend> {
    /// Side by side.
    streams: B::Tensor,
    /// The share of each in the next part's input; at first they are all the same.
    shares: Option<B::Tensor>,
}

impl<B: Backend> HyperFlow<B> {
    /// The streams of embedded tokens.
    pub(crate) fn begin(connections: &HyperConnections, backend: &B, x: &B::Tensor) -> Result<Self> {
        Ok(Self { streams: backend.join(&vec![x; connections.count])?, shares: None })
    }

    /// The mixture that the next part is given.
    pub(crate) fn mixture(&self, connections: &HyperConnections, backend: &B) -> Result<B::Tensor> {
        let ([rows, columns], count) = (backend.shape(&self.streams), connections.count);
        match &self.shares {
            Some(shares) => {
                let each = backend.reshape(&self.streams, [rows * count, columns / count])?;
                Ok(backend.weighted_sum(&each, shares)?)
            }
            None => Ok(backend.columns(&self.streams, 0..columns / count)?),
        }
    }
}

impl HyperConnections {
    fn validate(&self) -> Result<()> {
        within("hc_mult", self.count, limits::STREAMS)?;
        within("hc_sinkhorn_iters", self.iterations, limits::ITERATIONS)?;
        positive("hc_eps", self.eps)?;
        positive("rms_norm_eps", self.norm_eps)
    }
}

impl HyperLayer {
    pub(crate) fn validate(&self) -> Result<()> {
        self.connections.validate()?;
        self.blocks.iter().try_for_each(|block| {
            block.norm.validate()?;
            block.part.validate()
        })
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<Vec<HyperBlockWeights<S::Linear, S::Vector>>> {
        self.blocks.iter().map(|block| block.weights(source, at, hidden, &self.connections)).collect()
    }
}

impl HyperBlock {
    fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
        connections: &HyperConnections,
    ) -> Result<HyperBlockWeights<S::Linear, S::Vector>> {
        let &HyperConnections { count, norm_eps, .. } = connections;
        let own = join(at, self.path);
        // The checkpoint has, for each stream, its shares in all new ones; what is computed with are the shares in a new one.
        let turned = (0..count * count).map(|i| 2 * count + i % count * count + i / count);
        let rows = [vec![0..count], vec![count..2 * count], turned.map(|row| row..row + 1).collect()];
        let shape = [(2 + count) * count, count * hidden];
        let shares = source.split(&join(&own, "fn"), shape, true, &rows, Cut::Whole)?;
        Ok(HyperBlockWeights {
            streams_norm: Norm {
                kind: NormKind::Rms,
                width: count * hidden,
                eps: norm_eps,
                weight: None,
                bias: None,
            },
            shares: <[S::Linear; 3]>::try_from(shares)
                .map_err(|found| miscounted("split", 3, found.len()))?,
            factors: source.vector(&join(&own, "scale"), &[3], same)?,
            norm: self.norm.weights(source, at, hidden)?,
            part: self.part.weights(source, at, hidden)?,
        })
    }

    /// Computes the part and mixes the streams. `None`: no rows were wanted.
    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &HyperBlockWeights<Linear<B>, B::Tensor>,
        connections: &HyperConnections,
        place: &Place,
        pass: &mut Pass<'_, B>,
        flow: HyperFlow<B>,
        rows: Rows,
    ) -> Result<Option<HyperFlow<B>>> {
        let (backend, &HyperConnections { count, iterations, eps, .. }) = (pass.backend, connections);
        let x = flow.mixture(connections, backend)?;
        let input = Input { x: &x, norm: Some(&weights.norm), residual: None, rows };
        let Some(result) = self.part.forward(&weights.part, place, pass, &input)? else { return Ok(None) };
        let mut streams = flow.streams;
        if rows == Rows::Outputs {
            streams = pass.outputs(&streams)?;
            pass.narrow()?;
        }

        let flat = backend.norm(&streams, &weights.streams_norm)?;
        let [given, added, mixed] = [0, 1, 2].map(|kind: usize| -> Result<B::Tensor> {
            let Linear { weight, bias, .. } = &weights.shares[kind];
            let shares = backend.matmul(&flat, weight)?;
            let shares = backend.mul(&shares, &backend.columns(&weights.factors, kind..kind + 1)?)?;
            match bias {
                Some(bias) => Ok(backend.add(&shares, bias)?),
                None => Ok(shares),
            }
        });
        let given = backend.scale(&backend.activate(&given?, Activation::Sigmoid)?, 1.0, eps)?;
        let added = backend.scale(&backend.activate(&added?, Activation::Sigmoid)?, 2.0, 0.0)?;
        let mixed = backend.sinkhorn(&mixed?, iterations, eps)?;

        let [tokens, columns] = backend.shape(&streams);
        let all = backend.join(&[&streams, &result])?;
        let all = backend.reshape(&all, [tokens * (count + 1), columns / count])?;
        let stream = |number: usize| -> Result<B::Tensor> {
            let shares = backend.columns(&mixed, number * count..(number + 1) * count)?;
            let own = backend.columns(&added, number..number + 1)?;
            Ok(backend.weighted_sum(&all, &backend.join(&[&shares, &own])?)?)
        };
        let streams = (0..count).map(stream).collect::<Result<Vec<_>>>()?;
        let streams = backend.join(&streams.iter().collect::<Vec<_>>())?;
        Ok(Some(HyperFlow { streams, shares: Some(given) }))
    }
}
