//! Which of a model's GGUF files are meant.
//!
//! A repository of GGUF files has the same model many times over, quantized in different ways; which way it is stands in the
//! names of the files. Large ones are split into sets. Files that belong to another part of the model (`mmproj`), or that are no
//! model (`imatrix`), are left out.

use std::path::{Path, PathBuf};

use pippin_weights::gguf::SplitName;

/// One quantization of a model: a file, or the files that it was split into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GgufSet {
    /// What names call it, in capitals: `Q4_K_M`; the file's name where that does not say.
    pub(crate) label: String,
    /// Its files in order, by name within the model.
    pub(crate) files: Vec<String>,
    /// Those of them that are not there.
    pub(crate) missing: Vec<String>,
}

/// Why none is chosen, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotChosen {
    /// There is none that is wanted.
    None(String),
    /// There are several.
    Several(String),
}

impl From<NotChosen> for String {
    fn from(error: NotChosen) -> Self {
        match error {
            NotChosen::None(problem) | NotChosen::Several(problem) => problem,
        }
    }
}

/// The quantizations that some files are, by label.
pub(crate) fn sets<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<GgufSet> {
    let names: Vec<&str> = names.into_iter().filter(|name| is_model(name)).collect();
    let mut sets: Vec<GgufSet> = Vec::new();
    for name in &names {
        let files: Vec<String> = match SplitName::of(name) {
            Some(split) => split.names().collect(),
            None => vec![(*name).to_owned()],
        };
        if sets.iter().any(|set| set.files == files) {
            continue;
        }
        let missing = files.iter().filter(|file| !names.contains(&file.as_str())).cloned().collect();
        sets.push(GgufSet { label: label(name), files, missing });
    }
    sets.sort_by(|a, b| (&a.label, &a.files).cmp(&(&b.label, &b.files)));
    sets
}

/// The one that is wanted, by its label or by the name of a file; or the only one there is.
///
/// # Errors
///
/// What is wrong, in words, with a list of what there is.
pub(crate) fn choose(sets: &[GgufSet], wanted: Option<&str>) -> Result<GgufSet, NotChosen> {
    let labels = || sets.iter().map(|set| set.label.as_str()).collect::<Vec<_>>().join(", ");
    let found: Vec<&GgufSet> = match wanted {
        None => sets.iter().collect(),
        Some(wanted) => {
            let is_file = |set: &&GgufSet| {
                set.files.iter().any(|file| {
                    let name = file.rsplit('/').next().unwrap_or(file);
                    let stem = name.strip_suffix(".gguf").unwrap_or(name);
                    [file.as_str(), name, stem].contains(&wanted)
                })
            };
            let by_label = sets.iter().filter(|set| set.label.eq_ignore_ascii_case(wanted));
            let by_label: Vec<&GgufSet> = by_label.collect();
            if by_label.is_empty() { sets.iter().filter(is_file).collect() } else { by_label }
        }
    };
    Err(match (found.as_slice(), wanted) {
        ([set], _) => return Ok((*set).clone()),
        ([], None) => NotChosen::None("it has no GGUF file of a model".to_owned()),
        ([], Some(wanted)) if sets.is_empty() => {
            NotChosen::None(format!("it has no GGUF files, and so no quantization {wanted:?}"))
        }
        ([], Some(wanted)) => {
            NotChosen::None(format!("it has no quantization {wanted:?}; it has {}", labels()))
        }
        (_, None) => NotChosen::Several(format!("it has several quantizations: {}; say which", labels())),
        (several, Some(wanted)) => {
            let files: Vec<&str> =
                several.iter().filter_map(|set| set.files.first()).map(String::as_str).collect();
            let files = files.join(", ");
            NotChosen::Several(format!("{wanted:?} may be any of {files}: give the name of the file"))
        }
    })
}

/// The GGUF file that a folder stands for, the first of a set: the one that is wanted, or the only one; `None` where a folder
/// has none at all.
pub(crate) fn in_folder(folder: &Path, wanted: Option<&str>) -> Option<Result<PathBuf, String>> {
    let names = names_in(folder);
    let sets = sets(names.iter().map(String::as_str));
    if sets.is_empty() && wanted.is_none() {
        return None;
    }
    Some(choose(&sets, wanted).map_err(String::from).and_then(|set| {
        match (set.missing.first(), set.files.first()) {
            (Some(missing), _) => Err(format!("no {missing:?}")),
            (None, Some(first)) => Ok(folder.join(first)),
            (None, None) => Err("it has no GGUF file of a model".to_owned()),
        }
    }))
}

/// The names of GGUF files in a folder and in the folders in it, which have one a quantization.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let entries = |folder: &Path| folder.read_dir().into_iter().flatten().flatten();
    for entry in entries(folder) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if is_model(&name) && entry.path().is_file() {
            names.push(name);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let inner = entries(&entry.path()).filter_map(|entry| entry.file_name().into_string().ok());
            names.extend(inner.filter(|inner| is_model(inner)).map(|inner| format!("{name}/{inner}")));
        }
    }
    names.sort();
    names
}

/// Whether a file's name is that of a model's GGUF file.
pub(crate) fn is_model(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    file.ends_with(".gguf") && !["mmproj", "imatrix"].iter().any(|other| file.contains(other))
}

/// What a file's name says of its quantization: the last of its parts that are a type of ggml's, with what may be before it.
fn label(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    let stem = match SplitName::of(file) {
        Some(split) => split.prefix,
        None => file[..file.len().saturating_sub(".gguf".len())].to_owned(),
    };
    let parts: Vec<&str> = stem.split(['-', '.']).collect();
    let Some(at) = parts.iter().rposition(|part| is_quantization(part)) else { return stem };
    let is_dynamic = at > 0 && parts[at - 1].eq_ignore_ascii_case("UD");
    let label = if is_dynamic { format!("UD-{}", parts[at]) } else { parts[at].to_owned() };
    label.to_ascii_uppercase()
}

fn is_quantization(part: &str) -> bool {
    let part = part.to_ascii_uppercase();
    let number_after = |prefix: &str| {
        part.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()) && rest.len() > 1)
    };
    ["Q", "IQ", "TQ"].into_iter().any(number_after)
        || ["F16", "F32", "BF16", "FP16", "MXFP4", "NVFP4"].into_iter().any(|known| part.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 9] = [
        "Quince-4B-Q4_K_M.gguf",
        "Quince-4B-UD-Q4_K_XL.gguf",
        "Quince-4B.q8_0.gguf",
        "BF16/Quince-4B-BF16-00001-of-00002.gguf",
        "BF16/Quince-4B-BF16-00002-of-00002.gguf",
        "mmproj-Quince-F16.gguf",
        "imatrix.gguf",
        "README.md",
        "Quince-4B-IQ4_XS-00001-of-00003.gguf",
    ];

    #[test]
    fn quantizations_are_found_by_the_names_of_files() {
        let sets = sets(NAMES);
        let labels: Vec<&str> = sets.iter().map(|set| set.label.as_str()).collect();
        assert_eq!(labels, ["BF16", "IQ4_XS", "Q4_K_M", "Q8_0", "UD-Q4_K_XL"]);
        assert_eq!(sets[0].files.len(), 2);
        assert_eq!(sets[1].missing.len(), 2);
        fn choose(sets: &[GgufSet], wanted: Option<&str>) -> Result<GgufSet, String> {
            Ok(super::choose(sets, wanted)?)
        }
        let file = |wanted: &str| choose(&sets, Some(wanted)).map(|set| set.files[0].clone());
        assert_eq!(file("q4_k_m").unwrap(), "Quince-4B-Q4_K_M.gguf");
        assert_eq!(file("Q8_0").unwrap(), "Quince-4B.q8_0.gguf");
        assert_eq!(file("Quince-4B-Q4_K_M").unwrap(), "Quince-4B-Q4_K_M.gguf");
        assert_eq!(file("bf16").unwrap(), "BF16/Quince-4B-BF16-00001-of-00002.gguf");
        assert_eq!(
            file("Q5_K_M").unwrap_err(),
            "it has no quantization \"Q5_K_M\"; it has BF16, IQ4_XS, Q4_K_M, Q8_0, UD-Q4_K_XL"
        );
        let several = choose(&sets, None).unwrap_err();
        assert!(several.contains("several quantizations: BF16, IQ4_XS"), "{several}");
        assert!(choose(&[], Some("Q4_0")).unwrap_err().contains("no GGUF files"));
        assert!(choose(&[], None).is_err());
        let twins = super::sets(["a-Q4_0.gguf", "b-Q4_0.gguf"]);
        assert!(choose(&twins, Some("Q4_0")).unwrap_err().contains("a-Q4_0.gguf, b-Q4_0.gguf"));
        assert_eq!(choose(&twins, Some("b-Q4_0")).unwrap().files, ["b-Q4_0.gguf"]);
        assert_eq!(super::sets(["model.gguf"])[0].label, "model");
    }

    #[test]
    fn a_folder_stands_for_its_only_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(folder.path(), None), None);
        let add = |name: &str| {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), "").unwrap();
        };
        add("BF16/m-BF16-00001-of-00002.gguf");
        assert!(in_folder(folder.path(), None).unwrap().unwrap_err().contains("00002-of-00002"));
        add("BF16/m-BF16-00002-of-00002.gguf");
        let first = folder.path().join("BF16/m-BF16-00001-of-00002.gguf");
        assert_eq!(in_folder(folder.path(), None), Some(Ok(first.clone())));
        add("m-Q4_0.gguf");
        assert!(in_folder(folder.path(), None).unwrap().is_err());
        assert_eq!(in_folder(folder.path(), Some("bf16")), Some(Ok(first)));
    }
}
