//! Models as people have them: indexes of other models, strays, links, caches that cannot be written, names as they are
//! copied.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::hub::Model;
use crate::store::Place;
use crate::support::{TinyModel, finish, pippin, program};

const INDEX: &str = "model.safetensors.index.json";

/// The index of a model in five shards.
fn index_of_five() -> Vec<u8> {
    let map: serde_json::Map<String, serde_json::Value> = (1..=5)
        .map(|number| (format!("t{number}"), json!(format!("model-{number:05}-of-00005.safetensors"))))
        .collect();
    json!({"metadata": null, "weight_map": map}).to_string().into_bytes()
}

#[test]
fn an_index_of_another_model_is_a_warning() {
    let model = TinyModel::new();
    let folder = model.write();
    fs::write(model.file(INDEX), index_of_five()).expect("written");
    for command in [&["run", folder, "hello", "--max-tokens", "2"][..], &["show", folder]] {
        let outcome = pippin(command);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let warning = outcome.stderr.lines().find(|line| line.starts_with("warning: "));
        assert!(warning.is_some_and(|line| line.contains("model-00001-of-00005")), "{outcome:?}");
    }
    let shown = pippin(&["show", folder, "--json"]).json();
    assert!(shown["warnings"][0].as_str().is_some_and(|warning| warning.contains(INDEX)), "{shown}");
    // A shard alone is not a model.
    fs::rename(model.file("model.safetensors"), model.file("model-00001-of-00002.safetensors"))
        .expect("renamed");
    for command in [&["run", folder, "hello"][..], &["show", folder]] {
        pippin(command).fails(4, &["model-00002-of-00002.safetensors"]).hints("incomplete");
    }

    // The same on a hub.
    fs::rename(model.file("model-00001-of-00002.safetensors"), model.file("model.safetensors"))
        .expect("renamed");
    let place = Place::with(Model::from_folder(model.path()));
    let pulled = place.pippin(&["pull", "org/tiny"]);
    assert!(pulled.stderr.contains("warning: ") && pulled.stderr.contains(INDEX), "{pulled:?}");
    pulled.answer();
    let list = place.pippin(&["list", "--json"]).json();
    assert_eq!((&list[0]["complete"], &list[0]["verified"]), (&json!(true), &json!(true)), "{list}");
    place.pippin(&["verify", "org/tiny"]).answer();
    place.pippin(&["show", "org/tiny"]).answer();
    place.pippin(&["run", "org/tiny", "hello", "--max-tokens", "2"]).answer();
}

#[cfg(unix)]
#[test]
fn a_folder_of_links_is_a_model() {
    use std::os::unix::fs::symlink;
    let model = TinyModel::new();
    model.write();
    let place = tempfile::tempdir().expect("a temporary folder");
    for entry in model.path().read_dir().expect("a folder").flatten() {
        symlink(entry.path(), place.path().join(entry.file_name())).expect("linked");
    }
    let folder = place.path().to_str().expect("UTF-8");
    pippin(&["run", folder, "hello", "--max-tokens", "2"]).answer();
    pippin(&["show", folder]).answer();
    fs::remove_file(model.file("model.safetensors")).expect("removed");
    pippin(&["run", folder, "hello"]).fails(4, &["model.safetensors"]);

    // Nobody waits for the other end of a pipe.
    for name in [
        "generation_config.json",
        "chat_template.jinja",
        "tokenizer.json",
        "config.json",
        "model.safetensors",
    ] {
        let model = TinyModel::new();
        let folder = model.write();
        let _ = fs::remove_file(model.file(name));
        let made = std::process::Command::new("mkfifo").arg(model.file(name)).status();
        if made.is_ok_and(|status| status.success()) {
            pippin(&["run", folder, "hello"]).fails(4, &[name]);
            pippin(&["show", folder]).fails(4, &[name]);
        }
    }
}

#[test]
fn files_and_other_folders_are_told_apart() {
    let model = TinyModel::new();
    model.write();
    let gguf = model.file("x.gguf");
    fs::write(&gguf, "GGUF").expect("written");
    let gguf = gguf.to_str().expect("UTF-8");
    for command in [&["show", gguf][..], &["run", gguf, "hello"]] {
        pippin(command).fails(4, &["x.gguf is truncated: 4 bytes"]).hints("download it again");
    }
    for name in ["config.json", "model.safetensors"] {
        let path = model.file(name);
        let path = path.to_str().expect("UTF-8");
        pippin(&["show", path]).answer();
        pippin(&["run", path, "hello", "--max-tokens", "2"]).answer();
    }

    let mut model = TinyModel::new();
    model.config.as_object_mut().expect("an object").remove("model_type");
    let folder = model.write().to_owned();
    for (file, part) in
        [("", "has no model_type"), ("model_index.json", "image"), ("adapter_config.json", "adapter")]
    {
        if !file.is_empty() {
            fs::write(model.file(file), "{}").expect("written");
        }
        for command in [&["run", folder.as_str(), "hello"][..], &["show", folder.as_str()]] {
            let outcome = pippin(command).fails(4, &["config.json", "has no model_type", part]);
            assert!(!outcome.stderr.contains("damaged"), "{outcome:?}");
            outcome.hints("model_type");
        }
    }
}

#[test]
fn names_come_as_they_are_copied() {
    let place = Place::new();
    let endpoint = place.hub.endpoint();
    let page = format!("{endpoint}/org/tiny/tree/main?x=1#files");
    place.pippin(&["pull", &page]).answer();
    let bare = endpoint.trim_start_matches("http://");
    for name in [page.as_str(), " org/tiny ", "\"org/tiny\"", "hf://org/tiny", &format!("{bare}/org/tiny/")] {
        place.pippin(&["run", name, "hello", "--max-tokens", "2"]).answer();
        place.pippin(&["show", name]).answer();
        place.pippin(&["verify", name]).answer();
    }
    place.pippin(&["show", &format!("{endpoint}/datasets/org/tiny")]).fails(3, &["datasets", "not a model"]);
    place
        .pippin(&["pull", "https://elsewhere.example/org/tiny"])
        .fails(3, &["another server"])
        .hints("HF_ENDPOINT");
    place
        .pippin(&["pull", "org/tiny:4bit"])
        .fails(3, &["no GGUF files", "4bit"])
        .hints("ORGANISATION/NAME:Q4_K_M");
    place.pippin(&["rm", "--yes", &page]).answer();
}

#[test]
fn folders_in_variables_are_expanded() {
    let place = Place::new();
    let root = tempfile::tempdir().expect("a temporary folder");
    for (variable, value, expected) in [
        ("HF_HUB_CACHE", "$PLACE/a", "a"),
        ("HF_HUB_CACHE", "${PLACE}/b", "b"),
        ("HF_HUB_CACHE", "~/c", "c"),
        ("HF_HOME", "$PLACE/d", "d/hub"),
        ("XDG_CACHE_HOME", "~/e", "e/huggingface/hub"),
        ("HUGGINGFACE_HUB_CACHE", "$HOME/f", "f"),
    ] {
        let mut command = place.command(&["pull", "org/tiny"]);
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("PLACE", root.path()).env("HOME", root.path()).env(variable, value);
        finish(&mut command, b"").answer();
        assert!(root.path().join(expected).join("models--org--tiny").is_dir(), "{variable}={value}");
    }
}

/// What nobody can write to, not even root: there are files where folders would be needed.
#[test]
fn a_model_that_is_here_needs_no_writable_cache() {
    let place = Place::new();
    let directory = place.pippin(&["pull", "org/tiny"]).answer();
    let own = tempfile::tempdir().expect("a temporary folder");
    let repository = place.cache.path().join("models--org--tiny");
    for folder in [place.cache.path().join(".locks"), repository.join(".pippin")] {
        fs::remove_dir_all(&folder).expect("removed");
        fs::write(&folder, "").expect("written");
    }
    let at = |arguments: &[&str]| finish(place.command(arguments).env("XDG_CACHE_HOME", own.path()), b"");
    at(&["run", "org/tiny", "hello", "--max-tokens", "2"]).answer();
    // The user's own folder remembers that the files are right.
    assert_eq!(at(&["list", "--json"]).json()[0]["verified"], true);
    assert_eq!(fs::read_dir(own.path().join("pippin/verified")).expect("a folder").count(), 1);
    at(&["show", "org/tiny"]).answer();
    at(&["verify", "--all", "org/tiny"]).answer();
    assert_eq!(at(&["pull", "org/tiny"]).answer(), directory);
    // Where that cannot be written either, they are hashed again.
    let nowhere = own.path().join("nowhere");
    fs::write(&nowhere, "").expect("written");
    let mut command = place.command(&["run", "org/tiny", "hello", "--max-tokens", "2"]);
    finish(command.env("XDG_CACHE_HOME", nowhere), b"").answer();
    // What is not there cannot come.
    let changed = Model::from_folder(Path::new(directory.trim_end()));
    let commit = "89abcdef0123456789abcdef0123456789abcdef".to_owned();
    place.hub.add("org/tiny", Model { commit, ..changed.with("config.json", b"{}".to_vec()) });
    at(&["pull", "org/tiny"]).fails(8, &["cannot write"]);
}

#[test]
fn what_is_here_needs_no_network_and_no_home() {
    let place = Place::new();
    let directory = place.pippin(&["pull", "org/tiny"]).answer();
    let commands: [&[&str]; 4] = [
        &["run", "org/tiny", "hello", "--max-tokens", "2"],
        &["list"],
        &["show", "org/tiny"],
        &["verify", "org/tiny"],
    ];
    for arguments in commands {
        // Nobody answers there; and where nobody may be asked.
        for (name, value) in [("HF_ENDPOINT", "http://127.0.0.1:1"), ("HF_HUB_OFFLINE", "1")] {
            let mut command = place.command(arguments);
            finish(command.env(name, value).env_remove("HOME").env_remove("XDG_CONFIG_HOME"), b"").answer();
        }
    }
    let offline = finish(place.command(&["pull", "org/tiny"]).env("HF_HUB_OFFLINE", "1"), b"");
    assert!(offline.stderr.contains("here already"), "{offline:?}");
    assert_eq!(offline.answer(), directory);
    finish(place.command(&["pull", "org/other"]).env("HF_HUB_OFFLINE", "1"), b"").fails(8, &["network"]);
    // A folder needs no cache at all.
    let model = TinyModel::new();
    let folder = model.write();
    let mut command = program();
    command.args(["run", folder, "hello", "--max-tokens", "2"]);
    for name in ["HOME", "HF_HUB_CACHE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    finish(&mut command, b"").answer();
    assert!(Path::new(folder).is_dir());
}
