//! From metadata to the fields of a configuration.

use pippin_weights::gguf::{Gguf, GgufTensor, GgufValue};
use serde_json::{Map, Value, json};

use crate::{Config, ModelError, Result, limits};

/// A file's metadata, and the fields of a configuration that have been made of it so far.
pub(crate) struct Metadata<'a> {
    pub(crate) file: &'a Gguf,
    architecture: &'a str,
    fields: Map<String, Value>,
    pub(crate) layers: usize,
}

impl<'a> Metadata<'a> {
    pub(crate) fn new(file: &'a Gguf) -> Result<Self> {
        let mut metadata = Self { file, architecture: file.architecture()?, fields: Map::new(), layers: 0 };
        // Layers for the prediction of several tokens at once are counted, and not run.
        let beyond = metadata.count("nextn_predict_layers")?.unwrap_or(0);
        let layers = metadata.required("block_count")?;
        metadata.layers =
            layers.checked_sub(beyond).filter(|layers| *layers <= limits::LAYERS).ok_or_else(|| {
                metadata.error(
                    "block_count",
                    format!("must be from {beyond} to {}, found {layers}", limits::LAYERS),
                )
            })?;
        Ok(metadata)
    }

    /// The full name of a key of the architecture.
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// An error about a key of the architecture.
    pub(crate) fn error(&self, key: &str, problem: impl Into<String>) -> ModelError {
        self.file.key_error(&self.key(key), problem).into()
    }

    /// A count, which may be given for each layer if it is the same in all.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>> {
        let full = self.key(key);
        if let Some(GgufValue::Numbers(_)) = self.file.get(&full) {
            let counts = self.counts(key)?.unwrap_or_default();
            return match counts.split_first() {
                Some((first, rest)) if rest.iter().all(|count| count == first) => Ok(Some(*first)),
                _ => Err(self.error(key, "must be one number, or the same in all layers")),
            };
        }
        Ok(self.file.count(&full)?)
    }

    /// Counts of all layers.
    pub(crate) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let Some(numbers) = self.file.integers(&self.key(key))? else { return Ok(None) };
        let counts: Option<Vec<usize>> =
            numbers.into_iter().map(|number| usize::try_from(number).ok()).collect();
        counts.map(Some).ok_or_else(|| self.error(key, "must not have negative numbers"))
    }

    pub(crate) fn required(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.file.number(&self.key(key))?)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        Ok(self.file.string(&self.key(key))?)
    }

    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    fn tensor(&self, name: &str) -> Result<&'a GgufTensor> {
        let missing = || {
            self.file
                .key_error("general.architecture", format!("needs a tensor {name}, which the file lacks"))
        };
        Ok(self.file.tensor(name).ok_or_else(missing)?)
    }

    /// Gives the configuration a field.
    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.to_owned(), value.into());
    }

    /// Gives an object that the configuration has a field.
    pub(crate) fn set_in(&mut self, object: &str, field: &str, value: impl Into<Value>) {
        if let Some(Value::Object(object)) = self.fields.get_mut(object) {
            object.insert(field.to_owned(), value.into());
        }
    }

    /// Whether the architecture has this name.
    pub(crate) fn is(&self, architecture: &str) -> bool {
        self.architecture == architecture
    }

    /// Gives it one whose value is a count in the metadata, if it is there.
    pub(crate) fn copy_count(&mut self, field: &str, key: &str) -> Result<()> {
        if let Some(count) = self.count(key)? {
            self.set(field, count);
        }
        Ok(())
    }

    /// Gives it one whose value is a number in the metadata, if it is there.
    pub(crate) fn copy_number(&mut self, field: &str, key: &str) -> Result<()> {
        if let Some(number) = self.number(key)? {
            self.set(field, number);
        }
        Ok(())
    }

    /// The same type of layer for each, or another for those of which `is_first` says so.
    pub(crate) fn set_layer_types(&mut self, is_first: impl Fn(usize) -> bool, [first, second]: [&str; 2]) {
        let types: Vec<&str> =
            (0..self.layers).map(|layer| if is_first(layer) { first } else { second }).collect();
        self.set("layer_types", types);
    }

    /// Which layers have a window: as a list says, or all but every `pattern`-th.
    pub(crate) fn windowed(&self, default_pattern: usize) -> Result<Vec<bool>> {
        const KEY: &str = "attention.sliding_window_pattern";
        let list: Option<Vec<bool>> = match self.file.get(&self.key(KEY)) {
            Some(GgufValue::Numbers(list)) => list
                .iter()
                .map(|value| value.as_bool().or(value.as_u64().map(|number| number != 0)))
                .collect(),
            _ => {
                let pattern = self.count(KEY)?.unwrap_or(default_pattern).max(1);
                Some((0..self.layers).map(|layer| (layer + 1) % pattern != 0).collect())
            }
        };
        list.filter(|list| list.len() >= self.layers)
            .ok_or_else(|| self.error(KEY, "must be a number, or true or false for each layer"))
    }

    /// What all architectures have alike.
    pub(crate) fn read_common(&mut self) -> Result<()> {
        let embedding = self.tensor("token_embd.weight")?.shape();
        let &[vocab, hidden] = embedding else {
            return Err(self.error(
                "embedding_length",
                format!("does not fit token_embd.weight, which has shape {embedding:?}"),
            ));
        };
        let stated = self.required("embedding_length")?;
        if stated != hidden {
            return Err(self.error(
                "embedding_length",
                format!("is {stated}, but token_embd.weight has {hidden} columns"),
            ));
        }
        self.set("vocab_size", vocab);
        self.set("hidden_size", hidden);
        self.set("num_hidden_layers", self.layers);
        self.set("tie_word_embeddings", !self.has("output.weight"));
        self.copy_count("max_position_embeddings", "context_length")?;
        self.copy_number("rms_norm_eps", "attention.layer_norm_rms_epsilon")?;
        self.copy_number("layer_norm_eps", "attention.layer_norm_epsilon")?;
        let per_layer = |key: &str| matches!(self.file.get(&self.key(key)), Some(GgufValue::Numbers(_)));
        let [widths, heads, kv_heads] =
            ["feed_forward_length", "attention.head_count", "attention.head_count_kv"].map(per_layer);
        if !widths {
            self.copy_count("intermediate_size", "feed_forward_length")?;
        }
        if !heads && let Some(heads) = self.count("attention.head_count")?.filter(|heads| *heads > 0) {
            self.set("num_attention_heads", heads);
            let head_dim = self.count("attention.key_length")?.unwrap_or(hidden / heads);
            self.set("head_dim", head_dim);
            if !kv_heads {
                self.set("num_key_value_heads", self.count("attention.head_count_kv")?.unwrap_or(heads));
            }
            let dims = self.count("rope.dimension_count")?.unwrap_or(head_dim);
            self.read_rope(head_dim, dims)?;
        }
        Ok(())
    }

    /// Rotary positions. Of llama.cpp's two kinds of scaling that are not plain numbers, one (LongRoPE) has its factors in
    /// tensors, and so has the other, that of Llama 3: as the factors say all that there is to it, it is given as the first.
    pub(crate) fn read_rope(&mut self, head_dim: usize, dims: usize) -> Result<()> {
        self.set("rope_theta", self.number("rope.freq_base")?.unwrap_or(10_000.0));
        if dims != head_dim {
            self.set("partial_rotary_factor", dims as f64 / head_dim.max(1) as f64);
        }
        let context = self.count("context_length")?.unwrap_or(0);
        let original = self.count("rope.scaling.original_context_length")?;
        if let Some(factors) = self.factors("rope_freqs.weight")? {
            // Without a change of scale: the original context is the whole.
            self.set(
                "rope_scaling",
                json!({"rope_type": "longrope", "long_factor": factors, "short_factor": factors,
                    "original_max_position_embeddings": context}),
            );
            return Ok(());
        }
        if let Some(long) = self.factors("rope_factors_long.weight")? {
            let short = self.factors("rope_factors_short.weight")?.unwrap_or_else(|| long.clone());
            let original = original.unwrap_or(context);
            self.set("original_max_position_embeddings", original);
            self.set(
                "rope_scaling",
                json!({"rope_type": "longrope", "long_factor": long, "short_factor": short,
                    "original_max_position_embeddings": original}),
            );
            return Ok(());
        }
        let older = self.number("rope.scale_linear")?;
        let factor =
            self.number("rope.scaling.factor")?.or(older).filter(|factor| *factor != 0.0 && *factor != 1.0);
        let kind = self.text("rope.scaling.type")?.unwrap_or(if older.is_some() { "linear" } else { "none" });
        match (kind, factor) {
            ("none" | "longrope", _) | (_, None) => {}
            ("linear", Some(factor)) => {
                self.set("rope_scaling", json!({"rope_type": "linear", "factor": factor}));
            }
            ("yarn", Some(factor)) => {
                if self
                    .number("rope.scaling.yarn_attn_factor")?
                    .or(self.number("rope.scaling.attn_factor")?)
                    .is_some_and(|factor| factor != 1.0)
                    || self.number("rope.scaling.yarn_ext_factor")?.is_some_and(|factor| factor != 1.0)
                {
                    let problem = "is not supported together with yarn_attn_factor or yarn_ext_factor";
                    return Err(self.error("rope.scaling.type", problem));
                }
                let mut scaling = json!({"rope_type": "yarn", "factor": factor,
                    "original_max_position_embeddings": original.unwrap_or(context)});
                for beta in ["beta_fast", "beta_slow"] {
                    if let Some(value) = self.number(&format!("rope.scaling.yarn_{beta}"))? {
                        scaling[beta] = value.into();
                    }
                }
                self.set("rope_scaling", scaling);
            }
            (other, _) => {
                let problem = format!("{other:?} is not supported; supported: none, linear, yarn, longrope");
                return Err(self.error("rope.scaling.type", problem));
            }
        }
        Ok(())
    }

    /// The numbers of a small tensor, one for each rotated pair.
    fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.file.tensor(name) else { return Ok(None) };
        if tensor.shape().iter().product::<usize>() > limits::HEAD_DIM {
            return Err(self.error(
                "rope.dimension_count",
                format!("does not fit {name}, which has shape {:?}", tensor.shape()),
            ));
        }
        let values = tensor.view().tensors(name)?;
        Ok(values.first().map(|values| values.to_f32()).transpose()?)
    }

    /// Experts, by the names that most families have for them.
    pub(crate) fn read_experts(&mut self, count: &str) -> Result<()> {
        self.set(count, self.required("expert_count")?);
        self.set("num_experts_per_tok", self.required("expert_used_count")?);
        self.copy_count("moe_intermediate_size", "expert_feed_forward_length")
    }

    pub(crate) fn into_config(mut self, model_type: &str) -> Result<Config> {
        self.set("model_type", model_type);
        Config::new(Value::Object(self.fields))
    }
}
