//! Downloading, listing, checking and removing models, with a hub on loopback.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::hub::{FakeHub, Kind, Model};
use crate::support::{Outcome, TinyModel, finish, program};

/// A hub with a model that answers, and a cache of its own.
struct Place {
    hub: FakeHub,
    cache: TempDir,
}

impl Place {
    fn new() -> Self {
        let tiny = TinyModel::new();
        tiny.write();
        Self::with(Model::from_folder(tiny.path()))
    }

    fn with(model: Model) -> Self {
        let hub = FakeHub::start();
        hub.add("org/tiny", model);
        Self { hub, cache: tempfile::tempdir().expect("a temporary folder") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .args(arguments)
            .env("HF_HUB_CACHE", self.cache.path())
            .env("HF_ENDPOINT", self.hub.endpoint());
        command.env("HF_HOME", self.cache.path()).env_remove("HF_TOKEN").env_remove("HF_HUB_OFFLINE");
        command
    }

    fn pippin(&self, arguments: &[&str]) -> Outcome {
        finish(&mut self.command(arguments), b"")
    }
}

#[test]
fn models_are_pulled_listed_run_checked_and_removed() {
    let place = Place::new();
    let plan = place.pippin(&["pull", "org/tiny", "--dry-run", "--json"]).json();
    assert_eq!(plan["missing_bytes"], plan["total_bytes"]);
    let directory = place.pippin(&["pull", "org/tiny"]).answer();
    assert!(directory.trim_end().ends_with(&plan["commit"].as_str().expect("a commit").to_owned()));
    let again = place.pippin(&["pull", "org/tiny", "--json"]).json();
    assert_eq!(again["transferred_bytes"], 0);

    let list = place.pippin(&["list", "--json"]).json();
    assert_eq!((&list[0]["model"], &list[0]["family"]), (&"org/tiny".into(), &"llama".into()));
    assert_eq!((&list[0]["complete"], &list[0]["verified"]), (&true.into(), &true.into()));
    assert!(place.pippin(&["list"]).answer().contains("org/tiny"));
    place.pippin(&["run", "org/tiny", "hello", "--max-tokens", "2"]).answer();

    assert!(place.pippin(&["verify"]).answer().contains("files are right"));
    let weights = fs::canonicalize(format!("{}/model.safetensors", directory.trim_end())).expect("there");
    let mut bytes = fs::read(&weights).expect("readable");
    bytes[1000] ^= 1;
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&weights, bytes).expect("written");
    let outcome = place.pippin(&["verify", "org/tiny", "--all"]);
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stdout.contains("model.safetensors is damaged"), "{outcome:?}");
    place
        .pippin(&["run", "org/tiny", "hello"])
        .fails(4, &["model.safetensors"])
        .hints("pippin pull org/tiny");
    place.pippin(&["pull", "org/tiny"]).answer();
    place.pippin(&["verify", "--json"]).json();

    place.pippin(&["rm", "org/tiny"]).fails(2, &["org/tiny"]).hints("--yes");
    place.pippin(&["rm", "org/tiny", "--yes"]).answer();
    assert_eq!(place.pippin(&["list", "--json"]).json(), serde_json::json!([]));
    place.pippin(&["rm", "org/tiny", "--yes"]).fails(3, &["org/tiny"]);
    place.pippin(&["prune"]).answer();
}

#[test]
fn absent_models_are_pulled_on_request_only() {
    let place = Place::new();
    place.pippin(&["run", "org/tiny", "hello"]).fails(3, &["org/tiny"]).hints("pippin pull org/tiny");
    assert!(place.hub.requests().is_empty());
    let outcome = place.pippin(&["run", "org/tiny", "hello", "--max-tokens", "2", "--yes"]);
    assert!(outcome.stderr.contains("downloading"), "{outcome:?}");
    outcome.answer();
}

#[test]
fn failures_have_codes_and_hints() {
    let place = Place::new();
    place.pippin(&["pull", "org/none"]).fails(3, &["org/none"]).hints("HF_TOKEN");
    place.pippin(&["pull", "org/tiny", "--revision", "v9"]).fails(3, &["v9"]).hints("--revision");
    place.pippin(&["pull", "pippin-nano"]).fails(2, &["comes with Pippin"]);
    place.pippin(&["pull"]).code.map(|code| assert_eq!(code, 2)).expect("a code");
    let offline = finish(place.command(&["pull", "org/tiny"]).env("HF_HUB_OFFLINE", "1"), b"");
    offline.fails(8, &["HF_HUB_OFFLINE"]).hints("HF_HUB_OFFLINE");
    let nowhere = finish(place.command(&["pull", "org/tiny"]).env("HF_ENDPOINT", "nonsense"), b"");
    nowhere.fails(2, &["HF_ENDPOINT"]);
    place.hub.add("org/gated", Model { is_gated: true, ..Model::small(100) });
    let gated = finish(place.command(&["pull", "org/gated"]).env("HF_TOKEN", "hf_mine"), b"");
    assert!(!gated.stderr.contains("hf_mine"));
    gated.fails(3, &["gated"]).hints("/org/gated");
    place.hub.fault(
        "/resolve/",
        1,
        Kind::Status { code: 404, retry_after: None, error_code: "EntryNotFound" },
    );
    assert_eq!(place.pippin(&["pull", "org/tiny"]).code, Some(8));
}

#[test]
fn killed_downloads_go_on_where_they_stopped() {
    const SIZE: u64 = 24 << 20;
    let place = Place::with(Model::small(SIZE as usize));
    place.hub.set_rate(24 << 20);
    let mut child = place
        .command(&["pull", "org/tiny"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    while place.hub.sent("model.safetensors") < SIZE / 2 {
        assert!(child.try_wait().expect("a child").is_none(), "ended too early");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("dead");
    place.hub.set_rate(0);
    place.pippin(&["pull", "org/tiny"]).answer();
    let sent = place.hub.sent("model.safetensors");
    // Eight connections lose one piece each at most, and what was on its way: the file is small for that.
    assert!(sent < SIZE + SIZE / 5, "{} bytes twice", sent - SIZE);
    assert_eq!(place.pippin(&["verify", "--all", "--json"]).json()[0]["ok"], true);
}

#[test]
fn models_in_use_are_not_removed() {
    let place = Place::new();
    place.pippin(&["pull", "org/tiny"]).answer();
    let mut child = place
        .command(&["run", "org/tiny", "--batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    // It says that it uses the model by a file.
    let used = place.cache.path().join("models--org--tiny/.pippin/used");
    for _ in 0..1000 {
        if used.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    place.pippin(&["rm", "org/tiny", "--yes"]).fails(8, &["in use"]);
    drop(child.stdin.take());
    child.wait().expect("ends");
    place.pippin(&["rm", "org/tiny", "--yes"]).answer();
}
