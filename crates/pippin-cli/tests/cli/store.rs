//! Downloading, listing, checking and removing models, with a hub on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::hub::{FakeHub, Kind, Model};
use crate::support::{Outcome, TinyModel, finish, program};

/// A hub with a model that answers, and a cache of its own.
pub(crate) struct Place {
    pub(crate) hub: FakeHub,
    pub(crate) cache: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let tiny = TinyModel::new();
        tiny.write();
        Self::with(Model::from_folder(tiny.path()))
    }

    pub(crate) fn with(model: Model) -> Self {
        let hub = FakeHub::start();
        hub.add("org/tiny", model);
        Self { hub, cache: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .args(arguments)
            .env("HF_HUB_CACHE", self.cache.path())
            .env("HF_ENDPOINT", self.hub.endpoint());
        command.env("HF_HOME", self.cache.path()).env_remove("HF_TOKEN").env_remove("HF_HUB_OFFLINE");
        command
    }

    pub(crate) fn pippin(&self, arguments: &[&str]) -> Outcome {
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
    // There is no terminal to ask at.
    let outcome = place.pippin(&["run", "org/tiny", "hello"]).fails(3, &["org/tiny"]);
    assert!(outcome.stderr.contains("pippin pull org/tiny"), "{outcome:?}");
    outcome.hints("give --yes");
    // The hint holds for each command that gives it.
    let outcome = place.pippin(&["serve", "org/tiny"]).fails(3, &["org/tiny"]);
    assert!(!outcome.stderr.contains("run does"), "{outcome:?}");
    outcome.hints("give --yes");
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
fn two_processes_download_once() {
    const SIZE: u64 = 16 << 20;
    let place = Place::with(Model::small(SIZE as usize));
    place.hub.set_rate(8 << 20);
    let pull = || {
        let mut command = place.command(&["pull", "org/tiny", "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program starts")
    };
    let first = pull();
    while place.hub.sent("model.safetensors") == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = pull();
    let outcomes = [first, second].map(|child| {
        let output = child.wait_with_output().expect("ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{stderr}");
        (serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), stderr)
    });
    let transferred =
        |(summary, _): &(Value, String)| summary["transferred_bytes"].as_u64().expect("a number");
    let total = outcomes[0].0["total_bytes"].as_u64().expect("a number");
    assert!(outcomes[1].1.contains("another process is downloading it"), "{outcomes:?}");
    assert_eq!((transferred(&outcomes[0]), transferred(&outcomes[1])), (total, 0));
    assert_eq!(outcomes[0].0["directory"], outcomes[1].0["directory"]);
    let file = &place.hub.model("org/tiny").files["model.safetensors"];
    assert_eq!(place.hub.sent("model.safetensors"), file.content.len() as u64);
    assert_eq!(place.pippin(&["verify", "--all", "--json"]).json()[0]["ok"], true);
}

#[test]
fn the_configuration_says_where_models_are() {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("models");
    let config = folder.path().join("config.toml");
    let text = format!("[hub]\ncache_dir = {:?}\nendpoint = {:?}\n", cache, place.hub.endpoint());
    fs::write(&config, text).expect("written");
    let pippin = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("PIPPIN_CONFIG", &config).env_remove("HF_ENDPOINT");
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"] {
            command.env_remove(name);
        }
        finish(&mut command, b"")
    };
    pippin(&["run", "org/tiny", "hello", "--max-tokens", "2", "--yes"]).answer();
    let directory = pippin(&["pull", "org/tiny"]).answer();
    assert!(directory.starts_with(cache.to_str().expect("UTF-8")), "{directory}");
    assert_eq!(pippin(&["list", "--json"]).json()[0]["model"], "org/tiny");
    assert_eq!(pippin(&["verify", "--json"]).json()[0]["ok"], true);
    assert_eq!(pippin(&["show", "org/tiny", "--json"]).json()["directory"], directory.trim_end());
    pippin(&["bench", "org/tiny", "-p", "8", "-n", "0", "-r", "1"]).answer();
    let partial = cache.join("models--org--tiny/blobs/0.incomplete");
    fs::write(&partial, "x").expect("written");
    pippin(&["prune"]).answer();
    assert!(!partial.exists());
    pippin(&["rm", "org/tiny", "--yes"]).answer();
    assert!(!cache.join("models--org--tiny").exists());
    assert_eq!(
        fs::read_dir(place.cache.path()).expect("a folder").count(),
        0,
        "the environment's is left alone"
    );

    // The environment wins.
    let mut command = place.command(&["list", "--json"]);
    command.env("PIPPIN_CONFIG", &config);
    pippin(&["pull", "org/tiny"]).answer();
    assert_eq!(finish(&mut command, b"").json(), serde_json::json!([]));
}

#[test]
fn the_token_comes_from_the_environment_or_its_file() {
    let place = Place::with(Model { private_to: Some("hf_right".to_owned()), ..Model::small(100) });
    let home = tempfile::tempdir().expect("a temporary folder");
    let (named, wrong) = (home.path().join("named"), home.path().join("wrong"));
    fs::write(&named, "hf_right\n").expect("written");
    fs::write(&wrong, "hf_wrong").expect("written");
    let plan = |variables: &[(&str, &str)]| {
        let mut command = place.command(&["pull", "org/tiny", "--dry-run"]);
        command.env("HF_HOME", home.path()).env_remove("HF_TOKEN_PATH");
        command.envs(variables.iter().copied());
        finish(&mut command, b"")
    };
    let (named, wrong) = (named.to_str().expect("UTF-8"), wrong.to_str().expect("UTF-8"));
    plan(&[]).fails(3, &["org/tiny"]).hints("HF_TOKEN");
    plan(&[("HF_TOKEN", "hf_right"), ("HF_TOKEN_PATH", wrong)]).answer();
    plan(&[("HF_TOKEN", "hf_wrong"), ("HF_TOKEN_PATH", named)]).fails(3, &["org/tiny"]);
    plan(&[("HF_TOKEN_PATH", named)]).answer();
    fs::write(home.path().join("token"), "hf_right").expect("written");
    plan(&[("HF_TOKEN_PATH", wrong)]).fails(3, &["org/tiny"]);
    plan(&[]).answer();
}

/// A proxy that makes the connections it is asked for; what is meant for `hub.example` reaches the hub of the test.
fn proxy(hub: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let hub = hub.trim_start_matches("http://").to_owned();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (hub, requests) = (hub.clone(), Arc::clone(&requests));
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut reader = BufReader::new(client.try_clone()?);
                let (mut request, mut line) = (String::new(), String::new());
                while reader.read_line(&mut line)? > 2 {
                    request.push_str(&line);
                    line.clear();
                }
                let mut words = request.split_whitespace();
                let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                requests.lock().expect("no panic").push(format!("{method} {target}"));
                let target = if target.starts_with("hub.example") { hub } else { target.to_owned() };
                let mut server = TcpStream::connect(target)?;
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                let (mut answers, mut to_client) = (server.try_clone()?, client);
                std::thread::spawn(move || std::io::copy(&mut answers, &mut to_client));
                std::io::copy(&mut reader, &mut server)?;
                server.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    (format!("http://{address}"), seen)
}

#[test]
fn proxies_are_used_for_the_world_outside() {
    let place = Place::new();
    let (proxy, seen) = proxy(&place.hub.endpoint());
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let mut command = place.command(&["pull", "org/tiny", "--dry-run"]);
        for name in [
            "ALL_PROXY",
            "all_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "NO_PROXY",
            "no_proxy",
        ] {
            command.env_remove(name);
        }
        command.env(variable, &proxy).env("HF_ENDPOINT", "http://hub.example");
        finish(&mut command, b"").answer();
        let requests = std::mem::take(&mut *seen.lock().expect("no panic"));
        assert!(requests[0].starts_with("CONNECT hub.example:80"), "{variable}: {requests:?}");
        // Nor does a hub on this machine need one, whatever the variables say.
        finish(place.command(&["pull", "org/tiny", "--dry-run"]).env(variable, &proxy), b"").answer();
        assert!(seen.lock().expect("no panic").is_empty());
    }
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
