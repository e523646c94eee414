//! Whatever the bytes of a GGUF file are, it is read or refused: no panic, no access beyond the file, no large allocation.
//!
//! `cargo +nightly fuzz run gguf -- -rss_limit_mb=512`, in the project's folder.

#![no_main]

use std::fs;
use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use pippin_weights::gguf::Gguf;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("model.gguf");
    if fs::write(&path, bytes).is_err() {
        return;
    }
    match Gguf::open(&path) {
        Err(error) => {
            black_box((error.to_string(), error.hint()));
        }
        Ok(file) => {
            for (key, value) in file.metadata() {
                black_box((value.describe(), file.integers(key).is_ok(), file.floats(key).is_ok()));
            }
            for tensor in file.tensors() {
                black_box(tensor.bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
            }
        }
    }
});
