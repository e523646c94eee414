//! Running the program, and making models for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pippin_weights::{TensorData, write_safetensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program, in an environment of its own: no variables of the tester, an empty cache.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pippin"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PIPPIN_") {
            command.env_remove(name);
        }
    }
    command.env("HF_HUB_CACHE", std::env::temp_dir().join("pippin-tests-no-such-cache"));
    command.env("XDG_CONFIG_HOME", std::env::temp_dir().join("pippin-tests-no-such-configuration"));
    command.env("NO_COLOR", "1");
    command
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program without input.
pub(crate) fn pippin(arguments: &[&str]) -> Outcome {
    pippin_with(arguments, b"")
}

/// Runs the program with this on its standard input.
pub(crate) fn pippin_with(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command = program();
    command.args(arguments);
    finish(&mut command, input)
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // A program that fails early does not read; that is its right.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("no panic");
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    };
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    outcome
}

impl Outcome {
    /// Expects success, and returns what was printed.
    #[track_caller]
    pub(crate) fn answer(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Expects success, and reads what was printed as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.answer();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Expects a failure that prints nothing but an error with these parts.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {self:?}");
        }
        self
    }

    /// Expects a hint with this part.
    #[track_caller]
    pub(crate) fn hints(self, part: &str) {
        let hint = self.stderr.lines().find(|line| line.starts_with("hint: "));
        assert!(hint.is_some_and(|hint| hint.contains(part)), "{self:?}");
    }
}

/// A model that answers nonsense: one layer of random weights, and a token for each byte.
pub(crate) struct TinyModel {
    folder: TempDir,
    pub(crate) config: Value,
    pub(crate) tokenizer: Value,
    pub(crate) tokenizer_config: Value,
    /// A tensor one of whose numbers is none.
    pub(crate) spoiled: Option<&'static str>,
}

/// Bytes, and one token that ends answers.
const VOCAB: usize = 257;
const HIDDEN: usize = 32;

impl TinyModel {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            config: json!({
                "model_type": "llama",
                "hidden_size": HIDDEN,
                "num_hidden_layers": 1,
                "intermediate_size": HIDDEN,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "rms_norm_eps": 1e-5,
                "vocab_size": VOCAB,
                "max_position_embeddings": 512,
                "rope_theta": 10000.0,
                "tie_word_embeddings": true,
            }),
            tokenizer: tokenizer(),
            tokenizer_config: json!({
                "chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ",
            }),
            spoiled: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes all files, and returns the folder's name.
    pub(crate) fn write(&self) -> &str {
        for (name, value) in [
            ("config.json", &self.config),
            ("tokenizer.json", &self.tokenizer),
            ("tokenizer_config.json", &self.tokenizer_config),
        ] {
            fs::write(self.file(name), value.to_string()).expect("written");
        }
        let mut tensors = tensors();
        for tensor in tensors.iter_mut().filter(|tensor| self.spoiled == Some(tensor.name())) {
            let mut values = tensor.to_f32().expect("numbers");
            values[0] = f32::NAN;
            *tensor = TensorData::from_f32(tensor.name(), tensor.shape(), &values).expect("a tensor");
        }
        write_safetensors(&self.file("model.safetensors"), &tensors, &BTreeMap::new()).expect("written");
        self.path().to_str().expect("UTF-8")
    }
}

fn tensors() -> Vec<TensorData> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let half = HIDDEN / 2;
    let mut tensors = vec![
        random("model.embed_tokens.weight", &[VOCAB, HIDDEN]),
        ones("model.norm.weight"),
        ones(&layer("input_layernorm")),
        ones(&layer("post_attention_layernorm")),
    ];
    for (name, shape) in [
        ("self_attn.q_proj", [HIDDEN, HIDDEN]),
        ("self_attn.k_proj", [half, HIDDEN]),
        ("self_attn.v_proj", [half, HIDDEN]),
        ("self_attn.o_proj", [HIDDEN, HIDDEN]),
        ("mlp.gate_proj", [HIDDEN, HIDDEN]),
        ("mlp.up_proj", [HIDDEN, HIDDEN]),
        ("mlp.down_proj", [HIDDEN, HIDDEN]),
    ] {
        tensors.push(random(&layer(name), &shape));
    }
    tensors
}

fn ones(name: &str) -> TensorData {
    TensorData::from_f32(name, &[HIDDEN], &[1.0; HIDDEN]).expect("a tensor")
}

/// Numbers between −0.5 and 0.5 that follow from the tensor's name.
fn random(name: &str, shape: &[usize]) -> TensorData {
    let mut state =
        name.bytes().fold(1_u64, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        })
        .collect();
    TensorData::from_f32(name, shape, &values).expect("a tensor")
}

/// A byte-level tokenizer without merges.
fn tokenizer() -> Value {
    let mut spare = 0x100;
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255_u8 {
        // As GPT-2 has it: printable bytes stand for themselves, the others for letters further on.
        let character = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                spare += 1;
                char::from_u32(spare - 1).expect("a character")
            }
        };
        vocab.insert(character.to_string(), json!(byte));
    }
    let end = json!({
        "id": VOCAB - 1, "content": "<end>", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    });
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0",
        "added_tokens": [end],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}
