//! search, recommend, config, and show for models that are not here.

use std::process::Command;

use serde_json::{Value, json};

use crate::hub::{COMMIT, FakeHub, Model, safetensors};
use crate::support::{finish, pippin, program};

fn at(hub: &FakeHub, arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .args(arguments)
        .env("HF_ENDPOINT", hub.endpoint())
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE");
    command
}

fn hub() -> FakeHub {
    let hub = FakeHub::start();
    let config = json!({
        "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 1000, "max_position_embeddings": 40_960,
        "quantization": {"group_size": 64, "bits": 4}
    });
    let extra = |downloads: u64| {
        json!({"downloads": downloads, "likes": 3, "tags": ["mlx", "license:apache-2.0"],
            "safetensors": {"parameters": {"U32": 75_000_000, "BF16": 18_750_000}},
            "config": {"model_type": "qwen3", "quantization_config": {"bits": 4, "group_size": 64}}})
    };
    let model = |downloads| {
        Model::new(COMMIT)
            .with("config.json", config.to_string().into_bytes())
            .with_lfs("model.safetensors", safetensors(50_000, 1))
            .extra(extra(downloads))
    };
    hub.add("mlx-community/Alpha-0.6B-4bit", model(10));
    hub.add("mlx-community/Beta-0.6B-4bit", model(20));
    hub.add("mlx-community/Gamma-0.6B-4bit", model(30));
    hub.add(
        "mlx-community/Hostile-4bit",
        Model::new(COMMIT).extra(json!({"config": {"model_type": "\u{1b}[2J\nx"}})),
    );
    hub
}

#[test]
fn models_are_searched() {
    let hub = hub();
    let text = finish(&mut at(&hub, &["search", "0.6B"]), b"").answer();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("MODEL") && lines[0].ends_with("LIKES"), "{text}");
    assert!(
        lines[1].starts_with("mlx-community/Gamma-0.6B-4bit  337.5 MB    600M     4  qwen3   yes"),
        "{text}"
    );
    assert_eq!(lines.len(), 4, "{text}");

    let page =
        finish(&mut at(&hub, &["search", "0.6B", "--limit", "2", "--page", "2", "--json"]), b"").json();
    assert_eq!(page["models"][0]["id"], "mlx-community/Alpha-0.6B-4bit");
    assert_eq!((&page["has_more"], &page["page"]), (&json!(false), &json!(2)));

    let text = finish(&mut at(&hub, &["search", "hostile"]), b"").answer();
    assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text:?}");
    let none = finish(&mut at(&hub, &["search", "no-such-thing"]), b"");
    assert!(none.stderr.contains("no such models") && none.stderr.contains("--all-authors"), "{none:?}");
    assert_eq!(none.answer(), "");
}

#[test]
fn searching_needs_the_network() {
    let hub = hub();
    let mut command = at(&hub, &["search", "x"]);
    finish(command.env("HF_HUB_OFFLINE", "1"), b"").fails(8, &["needs the network"]).hints("HF_HUB_OFFLINE");
    let mut command = at(&hub, &["search", "x"]);
    finish(command.env("HF_ENDPOINT", "http://127.0.0.1:1"), b"").fails(8, &["cannot reach 127.0.0.1"]);
    assert!(hub.requests().is_empty());
    pippin(&["search", "--bits", "0"]).fails(2, &["--bits"]);
    pippin(&["search", "--author", "x", "--all-authors"]).fails(2, &["--all-authors"]);
}

#[test]
fn remote_models_are_shown() {
    let hub = hub();
    let id = "mlx-community/Alpha-0.6B-4bit";
    let outcome = finish(&mut at(&hub, &["show", id]), b"");
    assert!(outcome.stderr.contains(&format!("pippin pull {id}")), "{outcome:?}");
    let text = outcome.answer();
    for part in [
        id,
        "not on this machine",
        "qwen3 (runs)",
        "600.0 million",
        "4 bits, groups of 64",
        "40960 tokens",
        "apache-2.0",
        "with a context of 4096 tokens; ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let shown = finish(&mut at(&hub, &["show", id, "--json"]), b"").json();
    assert_eq!((&shown["commit"], &shown["shape"]["layers"]), (&json!(COMMIT), &json!(28)));
    assert!(["yes", "tight", "no"].contains(&shown["fits"].as_str().expect("a word")), "{shown}");
    assert_eq!((&shown["supported"], &shown["shape"]["family"]), (&json!(true), &json!("qwen3")));
    // Nothing but the list and the configuration was downloaded.
    hub.forget_requests();
    finish(&mut at(&hub, &["show", id]), b"").answer();
    let paths: Vec<String> = hub.requests().into_iter().map(|request| request.path).collect();
    let configuration = format!("/{id}/resolve/{COMMIT}/config.json");
    assert!(
        paths.len() == 2 && paths[0].starts_with("/api/models/") && paths[1] == configuration,
        "{paths:?}"
    );

    finish(&mut at(&hub, &["show", "mlx-community/absent"]), b"")
        .fails(3, &["mlx-community/absent"])
        .hints("spelling");
    let mut offline = at(&hub, &["show", id]);
    finish(offline.env("HF_HUB_OFFLINE", "1"), b"")
        .fails(3, &["not in the Hugging Face cache"])
        .hints("pippin pull");
}

#[test]
fn models_are_recommended() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let recommend = |arguments: &[&str]| {
        let mut command = program();
        command.arg("recommend").args(arguments).env("XDG_CACHE_HOME", cache.path());
        finish(&mut command, b"")
    };
    let advice = recommend(&["--json"]).json();
    assert!(advice["hardware"]["cores"].as_u64().is_some_and(|cores| cores > 0));
    assert!(advice["bandwidth"]["bytes_per_second"].as_f64().is_some_and(|rate| rate > 1e6));
    assert_eq!(advice["bandwidth"]["is_remembered"], false);
    let models = advice["models"].as_array().expect("a list");
    assert!(models.iter().all(|model| model["supported"] == true && model["fits"] != "no"), "{models:?}");
    let longer = recommend(&["--json", "--context", "32768"]).json();
    assert_eq!(longer["bandwidth"]["is_remembered"], true);
    let need = |advice: &Value| {
        let model = advice["models"].as_array()?.iter().find(|model| model["alias"] == "qwen3-0.6b")?;
        model["memory_bytes"].as_u64()
    };
    if let (Some(short), Some(long)) = (need(&advice), need(&longer)) {
        assert_eq!(long - short, 114_688 * (32_768 - 4096));
    }
    let text = recommend(&["--all"]).answer();
    assert!(text.contains("DeepSeek-R1-4bit") && text.contains("estimates"), "{text}");
}

#[test]
fn the_configuration_tells_its_sources() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("pippin")).expect("created");
    let file = folder.path().join("pippin/config.toml");
    std::fs::write(&file, "threads = 3\ncontext = 100\n[hub]\noffline = true\n").expect("written");
    let with = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).env("XDG_CONFIG_HOME", folder.path()).env("PIPPIN_CONTEXT", "200");
        command.env_remove("HF_HUB_OFFLINE").env_remove("HF_ENDPOINT");
        finish(&mut command, b"")
    };
    let config = with(&["config", "--json", "--memory-budget", "2GB", "--pin", "a", "--pin", "b"]).json();
    let setting = |key: &str| {
        let all = config["settings"].as_array().expect("a list");
        let setting = all.iter().find(|setting| setting["key"] == key).expect(key);
        (setting["value"].clone(), setting["source"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(setting("threads"), (json!(3), format!("{}:1", file.display())));
    assert_eq!(setting("context"), (json!(200), "PIPPIN_CONTEXT".to_owned()));
    assert_eq!(setting("memory_budget"), (json!("2 GB"), "--memory-budget".to_owned()));
    assert_eq!(setting("pin"), (json!(["a", "b"]), "--pin".to_owned()));
    assert_eq!(setting("max_loaded_models"), (json!(3), "default".to_owned()));
    assert_eq!(config["file_exists"], true);
    let text = with(&["config"]).answer();
    assert!(
        text.lines().any(|line| line.contains("hub.offline") && line.contains("config.toml:4")),
        "{text}"
    );
    // The file has a say in what commands do.
    with(&["search", "x"]).fails(8, &["needs the network"]);

    std::fs::write(&file, "\nthread = 3\n").expect("written");
    with(&["config"]).fails(2, &["config.toml:2", "\"thread\""]).hints("threads");
    with(&["run", "hello"]).fails(2, &["config.toml:2"]);
    with(&["config", "--keep-alive", "soon"]).fails(2, &["config.toml"]);
    std::fs::remove_file(&file).expect("removed");
    with(&["config", "--keep-alive", "soon"]).fails(2, &["--keep-alive is \"soon\""]);
    let mut command = program();
    command.arg("config").env("PIPPIN_CONFIG", "/no/such/file.toml");
    finish(&mut command, b"").fails(2, &["/no/such/file.toml"]).hints("PIPPIN_CONFIG");
}

#[test]
fn users_name_models_of_their_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("pippin")).expect("created");
    let file = folder.path().join("pippin/models.toml");
    let show = |model: &str| {
        let mut command = program();
        command.args(["show", model]).env("XDG_CONFIG_HOME", folder.path()).env("HF_HUB_OFFLINE", "1");
        finish(&mut command, b"")
    };
    std::fs::write(&file, "[[model]]\nid = 'me/Mine-4bit'\naliases = ['mine']\n").expect("written");
    show("mine").fails(3, &["me/Mine-4bit"]);
    show("mime").fails(3, &["mime"]).hints("mine");
    std::fs::write(&file, "[[model]]\nid = 'me'\n").expect("written");
    show("mine").fails(2, &["models.toml:1", "hub id"]);
}
