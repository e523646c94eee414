//! From metadata to the fields of a configuration.

use std::collections::BTreeMap;

use pippin_weights::gguf::{Gguf, GgufTensor, GgufValue};
use serde_json::{Map, Value, json};

use crate::{Config, ModelError, Result, limits};

/// A file's metadata, and the fields of a configuration that have been made of it so far.
pub(crate) struct Metadata<'a> {
    pub(crate) file: &'a Gguf,
    architecture: &'a str,
    fields: Map<String, Value>,
    /// The full names of the keys that fields have their values from.
    keys: BTreeMap<String, String>,
    pub(crate) layers: usize,
}

impl<'a> Metadata<'a> {
    pub(crate) fn new(file: &'a Gguf) -> Result<Self> {
        let mut metadata = Self {
            file,
            architecture: file.architecture()?,
            fields: Map::new(),
            keys: BTreeMap::new(),
            layers: 0,
        };
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

    /// A list of numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>> {
        Ok(self.file.floats(&self.key(key))?)
    }

    /// Counts of all layers, if they are given for each.
    pub(crate) fn counts_of_layers(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let Some(GgufValue::Numbers(_)) = self.file.get(&self.key(key)) else { return Ok(None) };
        match self.counts(key)?.filter(|list| list.len() >= self.layers) {
            Some(list) => Ok(Some(list)),
            None => Err(self.error(key, "must be a number for each layer")),
        }
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

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        Ok(self.file.flag(&self.key(key))?)
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

    /// Gives an object that the configuration has a field, if there is that object.
    pub(crate) fn set_in(&mut self, object: &str, field: &str, value: impl Into<Value>) -> bool {
        match self.fields.get_mut(object) {
            Some(Value::Object(object)) => {
                object.insert(field.to_owned(), value.into());
                true
            }
            _ => false,
        }
    }

    /// A field that was given before.
    pub(crate) fn field(&self, field: &str) -> Option<Value> {
        self.fields.get(field).cloned()
    }

    /// Whether the architecture has this name.
    pub(crate) fn is(&self, architecture: &str) -> bool {
        self.architecture == architecture
    }

    /// Gives it one that has its value from a key; errors about the field will name the key.
    pub(crate) fn set_from(&mut self, field: &str, key: &str, value: impl Into<Value>) {
        self.name_key(field, key);
        self.set(field, value);
    }

    /// Lets errors about a field name a key.
    fn name_key(&mut self, field: &str, key: &str) {
        self.keys.insert(field.to_owned(), self.key(key));
    }

    /// Takes a field back.
    pub(crate) fn unset(&mut self, field: &str) {
        self.fields.remove(field);
    }

    /// Gives it one whose value is a count in the metadata, if it is there.
    pub(crate) fn copy_count(&mut self, field: &str, key: &str) -> Result<()> {
        self.name_key(field, key);
        if let Some(count) = self.count(key)? {
            self.set(field, count);
        }
        Ok(())
    }

    /// Gives it one whose value is a number in the metadata, if it is there.
    pub(crate) fn copy_number(&mut self, field: &str, key: &str) -> Result<()> {
        self.name_key(field, key);
        if let Some(number) = self.number(key)? {
            self.set(field, number);
        }
        Ok(())
    }

    /// The window; zero is none.
    pub(crate) fn window(&self) -> Result<Option<usize>> {
        Ok(self.count("attention.sliding_window")?.filter(|window| *window > 0))
    }

    /// The sizes of the last two axes of a tensor of layers, in the first layer that has it.
    pub(crate) fn sizes(&self, name: &str) -> Option<[usize; 2]> {
        let tensor = (0..self.layers).find_map(|layer| self.file.tensor(&format!("blk.{layer}.{name}")))?;
        match *tensor.shape() {
            [.., rows, columns] => Some([rows, columns]),
            _ => None,
        }
    }

    /// Whether any layer has a tensor.
    pub(crate) fn any_has(&self, name: &str) -> bool {
        (0..self.layers).any(|layer| self.layer_has(layer, name))
    }

    /// Whether a layer has a tensor.
    pub(crate) fn layer_has(&self, layer: usize, name: &str) -> bool {
        self.has(&format!("blk.{layer}.{name}"))
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
        if let Some(list) = self.flags(KEY)? {
            return Ok(list);
        }
        let pattern = self.count(KEY)?.unwrap_or(default_pattern).max(1);
        Ok((0..self.layers).map(|layer| (layer + 1) % pattern != 0).collect())
    }

    /// A list of what is so of each layer, if there is a list.
    pub(crate) fn flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        let list = match self.file.get(&self.key(key)) {
            Some(GgufValue::Numbers(list)) => list,
            // What is one for all layers is read elsewhere.
            None | Some(GgufValue::Unsigned(_) | GgufValue::Signed(_)) => return Ok(None),
            Some(_) => {
                return Err(self.error(key, "must be a number, or true or false for each layer"));
            }
        };
        let list: Option<Vec<bool>> =
            list.iter().map(|value| value.as_bool().or(value.as_u64().map(|number| number != 0))).collect();
        let list = list.filter(|list| list.len() >= self.layers);
        list.map(Some).ok_or_else(|| self.error(key, "must be a number, or true or false for each layer"))
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
        self.set_from("hidden_size", "embedding_length", hidden);
        self.set_from("num_hidden_layers", "block_count", self.layers);
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
            self.set_from("num_attention_heads", "attention.head_count", heads);
            let head_dim = self.count("attention.key_length")?.unwrap_or(hidden / heads);
            self.set_from("head_dim", "attention.key_length", head_dim);
            if !kv_heads {
                let kv_heads = self.count("attention.head_count_kv")?.unwrap_or(heads);
                self.set_from("num_key_value_heads", "attention.head_count_kv", kv_heads);
            }
            let dims = self.count("rope.dimension_count")?.unwrap_or(head_dim);
            self.read_rope(head_dim, dims)?;
        }
        Ok(())
    }

    /// Rotary positions. Of llama.cpp's two kinds of scaling that are not plain numbers, one (LongRoPE) has its factors in
    /// tensors, and so has the other, that of Llama 3: as the factors say all that there is to it, it is given as the first.
    pub(crate) fn read_rope(&mut self, head_dim: usize, dims: usize) -> Result<()> {
        self.set_from("rope_theta", "rope.freq_base", self.number("rope.freq_base")?.unwrap_or(10_000.0));
        // Where it is said, it counts: what families take for granted differs.
        if dims != head_dim || self.count("rope.dimension_count")?.is_some() {
            let share = dims as f64 / head_dim.max(1) as f64;
            self.set_from("partial_rotary_factor", "rope.dimension_count", share);
        }
        for (field, key) in [
            ("factor", "factor"),
            ("original_max_position_embeddings", "original_context_length"),
            ("beta_fast", "yarn_beta_fast"),
            ("beta_slow", "yarn_beta_slow"),
            ("mscale", "yarn_log_multiplier"),
            ("mscale_all_dim", "yarn_log_multiplier"),
            ("type", "type"),
        ] {
            self.name_key(&format!("rope_scaling.{field}"), &format!("rope.scaling.{key}"));
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
                self.check_yarn(factor)?;
                let mut scaling = json!({"rope_type": "yarn", "factor": factor,
                    "original_max_position_embeddings": original.unwrap_or(context)});
                for beta in ["beta_fast", "beta_slow"] {
                    if let Some(value) = self.number(&format!("rope.scaling.yarn_{beta}"))? {
                        scaling[beta] = value.into();
                    }
                }
                // For reasons of its own, llama.cpp has a tenth of it here.
                let tenth = if self.is("deepseek2") || self.is("mistral4") { 10.0 } else { 1.0 };
                if let Some(all) = self.number("rope.scaling.yarn_log_multiplier")?.filter(|all| *all != 0.0)
                {
                    scaling["mscale_all_dim"] = (all * tenth).into();
                    if self.is("deepseek2") {
                        scaling["mscale"] = (all * tenth).into();
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
    pub(crate) fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
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

    /// Factors of YaRN beside its own are not read. That on results is, where it is written, what YaRN has in any case, and
    /// llama.cpp does not read it.
    fn check_yarn(&self, factor: f64) -> Result<()> {
        let usual = [1.0, 0.1 * factor.ln() + 1.0];
        for key in ["rope.scaling.yarn_attn_factor", "rope.scaling.attn_factor"] {
            if let Some(found) = self.number(key)?
                && !usual.iter().any(|usual| (usual - found).abs() < 1e-3)
            {
                return Err(self.error(key, format!("is {found}, and only 1 or {} is supported", usual[1])));
            }
        }
        match self.number("rope.scaling.yarn_ext_factor")? {
            Some(found) if found != 1.0 => {
                Err(self
                    .error("rope.scaling.yarn_ext_factor", format!("is {found}, and only 1 is supported")))
            }
            _ => Ok(()),
        }
    }

    /// Experts, by the names that most families have for them.
    pub(crate) fn read_experts(&mut self, count: &str) -> Result<()> {
        self.set_from(count, "expert_count", self.required("expert_count")?);
        self.set_from("num_experts_per_tok", "expert_used_count", self.required("expert_used_count")?);
        // Older files do not say, and some say it for each layer.
        match self.sizes("ffn_down_exps.weight") {
            Some([_, width]) => self.set_from("moe_intermediate_size", "expert_feed_forward_length", width),
            None => self.copy_count("moe_intermediate_size", "expert_feed_forward_length")?,
        }
        Ok(())
    }

    /// How experts are chosen and weighed, by the names of DeepSeek V3.
    pub(crate) fn read_choice(&mut self) -> Result<()> {
        let normalize = self.flag("expert_weights_norm")?.unwrap_or(false);
        self.set_from("norm_topk_prob", "expert_weights_norm", normalize);
        if let Some(scale) = self.number("expert_weights_scale")?.filter(|scale| *scale != 0.0) {
            self.set_from("routed_scaling_factor", "expert_weights_scale", scale);
        }
        self.copy_count("n_group", "expert_group_count")?;
        self.copy_count("topk_group", "expert_group_used_count")
    }

    /// The function that makes scores of what a router gives.
    pub(crate) fn scores(&self, default: &'static str) -> Result<&'static str> {
        match self.count("expert_gating_func")? {
            None | Some(0) => Ok(default),
            Some(1) => Ok("softmax"),
            Some(2) => Ok("sigmoid"),
            Some(other) => {
                let problem = format!("is {other}, and only 1 (softmax) and 2 (sigmoid) are supported");
                Err(self.error("expert_gating_func", problem))
            }
        }
    }

    /// An error if the scores are not by this function.
    pub(crate) fn expect_scores(&self, expected: &'static str) -> Result<()> {
        match self.scores(expected)? {
            found if found == expected => Ok(()),
            found => {
                Err(self.error("expert_gating_func", format!("is that of {found}, and must be {expected}")))
            }
        }
    }

    /// How many layers there are before the first that has a mixture.
    pub(crate) fn dense_layers(&self) -> usize {
        let mixture = |layer: &usize| self.layer_has(*layer, "ffn_gate_inp.weight");
        (0..self.layers).find(mixture).unwrap_or(self.layers)
    }

    /// The metadata as a configuration of a family, unless the architecture has set another.
    pub(crate) fn into_config(mut self, model_type: &str) -> Result<Config> {
        self.fields.entry("model_type").or_insert_with(|| model_type.into());
        Config::of_metadata(Value::Object(self.fields), self.file.path(), self.keys)
    }
}
