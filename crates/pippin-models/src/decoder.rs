use std::sync::Arc;

use pippin_tensor::{
    AttentionSpec, Backend, Batch, HeadNorms, KvCacheSpec, KvFormat, Linear, RopeSpec, StepInputs,
    TensorError,
};

use crate::weights::{DeviceWeights, FeedForwardWeights, LayerWeights, MixerWeights};
use crate::{
    Attention, DecoderSpec, FeedForward, LanguageModel, LayerSpec, Logits, Mixer, ModelError, ModelInfo,
    Result,
};

/// The decoder that runs every [`DecoderSpec`] on every [`Backend`].
#[derive(Debug)]
pub struct Decoder<B: Backend> {
    backend: Arc<B>,
    spec: DecoderSpec,
    info: ModelInfo,
    weights: DeviceWeights<B>,
    /// The distinct rotary positions, and which of them each layer has.
    ropes: Vec<Arc<RopeSpec>>,
    rope_of_layer: Vec<usize>,
    kv: Option<KvCaches<B>>,
}

/// The KV caches of all layers.
#[derive(Debug)]
struct KvCaches<B: Backend> {
    page_size: usize,
    layers: Vec<B::KvCache>,
}

impl<B: Backend> Decoder<B> {
    /// Puts the parts together: a validated spec and the weights that were read for it.
    pub(crate) fn new(
        spec: DecoderSpec,
        weights: DeviceWeights<B>,
        info: ModelInfo,
        backend: Arc<B>,
    ) -> Self {
        let mut ropes: Vec<Arc<RopeSpec>> = Vec::new();
        let mut rope_of_layer = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let Mixer::Attention(Attention { rope, .. }) = &layer.mixer;
            let same = |known: &Arc<RopeSpec>| Arc::ptr_eq(known, rope) || known == rope;
            rope_of_layer.push(ropes.iter().position(same).unwrap_or_else(|| {
                ropes.push(rope.clone());
                ropes.len() - 1
            }));
        }
        Self { backend, spec, info, weights, ropes, rope_of_layer, kv: None }
    }

    /// One step. Returns the tensor of logits, or `None` when the batch asks for none.
    fn forward(&mut self, batch: &Batch) -> Result<Option<B::Tensor>> {
        let Some(kv) = &mut self.kv else {
            return Err(ModelError::KvCache { problem: "none is allocated".to_owned() });
        };
        if batch.page_size() != kv.page_size {
            let problem =
                format!("its pages hold {} tokens, the batch's {}", kv.page_size, batch.page_size());
            return Err(ModelError::KvCache { problem });
        }
        let backend = &*self.backend;
        let step = batch.upload(backend)?;
        let angles: Vec<B::Tensor> = self
            .ropes
            .iter()
            .map(|rope| backend.rope_angles(&step.positions, rope))
            .collect::<Result<_, TensorError>>()?;

        let eps = self.spec.norm_eps;
        let mut x = backend.embedding(&self.weights.embedding.weight, &step.tokens)?;
        let last = self.spec.layers.len().saturating_sub(1);
        let layers = self.spec.layers.iter().zip(&self.weights.layers).zip(&mut kv.layers);
        for (index, ((spec, weights), cache)) in layers.enumerate() {
            let rows = match (index == last, batch.logit_rows()) {
                (true, []) => Rows::None,
                (true, rows) if !is_all(rows, batch.rows()) => Rows::Logits,
                _ => Rows::All,
            };
            let angles = &angles[self.rope_of_layer[index]];
            match layer(backend, &step, spec, weights, eps, cache, angles, x, rows)? {
                Some(next) => x = next,
                None => return Ok(None),
            }
        }
        let head = self.weights.head();
        let mut logits = backend.rms_norm_matmul(&x, &self.weights.final_norm, eps, &[head])?;
        logits.pop().map(Some).ok_or_else(|| TensorError::shape("rms_norm_matmul", "one output", 0).into())
    }
}

/// Which rows leave a layer. The last layer's keys and values are needed for all rows, but what follows them only for
/// the rows whose logits are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    None,
    Logits,
    All,
}

/// Whether `rows` are simply all rows in order, as in a decode step.
fn is_all(rows: &[u32], count: usize) -> bool {
    rows.len() == count && rows.iter().enumerate().all(|(index, row)| *row as usize == index)
}

/// One layer: attention and feed-forward network, each added to the residual stream.
fn layer<B: Backend>(
    backend: &B,
    step: &StepInputs<B>,
    spec: &LayerSpec,
    weights: &LayerWeights<Linear<B>, B::Tensor>,
    eps: f32,
    cache: &mut B::KvCache,
    angles: &B::Tensor,
    mut x: B::Tensor,
    rows: Rows,
) -> Result<Option<B::Tensor>> {
    let (
        Mixer::Attention(attention_spec),
        MixerWeights::Attention { qkv: [query, key, value], output, norms },
    ) = (&spec.mixer, &weights.mixer);
    let qkv = backend.rms_norm_matmul(&x, &weights.mixer_norm, eps, &[query, key, value])?;
    let [queries, keys, values] = qkv.as_slice() else {
        return Err(TensorError::shape("rms_norm_matmul", "three outputs", qkv.len()).into());
    };
    let norms = norms.as_ref().map(|norms| HeadNorms { query: &norms.query, key: &norms.key, eps });
    let queries = backend.qkv_rope(
        [queries, keys, values],
        norms,
        angles,
        &attention_spec.rope,
        cache,
        &step.slots,
        attention_spec.head_dim,
    )?;
    if rows == Rows::None {
        return Ok(None);
    }
    let mut attended = backend.attention(&queries, cache, step, &attention_spec.on_device())?;
    if rows == Rows::Logits {
        attended = backend.select_rows(&attended, &step.logit_rows)?;
        x = backend.select_rows(&x, &step.logit_rows)?;
    }
    let x = backend.linear_add(&attended, output, &x)?;

    let (FeedForward::Gated { activation, .. }, FeedForwardWeights::Gated { gate, up, down }) =
        (&spec.feed_forward, &weights.feed_forward);
    let inner = backend.rms_norm_gated_matmul(&x, &weights.feed_forward_norm, eps, gate, up, *activation)?;
    Ok(Some(backend.linear_add(&inner, down, &x)?))
}

impl Attention {
    fn on_device(&self) -> AttentionSpec {
        let &Self { heads, kv_heads, head_dim, scale, window, .. } = self;
        AttentionSpec { heads, kv_heads, head_dim, scale, window, softcap: None }
    }
}

impl LayerSpec {
    fn kv_cache(&self, pages: usize, page_size: usize, format: KvFormat) -> KvCacheSpec {
        let Mixer::Attention(Attention { kv_heads, head_dim, .. }) = self.mixer;
        KvCacheSpec { pages, page_size, kv_heads, head_dim, format }
    }
}

impl<B: Backend> LanguageModel for Decoder<B> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn kv_page_bytes(&self, page_size: usize, format: KvFormat) -> usize {
        self.spec.layers.iter().map(|layer| layer.kv_cache(1, page_size, format).page_bytes()).sum()
    }

    fn allocate_kv(&mut self, pages: usize, page_size: usize, format: KvFormat) -> Result<()> {
        // Slots are numbered with 32 bits, and the byte count of a cache must not overflow on its way to the backend.
        let slots = pages.checked_mul(page_size).filter(|slots| (1..=u32::MAX as usize).contains(slots));
        let bytes = slots.and_then(|_| self.kv_page_bytes(page_size, format).checked_mul(pages));
        if bytes.is_none() {
            let problem = format!("{pages} pages of {page_size} tokens cannot be addressed");
            return Err(ModelError::KvCache { problem });
        }
        // Drop the old cache first: there may be no room for both.
        self.kv = None;
        let layers = self
            .spec
            .layers
            .iter()
            .map(|layer| self.backend.kv_cache(&layer.kv_cache(pages, page_size, format)))
            .collect::<Result<_, TensorError>>()?;
        self.kv = Some(KvCaches { page_size, layers });
        Ok(())
    }

    fn step(&mut self, batch: &Batch) -> Result<Logits> {
        let vocab_size = self.spec.vocab_size;
        if let Some(&token) = batch.tokens().iter().find(|token| **token as usize >= vocab_size) {
            return Err(ModelError::Token { token, vocab_size });
        }
        let values = match batch.rows() {
            0 => None,
            _ => self.forward(batch)?,
        };
        let values = values.map(|logits| self.backend.read(&logits)).transpose()?.unwrap_or_default();
        let rows = batch.logit_rows().len();
        if values.len() != rows * vocab_size {
            return Err(TensorError::shape("read", format!("{rows} rows of logits"), values.len()).into());
        }
        Ok(Logits { rows, vocab: vocab_size, values })
    }
}
