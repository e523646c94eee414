//! Models from GGUF files: llama.cpp's metadata becomes a configuration, and its tensors those that a family asks for.
//!
//! ```text
//! metadata ──Architecture──▶ Config  ─┐
//!                                     ├─▶ as from a folder
//! tensors  ──names, rows──▶ Checkpoint┘
//! ```
//!
//! An [architecture](architectures) is an entry in a table: which family it is, what its configuration has beyond what all
//! have, what its tensors are called, and what llama.cpp's converter has changed in them. A tensor that has no place is an
//! error, as it would change the result; so is an architecture that is not in the table, before any weight is read.

mod architectures;
mod dense;
mod gemma;
mod metadata;
mod mixtures;
mod recurrent;
mod tensors;

use std::path::Path;

use pippin_weights::Checkpoint;
use pippin_weights::gguf::Gguf;

use crate::published::Tensors;
use crate::{Config, ModelError, Result};
use architectures::{ARCHITECTURES, Architecture};
use metadata::Metadata;

/// Whether a path is meant as a GGUF file: one with this ending that is not a folder.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// The configuration that a GGUF file's metadata stands for, with the fields of a `config.json`.
///
/// # Errors
///
/// The architecture is none that this version knows (the message lists those it does), or a key is missing or of the wrong
/// type.
pub fn gguf_config(file: &Gguf) -> Result<Config> {
    let architecture = architecture(file)?;
    let mut metadata = Metadata::new(file)?;
    metadata.read_common()?;
    (architecture.config)(&mut metadata)?;
    metadata.into_config(architecture.model_type)
}

/// The configuration and the tensors of a GGUF file's model, named as its family asks for them. None of them is read yet;
/// those of ggml's block types will be repacked when they are.
///
/// # Errors
///
/// As [`gguf_config`]; and a tensor that has no place in the model, or is of a type that is not read.
pub fn gguf_model(file: &Gguf) -> Result<(Config, Checkpoint)> {
    let config = gguf_config(file)?;
    let architecture = architecture(file)?;
    let metadata = Metadata::new(file)?;
    let mut tensors = Tensors::default();
    for tensor in file.tensors() {
        tensors::place(architecture, &metadata, tensor, &mut tensors)?;
    }
    (architecture.finish)(&metadata, &mut tensors)?;
    let checkpoint = Checkpoint::of_gguf(file, Vec::new());
    Ok((config, tensors.into_checkpoint(&checkpoint)))
}

/// llama.cpp's names of the architectures that are read.
pub fn gguf_architectures() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().filter(|architecture| architecture.is_there()).map(|architecture| architecture.name)
}

/// The values of `model_type` of the families that an architecture of llama.cpp's may be, the usual one first; none for an
/// architecture that is not read.
pub fn gguf_model_types(architecture: &str) -> impl Iterator<Item = &'static str> {
    let found = ARCHITECTURES.iter().find(|known| known.name == architecture);
    found.into_iter().flat_map(|known| std::iter::once(known.model_type).chain(known.others.iter().copied()))
}

fn architecture(file: &Gguf) -> Result<&'static Architecture> {
    let name = file.architecture()?;
    let found = ARCHITECTURES.iter().find(|architecture| architecture.name == name);
    found.filter(|architecture| architecture.is_there()).ok_or_else(|| ModelError::Unsupported {
        file: file.path().display().to_string(),
        field: "general.architecture".to_owned(),
        found: crate::config::show(&name.into()),
        known: gguf_architectures().collect(),
    })
}
