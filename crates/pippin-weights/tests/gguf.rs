//! GGUF files: what good ones hold, and that damaged and hostile ones are a clear error, never a panic, never a large
//! allocation.

use std::fs;
use std::path::Path;

use pippin_weights::WeightsError;
use pippin_weights::gguf::{GgmlType, Gguf, GgufValue, GgufWriter};
use proptest::prelude::*;

#[path = "support/hostile.rs"]
mod hostile;

/// Opens these bytes as a file, under a bound on memory.
fn open(bytes: &[u8]) -> Result<Gguf, WeightsError> {
    hostile::open("model.gguf", bytes, Gguf::open)
}

#[track_caller]
fn assert_refused(bytes: &[u8], parts: &[&str]) {
    hostile::assert_refused(open(bytes), parts);
}

fn good() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer
        .string("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .f32("llama.rope.freq_base", 10_000.0)
        .bool("tokenizer.ggml.add_bos_token", true)
        .strings("tokenizer.ggml.tokens", &["", "a", "ü"])
        .i32s("tokenizer.ggml.token_type", &[1, -2, 3])
        .f32s("tokenizer.ggml.scores", &[0.5, -1.0, 0.0])
        .tensor("a", GgmlType::F32, &[2, 3], &[1; 24])
        .tensor("none", GgmlType::F16, &[0, 3], &[])
        .tensor("b", GgmlType::Q4_0, &[1, 2, 32], &[2; 36]);
    writer
}

#[test]
fn a_good_file_opens() {
    let file = open(&good().bytes()).unwrap();
    assert_eq!((file.version(), file.architecture().unwrap()), (3, "llama"));
    assert_eq!(file.count("llama.block_count").unwrap(), Some(2));
    assert_eq!(file.whole("llama.block_count").unwrap(), Some(2));
    assert_eq!(file.number("llama.block_count").unwrap(), Some(2.0));
    assert_eq!(file.number("llama.rope.freq_base").unwrap(), Some(10_000.0));
    assert_eq!(file.flag("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    let tokens = file.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens.iter().collect::<Vec<_>>(), ["", "a", "ü"]);
    assert_eq!((tokens.get(2), tokens.get(3)), (Some("ü"), None));
    assert_eq!(file.integers("tokenizer.ggml.token_type").unwrap().unwrap(), [1, -2, 3]);
    assert_eq!(file.floats("tokenizer.ggml.scores").unwrap().unwrap(), [0.5, -1.0, 0.0]);
    assert_eq!(file.metadata().len(), 7);
    assert_eq!(file.files().count(), 1);

    let names: Vec<&str> = file.tensors().map(|tensor| tensor.name()).collect();
    assert_eq!(names, ["a", "b", "none"]);
    let b = file.tensor("b").unwrap();
    assert_eq!((b.kind(), b.shape(), b.bytes()), (GgmlType::Q4_0, &[1, 2, 32][..], &[2; 36][..]));
    assert_eq!(file.tensor("a").unwrap().bytes(), [1; 24]);
    assert!(file.tensor("none").unwrap().bytes().is_empty());
    assert!(file.tensor("c").is_none());
}

#[test]
fn version_2_is_read_and_others_are_refused_by_name() {
    let with = |version: u32| {
        let mut bytes = good().bytes();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes
    };
    assert_eq!(open(&with(2)).unwrap().version(), 2);
    assert_refused(&with(1), &["the version at byte 4", "version 1 is not read"]);
    assert_refused(&with(4), &["version 4 is not read"]);
    assert_refused(&with(3u32.swap_bytes()), &["big-endian", "version 3"]);
}

#[test]
fn values_of_another_type_are_named() {
    let file = open(&good().bytes()).unwrap();
    let message = file.string("llama.block_count").unwrap_err().to_string();
    assert!(message.ends_with("metadata key `llama.block_count`: must be a string, found 2"), "{message}");
    assert!(file.count("tokenizer.ggml.tokens").unwrap_err().to_string().contains("a list of 3 strings"));
    assert!(file.flag("llama.block_count").is_err() && file.number("general.architecture").is_err());
    assert!(
        file.integers("tokenizer.ggml.scores").is_err() && file.strings("tokenizer.ggml.scores").is_err()
    );
    assert!(file.floats("general.architecture").is_err());
    assert_eq!(file.string("nowhere").unwrap(), None);
    assert!(
        open(&GgufWriter::new().bytes())
            .unwrap()
            .architecture()
            .unwrap_err()
            .to_string()
            .contains("is missing")
    );
}

#[test]
fn every_type_of_value() {
    let mut writer = GgufWriter::new();
    writer
        .raw("u8", 0, &[200])
        .raw("i8", 1, &[0xfe])
        .raw("u16", 2, &[1, 1])
        .raw("i16", 3, &[0xff, 0xff])
        .raw("u32", 4, &[0xff; 4])
        .raw("i32", 5, &[0xff; 4])
        .raw("f32", 6, &1.5f32.to_le_bytes())
        .raw("bool", 7, &[1])
        .raw("u64", 10, &[0xff; 8])
        .raw("i64", 11, &[0xff; 8])
        .raw("f64", 12, &2.5f64.to_le_bytes())
        .list("bools", 7, &[vec![0], vec![1]]);
    let inner = |values: &[u8]| [&[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..], values].concat();
    writer.list("nested", 9, &[inner(&[1, 2]), inner(&[3, 4])]);
    let file = open(&writer.bytes()).unwrap();
    let expected = [
        ("u8", GgufValue::Unsigned(200)),
        ("i8", GgufValue::Signed(-2)),
        ("u16", GgufValue::Unsigned(257)),
        ("i16", GgufValue::Signed(-1)),
        ("u32", GgufValue::Unsigned(u32::MAX.into())),
        ("i32", GgufValue::Signed(-1)),
        ("f32", GgufValue::F32(1.5)),
        ("bool", GgufValue::Bool(true)),
        ("u64", GgufValue::Unsigned(u64::MAX)),
        ("i64", GgufValue::Signed(-1)),
        ("f64", GgufValue::F64(2.5)),
    ];
    for (key, value) in expected {
        assert_eq!(file.get(key), Some(&value), "{key}");
    }
    assert!(file.whole("i8").is_err() && file.get("u64").unwrap().as_i64().is_none());
    let Some(GgufValue::Numbers(bools)) = file.get("bools") else { panic!("bools") };
    assert!(!bools.are_integers());
    assert_eq!(bools.iter().collect::<Vec<_>>(), [GgufValue::Bool(false), GgufValue::Bool(true)]);
    let Some(GgufValue::Arrays(lists)) = file.get("nested") else { panic!("nested") };
    let GgufValue::Numbers(second) = &lists[1] else { panic!("inner") };
    assert_eq!(second.iter().filter_map(|value| value.as_i64()).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn truncated_files() {
    assert_refused(b"", &["truncated: 0 bytes"]);
    assert_refused(b"GGUF\x03\0\0\0", &["truncated: 8 bytes"]);
    let mut writer = good();
    writer.tensor("last", GgmlType::F32, &[8], &[0; 32]);
    let bytes = writer.bytes();
    assert!(open(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn other_formats_are_recognised() {
    let padded = |start: &[u8]| [start, &[b' '; 40][..]].concat();
    assert_refused(&padded(b"version https://git-lfs.github.com/spec/v1"), &["not a GGUF file", "Git LFS"]);
    assert_refused(&padded(b"<!DOCTYPE html>"), &["a web page"]);
    assert_refused(&padded(b"GGML"), &["is not a GGUF file"]);
}

#[test]
fn counts_beyond_the_file_or_the_limits() {
    for (at, subject) in
        [(8, "the number of tensors at byte 8"), (16, "the number of metadata keys at byte 16")]
    {
        let mut bytes = good().bytes();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_refused(&bytes, &[subject, "more than the limit"]);
        bytes[at..at + 8].copy_from_slice(&60_000u64.to_le_bytes());
        assert_refused(&bytes, &[subject, "60000 cannot be in"]);
        // More than there are, but not more than there might be: the entries run into each other's bytes.
        bytes[at..at + 8].copy_from_slice(&11u64.to_le_bytes());
        assert!(open(&bytes).is_err());
    }
}

#[test]
fn strings_and_lists_beyond_the_file() {
    let huge = (1u64 << 62).to_le_bytes();
    let list = |kind: u32| [&kind.to_le_bytes()[..], &huge].concat();
    assert_refused(
        &GgufWriter::new().raw("key", 8, &huge).bytes(),
        &["metadata key `key` at byte", "a string of"],
    );
    for kind in [0u32, 5, 8, 9, 12] {
        assert_refused(
            &GgufWriter::new().raw("key", 9, &list(kind)).bytes(),
            &["`key`", "a list of 4611686018427387904"],
        );
    }
    let long = "k".repeat(1 << 16);
    assert_refused(
        &GgufWriter::new().u32(&long, 1).bytes(),
        &["metadata key 0 at byte 24", "longer than the limit"],
    );
}

#[test]
fn wrong_types_of_values() {
    assert_refused(
        &GgufWriter::new().raw("key", 13, &[0; 8]).bytes(),
        &["metadata key `key`", "no type of value 13"],
    );
    assert_refused(&GgufWriter::new().list("key", 99, &[]).bytes(), &["`key`", "no type of value 99"]);
    assert_refused(&GgufWriter::new().raw("key", 7, &[2]).bytes(), &["`key`", "0 or 1, found 2"]);
    assert_refused(&GgufWriter::new().list("key", 7, &[vec![1], vec![9]]).bytes(), &["`key`", "found 9"]);
}

#[test]
fn lists_that_nest_too_deep() {
    let nested = |depth: usize| {
        let mut value = [4u32.to_le_bytes().to_vec(), 0u64.to_le_bytes().to_vec()].concat();
        for _ in 1..depth {
            value = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec(), value].concat();
        }
        GgufWriter::new().raw("key", 9, &value).bytes()
    };
    assert!(open(&nested(4)).is_ok());
    assert_refused(&nested(5), &["`key`", "deeper than the limit of 4"]);
    assert_refused(&nested(100_000), &["`key`", "deeper than the limit of 4"]);
}

#[test]
fn text_that_is_not_utf_8() {
    let invalid = [3, 0, 0, 0, 0, 0, 0, 0, b'a', 0xff, b'b'];
    assert_refused(
        &GgufWriter::new().raw("key", 8, &invalid).bytes(),
        &["metadata key `key` at byte 48", "not UTF-8"],
    );
    assert_refused(&GgufWriter::new().list("key", 8, &[invalid.to_vec()]).bytes(), &["`key`", "not UTF-8"]);
    let mut bytes = good().bytes();
    bytes[32] = 0xff;
    assert_refused(&bytes, &["metadata key 0 at byte 32", "the name is not UTF-8"]);
}

#[test]
fn duplicates() {
    assert_refused(
        &GgufWriter::new().u32("key", 1).u32("key", 2).bytes(),
        &["metadata key `key` at byte 43", "occurs twice"],
    );
    let mut writer = good();
    writer.tensor("a", GgmlType::F32, &[1], &[0; 4]);
    assert_refused(&writer.bytes(), &["tensor `a`", "occurs twice"]);
}

#[test]
fn hostile_names_are_escaped() {
    assert_refused(&GgufWriter::new().raw("\u{1b}[31m\n", 99, &[]).bytes(), &["`\\u{1b}[31m\\n`"]);
    let mut writer = GgufWriter::new();
    writer.entry(&"\u{1b}".repeat(1000), 99, &[1], 0);
    assert_refused(&writer.bytes(), &["its type 99 is not a known one"]);
}

#[test]
fn alignment() {
    let mut writer = GgufWriter::new();
    writer.u32("general.alignment", 8).entry("a", 0, &[1], 8).entry("b", 0, &[1], 0);
    let header = writer.bytes();
    let mut bytes = header.clone();
    bytes.extend([7; 16]);
    // The writer pads to 32; whatever lies between is data that no tensor has.
    assert_eq!(open(&bytes).unwrap().tensor("a").unwrap().shape(), [1]);
    for bad in [0u32, 3, 1 << 21] {
        let bytes = GgufWriter::new().u32("general.alignment", bad).bytes();
        assert_refused(&bytes, &["`general.alignment`", "a power of two"]);
    }
    assert_refused(
        &GgufWriter::new().string("general.alignment", "32").bytes(),
        &["a power of two", "found a string"],
    );
    let mut writer = good();
    writer.entry("odd", 0, &[1], 4);
    assert_refused(&writer.bytes(), &["tensor `odd`", "offset 4 is not a multiple of the alignment, 32"]);
}

#[test]
fn tensors_beyond_the_file_and_over_each_other() {
    let mut writer = good();
    writer.entry("far", 0, &[1], 1 << 20);
    assert_refused(&writer.bytes(), &["tensor `far` at byte", "4 bytes at offset 1048576 reach beyond"]);
    let mut writer = good();
    writer.entry("wraps", 0, &[1], u64::MAX - 31);
    assert_refused(&writer.bytes(), &["tensor `wraps`", "reach beyond"]);
    let mut writer = good();
    writer.entry("over", 0, &[1], 0);
    assert_refused(&writer.bytes(), &["overlap those of tensor"]);
}

#[test]
fn shapes() {
    let entry = |kind: u32, shape: &[usize]| {
        let mut writer = good();
        writer.entry("bad", kind, shape, 0);
        writer.bytes()
    };
    assert_refused(&entry(0, &[1; 5]), &["tensor `bad`", "5 axes are more than the limit of 4"]);
    assert_refused(&entry(0, &[1 << 33, 1 << 33]), &["`bad`", "too large to address"]);
    assert_refused(&entry(0, &[0, 1 << 33, 1 << 33]), &["`bad`", "too large to address"]);
    assert_refused(&entry(28, &[1 << 62]), &["`bad`", "too large to address"]);
    // Whoever goes through its rows would not come to an end.
    assert_refused(&entry(0, &[0, 1 << 40]), &["`bad`", "too large to address"]);
    assert_refused(&entry(0, &[1 << 21, 0, 32]), &["`bad`", "too large to address"]);
    assert_refused(
        &entry(12, &[4, 128]),
        &["`bad`", "128 columns are not a whole number of blocks of 256 for Q4_K"],
    );
    assert_refused(&entry(4, &[32]), &["`bad`", "type 4 is Q4_2, which ggml has given up"]);
    assert_refused(&entry(1000, &[32]), &["`bad`", "type 1000 is not a known one"]);
}

/// Writes the parts of a set into a folder and opens one of them.
fn open_set(parts: &[(&str, GgufWriter)], which: usize) -> Result<Gguf, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, writer) in parts {
        fs::write(folder.path().join(name), writer.bytes()).unwrap();
    }
    Gguf::open(&folder.path().join(parts[which].0))
}

fn part(number: u16, count: u16, tensor: &str) -> GgufWriter {
    let mut writer = GgufWriter::new();
    if number == 0 {
        writer.string("general.architecture", "llama");
    }
    writer.raw("split.no", 2, &number.to_le_bytes()).raw("split.count", 2, &count.to_le_bytes());
    writer.raw("split.tensors.count", 5, &2i32.to_le_bytes());
    writer.tensor(tensor, GgmlType::F32, &[1], &[number as u8; 4]);
    writer
}

#[test]
fn any_file_of_a_set_opens_all() {
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let parts = [(names[0], part(0, 2, "a")), (names[1], part(1, 2, "b"))];
    for which in 0..2 {
        let file = open_set(&parts, which).unwrap();
        assert_eq!(file.architecture().unwrap(), "llama");
        assert_eq!(file.files().count(), 2);
        assert_eq!(file.path().file_name().unwrap(), names[0]);
        assert_eq!(file.tensor("b").unwrap().bytes(), [1; 4]);
    }
}

#[test]
fn sets_that_do_not_fit_together() {
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let message = |parts: &[(&str, GgufWriter)], which| open_set(parts, which).unwrap_err().to_string();
    let missing = message(&[(names[0], part(0, 2, "a"))], 0);
    assert!(missing.contains("missing weight files: `m-00002-of-00002.gguf`"), "{missing}");
    let renamed = message(&[("m.gguf", part(0, 2, "a"))], 0);
    assert!(renamed.contains("`split.count`: the file is one of 2, but its name"), "{renamed}");
    let twice = message(&[(names[0], part(0, 2, "a")), (names[1], part(1, 2, "a"))], 0);
    assert!(twice.contains("tensor `a` is both in"), "{twice}");
    for which in 0..2 {
        let order = message(&[(names[0], part(0, 2, "a")), (names[1], part(0, 2, "b"))], which);
        assert!(order.contains("`split.no`: must be 1 in this set of files, found 0"), "{order}");
        let first = message(&[(names[0], part(1, 2, "a")), (names[1], part(1, 2, "b"))], which);
        assert!(first.contains("`split.no`: must be 0"), "{first}");
    }
    let other = message(&[(names[0], part(0, 2, "a")), (names[1], part(1, 3, "b"))], 0);
    assert!(other.contains("`split.count`: must be 2 in this set of files, found 3"), "{other}");
    let mut fewer = part(1, 2, "b");
    fewer.tensor("c", GgmlType::F32, &[1], &[0; 4]);
    let count = message(&[(names[0], part(0, 2, "a")), (names[1], fewer)], 0);
    assert!(count.contains("`split.tensors.count`: must be 3"), "{count}");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Gguf::open(&folder.path().join("a.gguf")), Err(WeightsError::Io { .. })));
    fs::create_dir(folder.path().join("b.gguf")).unwrap();
    assert!(matches!(Gguf::open(&folder.path().join("b.gguf")), Err(WeightsError::NotAFile { .. })));
    assert!(Gguf::open(Path::new("/")).is_err() && Gguf::open(Path::new("")).is_err());
}

#[cfg(unix)]
#[test]
fn a_link_out_of_a_cache_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("hub/models--a--b/snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(folder.path().join("secret"), good().bytes()).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), snapshot.join("m.gguf")).unwrap();
    assert!(matches!(Gguf::open(&snapshot.join("m.gguf")), Err(WeightsError::UnsafeShard { .. })));
}

#[test]
fn many_small_entries_stay_within_the_bound() {
    let mut writer = GgufWriter::new();
    for index in 0..20_000 {
        writer.entry(&format!("{index:x}"), 0, &[0], 0);
    }
    assert_eq!(open(&writer.bytes()).unwrap().tensors().len(), 20_000);
    let mut writer = GgufWriter::new();
    for index in 0..20_000 {
        writer.raw(&format!("{index:x}"), 0, &[0]);
    }
    let empty_lists = vec![[0u8; 12].to_vec(); 20_000];
    writer.list("lists", 9, &empty_lists).strings("strings", &vec![""; 20_000]);
    assert_eq!(open(&writer.bytes()).unwrap().metadata().len(), 20_002);
}

/// Touches all that was read.
fn read_everything(file: &Gguf) {
    for (key, value) in file.metadata() {
        std::hint::black_box(value.describe());
        let _ = (file.strings(key), file.integers(key), file.floats(key), file.count(key));
    }
    for tensor in file.tensors() {
        std::hint::black_box(tensor.bytes().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = open(&bytes).map(|file| read_everything(&file));
        let _ = open(&[b"GGUF\x03\0\0\0", bytes.as_slice()].concat()).map(|file| read_everything(&file));
    }

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = good().bytes();
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = open(&bytes).map(|file| read_everything(&file));
    }

    #[test]
    fn changed_numbers_never_panic(
        index in any::<proptest::sample::Index>(),
        value in prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 32), Just(0), any::<u64>(), 0..64u64],
    ) {
        let mut bytes = good().bytes();
        let place = index.index(bytes.len() - 8);
        bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
        let _ = open(&bytes).map(|file| read_everything(&file));
    }
}
