//! Vocabularies of well-known models, which are too large for the repository: `tools/tokenizers/real.py` fetches them into
//! `target/real/text`. Without them these tests say so, and check nothing; with `PIPPIN_FETCH=1` they fetch them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pippin_text::{GgufVocabulary, Tokenizer};
use pippin_weights::gguf::Gguf;

/// The folder, if it is there.
fn real() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = root.join("target/real/text");
        if std::env::var_os("PIPPIN_FETCH").is_some() && !folder.join("folders").is_dir() {
            let tool = root.join("tools/tokenizers/real.py");
            let status = Command::new("python3").arg(tool).arg(&folder).status();
            assert!(status.is_ok_and(|status| status.success()), "tools/tokenizers/real.py failed");
        }
        folder.join("vocab").is_dir().then_some(folder)
    });
    if found.is_none() {
        eprintln!("not checked: the vocabularies are not in target/real/text; PIPPIN_FETCH=1 fetches them");
    }
    found.as_deref()
}

fn gguf(path: &Path) -> Tokenizer {
    let vocabulary = GgufVocabulary::read(&Gguf::open(path).unwrap()).unwrap();
    Tokenizer::from_gguf(&vocabulary).unwrap_or_else(|error| panic!("{error}"))
}

/// The texts and ids beside a vocabulary, those of llama.cpp's own tests.
fn cases(path: &Path) -> Option<Vec<(String, Vec<u32>)>> {
    const SEPARATOR: &str = "\n__ggml_vocab_test__\n";
    let beside = |end: &str| fs::read_to_string(format!("{}{end}", path.display())).ok();
    let (texts, ids) = (beside(".inp")?, beside(".out")?);
    let texts: Vec<&str> = texts.strip_suffix(SEPARATOR).unwrap_or(&texts).split(SEPARATOR).collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!(texts.len(), ids.len(), "{}", path.display());
    Some(texts.into_iter().map(str::to_owned).zip(ids).collect())
}

#[test]
fn vocabularies_of_gguf_files_are_those_of_llama_cpp() {
    let Some(real) = real() else { return };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(real.join("vocab")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    paths.sort();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let tokenizer = gguf(&path);
        for (text, expected) in cases(&path).unwrap_or_default() {
            checked += 1;
            let found = tokenizer.encode(&text, false).unwrap();
            if found != expected {
                wrong.push(format!("{name}: {text:?}\n  expected {expected:?}\n  found    {found:?}"));
            }
            let whole = tokenizer.decode(&expected, true).unwrap();
            let piecewise = common::streamed(&tokenizer, &expected);
            if piecewise != whole {
                wrong.push(format!("{name}: {text:?} is {whole:?}, and in pieces {piecewise:?}"));
            }
        }
    }
    assert!(checked > 690, "{checked}");
    assert!(
        wrong.is_empty(),
        "{} of {checked} differ\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

/// The same model as a GGUF file and as `tokenizer.json`.
#[test]
fn vocabularies_of_gguf_files_are_those_of_tokenizer_json() {
    let Some(real) = real() else { return };
    let texts = common::texts();
    let mut wrong = Vec::new();
    for (file, folder) in [("llama-bpe", "llama3_1"), ("qwen2", "qwen3")] {
        let one = gguf(&real.join(format!("vocab/ggml-vocab-{file}.gguf")));
        let other = Tokenizer::from_dir(real.join("tokenizers").join(folder)).unwrap();
        for text in &texts {
            let [found, expected] = [&one, &other].map(|tokenizer| tokenizer.encode(text, false).unwrap());
            // Composed characters are decomposed, or not, before llama.cpp sees them; and each has tokens of its own.
            let is_own = text.contains('<')
                || text.contains('\u{301}')
                || text.contains('\u{307}')
                || text.contains('\u{30a}');
            if found != expected && !is_own {
                wrong.push(format!("{file}: {text:?}\n  expected {expected:?}\n  found    {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

#[test]
fn real_folders_are_those_of_transformers() {
    let Some(real) = real() else { return };
    let folders = real.join("folders");
    let texts = real.join("texts.json");
    if !texts.exists() {
        eprintln!("not checked: there are no expectations in {}", folders.display());
        return;
    }
    let texts: Vec<String> = serde_json::from_str(&fs::read_to_string(texts).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(folders).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("expected.json").exists() {
            wrong.extend(common::differences(&folder, &texts));
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}
