//! Model folders: which files make up a checkpoint, indexes, links, and matrices.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pippin_weights::{
    Checkpoint, Dtype, MatrixData, QuantMode, QuantSpec, QuantizationConfig, QuantizedData, TensorData,
    WeightsError, quantize_affine, quantize_minifloat, write_safetensors,
};
use serde_json::{Value, json};

fn numbers(name: &str, values: &[f32]) -> TensorData {
    TensorData::from_f32(name, &[values.len()], values).unwrap()
}

fn write(folder: &Path, file: &str, tensors: &[TensorData]) {
    write_safetensors(&folder.join(file), tensors, &BTreeMap::new()).unwrap();
}

fn write_index(folder: &Path, weight_map: Value) {
    let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[track_caller]
fn refusal(folder: &Path) -> String {
    let error = Checkpoint::open(folder).expect_err("the folder was accepted");
    assert!(error.hint().is_some(), "no hint for: {error}");
    error.to_string()
}

#[track_caller]
fn assert_contains(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn everything_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Checkpoint>();
    shared::<MatrixData>();
    shared::<WeightsError>();
}

#[test]
fn written_files_are_aligned_sorted_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = [
        TensorData::new("flag", Dtype::Bool, &[3], vec![1, 0, 1]).unwrap(),
        TensorData::from_f32_as("half", Dtype::F16, &[1], &[0.5]).unwrap(),
        TensorData::from_u32("b", &[2, 1], &[7, 8]).unwrap(),
        TensorData::new("wide \"quoted\" \u{1b}", Dtype::I64, &[], vec![1; 8]).unwrap(),
        numbers("a", &[1.5]),
        numbers("empty", &[]),
    ];
    let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
    write_safetensors(&path, &tensors, &metadata).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");

    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.metadata(), &metadata);
    assert_eq!(checkpoint.files(), std::slice::from_ref(&path));
    for tensor in &tensors {
        let read = checkpoint.tensor(tensor.name(), tensor.shape()).unwrap();
        assert_eq!(read.dtype(), tensor.dtype());
        assert_eq!(read.bytes(), tensor.bytes());
        assert!(read.bytes().as_ptr().addr().is_multiple_of(tensor.dtype().size()), "{}", tensor.name());
    }

    // The same tensors in another order make the same file; a tensor of the old file stays readable.
    let old = checkpoint.require("b").unwrap();
    let before = fs::read(&path).unwrap();
    let mut reversed = tensors.to_vec();
    reversed.reverse();
    write_safetensors(&path, &reversed, &metadata).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    write_safetensors(&path, &[], &metadata).unwrap();
    assert_eq!(old.to_u32().unwrap(), [7, 8]);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().names().count(), 0);
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let error =
        |tensors: &[TensorData]| write_safetensors(&path, tensors, &BTreeMap::new()).unwrap_err().to_string();
    assert_contains(&error(&[numbers("a", &[1.0]), numbers("a", &[2.0])]), &["tensor `a` is given twice"]);
    assert_contains(&error(&[numbers("__metadata__", &[])]), &["cannot be named"]);
    let deep = TensorData::from_f32("deep", &[1; 9], &[1.0]).unwrap();
    assert_contains(&error(&[deep]), &["more than 8 axes"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("none/model.safetensors");
    assert!(matches!(
        write_safetensors(&nowhere, &[], &BTreeMap::new()),
        Err(WeightsError::Io { action: "write", .. })
    ));
}

#[track_caller]
fn warnings(folder: &Path) -> String {
    Checkpoint::open(folder).unwrap().warnings().join("\n")
}

#[track_caller]
fn value(folder: &Path, name: &str) -> f32 {
    Checkpoint::open(folder).unwrap().require(name).unwrap().to_f32().unwrap()[0]
}

/// One shard of a set, with one tensor.
fn shard(folder: &Path, number: usize, count: usize, value: f32) -> String {
    let name = format!("model-{number:05}-of-{count:05}.safetensors");
    write(folder, &name, &[numbers(&format!("t{number}"), &[value])]);
    name
}

#[test]
fn a_file_beside_the_index_has_to_agree_with_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &[numbers("a", &[1.0])]);
    write(folder.path(), "model-2.safetensors", &[numbers("a", &[2.0])]);
    write_index(folder.path(), json!({"a": "model-2.safetensors"}));
    let message = refusal(folder.path());
    assert_contains(&message, &["tensor `a` is both in", "model-2.safetensors", "model.safetensors"]);
    write(folder.path(), "model-2.safetensors", &[numbers("a", &[1.0])]);
    assert_eq!(value(folder.path(), "a"), 1.0);
    assert_contains(
        &warnings(folder.path()),
        &["`model.safetensors` repeats 1 tensor of `model-2.safetensors`"],
    );
}

#[test]
fn an_index_of_another_model_counts_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source: serde_json::Map<String, Value> = (1..=5)
        .map(|number| (format!("t{number}"), json!(format!("model-{number:05}-of-00005.safetensors"))))
        .collect();
    write_index(folder.path(), Value::Object(source));
    // Two shards of the five: what is missing is named.
    shard(folder.path(), 1, 5, 1.0);
    shard(folder.path(), 3, 5, 3.0);
    let parts = ["missing weight files: `model-00002-of-00005.safetensors`, `model-00004", "00005-of-00005"];
    assert_contains(&refusal(folder.path()), &parts);
    // A whole file beside them is a model.
    write(folder.path(), "model.safetensors", &[numbers("t1", &[7.0])]);
    assert_eq!(value(folder.path(), "t1"), 7.0);
    assert_contains(
        &warnings(folder.path()),
        &["names `model-00002-of-00005.safetensors`", "not there", "and not `model-00001"],
    );
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    // So is a whole set.
    shard(folder.path(), 1, 2, 8.0);
    assert_contains(&refusal(folder.path()), &["missing weight files", "model-00002-of-00005"]);
    shard(folder.path(), 2, 2, 9.0);
    assert_eq!((value(folder.path(), "t1"), value(folder.path(), "t2")), (8.0, 9.0));
    // The usual case: nothing of what the index names.
    for number in [1, 3] {
        fs::remove_file(folder.path().join(format!("model-{number:05}-of-00005.safetensors"))).unwrap();
    }
    assert_eq!(Checkpoint::open(folder.path()).unwrap().names().collect::<Vec<_>>(), ["t1", "t2"]);
    assert_contains(
        &warnings(folder.path()),
        &["and 1 more"].map(|_| "which are not there: using `model-00001-of-00002"),
    );
    // Of that set, too, all must be there.
    fs::remove_file(folder.path().join("model-00001-of-00002.safetensors")).unwrap();
    assert_contains(&refusal(folder.path()), &["missing weight files: `model-00001-of-00002.safetensors`"]);
    // A tensor that the model needs and nobody has: the odd index is mentioned.
    write(folder.path(), "model-00001-of-00002.safetensors", &[]);
    let hint = Checkpoint::open(folder.path()).unwrap().require("t1").unwrap_err().hint().unwrap();
    assert_contains(&hint, &["weight file may be missing", "index.json"]);
}

#[test]
fn numbers_tell_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    shard(folder.path(), 2, 3, 2.0);
    let expected = "`model-00001-of-00003.safetensors`, `model-00003-of-00003.safetensors`";
    assert_contains(&refusal(folder.path()), &[expected]);
    // An old shard beside the whole file.
    write(folder.path(), "model.safetensors", &[numbers("t2", &[5.0])]);
    assert_eq!(value(folder.path(), "t2"), 5.0);
    assert_contains(&warnings(folder.path()), &["`model-00002-of-00003.safetensors` is left out"]);
    // A whole set and a file: they have to agree.
    shard(folder.path(), 1, 3, 1.0);
    shard(folder.path(), 3, 3, 3.0);
    assert_contains(&refusal(folder.path()), &["`t2` is both in", "not the same"]);
    write(folder.path(), "model.safetensors", &[numbers("t2", &[2.0]), numbers("t3", &[3.0])]);
    assert_contains(&warnings(folder.path()), &["`model.safetensors` repeats 2 tensors of"]);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().files().len(), 3, "nothing new in it");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    // A part of another set.
    shard(folder.path(), 4, 5, 9.0);
    assert_contains(&warnings(folder.path()), &["`model-00004-of-00005.safetensors` is left out"]);
    assert!(!Checkpoint::open(folder.path()).unwrap().contains("t4"));

    // Counted from 0; fewer digits; an impossible number; a set too large to be believed.
    let folder = tempfile::tempdir().unwrap();
    for name in ["model-0-of-2", "model-1-of-2", "model-part-00007-of-00002", "model-1-of-4000000000"] {
        write(folder.path(), &format!("{name}.safetensors"), &[numbers(name, &[1.0])]);
    }
    assert_eq!(Checkpoint::open(folder.path()).unwrap().files().len(), 4);
}

#[test]
fn strays_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &[numbers("a", &[1.0])]);
    for stray in [
        "consolidated.safetensors",
        "adapters.safetensors",
        "weights.00.safetensors",
        "model.fp16.safetensors",
        "model-bf16-00001-of-00001.safetensors",
    ] {
        write(folder.path(), stray, &[numbers("a", &[9.0])]);
    }
    for name in ["._model.safetensors", "model.safetensors.part", "model.safetensors.index.json.lock"] {
        fs::write(folder.path().join(name), "Mac OS X").unwrap();
    }
    fs::write(folder.path().join("model-extra.safetensors"), "").unwrap();
    fs::create_dir(folder.path().join("model-folder.safetensors")).unwrap();
    assert_eq!(value(folder.path(), "a"), 1.0);
    let text = warnings(folder.path());
    assert_contains(
        &text,
        &["`model-bf16-00001-of-00001.safetensors`, `model.fp16.safetensors` are left out"],
    );
    assert_contains(&text, &["`model-extra.safetensors`, `model-folder.safetensors` are left out: empty"]);
    // Alone, a variant is the model; two of them are not.
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::remove_file(folder.path().join("model-bf16-00001-of-00001.safetensors")).unwrap();
    assert_eq!(value(folder.path(), "a"), 9.0);
    write(folder.path(), "model.fp32.safetensors", &[numbers("a", &[8.0])]);
    assert_contains(&refusal(folder.path()), &["`a` is both in", "fp16", "fp32"]);
    fs::remove_dir(folder.path().join("model-folder.safetensors")).unwrap();
    // Conversions by the first versions of mlx-lm.
    for name in ["model.fp16.safetensors", "model.fp32.safetensors", "model-extra.safetensors"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert_eq!(value(folder.path(), "a"), 9.0);
    fs::remove_file(folder.path().join("weights.00.safetensors")).unwrap();
    let message = refusal(folder.path());
    assert_contains(&message, &["no model*.safetensors", "there is", "`consolidated.safetensors`"]);
    // The only file is empty: damaged, not absent.
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert_contains(&refusal(folder.path()), &["model.safetensors is truncated: 0 bytes"]);
}

#[test]
fn what_the_index_does_not_name_may_add_but_not_contradict() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (shard(folder.path(), 1, 2, 1.0), shard(folder.path(), 2, 2, 2.0));
    write_index(folder.path(), json!({"t1": first, "rotary.inv_freq": first}));
    // Of the same set.
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["t1", "t2"]);
    assert_contains(&checkpoint.warnings().join(""), &["names tensors that no file has: `rotary.inv_freq`"]);
    // Of another set, whole or not, and in another form.
    write_index(folder.path(), json!({"t1": first, "t2": second}));
    shard(folder.path(), 1, 1, 9.0);
    shard(folder.path(), 4, 5, 9.0);
    write(folder.path(), "model.bf16.safetensors", &[numbers("t1", &[9.0])]);
    write(folder.path(), "model-mtp.safetensors", &[numbers("mtp", &[3.0])]);
    write(folder.path(), "model-old.safetensors", &[numbers("t1", &[9.0]), numbers("t1.scales", &[3.0])]);
    fs::write(folder.path().join("model-cut.safetensors"), "cut").unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["mtp", "t1", "t2"]);
    assert_eq!(value(folder.path(), "t1"), 1.0);
    let text = warnings(folder.path());
    assert_contains(
        &text,
        &["`model.bf16.safetensors` are left out", "`model-old.safetensors` is left out: its `t1`"],
    );
    assert_contains(&text, &["`model-cut.safetensors` is left out", "truncated"]);
}

#[test]
fn shards_with_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    write(folder.path(), shards[0], &[numbers("a", &[1.0]), numbers("b", &[2.0])]);
    write(folder.path(), shards[1], &[numbers("c", &[3.0]), numbers("unlisted", &[4.0])]);
    // Not in the index, and another than the one that is.
    write(folder.path(), "model-extra.safetensors", &[numbers("a", &[5.0])]);
    write_index(folder.path(), json!({"a": shards[0], "b": shards[0], "c": shards[1]}));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c", "unlisted"]);
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.total_bytes(), 16);

    // In which file a tensor is, the files say.
    write_index(folder.path(), json!({"a": shards[1], "b": shards[0]}));
    assert_eq!(value(folder.path(), "a"), 1.0);

    write_index(
        folder.path(),
        json!({"a": shards[0], "d": "model-3.safetensors", "e": "model-4.safetensors"}),
    );
    assert_contains(
        &refusal(folder.path()),
        &["missing weight files: `model-3.safetensors`, `model-4.safetensors`"],
    );

    write(folder.path(), shards[1], &[numbers("a", &[9.0]), numbers("c", &[3.0])]);
    write_index(folder.path(), json!({"b": shards[0], "c": shards[1]}));
    assert_contains(&refusal(folder.path()), &["tensor `a` is both in", shards[0], shards[1]]);
}

#[test]
fn without_an_index_all_model_files_count() {
    let folder = tempfile::tempdir().unwrap();
    assert_contains(&refusal(folder.path()), &["no model*.safetensors in"]);
    write(folder.path(), "adapters.safetensors", &[numbers("x", &[1.0])]);
    assert!(matches!(Checkpoint::open(folder.path()), Err(WeightsError::NoWeights { .. })));
    write(folder.path(), "model-b.safetensors", &[numbers("b", &[1.0])]);
    write(folder.path(), "model_a.safetensors", &[numbers("a", &[1.0])]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    write(folder.path(), "model.c.safetensors", &[numbers("a", &[2.0])]);
    assert_contains(&refusal(folder.path()), &["tensor `a` is both in"]);
    let adapters = Checkpoint::open_file(&folder.path().join("adapters.safetensors")).unwrap();
    assert!(adapters.contains("x"));
}

#[test]
fn an_index_that_cannot_be_read_is_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model-1.safetensors", &[numbers("a", &[1.0])]);
    let path = folder.path().join("model.safetensors.index.json");
    for (text, parts) in [
        ("", &["EOF"][..]),
        ("[]", &["expected an object with `weight_map`"]),
        ("{}", &["`weight_map` is missing"]),
        (r#"{"weight_map":null}"#, &["object of file names"]),
        (r#"{"weight_map":{}}"#, &["names no tensor"]),
        (r#"{"weight_map":[]}"#, &["object of file names"]),
        (r#"{"weight_map":{"a":1}}"#, &["expected a string", "byte"]),
        (r#"{"weight_map":{"a":"model-1.safetensors",}}"#, &["trailing comma"]),
        (r#"{"weight_map":{"a":"m"}} x"#, &["trailing characters"]),
        (
            r#"{"weight_map":{"a":"pytorch_model.bin"}}"#,
            &["`pytorch_model.bin`, which is not a .safetensors"],
        ),
        (r#"{"weight_map":{"a":""}}"#, &["is not a .safetensors"]),
        (r#"{"weight_map":{"a":"model-1.safetensors"},"weight_map":{}}"#, &["`weight_map` occurs twice"]),
        (
            r#"{"weight_map":{"a":"model-1.safetensors","a":"model-1.safetensors"}}"#,
            &["tensor `a` occurs twice"],
        ),
        (r#"{"weight_map":{"a":"sub/model-1.safetensors"}}"#, &["which is not there"]),
    ] {
        fs::write(&path, text).unwrap();
        let text = warnings(folder.path());
        assert_contains(&text, &["model.safetensors.index.json"]);
        assert_contains(&text, parts);
    }
    // A folder in its place.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_contains(&warnings(folder.path()), &["not a regular file"]);
    fs::remove_dir(&path).unwrap();
    // Nothing is wrong with these.
    for text in [
        "\u{feff}{\"weight_map\":{\"a\":\"model-1.safetensors\"}}",
        r#"{"metadata":null,"weight_map":{"a":"model-1.safetensors"}}"#,
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(warnings(folder.path()), "");
    }
}

#[test]
fn shard_names_that_lead_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir_all(model.join("sub")).unwrap();
    for place in [folder.path(), &model, &model.join("sub")] {
        write(place, "model-1.safetensors", &[numbers("a", &[1.0])]);
    }
    let absolute = model.join("model-1.safetensors");
    for shard in [
        "../model-1.safetensors",
        "./model-1.safetensors",
        "sub\\model-1.safetensors",
        "C:model-1.safetensors",
        "..safetensors",
        "model-1.safetensors\0",
        absolute.to_str().unwrap(),
        "..",
        ".",
        "sub/../model-1.safetensors",
        "/etc/passwd",
    ] {
        write_index(&model, json!({"a": shard}));
        let error = Checkpoint::open(&model).unwrap_err();
        assert!(matches!(error, WeightsError::UnsafeShard { .. }), "{shard}: {error}");
    }
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `models--x/snapshots/<revision>` with its files in `models--x/blobs`, as the hub client lays them out.
    fn hub_cache(root: &Path) -> std::path::PathBuf {
        let repository = root.join("models--org--name");
        let snapshot = repository.join("snapshots/0123abc");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        snapshot
    }

    #[test]
    fn the_hub_cache_works() {
        let root = tempfile::tempdir().unwrap();
        let snapshot = hub_cache(root.path());
        let blobs = root.path().join("models--org--name/blobs");
        write(&blobs, "aaaa", &[numbers("a", &[1.0])]);
        write_index(&blobs, json!({"a": "model-1.safetensors"}));
        fs::rename(blobs.join("model.safetensors.index.json"), blobs.join("bbbb")).unwrap();
        symlink("../../blobs/aaaa", snapshot.join("model-1.safetensors")).unwrap();
        symlink("../../blobs/bbbb", snapshot.join("model.safetensors.index.json")).unwrap();
        assert!(Checkpoint::open(&snapshot).unwrap().contains("a"));

        // The way to the folder may lead over any links.
        let alias = root.path().join("alias");
        symlink(&snapshot, &alias).unwrap();
        let checkpoint = Checkpoint::open(&alias).unwrap();
        assert_eq!(checkpoint.files(), [alias.join("model-1.safetensors")]);

        fs::remove_file(blobs.join("aaaa")).unwrap();
        let error = Checkpoint::open(&snapshot).unwrap_err();
        let parts =
            ["missing weight files: `model-1.safetensors`", "a link to ../../blobs/aaaa", "not there"];
        assert_contains(&error.to_string(), &parts);
        assert_contains(&error.hint().unwrap(), &["download the model again"]);
    }

    #[test]
    fn a_cache_that_was_moved_by_links_works() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("disk");
        fs::create_dir_all(&disk).unwrap();
        let repository = root.path().join("hub/models--org--name");
        let snapshot = repository.join("snapshots/0123abc");
        // The blobs, the whole model under another name, the whole cache, a snapshot that is a name elsewhere.
        for what in ["blobs", "model", "cache", "snapshot"] {
            let _ = fs::remove_dir_all(root.path().join("hub"));
            let elsewhere = disk.join(what);
            hub_cache(&root.path().join("hub"));
            write(&repository.join("blobs"), "aaaa", &[numbers("a", &[1.0])]);
            symlink("../../blobs/aaaa", snapshot.join("model.safetensors")).unwrap();
            let moved = match what {
                "blobs" => repository.join("blobs"),
                "model" => repository.clone(),
                "cache" => root.path().join("hub"),
                _ => snapshot.clone(),
            };
            if what == "snapshot" {
                symlink(&moved, &elsewhere).unwrap();
                assert!(Checkpoint::open(&elsewhere).unwrap().contains("a"));
                continue;
            }
            fs::rename(&moved, &elsewhere).unwrap();
            symlink(&elsewhere, &moved).unwrap();
            assert!(Checkpoint::open(&snapshot).unwrap().contains("a"), "{what}");
            // What leads elsewhere is still refused.
            write(root.path(), "secret", &[numbers("a", &[1.0])]);
            fs::remove_file(snapshot.join("model.safetensors")).unwrap();
            symlink(root.path().join("secret"), snapshot.join("model.safetensors")).unwrap();
            assert_contains(&refusal(&snapshot), &["outside the model's folder in the cache"]);
            let _ = fs::remove_file(&moved);
        }
    }

    #[test]
    fn blobs_that_models_share() {
        let root = tempfile::tempdir().unwrap();
        let snapshot = hub_cache(root.path());
        let hash = "ab".repeat(32);
        let store = root.path().join("blobs/ab");
        fs::create_dir_all(&store).unwrap();
        write(&store, &hash, &[numbers("a", &[1.0])]);
        let blob = root.path().join("models--org--name/blobs/cccc");
        symlink(format!("../../blobs/ab/{hash}"), &blob).unwrap();
        symlink("../../blobs/cccc", snapshot.join("model.safetensors")).unwrap();
        assert!(Checkpoint::open(&snapshot).unwrap().contains("a"));
        // Anything else in that folder is none.
        fs::rename(store.join(&hash), store.join("other")).unwrap();
        fs::remove_file(&blob).unwrap();
        symlink("../../blobs/ab/other", &blob).unwrap();
        assert_contains(&refusal(&snapshot), &["outside the model's folder"]);
    }

    #[test]
    fn links_to_other_places_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let snapshot = hub_cache(root.path());
        let other = root.path().join("models--other/blobs");
        fs::create_dir_all(&other).unwrap();
        write(&other, "aaaa", &[numbers("a", &[1.0])]);
        let link = snapshot.join("model.safetensors");
        symlink("../../../models--other/blobs/aaaa", &link).unwrap();
        let message = refusal(&snapshot);
        assert_contains(
            &message,
            &["`model.safetensors`", "link to", "models--other", "outside the model's folder"],
        );

        // The user who names the file decides.
        assert!(Checkpoint::open_file(&link).is_ok());

        // Also by way of an index, or of no index, and also for the index itself.
        fs::rename(&link, snapshot.join("model-1.safetensors")).unwrap();
        assert_contains(&refusal(&snapshot), &["outside the model's folder"]);
        write_index(&snapshot, json!({"a": "model-1.safetensors"}));
        assert_contains(&refusal(&snapshot), &["outside the model's folder"]);
        let index = snapshot.join("model.safetensors.index.json");
        fs::rename(&index, other.join("index")).unwrap();
        symlink(other.join("index"), &index).unwrap();
        assert_contains(&refusal(&snapshot), &["index.json", "outside the model's folder"]);
    }

    #[test]
    fn links_of_ones_own_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let (model, data) = (root.path().join("model"), root.path().join("data"));
        fs::create_dir_all(&model).unwrap();
        fs::create_dir_all(&data).unwrap();
        write(&data, "w", &[numbers("a", &[1.0])]);
        let link = model.join("model.safetensors");
        let set = |target: &Path| {
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
        };
        set(Path::new("../data/w"));
        assert!(Checkpoint::open(&model).unwrap().contains("a"));
        // A link to a link, into a cache.
        let snapshot = hub_cache(&root.path().join("hub"));
        write(&root.path().join("hub/models--org--name/blobs"), "aaaa", &[numbers("b", &[1.0])]);
        symlink("../../blobs/aaaa", snapshot.join("model.safetensors")).unwrap();
        set(&snapshot.join("model.safetensors"));
        assert!(Checkpoint::open(&model).unwrap().contains("b"));

        // To nothing; in a circle; to what is no file.
        set(Path::new("/no/such/place/w"));
        let parts =
            ["missing weight files: `model.safetensors`", "link to /no/such/place/w, which is not there"];
        assert_contains(&refusal(&model), &parts);
        set(Path::new("model.safetensors"));
        assert_contains(&refusal(&model), &["missing", "`model.safetensors` is a link to", "leads nowhere"]);
        set(&data);
        assert_contains(&refusal(&model), &["model.safetensors is not a regular file"]);
        set(Path::new("/dev/zero"));
        assert_contains(&refusal(&model), &["model.safetensors is not a regular file"]);
        let pipe = root.path().join("pipe");
        if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
            set(&pipe);
            assert_contains(&refusal(&model), &["model.safetensors is not a regular file"]);
            set(&data.join("w"));
            fs::rename(&pipe, model.join("model.safetensors.index.json")).unwrap();
            assert_contains(&super::warnings(&model), &["index.json is not a regular file"]);
        }

        // What is not needed may lead nowhere.
        set(&data.join("w"));
        symlink("nowhere", model.join("model-extra.safetensors")).unwrap();
        assert_contains(
            &super::warnings(&model),
            &["`model-extra.safetensors` is a link to nowhere", "left out"],
        );
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let checkpoint = Checkpoint::from_tensors(vec![
        numbers("language_model.model.norm.weight", &[1.0, 2.0]),
        numbers("lm_head.bias", &[1.0]),
    ]);
    let error = checkpoint.require("model.norm.weight").unwrap_err();
    assert_eq!(error.to_string(), "the checkpoint in memory has no tensor `model.norm.weight`");
    assert_contains(&error.hint().unwrap(), &["`language_model.model.norm.weight`"]);
    let error = checkpoint.require("model.lm_head.bias").unwrap_err();
    assert_contains(&error.hint().unwrap(), &["`lm_head.bias`"]);
    let error = checkpoint.tensor("lm_head.bias", &[4, 4]).unwrap_err();
    assert_eq!(error.to_string(), "tensor `lm_head.bias`: expected shape [4, 4], found [1]");

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &[numbers("a", &[1.0])]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let file = folder.path().join("model.safetensors").display().to_string();
    assert_contains(&checkpoint.tensor("a", &[2]).unwrap_err().to_string(), &[&file]);
    assert_contains(&checkpoint.require("b").unwrap_err().to_string(), &[&file]);
}

const ROWS: usize = 3;
const COLS: usize = 128;

/// A checkpoint with the quantized matrix `q` and the dense matrix `d`.
fn matrices(spec: QuantSpec) -> Vec<TensorData> {
    let values: Vec<f32> = (0..ROWS * COLS).map(|index| (index as f32).sin()).collect();
    let quantized = quantize_affine(&values, ROWS, COLS, spec, Dtype::F16).unwrap();
    vec![
        quantized.weight.renamed("q.weight"),
        quantized.scales.renamed("q.scales"),
        quantized.biases.unwrap().renamed("q.biases"),
        TensorData::from_f32("d.weight", &[ROWS, COLS], &values).unwrap(),
    ]
}

fn config(quantization: Value) -> QuantizationConfig {
    QuantizationConfig::from_config(&json!({"quantization": quantization}), "config.json").unwrap()
}

#[test]
fn the_loader_rule() {
    let spec = QuantSpec::affine(3, 32);
    let checkpoint = Checkpoint::from_tensors(matrices(spec));

    // Not listed: the shapes decide, whatever the default.
    let default = config(json!({"bits": 4, "group_size": 64}));
    let matrix = checkpoint.matrix("q", ROWS, COLS, &default).unwrap();
    let MatrixData::Quantized(quantized) = &matrix else { panic!("dense") };
    assert_eq!(quantized.spec, spec);
    assert_eq!((matrix.rows(), matrix.cols(), matrix.byte_len()), (ROWS, COLS, 3 * (48 + 8 + 8)));
    let dense = checkpoint.matrix("d", ROWS, COLS, &default).unwrap();
    assert!(matches!(dense, MatrixData::Dense(_)));
    assert_eq!((dense.rows(), dense.cols(), dense.byte_len()), (ROWS, COLS, ROWS * COLS * 4));
    let values = checkpoint.require("d.weight").unwrap().to_f32().unwrap();
    for (value, restored) in values.iter().zip(quantized.dequantize().unwrap()) {
        assert!((value - restored).abs() < 0.3, "{value} {restored}");
    }

    // Listed: as listed.
    let listed = config(json!({"bits": 4, "group_size": 64, "q": {"bits": 3, "group_size": 32}, "d": false}));
    assert!(matches!(checkpoint.matrix("q", ROWS, COLS, &listed), Ok(MatrixData::Quantized(_))));
    assert!(matches!(checkpoint.matrix("d", ROWS, COLS, &listed), Ok(MatrixData::Dense(_))));
    let error = |quantization: Value, path: &str| {
        let error = checkpoint.matrix(path, ROWS, COLS, &config(quantization)).unwrap_err();
        assert!(error.hint().is_some(), "no hint for: {error}");
        error.to_string()
    };
    let wrong = json!({"bits": 4, "group_size": 64, "q": {"bits": 4, "group_size": 32}});
    assert_contains(&error(wrong, "q"), &["`q.weight`", "expected shape [3, 16], found [3, 12]"]);
    let stands_for_default = json!({"bits": 3, "group_size": 64, "q": true});
    assert_contains(&error(stands_for_default, "q"), &["`q.scales`", "expected shape [3, 2], found [3, 4]"]);
    let not_quantized = json!({"bits": 3, "group_size": 32, "q": false});
    assert_contains(&error(not_quantized, "q"), &["`q.weight`", "packed", "says that it is not quantized"]);
    let listed_without_scales = json!({"bits": 3, "group_size": 32, "d": true});
    assert_contains(&error(listed_without_scales, "d"), &["no tensor `d.scales`"]);
}

#[test]
fn matrices_that_contradict_the_configuration() {
    let none = QuantizationConfig::default();
    let error = |tensors: Vec<TensorData>, path: &str, rows, cols| {
        let error = Checkpoint::from_tensors(tensors).matrix(path, rows, cols, &none).unwrap_err();
        assert!(error.hint().is_some(), "no hint for: {error}");
        error.to_string()
    };
    let tensors = || matrices(QuantSpec::affine(4, 64));
    assert_contains(
        &error(tensors(), "d", ROWS, 64),
        &["`d.weight`", "expected shape [3, 64], found [3, 128]"],
    );
    assert_contains(
        &error(tensors(), "q", 4, COLS),
        &["`q.weight`", "expected shape [4, 16], found [3, 16]"],
    );
    for cols in [0, 1, 127, 512, 4096, usize::MAX] {
        let message = error(tensors(), "q", ROWS, cols);
        assert_contains(&message, &["`q.weight`", "16 words", "2 F16 scales", &format!("{cols} columns")]);
    }
    let without =
        |name: &str| tensors().into_iter().filter(|tensor| tensor.name() != name).collect::<Vec<_>>();
    assert_contains(&error(without("q.biases"), "q", ROWS, COLS), &["no tensor `q.biases`"]);
    assert_contains(&error(without("q.weight"), "q", ROWS, COLS), &["no tensor `q.weight`"]);
    assert_contains(&error(without("q.scales"), "q", ROWS, COLS), &["`q.scales` is missing"]);

    let replaced = |tensor: TensorData| {
        let mut tensors = tensors();
        tensors.push(tensor);
        tensors
    };
    let floats = TensorData::from_f32("q.biases", &[ROWS, 2], &[0.0; 6]).unwrap();
    assert_contains(
        &error(replaced(floats), "q", ROWS, COLS),
        &["`q.biases`", "that of the scales", "found F32"],
    );
    let flat = TensorData::from_u32("q.weight", &[48], &[0; 48]).unwrap();
    assert_contains(&error(replaced(flat), "q", ROWS, COLS), &["`q.weight`", "two axes"]);
    let dense = TensorData::from_f32("q.weight", &[ROWS, 16], &[0.0; 48]).unwrap();
    assert_contains(&error(replaced(dense), "q", ROWS, COLS), &["`q.weight`", "U32", "found F32"]);
    let small = TensorData::new("d.weight", Dtype::F8E4m3, &[ROWS, COLS], vec![0; ROWS * COLS]).unwrap();
    assert_contains(&error(replaced(small), "d", ROWS, COLS), &["`d.weight`", "F16, BF16 or F32", "F8_E4M3"]);
}

#[test]
fn the_other_modes_follow_from_the_shapes() {
    let none = QuantizationConfig::default();
    for (mode, words, groups) in
        [(QuantMode::Mxfp4, 16, 4), (QuantMode::Mxfp8, 32, 4), (QuantMode::Nvfp4, 16, 8)]
    {
        let mut tensors = vec![
            TensorData::from_u32("q.weight", &[2, words], &vec![0x3838_3838; 2 * words]).unwrap(),
            TensorData::new("q.scales", Dtype::U8, &[2, groups], vec![0x40; 2 * groups]).unwrap(),
        ];
        let checkpoint = Checkpoint::from_tensors(tensors.clone());
        let MatrixData::Quantized(matrix) = checkpoint.matrix("q", 2, COLS, &none).unwrap() else {
            panic!("dense");
        };
        assert_eq!(matrix.spec, mode.default_spec());
        let values = matrix.dequantize().unwrap();
        let expected = match mode {
            QuantMode::Mxfp8 => [2f32.powi(64 - 127); 2],
            QuantMode::Mxfp4 => [-0.0, 1.5 * 2f32.powi(64 - 127)],
            _ => [-0.0, 1.5 * 2.0],
        };
        assert_eq!((values.len(), &values[..2]), (2 * COLS, &expected[..]));

        tensors.push(TensorData::from_f32("q.global_scale", &[1], &[1.0]).unwrap());
        let error = Checkpoint::from_tensors(tensors.clone()).matrix("q", 2, COLS, &none).unwrap_err();
        assert_contains(&error.to_string(), &["`q.global_scale`", "only experts"]);
        tensors.pop();
        tensors.push(TensorData::from_f32("q.biases", &[2, groups], &vec![0.0; 2 * groups]).unwrap());
        let error = Checkpoint::from_tensors(tensors).matrix("q", 2, COLS, &none).unwrap_err();
        assert_contains(&error.to_string(), &["`q.biases`", "has no biases"]);
    }
}

/// A folder as mlx-lm writes one: mxfp4 by default, and per layer affine, the other modes and dense.
#[test]
fn a_model_of_mixed_modes() {
    let values: Vec<f32> = (0..ROWS * COLS).map(|index| (index as f32).sin()).collect();
    let affine = quantize_affine(&values, ROWS, COLS, QuantSpec::affine(6, 64), Dtype::Bf16).unwrap();
    let mut tensors = vec![TensorData::from_f32_as("d.weight", Dtype::Bf16, &[ROWS, COLS], &values).unwrap()];
    let mut add = |path: &str, matrix: &QuantizedData| {
        let parts = [Some(&matrix.weight), Some(&matrix.scales), matrix.biases.as_ref()];
        tensors
            .extend(parts.into_iter().flatten().map(|part| part.renamed(&format!("{path}.{}", part.name()))));
    };
    add("affine", &affine);
    for mode in [QuantMode::Mxfp4, QuantMode::Mxfp8, QuantMode::Nvfp4] {
        let matrix = quantize_minifloat(&values, ROWS, COLS, mode, Dtype::Bf16).unwrap();
        add(mode.name(), &matrix);
        // As listed, and as the shapes say.
        add(&format!("unlisted.{mode}"), &matrix);
    }
    let section = json!({
        "mode": "mxfp4", "group_size": 32, "bits": 4,
        "mxfp4": {"mode": "mxfp4", "group_size": 32, "bits": 4},
        "mxfp8": {"mode": "mxfp8", "group_size": 32, "bits": 8},
        "nvfp4": {"mode": "nvfp4"},
        "affine": {"group_size": 64, "bits": 6},
        "d": false,
        "unlisted": {"mode": "affine", "group_size": 64, "bits": 4},
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &tensors);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let config = json!({"quantization": section, "quantization_config": section});
    let config = QuantizationConfig::from_config(&config, "config.json").unwrap();
    assert_eq!(config.default, Some(QuantMode::Mxfp4.default_spec()));

    let bytes = [("mxfp4", 64 + 4), ("mxfp8", 128 + 4), ("nvfp4", 64 + 8), ("affine", 96 + 2 * 2 * 2)];
    for (name, bytes_per_row) in bytes {
        for path in [name.to_owned(), format!("unlisted.{name}")] {
            if path == "unlisted.affine" {
                continue;
            }
            let matrix = checkpoint.matrix(&path, ROWS, COLS, &config).unwrap();
            let MatrixData::Quantized(quantized) = &matrix else { panic!("{path} is dense") };
            assert_eq!(quantized.spec.mode.name(), name, "{path}");
            assert_eq!(matrix.byte_len(), ROWS * bytes_per_row, "{path}");
            for (value, restored) in values.iter().zip(quantized.dequantize().unwrap()) {
                assert!((value - restored).abs() < 0.25, "{path}: {value} {restored}");
            }
        }
    }
    assert!(matches!(checkpoint.matrix("d", ROWS, COLS, &config), Ok(MatrixData::Dense(_))));

    // A listed mode that the tensors contradict.
    let error = |path: &str, listed: Value| {
        let config = QuantizationConfig::from_config(
            &json!({"quantization": {"mode": "mxfp4", path: listed}}),
            "config.json",
        );
        let error = checkpoint.matrix(path, ROWS, COLS, &config.unwrap()).unwrap_err();
        assert!(error.hint().is_some(), "no hint for: {error}");
        error.to_string()
    };
    let affine_32 = json!({"group_size": 32, "bits": 4});
    assert_contains(&error("mxfp4", affine_32), &["`mxfp4.scales`", "F16, BF16 or F32", "found U8"]);
    assert_contains(&error("mxfp4", json!({"mode": "mxfp8"})), &["`mxfp4.weight`", "[3, 32], found [3, 16]"]);
    assert_contains(&error("nvfp4", json!({"mode": "mxfp4"})), &["`nvfp4.scales`", "[3, 4], found [3, 8]"]);
    assert_contains(
        &error("affine", json!({"mode": "mxfp4"})),
        &["`affine.weight`", "[3, 16], found [3, 24]"],
    );
}

#[test]
fn stacks_of_matrices_are_one_below_the_other() {
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let dense = TensorData::from_f32("experts.weight", &[2, 3, 4], &values).unwrap();
    let checkpoint = Checkpoint::from_tensors(vec![dense]);
    let none = QuantizationConfig::default();
    let stack = checkpoint.stack("experts", [2, 3, 4], &none).unwrap();
    assert_eq!((stack.rows(), stack.cols()), (6, 4));
    for wrong in [[3, 2, 4], [6, 1, 4], [2, 3, 5], [usize::MAX, 3, 4]] {
        assert!(matches!(checkpoint.stack("experts", wrong, &none), Err(WeightsError::WrongShape { .. })));
    }
    assert!(checkpoint.matrix("experts", 6, 4, &none).is_err());

    // Quantized: two experts of 2 rows and 64 columns, in 4 bits.
    let quantized = |shape: [usize; 3]| {
        let words = shape.iter().product();
        vec![
            TensorData::from_u32("experts.weight", &shape, &vec![0x7654_3210; words]).unwrap(),
            TensorData::from_f32("experts.scales", &[2, 2, 2], &[0.5; 8]).unwrap(),
            TensorData::from_f32("experts.biases", &[2, 2, 2], &[0.0; 8]).unwrap(),
        ]
    };
    let stack = Checkpoint::from_tensors(quantized([2, 2, 8])).stack("experts", [2, 2, 64], &none).unwrap();
    let MatrixData::Quantized(stack) = stack else { panic!("it has scales") };
    assert_eq!((stack.rows, stack.cols, stack.spec), (4, 64, QuantSpec::affine(4, 32)));
    assert_eq!(stack.dequantize().unwrap()[64..68], [0.0, 0.5, 1.0, 1.5]);
    assert!(Checkpoint::from_tensors(quantized([2, 2, 9])).stack("experts", [2, 2, 64], &none).is_err());
}

#[test]
fn rows_of_a_matrix_are_shared_or_copied() {
    let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let matrix = MatrixData::dense(TensorData::from_f32("w", &[6, 2], &values).unwrap()).unwrap();
    let rows = |ranges: &[std::ops::Range<usize>]| match matrix.select_rows(ranges).unwrap() {
        MatrixData::Dense(tensor) => (tensor.shape().to_vec(), tensor.to_f32().unwrap()),
        MatrixData::Quantized(_) => panic!("it is dense"),
    };
    assert_eq!(rows(std::slice::from_ref(&(1..3))), (vec![2, 2], vec![2.0, 3.0, 4.0, 5.0]));
    assert_eq!(rows(&[4..5, 0..1]), (vec![2, 2], vec![8.0, 9.0, 0.0, 1.0]));
    assert!(matrix.select_rows(std::slice::from_ref(&(5..7))).is_err());
    assert!(matrix.select_rows(&[0..1, 6..8]).is_err());
}
