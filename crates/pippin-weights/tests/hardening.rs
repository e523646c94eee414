//! Damaged and hostile files: each is a clear error, never a panic, never a large allocation.

use std::fs;

use pippin_weights::{Checkpoint, TensorData, WeightsError};
use proptest::prelude::*;

#[path = "support/hostile.rs"]
mod hostile;

use hostile::allocations::peak;

/// The bytes of a file with this header and this many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(std::iter::repeat_n(0, data));
    bytes
}

/// Opens these bytes as the weights of a model, under a bound on memory.
fn open(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    hostile::open("model.safetensors", bytes, |path| Checkpoint::open(path.parent().unwrap()))
}

#[track_caller]
fn assert_refused(bytes: &[u8], parts: &[&str]) {
    hostile::assert_refused(open(bytes), parts);
}

#[track_caller]
fn assert_header_refused(header: &str, data: usize, parts: &[&str]) {
    assert_refused(&file(header, data), parts);
}

#[test]
fn a_good_file_opens() {
    let header = r#"{"__metadata__":{"format":"mlx"},
        "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16],"unknown":[{"a":1}]},
        "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
        "none":{"dtype":"F64","shape":[3,0],"data_offsets":[4,4]},
        "\u0065scaped":{"dtype":"U8","shape":[1],"data_offsets":[16,17]}}   "#;
    let checkpoint = open(&file(header, 17)).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "escaped", "none"]);
    assert_eq!(checkpoint.metadata()["format"], "mlx");
    assert_eq!(checkpoint.total_bytes(), 17);
    let none = checkpoint.tensor("none", &[3, 0]).unwrap();
    assert!(none.is_empty() && none.bytes().is_empty());
    assert_eq!(checkpoint.require("a").unwrap().to_f32().unwrap(), [0.0]);
    checkpoint.prefetch();
}

#[test]
fn an_empty_header_is_a_checkpoint_without_tensors() {
    assert_eq!(open(&file("{}", 0)).unwrap().names().count(), 0);
    // As MLX writes it without metadata.
    assert_eq!(open(&file(r#"{"__metadata__":null}"#, 0)).unwrap().names().count(), 0);
}

#[test]
fn truncated_files() {
    assert_refused(b"", &["truncated: 0 bytes"]);
    assert_refused(b"\x02\0\0\0\0\0\0", &["truncated: 7 bytes"]);
    assert_refused(b"\x02\0\0\0\0\0\0\0", &["header length at byte 0 is 2", "only 0 bytes follow"]);
    let good = file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4);
    assert!(open(&good).is_ok());
    for length in 0..good.len() {
        assert!(open(&good[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn impossible_header_lengths() {
    for length in [1 << 63, u64::MAX, 1 << 32, 3] {
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&u64::to_le_bytes(length));
        assert_refused(&bytes, &[&format!("header length at byte 0 is {length}"), "only 2 bytes follow"]);
    }
}

#[test]
fn headers_longer_than_the_limit() {
    // A sparse file: it claims 200 MB and takes no room on the disk.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, 150_000_000u64.to_le_bytes()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(200_000_000).unwrap();
    let (error, peak) = peak(|| Checkpoint::open(folder.path()).unwrap_err());
    assert!(error.to_string().contains("limited to 100000000 bytes"), "{error}");
    assert!(peak < 32 << 10, "{peak}");
}

#[test]
fn other_formats_are_recognised() {
    assert_refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        &["Git LFS pointer"],
    );
    assert_refused(b"GGUF\x03\0\0\0\0\0\0\0", &["a GGUF file"]);
    assert_refused(b"PK\x03\x04aaaaaaaaaaaa", &["zip archive"]);
    assert_refused(b"<!DOCTYPE html><html></html>", &["a web page"]);
}

#[test]
fn malformed_json() {
    assert_header_refused("[]", 0, &["byte 8", "must start with `{`"]);
    assert_header_refused(" {}", 0, &["must start with `{`"]);
    assert_header_refused("", 0, &["must start with `{`"]);
    assert_header_refused("{", 0, &["bad header at byte 8", "EOF"]);
    assert_header_refused("{} x", 0, &["bad header at byte 11", "trailing characters"]);
    assert_header_refused(r#"{"a":7}"#, 0, &["expected an object with dtype", "`a`"]);
    assert_header_refused("{\"\u{0}\":7}", 0, &["control character"]);
    assert_refused(&file(r#"{"a":{"dtype":"U8"}}"#, 0), &["`shape` is missing"]);
    let mut not_utf8 = file(r#"{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#, 1);
    not_utf8[10] = 0xff;
    assert_refused(&not_utf8, &["bad header"]);
}

#[test]
fn json_errors_give_the_byte_offset_across_lines() {
    let header = "{\n\n\"a\": !}";
    let position = 8 + header.find('!').unwrap();
    assert_header_refused(header, 0, &[&format!("byte {position}")]);
}

#[test]
fn deep_json() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}0{}", open.repeat(100_000), close.repeat(100_000));
        assert!(self::open(&file(&format!(r#"{{"a":{deep}}}"#), 0)).is_err());
        // Below a field that is ignored: read without recursion or refused, but never a stack overflow.
        let ignored = format!(r#"{{"a":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":{deep}}}}}"#);
        let _ = self::open(&file(&ignored, 0));
    }
}

#[test]
fn long_strings_in_errors_are_cut() {
    let long = "\\u001b".repeat(20_000);
    assert_header_refused(&format!(r#"{{"a":"{long}"}}"#), 0, &["…"]);
    assert_header_refused(&format!(r#"{{"{long}":5}}"#), 0, &["…"]);
    let entry = |dtype: &str| format!(r#"{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,2]}}"#);
    assert_header_refused(&format!(r#"{{"{long}":{}}}"#, entry("U8")), 2, &["…", "data_offsets"]);
    assert_header_refused(&format!(r#"{{"a":{}}}"#, entry(&long)), 2, &["unknown dtype"]);
}

#[test]
fn duplicates() {
    let entry = r#"{"dtype":"U8","shape":[],"data_offsets":[0,1]}"#;
    assert_header_refused(&format!(r#"{{"a":{entry},"a":{entry}}}"#), 1, &["tensor `a` occurs twice"]);
    // The same name, spelt differently.
    assert_header_refused(&format!(r#"{{"a":{entry},"\u0061":{entry}}}"#), 1, &["tensor `a` occurs twice"]);
    for field in [r#""dtype":"U8""#, r#""shape":[]"#, r#""data_offsets":[0,1]"#] {
        let entry = entry.replace(field, &format!("{field},{field}"));
        assert_header_refused(&format!(r#"{{"a":{entry}}}"#), 1, &["tensor `a`: field", "occurs twice"]);
    }
    assert_header_refused(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, &["`__metadata__` occurs twice"]);
    assert_header_refused(
        r#"{"__metadata__":null,"__metadata__":null}"#,
        0,
        &["`__metadata__` occurs twice"],
    );
    assert_header_refused(
        r#"{"__metadata__":{"k":"1","k":"2"}}"#,
        0,
        &["key `k` of `__metadata__` occurs twice"],
    );
    assert_header_refused(r#"{"__metadata__":{"k":1}}"#, 0, &["expected a string"]);
}

#[test]
fn dtypes() {
    for dtype in ["F4", "bf16", "", "F6_E2M3", "C64"] {
        let header = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,1]}}}}"#);
        assert_header_refused(
            &header,
            1,
            &["tensor `w`", "field `dtype`", &format!("unknown dtype `{dtype}`")],
        );
    }
    assert_header_refused(r#"{"w":{"dtype":3,"shape":[1],"data_offsets":[0,1]}}"#, 1, &["expected a string"]);
}

#[test]
fn shapes() {
    let with_shape =
        |shape: &str| format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}"#);
    assert_header_refused(&with_shape("[1,1,1,1,1,1,1,1,1]"), 4, &["tensor `w`", "`shape` has more than 8"]);
    assert!(open(&file(&with_shape("[1,1,1,1,1,1,1,1]"), 4)).is_ok());
    assert_header_refused(&with_shape("[2]"), 4, &["field `data_offsets`", "0..4 is 4 bytes", "takes 8"]);
    for shape in [
        "[4294967296,4294967296]",
        "[18446744073709551615]",
        "[9223372036854775807,1]",
        "[4611686018427387905]", // times 4 is 4, modulo 2^64
        "[1099511627776,0]",     // no elements, but an axis without an end
        "[0,4294967296,4294967296]",
    ] {
        assert_header_refused(&with_shape(shape), 4, &["tensor `w`", "field `shape`", "too large"]);
    }
    for shape in ["[-1]", "[1.0]", "[1e0]", "[18446744073709551616]", "[null]", "[\"1\"]"] {
        assert_header_refused(&with_shape(shape), 4, &["unsigned integer in field `shape` of tensor `w`"]);
    }
    assert_header_refused(&with_shape("1"), 4, &["list of unsigned integers in field `shape` of tensor `w`"]);
}

#[test]
fn offsets() {
    let with_offsets =
        |offsets: &str| format!(r#"{{"w":{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}}}"#);
    assert_header_refused(&with_offsets("[4,0]"), 4, &["tensor `w`", "begin 4 is after end 0"]);
    assert_header_refused(&with_offsets("[1,5]"), 4, &["end 5 is past the file's 4 bytes"]);
    assert_header_refused(&with_offsets("[0,18446744073709551615]"), 4, &["past the file's 4 bytes"]);
    assert_header_refused(
        &with_offsets("[18446744073709551612,18446744073709551615]"),
        4,
        &["past the file's 4 bytes"],
    );
    assert_header_refused(&with_offsets("[0,3]"), 4, &["0..3 is 3 bytes", "takes 4"]);
    assert_header_refused(&with_offsets("[0]"), 4, &["must have 2 numbers, found 1"]);
    assert_header_refused(&with_offsets("[0,4,4]"), 4, &["`data_offsets` has more than 2"]);
    assert_header_refused(&with_offsets("[1,5]"), 5, &["leaves a gap: bytes 0..1"]);
    let bytes = file(&with_offsets("[0,4]"), 6);
    let offset = bytes.len() - 2;
    assert_refused(&bytes, &[&format!("byte {offset}"), "the last 2 bytes of the file belong to no tensor"]);
}

#[test]
fn overlaps_and_gaps() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{first}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{second}}}}}"#
        )
    };
    assert!(open(&file(&two("[4,8]", "[0,4]"), 8)).is_ok());
    assert_header_refused(&two("[0,4]", "[3,7]"), 7, &["tensor `b`", "overlaps another tensor"]);
    assert_header_refused(&two("[0,4]", "[0,4]"), 4, &["overlaps another tensor"]);
    assert_header_refused(&two("[0,4]", "[5,9]"), 9, &["tensor `b`", "leaves a gap: bytes 4..5"]);
}

#[test]
fn a_folder_or_device_in_place_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(WeightsError::NotAFile { .. })));
    assert!(matches!(Checkpoint::open(&folder.path().join("none")), Err(WeightsError::Io { .. })));
    let file = folder.path().join("config.json");
    fs::write(&file, "{}").unwrap();
    assert!(matches!(Checkpoint::open(&file), Err(WeightsError::NotAFolder { .. })));
    #[cfg(unix)]
    assert!(matches!(
        Checkpoint::open_file(std::path::Path::new("/dev/zero")),
        Err(WeightsError::NotAFile { .. })
    ));
}

#[test]
fn many_small_tensors_stay_within_the_bound() {
    let mut header = String::from("{");
    for number in 0..20_000 {
        let separator = if number == 0 { "" } else { "," };
        header += &format!(
            r#"{separator}"{number:x}":{{"dtype":"U8","shape":[],"data_offsets":[{number},{}]}}"#,
            number + 1
        );
    }
    header += "}";
    assert_eq!(open(&file(&header, 20_000)).unwrap().names().count(), 20_000);
}

#[test]
fn too_many_tensors_or_metadata() {
    let metadata: String = (0..5000).map(|number| format!(r#","{number:x}":"""#)).collect();
    let header = format!(r#"{{"__metadata__":{{{}}}}}"#, &metadata[1..]);
    assert_header_refused(&header, 0, &["more than 4096 keys in `__metadata__`"]);
    let mut header = String::from("{");
    for number in 0..=1 << 19 {
        header += &format!(r#""{number:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}},"#);
    }
    header.pop();
    assert_header_refused(&(header + "}"), 0, &["more than 524288 tensors"]);
}

#[test]
fn the_allocations_of_a_thread_are_counted() {
    let (buffer, peak) = peak(|| vec![1u8; 1 << 20]);
    assert!(buffer.len() <= peak && peak < 2 * buffer.len(), "{peak}");
}

fn good_header() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"mlx"},"a.weight":{"dtype":"U32","shape":[2,4],"data_offsets":[0,32]},"a.scales":{"dtype":"BF16","shape":[2,1],"data_offsets":[32,36]},"n":{"dtype":"F32","shape":[0],"data_offsets":[36,36]}}"#;
    file(header, 36)
}

/// What must hold of any checkpoint that opens: all its bytes can be read and fit the shapes.
fn read_everything(checkpoint: &Checkpoint) {
    for tensor in checkpoint.tensors() {
        let elements = tensor.shape().iter().product::<usize>();
        assert_eq!(elements, tensor.len());
        assert_eq!(tensor.bytes().len(), elements * tensor.dtype().size());
        let _ = tensor.to_f32();
        let _ = tensor.slice_rows(0..1).map(|rows: TensorData| rows.to_f32());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut bytes = good_header();
        for (position, value, kind) in changes {
            let position = position.index(bytes.len());
            match kind {
                0 => bytes[position] = value,
                1 => bytes.insert(position, value),
                _ => { bytes.remove(position); }
            }
        }
        if let Ok(checkpoint) = open(&bytes) {
            read_everything(&checkpoint);
        }
    }

    #[test]
    fn mutated_headers_of_the_right_length_never_panic(
        // Digits, punctuation of JSON and letters of the keywords: most results are JSON, or nearly.
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[0-9\\[\\]{},:\"a-fFU\\-.]"), 1..4),
    ) {
        let mut bytes = good_header();
        let header = 8..bytes.len() - 36;
        for (position, character) in changes {
            bytes[header.start + position.index(header.len())] = character.as_bytes()[0];
        }
        if let Ok(checkpoint) = open(&bytes) {
            read_everything(&checkpoint);
        }
    }

    #[test]
    fn entries_of_any_numbers_never_panic(
        entries in prop::collection::vec(
            (
                prop::sample::select(vec!["U8", "BF16", "F32", "I64", "BOOL", "F4"]),
                prop::collection::vec(prop_oneof![0..5u64, any::<u64>(), Just(1 << 32), Just(1 << 63)], 0..10),
                prop_oneof![0..40u64, any::<u64>()],
                prop_oneof![0..40u64, any::<u64>()],
            ),
            0..4,
        ),
        data in 0..60usize,
    ) {
        let entries: Vec<String> = entries
            .iter()
            .enumerate()
            .map(|(number, (dtype, shape, begin, end))| {
                format!(r#""{number}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
            })
            .collect();
        if let Ok(checkpoint) = open(&file(&format!("{{{}}}", entries.join(",")), data)) {
            read_everything(&checkpoint);
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = open(&bytes);
    }
}
