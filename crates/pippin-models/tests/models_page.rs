//! `docs/models.md`: every family, what it consists of, and what its results were compared with.
//!
//! The page is made of the registry and of the golden files. To write it anew:
//! `PIPPIN_WRITE_DOCS=1 cargo test -p pippin-models --test models_page`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use pippin_models::{Family, LayerSpec, ModelTypeRegistry, gguf_architectures, gguf_model_types};
use pippin_tensor::Reach;
use serde_json::Value;
use support::Golden;

const HEAD: &str = "\
# Models that Pippin runs

<!-- Written by `PIPPIN_WRITE_DOCS=1 cargo test -p pippin-models --test models_page`; the test compares. -->

What decides is `model_type` in a model's `config.json`, and the name in `architectures` where one stands behind it. Every family has tiny golden models: their logits, greedy tokens and states are compared with those of
the oracle, in one piece, in chunks, in ragged batches and from snapshots (`crates/pippin-models/tests/goldens.rs`, `tools/goldens/`). *Stored as* says in which types and
quantizations they are; what one family reads, all do: affine of 2, 3, 4, 5, 6 and 8 bits, `mxfp4`, `mxfp8`, `nvfp4`, mixed by layer, F16, BF16 and F32.
";

const GGUF: &str = "
## Architectures of GGUF files

What decides is `general.architecture` in a file's metadata. Each is compared with the golden models of its family: the tests write them as llama.cpp's converter does, and
what is read gives the same logits (`crates/pippin-models/tests/gguf/`). Where there are several, the rest of the metadata tells.

| `general.architecture` | read as |
|---|---|
";

/// `GatedDelta` as `gated delta`.
fn words(kind: &str) -> String {
    let mut words = String::new();
    for (index, letter) in kind.char_indices() {
        if letter.is_uppercase() && index > 0 {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// What the layers of a golden model consist of.
fn parts(golden: &Golden) -> BTreeSet<String> {
    let spec = ModelTypeRegistry::find(&golden.config).unwrap().spec(&golden.config).unwrap();
    let mut found = BTreeSet::new();
    for layer in &spec.layers {
        if matches!(layer, LayerSpec::AltUp(_)) {
            found.insert("alternating streams".to_owned());
        }
        for part in layer.parts() {
            let reach = match part {
                pippin_models::Part::Attention(attention) => attention.reach,
                _ => Reach::All,
            };
            found.insert(match reach {
                Reach::All => words(part.kind()),
                Reach::Window(_) => "attention in a window".to_owned(),
                Reach::Chunk(_) => "attention in chunks".to_owned(),
            });
        }
    }
    found
}

/// How a golden model's weights are stored.
fn stored_as(golden: &Golden) -> String {
    let config = golden.config.value();
    let section = config.get("quantization").or_else(|| config.get("text_config")?.get("quantization"));
    match section {
        None => golden.dtype.to_string(),
        Some(section) => match section.get("mode").and_then(Value::as_str) {
            Some(mode) if mode != "affine" => mode.to_owned(),
            _ => format!("{}-bit", section["bits"]),
        },
    }
}

fn page() -> String {
    let mut of_family: BTreeMap<&str, Vec<Golden>> = BTreeMap::new();
    for name in Golden::names() {
        let golden = Golden::read(&name);
        let family = ModelTypeRegistry::find(&golden.config).unwrap().name;
        of_family.entry(family).or_default().push(golden);
    }
    let families = ModelTypeRegistry::families();
    let model_types: usize = families.iter().map(|family| family.model_types.len()).sum();
    let goldens: usize = of_family.values().map(Vec::len).sum();
    let mut page = String::from(HEAD);
    write!(
        page,
        "\n{} families, {model_types} values of `model_type`, {goldens} golden models.\n\n\
         | family | `model_type` | layers of | compared with | golden models, stored as | not as in mlx-lm |\n\
         |---|---|---|---|---|---|\n",
        families.len()
    )
    .unwrap();
    for family in families {
        let own = of_family.get(family.name).map_or(&[][..], Vec::as_slice);
        page += &row(family, own);
    }
    page += GGUF;
    for name in gguf_architectures() {
        let types: Vec<String> = gguf_model_types(name).map(|name| format!("`{name}`")).collect();
        writeln!(page, "| `{name}` | {} |", types.join(" ")).unwrap();
    }
    page
}

fn row(family: &Family, goldens: &[Golden]) -> String {
    let list = |items: BTreeSet<String>| items.into_iter().collect::<Vec<_>>().join(", ");
    let mut types: Vec<String> = family.model_types.iter().map(|name| format!("`{name}`")).collect();
    let by_architecture = family.architectures.iter();
    types.extend(by_architecture.map(|(name, architecture)| format!("`{name}` (`{architecture}`)")));
    let oracles: BTreeSet<String> = goldens
        .iter()
        .map(|golden| golden.oracle.split(',').next().unwrap_or_default().trim().to_owned())
        .collect();
    format!(
        "| {} | {} | {} | {} | {}: {} | {} |\n",
        family.name,
        types.join(" "),
        list(goldens.iter().flat_map(parts).collect()),
        list(oracles),
        goldens.len(),
        list(goldens.iter().map(stored_as).collect()),
        family.note
    )
}

#[test]
fn the_page_is_what_the_registry_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let page = page();
    if std::env::var_os("PIPPIN_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/models.md is not what the registry and the golden files say. Write it anew:\n  \
         PIPPIN_WRITE_DOCS=1 cargo test -p pippin-models --test models_page"
    );
}

/// A family whose results were compared with nothing is a claim.
#[test]
fn every_family_has_a_dense_and_a_quantized_golden_model() {
    let mut kinds: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for name in Golden::names() {
        let golden = Golden::read(&name);
        let family = ModelTypeRegistry::find(&golden.config).unwrap().name;
        kinds.entry(family).or_default().insert(stored_as(&golden) == golden.dtype.to_string());
    }
    for family in ModelTypeRegistry::families() {
        assert_eq!(kinds.get(family.name).map(BTreeSet::len), Some(2), "{}", family.name);
    }
}

#[test]
fn families_and_their_model_types_are_in_order_and_belong_to_one() {
    let names: Vec<&str> = ModelTypeRegistry::families().iter().map(|family| family.name).collect();
    assert!(names.is_sorted(), "{names:?}");
    let types: Vec<&str> = ModelTypeRegistry::model_types().collect();
    assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), types.len());
}
