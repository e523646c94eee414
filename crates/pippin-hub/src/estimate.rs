//! What a model will need, told from its configuration: before anything is downloaded.

use pippin_weights::json::unsigned;
use serde::Serialize;
use serde_json::Value;

use crate::{ModelConfiguration, StoredWeights};

/// Bytes of a cached key or value: the KV cache has the checkpoint's 16-bit type.
const KV_ELEMENT: u64 = 2;
/// Working memory that every model needs: tokenizer, buffers, threads.
const BASE_BYTES: u64 = 100_000_000;
/// The share of the memory bandwidth that decoding reaches: the rest goes to what is not reading weights.
pub(crate) const EFFICIENCY: f64 = 0.8;

/// The memory that a model is expected to take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Weights, scales and biases included.
    pub weights: u64,
    /// Keys and values of a full context, at 16 bits.
    pub kv_cache: u64,
    /// Tokenizer, buffers, activations: 100 MB and a fiftieth of the weights.
    pub working: u64,
    /// Tokens of the context that this is for.
    pub context: u64,
    /// Whether the size of keys and values was guessed from the number of parameters.
    pub is_rough: bool,
}

impl MemoryEstimate {
    /// From sizes in bytes; keys and values are guessed where their size is `None`.
    pub fn new(weights: u64, kv_bytes_per_token: Option<u64>, context: u64) -> Self {
        // Keys and values of dense models grow with about the root of their size: 37 kB at 1 B parameters of 4 bits.
        let guess = || (37_000.0 * (weights as f64 / 562e6).sqrt()) as u64;
        Self {
            weights,
            kv_cache: kv_bytes_per_token.unwrap_or_else(guess).saturating_mul(context),
            working: BASE_BYTES.saturating_add(weights / 50),
            context,
            is_rough: kv_bytes_per_token.is_none(),
        }
    }

    /// What the registry's facts say; `None` where the size of the weights is not among them.
    pub fn of(configuration: &ModelConfiguration, context: u64) -> Option<Self> {
        let weights = configuration.weight_bytes()?;
        // An encoder keeps no keys and values.
        let is_encoder =
            matches!(configuration.family.as_deref(), Some("bert" | "xlm-roberta" | "nomic_bert"));
        let kv = if is_encoder { Some(0) } else { configuration.kv_bytes_per_token };
        Some(Self::new(weights, kv, context))
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.working)
    }

    /// Tokens per second when writing, where `bandwidth` bytes are read per second: each token reads the weights that it
    /// uses, `active` of all, and the keys and values of a context that is half full, at 80 % of the
    /// bandwidth, about what Pippin was measured to reach.
    pub fn tokens_per_second(&self, bandwidth: f64, active: f64) -> f64 {
        let bytes = self.weights as f64 * active.clamp(0.0, 1.0) + self.kv_cache as f64 / 2.0;
        if bytes > 0.0 { bandwidth * EFFICIENCY / bytes } else { 0.0 }
    }
}

/// Whether a model has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Fit {
    /// It fits the budget.
    Yes,
    /// It fits the machine, but only when other programs make room.
    Tight,
    /// It is larger than the machine.
    No,
}

impl Fit {
    /// Judges a need.
    pub fn of(need: u64, budget: u64, total: u64) -> Self {
        if need <= budget {
            Self::Yes
        } else if need <= total / 10 * 9 {
            Self::Tight
        } else {
            Self::No
        }
    }

    /// Its name: `yes`, `tight`, `no`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Tight => "tight",
            Self::No => "no",
        }
    }
}

/// What a `config.json` says about a model's size and form. Whatever it does not say, or says wrongly, is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelShape {
    /// `model_type`.
    pub family: Option<String>,
    /// Layers.
    pub layers: Option<u64>,
    /// Layers that keep keys and values.
    pub attention_layers: Option<u64>,
    /// Width of the residual stream.
    pub hidden_size: Option<u64>,
    /// Query heads.
    pub heads: Option<u64>,
    /// Heads of keys and values.
    pub kv_heads: Option<u64>,
    /// Dimension of a head.
    pub head_dim: Option<u64>,
    /// Number of token ids.
    pub vocab_size: Option<u64>,
    /// The longest sequence it was made for.
    pub context_length: Option<u64>,
    /// Bits of a quantized weight.
    pub bits: Option<u8>,
    /// Weights that share a scale.
    pub group_size: Option<u32>,
    /// MLX's name for the quantization.
    pub mode: Option<String>,
    /// The type of what is not quantized.
    pub dtype: Option<String>,
    /// Bytes of keys and values for each token, at 16 bits.
    pub kv_bytes_per_token: Option<u64>,
    /// The share of the weights in feed-forward experts that a token uses, told from the numbers of experts.
    pub active_experts: Option<f64>,
}

/// The largest number of a configuration that is believed.
const MAX_NUMBER: u64 = 1 << 40;

impl ModelShape {
    /// Reads a `config.json`, or what the hub keeps of it.
    pub fn from_config(config: &Value) -> Self {
        // Models of text and images keep their text part in a table of its own.
        let inner = config.get("text_config").filter(|value| value.is_object()).unwrap_or(config);
        let number = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| [inner, config].iter().find_map(|of| unsigned(of.get(name)?)))
                .filter(|value| (1..=MAX_NUMBER).contains(value))
        };
        let text = |name: &str| {
            config
                .get(name)
                .or_else(|| inner.get(name))?
                .as_str()
                .filter(|text| text.len() <= 64)
                .map(str::to_owned)
        };
        let layers = number(&["num_hidden_layers", "n_layers", "num_layers", "n_layer"]);
        let heads = number(&["num_attention_heads", "n_heads", "n_head"]);
        let hidden_size = number(&["hidden_size", "d_model", "n_embd", "dim"]);
        let kv_heads = number(&["num_key_value_heads", "n_kv_heads"]).or(heads);
        let head_dim = number(&["head_dim"]).or_else(|| Some(hidden_size? / heads?));
        let attention_layers = match inner.get("layer_types").and_then(Value::as_array) {
            Some(types) => {
                let is_attention = |name: &&Value| {
                    name.as_str().is_some_and(|name| name.contains("attention") && !name.contains("linear"))
                };
                Some(types.iter().filter(is_attention).count() as u64)
            }
            None => match number(&["full_attention_interval"]) {
                Some(interval) => layers.map(|layers| layers / interval),
                None => layers,
            },
        };
        let kv = match number(&["kv_lora_rank"]) {
            // Latent attention keeps one compressed vector, and the rotated part of the key.
            Some(rank) => layers.and_then(|layers| {
                layers.checked_mul(rank + number(&["qk_rope_head_dim"]).unwrap_or(0))?.checked_mul(KV_ELEMENT)
            }),
            None => attention_layers.zip(kv_heads).zip(head_dim).and_then(|((layers, heads), dim)| {
                layers.checked_mul(heads)?.checked_mul(dim)?.checked_mul(2 * KV_ELEMENT)
            }),
        };
        let quantization = ["quantization", "quantization_config"]
            .iter()
            .flat_map(|name| [config.get(name), inner.get(name)])
            .flatten()
            .find(|value| value.is_object());
        let of_quantization =
            |name: &str| unsigned(quantization?.get(name)?).filter(|value| (1..=1024).contains(value));
        let experts = number(&["num_experts", "num_local_experts", "n_routed_experts"]);
        let used = number(&["num_experts_per_tok", "num_experts_per_token", "moe_topk"]);
        Self {
            family: text("model_type"),
            layers,
            attention_layers,
            hidden_size,
            heads,
            kv_heads,
            head_dim,
            vocab_size: number(&["vocab_size"]),
            context_length: number(&["max_position_embeddings", "n_positions", "max_seq_len"]),
            bits: of_quantization("bits").and_then(|bits| u8::try_from(bits).ok()),
            group_size: of_quantization("group_size").and_then(|size| u32::try_from(size).ok()),
            mode: quantization
                .and_then(|value| value.get("mode")?.as_str())
                .filter(|mode| mode.len() <= 32)
                .map(str::to_owned),
            dtype: text("torch_dtype").or_else(|| text("dtype")),
            kv_bytes_per_token: kv,
            active_experts: experts.zip(used).map(|(experts, used)| (used as f64 / experts as f64).min(1.0)),
        }
    }

    /// How the weights are stored, where the configuration says.
    pub fn stored_weights(&self) -> Option<StoredWeights> {
        match self.bits {
            Some(bits) => {
                let mut stored = StoredWeights::new(bits, Some(self.group_size.unwrap_or(64)));
                if let Some(mode) = &self.mode {
                    stored.mode = Some(mode.clone());
                }
                Some(stored)
            }
            None => match self.dtype.as_deref() {
                Some("float32") => Some(StoredWeights::new(32, None)),
                Some(_) => Some(StoredWeights::new(16, None)),
                None => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ModelRegistry;

    fn qwen3(hidden: u64, layers: u64, heads: u64) -> Value {
        json!({
            "model_type": "qwen3", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
            "quantization": {"group_size": 64, "bits": 4}, "torch_dtype": "bfloat16"
        })
    }

    #[test]
    fn known_configurations_have_known_sizes() {
        // 2 (keys, values) × layers × 8 heads × 128 × 2 bytes.
        for (config, kv, alias, weights) in [
            (qwen3(1024, 28, 16), 114_688, "qwen3-0.6b", 335_000_000),
            (qwen3(2560, 36, 32), 147_456, "qwen3-4b", 2_262_000_000),
        ] {
            let shape = ModelShape::from_config(&config);
            assert_eq!(shape.kv_bytes_per_token, Some(kv));
            assert_eq!(shape.stored_weights(), Some(StoredWeights::new(4, Some(64))));
            assert_eq!((shape.family.as_deref(), shape.context_length), (Some("qwen3"), Some(40960)));
            let known = ModelRegistry::shared().get(alias).expect("registered");
            assert_eq!(known.kv_bytes_per_token, Some(kv));
            let estimate = known.memory_need(4096).expect("enough is known");
            // The files of these models on the hub have 335 MB and 2.26 GB.
            assert!(estimate.weights.abs_diff(weights) < weights / 100, "{estimate:?}");
            assert_eq!(estimate.kv_cache, kv * 4096);
            assert_eq!(estimate.total(), estimate.weights + estimate.kv_cache + estimate.working);
            assert!(!estimate.is_rough);
        }
    }

    #[test]
    fn hybrids_latent_attention_and_nested_configurations() {
        let hybrid = json!({"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
            "layer_types": ["conv", "full_attention", "linear_attention", "sliding_attention"]});
        assert_eq!(ModelShape::from_config(&hybrid).kv_bytes_per_token, Some(2 * 2 * 2 * 8 * 2));
        let latent = json!({"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64});
        assert_eq!(ModelShape::from_config(&latent).kv_bytes_per_token, Some(70_272));
        let nested = json!({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4}});
        let shape = ModelShape::from_config(&nested);
        assert_eq!((shape.family.as_deref(), shape.head_dim), (Some("gemma3"), Some(16)));
    }

    #[test]
    fn nonsense_is_absent() {
        for config in [
            json!(null),
            json!([1, 2]),
            json!("x"),
            json!({"hidden_size": -1, "num_attention_heads": 0, "num_hidden_layers": 1e300, "model_type": 7}),
            json!({"text_config": 3, "quantization": "4bit", "layer_types": {"a": 1}}),
        ] {
            let shape = ModelShape::from_config(&config);
            assert_eq!((shape.kv_bytes_per_token, shape.bits, shape.family), (None, None, None), "{config}");
        }
        let huge = json!({"num_hidden_layers": 1_u64 << 40, "num_attention_heads": 1_u64 << 40, "head_dim": 1_u64 << 40});
        assert_eq!(ModelShape::from_config(&huge).kv_bytes_per_token, None);
        let most = MemoryEstimate::new(u64::MAX, Some(u64::MAX), u64::MAX);
        assert_eq!(most.total(), u64::MAX);
    }

    #[test]
    fn numbers_are_read_as_they_come() {
        for (bits, expected) in [
            (json!(4), Some(4)),
            (json!("4"), Some(4)),
            (json!(4.0), Some(4)),
            (json!(null), None),
            (json!(4.5), None),
            (json!(-4), None),
            (json!(1e300), None),
            (json!("four"), None),
            (json!({"__float__": "NaN"}), None),
            (json!(18_446_744_073_709_551_615_u64), None),
        ] {
            let config =
                json!({"quantization": {"bits": bits, "group_size": "64"}, "num_hidden_layers": "2"});
            let shape = ModelShape::from_config(&config);
            assert_eq!((shape.bits, shape.group_size, shape.layers), (expected, Some(64), Some(2)), "{bits}");
            let estimate = shape.stored_weights().map(|stored| stored.bytes(u64::MAX));
            assert_eq!(estimate.is_some(), expected.is_some());
        }
        // What is null hides nothing.
        let config = json!({"quantization": null, "quantization_config": {"bits": 8}, "text_config": {"head_dim": null},
            "head_dim": 64});
        let shape = ModelShape::from_config(&config);
        assert_eq!((shape.bits, shape.head_dim), (Some(8), Some(64)));
    }

    #[test]
    fn speed_is_bandwidth_over_bytes() {
        let estimate = MemoryEstimate::new(1_000_000_000, Some(0), 4096);
        assert_eq!(estimate.tokens_per_second(10e9, 1.0).round(), 8.0);
        assert_eq!(estimate.tokens_per_second(10e9, 0.1).round(), 80.0);
        assert_eq!(MemoryEstimate::default().tokens_per_second(10e9, 1.0), 0.0);
    }

    #[test]
    fn needs_are_judged() {
        assert_eq!(Fit::of(8, 8, 10), Fit::Yes);
        assert_eq!(Fit::of(9, 8, 10), Fit::Tight);
        assert_eq!(Fit::of(10, 8, 10), Fit::No);
    }
}
