//! Models of which a repository has several quantizations, as GGUF files.

use std::fs;

use pippin_weights::gguf::{GgmlType, GgufWriter};
use serde_json::Value;

use crate::hub::{COMMIT, Model};
use crate::store::Place;

/// A block of the types with several scales has so many numbers.
const HIDDEN: usize = 256;
/// Bytes, and one token that ends answers.
const VOCAB: usize = 257;

/// What is said of a model: one layer, and a token for each byte.
fn metadata(file: &mut GgufWriter) {
    file.string("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 512),
        ("embedding_length", HIDDEN as u32),
        ("feed_forward_length", HIDDEN as u32),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 8),
    ] {
        file.u32(&format!("llama.{key}"), value);
    }
    file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    let mut spare = 0x100;
    let mut tokens: Vec<String> = (0..=255_u8)
        .map(|byte| {
            // As GPT-2 has it: printable bytes stand for themselves, the others for letters further on.
            let character = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
                _ => {
                    spare += 1;
                    char::from_u32(spare - 1).expect("a character")
                }
            };
            character.to_string()
        })
        .collect();
    tokens.push("<end>".to_owned());
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut types = vec![1; VOCAB];
    types[VOCAB - 1] = 3;
    file.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "default");
    file.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &types);
    file.strings("tokenizer.ggml.merges", &["a b"]).u32("tokenizer.ggml.eos_token_id", VOCAB as u32 - 1);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";
    file.string("tokenizer.chat_template", template);
}

/// Its tensors, of a type, as name and rows; norms have none.
const TENSORS: [(&str, usize); 11] = [
    ("token_embd", VOCAB),
    ("output_norm", 0),
    ("blk.0.attn_norm", 0),
    ("blk.0.attn_q", HIDDEN),
    ("blk.0.attn_k", HIDDEN),
    ("blk.0.attn_v", HIDDEN),
    ("blk.0.attn_output", HIDDEN),
    ("blk.0.ffn_norm", 0),
    ("blk.0.ffn_gate", HIDDEN),
    ("blk.0.ffn_up", HIDDEN),
    ("blk.0.ffn_down", HIDDEN),
];

/// Numbers that follow from a seed, in blocks whose scales are 1/128.
fn tensor(file: &mut GgufWriter, name: &str, rows: usize, kind: GgmlType) {
    const SCALE: [u8; 2] = [0, 0x20];
    let name = format!("{name}.weight");
    if rows == 0 {
        file.tensor(&name, GgmlType::F32, &[HIDDEN], &1.0_f32.to_le_bytes().repeat(HIDDEN));
        return;
    }
    let mut state = name.bytes().fold(1_u32, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
    let blocks = rows * HIDDEN / kind.block_len();
    let mut bytes = Vec::with_capacity(blocks * kind.block_bytes());
    for _ in 0..blocks {
        let first = bytes.len();
        for _ in 0..kind.block_bytes() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push((state >> 24) as u8);
        }
        bytes[first..first + 2].copy_from_slice(&SCALE);
        if kind == GgmlType::Q4_K {
            bytes[first + 2..first + 4].copy_from_slice(&SCALE);
        }
    }
    file.tensor(&name, kind, &[rows, HIDDEN], &bytes);
}

fn whole(kind: GgmlType) -> Vec<u8> {
    let mut file = GgufWriter::new();
    metadata(&mut file);
    for (name, rows) in TENSORS {
        tensor(&mut file, name, rows, kind);
    }
    file.bytes()
}

/// The same in two files.
fn split(kind: GgmlType) -> [Vec<u8>; 2] {
    let (first, second) = TENSORS.split_at(4);
    [(0, first), (1, second)].map(|(number, tensors)| {
        let mut file = GgufWriter::new();
        if number == 0 {
            metadata(&mut file);
        }
        file.u32("split.no", number).u32("split.count", 2);
        file.u32("split.tensors.count", TENSORS.len() as u32);
        for (name, rows) in tensors {
            tensor(&mut file, name, *rows, kind);
        }
        file.bytes()
    })
}

fn place() -> Place {
    let [first, second] = split(GgmlType::Q8_0);
    let model = Model::new(COMMIT)
        .with("README.md", b"# A model\n".to_vec())
        .with_lfs("tiny-Q4_K_M.gguf", whole(GgmlType::Q4_K))
        .with_lfs("tiny-Q4_0.gguf", whole(GgmlType::Q4_0))
        .with_lfs("Q8_0/tiny-Q8_0-00001-of-00002.gguf", first)
        .with_lfs("Q8_0/tiny-Q8_0-00002-of-00002.gguf", second);
    Place::with(model)
}

#[test]
fn one_quantization_is_pulled_shown_run_and_removed() {
    let place = place();
    let name = "hf:org/tiny:Q4_K_M";
    place.pippin(&["run", name, "hello"]).fails(3, &["org/tiny"]).hints("pippin pull org/tiny:Q4_K_M");
    let plan = place.pippin(&["pull", name, "--dry-run", "--json"]).json();
    let bytes = whole(GgmlType::Q4_K).len();
    assert_eq!(plan["missing_bytes"], bytes, "{plan}");
    place.pippin(&["pull", name]).answer();
    assert_eq!(place.hub.sent("Q8_0/tiny-Q8_0-00001-of-00002.gguf"), 0);

    let show = place.pippin(&["show", name, "--json"]).json();
    assert_eq!(show["quantization"]["bits"], 4, "{show}");
    assert_eq!(show["model_type"], "llama", "{show}");
    let found = |name: &str| {
        place.pippin(&["run", name, "hello", "--max-tokens", "4", "--temperature", "0"]).answer()
    };
    let answer = found(name);
    // The only one that is there needs no name, and capitals are not needed.
    assert_eq!(found("org/tiny"), answer);
    assert_eq!(found("org/tiny:q4_k_m"), answer);
    let list = place.pippin(&["list", "--json"]).json();
    assert_eq!((&list[0]["complete"], &list[0]["verified"]), (&true.into(), &true.into()), "{list}");

    // With two, which one has to be said; removing one leaves the other.
    place.pippin(&["pull", "org/tiny:Q4_0"]).answer();
    place.pippin(&["run", "org/tiny", "hello"]).fails(3, &["several quantizations: Q4_0, Q4_K_M"]);
    place.pippin(&["rm", "org/tiny:Q4_0", "--yes"]).answer();
    assert_eq!(found(name), answer);
    place.pippin(&["run", "org/tiny:Q4_0", "hello"]).fails(3, &["org/tiny:Q4_0 "]).hints("org/tiny:Q4_0");
    let outcome = place.pippin(&["show", "org/tiny:Q4_0"]);
    assert!(outcome.stderr.contains("pippin pull org/tiny:Q4_0"), "{outcome:?}");
    place.pippin(&["rm", name, "--yes"]).answer();
    assert_eq!(place.pippin(&["list", "--json"]).json(), Value::Array(Vec::new()));
}

#[test]
fn a_quantization_in_several_files_is_one_model() {
    let place = place();
    let name = "hf:org/tiny:Q8_0";
    place.pippin(&["pull", name]).answer();
    let show = place.pippin(&["show", name, "--json"]).json();
    assert_eq!(show["quantization"]["bits"], 8, "{show}");
    let answer = place.pippin(&["run", name, "hello", "--max-tokens", "4", "--temperature", "0"]).answer();
    // As from a folder, by any of its files.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paths = [1, 2].map(|number| folder.path().join(format!("tiny-{number:05}-of-00002.gguf")));
    for (path, bytes) in paths.iter().zip(split(GgmlType::Q8_0)) {
        fs::write(path, bytes).expect("written");
    }
    for path in &paths {
        let path = path.to_str().expect("UTF-8");
        let found = place.pippin(&["run", path, "hello", "--max-tokens", "4", "--temperature", "0"]).answer();
        assert_eq!(found, answer);
    }
    fs::remove_file(&paths[1]).expect("removed");
    let path = paths[0].to_str().expect("UTF-8");
    place.pippin(&["run", path, "hello"]).fails(4, &["tiny-00002-of-00002.gguf"]);
    place.pippin(&["rm", name, "--yes"]).answer();
}

#[test]
fn quantizations_that_are_not_there_are_refused_with_a_list() {
    let place = place();
    let list = "Q4_0, Q4_K_M, Q8_0";
    place.pippin(&["pull", "hf:org/tiny:Q5_K_M"]).fails(3, &["no quantization \"Q5_K_M\"", list]);
    place.pippin(&["pull", "org/tiny"]).fails(3, &["several quantizations", list]);
    let outcome = place.pippin(&["run", "hf:org/tiny:Q5_K_M", "hello", "--yes"]);
    outcome.fails(3, &["no quantization \"Q5_K_M\"", list]);
    assert_eq!(place.hub.sent("tiny-Q4_0.gguf"), 0);
    place.pippin(&["pull", "org/tiny:Q4_0"]).answer();
    place.pippin(&["show", "org/tiny:Q6_K"]).fails(3, &["Q6_K", list]);
    place.pippin(&["rm", "org/tiny:Q6_K", "--yes"]).fails(3, &["Q6_K"]);
}
