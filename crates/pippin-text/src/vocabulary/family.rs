//! Whose tokenizer a vocabulary is, which its file does not say.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::files;

/// What a folder says of the tokenizer's kind.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// `tokenizer_class`, without `Fast`; empty if the model's own code is meant, or nothing is said.
    pub(crate) class: String,
    /// `model_type` in `config.json`.
    pub(crate) model_type: String,
}

/// Values of `model_type` for which `transformers` 5 has one class, whatever the folder says, or takes that class where the folder
/// says nothing. An empty name is its general class, which goes by the vocabulary alone. Those that are missing have none.
const REGISTERED: &[(&str, &[&str])] = &[
    (
        "GemmaTokenizer",
        &["gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma"],
    ),
    (
        "Qwen2Tokenizer",
        &[
            "qwen2",
            "qwen2_moe",
            "qwen2_vl",
            "qwen2_5_vl",
            "qwen3",
            "qwen3_moe",
            "qwen3_next",
            "qwen3_vl",
            "qwen3_vl_moe",
        ],
    ),
    ("Qwen3_5Tokenizer", &["qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"]),
    ("GPT2Tokenizer", &["gpt2", "gptj", "phi", "starcoder2", "dbrx"]),
    ("GPTNeoXTokenizer", &["gpt_neox", "mamba", "mamba2", "olmo", "olmoe"]),
    ("CohereTokenizer", &["cohere", "cohere2"]),
    ("T5Tokenizer", &["t5", "mt5", "switch_transformers"]),
    ("XLMRobertaTokenizer", &["xlm-roberta", "gte", "jina_embeddings_v3"]),
    ("AlbertTokenizer", &["albert"]),
    (
        "",
        &[
            "ernie4_5",
            "ernie4_5_moe",
            "glm",
            "glm4",
            "glm4_moe",
            "glm4_moe_lite",
            "gpt_bigcode",
            "granite",
            "granitemoe",
            "granitemoehybrid",
            "internlm2",
            "internlm3",
            "jamba",
            "kimi_k25",
            "kimi_linear",
            "mimo_v2_flash",
            "minicpm3",
            "ministral",
            "ministral3",
            "mistral",
            "mistral3",
            "mistral4",
            "mixtral",
            "nemotron",
            "olmo2",
            "olmo3",
            "olmo_hybrid",
            "phi3",
            "phi3_v",
            "phimoe",
            "pixtral",
            "stablelm",
            "voxtral",
            "umt5",
        ],
    ),
];

/// Values of `model_type` whose folders often name a class that is not theirs.
const OFTEN_WRONG: &[&str] = &[
    "ernie4_5",
    "ernie4_5_moe",
    "internlm2",
    "internlm3",
    "jamba",
    "minicpm3",
    "nemotron",
    "phi3",
    "phi3_v",
    "phimoe",
    "qwen2",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
];

impl Family {
    /// Reads `config.json` for what `tokenizer_config.json`, the object given, does not say. A folder may have neither.
    pub(crate) fn of(dir: &Path, config: &Map<String, Value>) -> Result<Self> {
        let model = files::read_object(&dir.join("config.json"))?.unwrap_or_default();
        let text =
            |map: &Map<String, Value>, name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        let model_type = text(&model, "model_type").unwrap_or_default();
        let class = text(config, "tokenizer_class").or_else(|| text(&model, "tokenizer_class"));
        let class = class.map(|class| class.strip_suffix("Fast").unwrap_or(&class).to_owned());
        Ok(Self { class: Self::choose(class, &model_type), model_type })
    }

    /// The rule of `AutoTokenizer`: where the class of the model's type is a special one, the folder may name another, unless folders
    /// of its kind are known to be wrong; where it is the general one, that is taken.
    fn choose(class: Option<String>, model_type: &str) -> String {
        let registered =
            REGISTERED.iter().find(|(_, types)| types.contains(&model_type)).map(|(class, _)| *class);
        match (class, registered) {
            (Some(class), Some(registered))
                if !registered.is_empty() && (class == registered || !OFTEN_WRONG.contains(&model_type)) =>
            {
                class
            }
            // Its own code tells Qwen's first models, and Kimi's, from others.
            (Some(class), Some(_)) if class.to_lowercase().contains("tiktoken") => class,
            (_, Some(registered)) => registered.to_owned(),
            (class, None) => class.unwrap_or_default(),
        }
    }
}
