use std::path::{Path, PathBuf};

/// The folder name of the shipped model.
const FOLDER: &str = "pippin-nano-4bit";

/// Where the shipped model may be, likeliest first.
///
/// An installed binary has it under `share`, an unpacked archive beside the executable, a build in the repository's
/// `models`, some levels above `target/release`.
pub(crate) fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut add = |path: PathBuf| {
        if !found.contains(&path) {
            found.push(path);
        }
    };
    if let Some(folder) = std::env::var_os("PIPPIN_NANO_DIR").filter(|value| !value.is_empty()) {
        // Whoever sets the variable means this folder and no other.
        return vec![crate::expand_path(folder)];
    }
    if let Ok(executable) = std::env::current_exe().and_then(|path| path.canonicalize())
        && let Some(folder) = executable.parent()
    {
        add(folder.join("models").join(FOLDER));
        if let Some(prefix) = folder.parent() {
            add(prefix.join("share").join("pippin").join("models").join(FOLDER));
        }
        // target/release/deps/… and a custom profile or target triple are at most five levels down.
        for ancestor in folder.ancestors().skip(1).take(5) {
            add(ancestor.join("models").join(FOLDER));
        }
    }
    if let Ok(folder) = std::env::current_dir() {
        for ancestor in folder.ancestors() {
            add(ancestor.join("models").join(FOLDER));
        }
    }
    // The source tree that this was built from: tests and `cargo run` with a target folder elsewhere.
    if let Some(workspace) = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2) {
        add(workspace.join("models").join(FOLDER));
    }
    found
}
