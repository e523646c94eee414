use std::time::{Duration, Instant};

use pippin::config::EngineConfig;
use pippin::hub::{HubCache, HubOptions};
use pippin::{ModelCache, cache::CacheOptions};
use pippin_server::{Keys, Management};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::hub::{FakeHub, Model};
use crate::support::{Connection, Reply, TestServer, cache, endless, server, server_with};

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pippin-nano-4bit");

/// A server with a cache of its own, and a hub that has a model.
fn place() -> (FakeHub, TempDir, TestServer) {
    let hub = FakeHub::start();
    hub.add("org/tiny", Model::from_folder(NANO.as_ref()));
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = EngineConfig::default();
    config.hub.cache_dir = Some(folder.path().to_owned());
    let cache = ModelCache::from_config(&config).expect("a cache");
    let server = server_with(cache, |options| {
        let hub = HubOptions::new(hub.endpoint());
        options
            .with_local_models(HubCache::new(folder.path()))
            .with_hub(hub)
            .with_management(Management::Everyone)
    });
    (hub, folder, server)
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/x-ndjson")),
        "{reply:?}"
    );
    reply.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn ask(server: &TestServer) -> Reply {
    let request =
        json!({"model": "org/tiny", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2});
    server.post("/v1/chat/completions", &request)
}

#[test]
fn models_are_downloaded_answered_from_and_deleted() {
    let (_hub, _folder, server) = place();
    assert_eq!(ask(&server).status, 404);
    let lines = lines(&server.post("/api/pull", &json!({"model": "org/tiny"})));
    assert_eq!(lines.first().expect("lines")["status"], "pulling manifest");
    assert_eq!(lines.last().expect("lines"), &json!({"status": "success"}));
    let progress: Vec<&Value> = lines.iter().filter(|line| line["completed"].is_u64()).collect();
    let total = progress.last().expect("progress")["total"].clone();
    assert!(total.as_u64() > Some(1000) && progress.iter().all(|line| line["total"] == total));
    assert_eq!(ask(&server).status, 200);
    let names = server.get("/v1/models").answer();
    assert!(names["data"].as_array().expect("a list").iter().any(|model| model["id"] == "org/tiny"));
    // What is here is not fetched again.
    assert_eq!(
        server.post("/api/pull", &json!({"name": "org/tiny", "stream": false})).answer()["status"],
        "success"
    );

    let delete =
        |name: &str| server.send("DELETE", "/api/delete", &[], json!({"model": name}).to_string().as_bytes());
    assert_eq!(delete("org/tiny").answer()["status"], "success");
    assert_eq!(ask(&server).status, 404);
    assert_eq!(delete("org/tiny").status, 404);
    // What comes with Pippin is nobody's to delete.
    assert_eq!(delete("pippin-nano").status, 400);
    let absent = self::lines(&server.post("/api/pull", &json!({"model": "org/absent"})));
    assert!(absent.last().expect("lines")["error"].as_str().is_some_and(|text| text.contains("org/absent")));
    assert_eq!(server.post("/api/pull", &json!({"model": "org/absent", "stream": false})).status, 502);
}

#[test]
fn a_client_that_goes_away_ends_its_download() {
    let (hub, _folder, server) = place();
    hub.set_rate(50_000);
    let body = json!({"model": "org/tiny"}).to_string();
    let mut stream = Connection::open(server.address(), "POST", "/api/pull", &[], body.as_bytes());
    stream.read_until("completed");
    drop(stream);
    // It ends long before all is there: nothing more is sent.
    let begin = Instant::now();
    let mut sent = hub.sent("model.safetensors");
    loop {
        std::thread::sleep(Duration::from_millis(700));
        let now = hub.sent("model.safetensors");
        if now == sent {
            break;
        }
        sent = now;
        assert!(begin.elapsed() < Duration::from_secs(30), "{now} bytes");
    }
    assert!(sent < hub.model("org/tiny").files["model.safetensors"].content.len() as u64);
    hub.set_rate(0);
    let lines = lines(&server.post("/api/pull", &json!({"model": "org/tiny"})));
    assert_eq!(lines.last().expect("lines"), &json!({"status": "success"}));
}

#[test]
fn models_are_loaded_and_unloaded_on_request() {
    let cache = ModelCache::new(CacheOptions::default());
    let server = server_with(cache, |options| options.with_management(Management::Everyone));
    let loaded = || server.get("/api/ps").answer()["models"].as_array().expect("a list").len();
    assert_eq!(loaded(), 0);
    let answer = server.post("/models/load", &json!({"model": "pippin-nano"})).answer();
    assert!(answer["context"].as_u64() > Some(0));
    assert_eq!(loaded(), 1);
    assert_eq!(server.post("/models/unload", &json!({"model": "pippin-nano"})).answer()["was_loaded"], true);
    assert_eq!(loaded(), 0);
    assert_eq!(server.post("/models/unload", &json!({"model": "pippin-nano"})).answer()["was_loaded"], false);
    // One that is in use goes when its answers have ended.
    server.post("/models/load", &json!({"model": "pippin-nano"})).answer();
    let mut stream = {
        let body = endless(&server.cache).to_string();
        Connection::open(server.address(), "POST", "/v1/chat/completions", &[], body.as_bytes())
    };
    stream.read_until("\"content\":\"");
    assert_eq!(server.post("/models/unload", &json!({"model": "pippin-nano"})).answer()["was_loaded"], true);
    assert_eq!(loaded(), 1);
    drop(stream);
    let begin = Instant::now();
    while loaded() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    server.post("/models/load", &json!({"model": "nobody/nothing"})).fails(
        404,
        Some("model"),
        Some("model_not_found"),
    );
    // As Ollama's clients do it.
    let generate = |keep_alive: Value| {
        server.post("/api/generate", &json!({"model": "pippin-nano", "keep_alive": keep_alive})).answer()
    };
    assert_eq!(generate(json!("1h"))["done_reason"], "load");
    let expires = server.get("/api/ps").answer()["models"][0]["expires_at"].clone();
    assert_eq!(generate(json!(-1))["done_reason"], "load");
    assert!(server.get("/api/ps").answer()["models"][0]["expires_at"].as_str() > expires.as_str());
    assert_eq!(generate(json!(0))["done_reason"], "unload");
    assert_eq!(loaded(), 0);
    let wrong = json!({"model": "pippin-nano", "keep_alive": "soon"});
    assert_eq!(server.post("/api/generate", &wrong).status, 400);
}

#[test]
fn only_those_who_may_manage_do() {
    let requests: [(&str, &str, Value); 5] = [
        ("POST", "/models/load", json!({"model": "pippin-nano"})),
        ("POST", "/models/unload", json!({"model": "pippin-nano"})),
        ("POST", "/api/pull", json!({"model": "org/tiny"})),
        ("DELETE", "/api/delete", json!({"model": "org/tiny"})),
        ("POST", "/api/generate", json!({"model": "pippin-nano", "keep_alive": 0})),
    ];
    let statuses = |server: &TestServer, headers: &[(&str, &str)]| -> Vec<u16> {
        let send = |(method, path, body): &(&str, &str, Value)| {
            server.send(method, path, headers, body.to_string().as_bytes()).status
        };
        requests.iter().map(send).collect()
    };
    assert_eq!(statuses(&server(), &[]), [403; 5]);
    let keys = |key: &str| Keys::new([key]).expect("a key");
    let server = server_with(cache(), |options| {
        options.with_keys(keys("user-key")).with_management(Management::Keys(keys("manager-key")))
    });
    assert_eq!(statuses(&server, &[]), [401; 5]);
    assert_eq!(statuses(&server, &[("x-api-key", "user-key")]), [403; 5]);
    let load = json!({"model": "pippin-nano"}).to_string();
    let reply = server.send("POST", "/models/load", &[("x-api-key", "manager-key")], load.as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    // Whose wish for a time is not heard, his request is.
    let polite = json!({"model": "pippin-nano", "prompt": "x", "keep_alive": "1s", "options": {"num_predict": 1}, "stream": false});
    let reply =
        server.send("POST", "/api/generate", &[("x-api-key", "user-key")], polite.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_manager_decides_how_long_a_model_stays_even_one_that_was_named_at_the_start() {
    let cache = ModelCache::new(crate::support::options());
    cache.pin("pippin-nano").expect("known");
    let server = server_with(cache, |options| options.with_management(Management::Everyone));
    let expires = || server.cache.models().first().expect("loaded").expires_in;
    let load = |keep_alive: Value| {
        server.post("/models/load", &json!({"model": "pippin-nano", "keep_alive": keep_alive})).answer()
    };
    load(Value::Null);
    // The model is given back a moment after the answer.
    let wait_for = |is_bounded: bool| {
        let begin = Instant::now();
        while expires().is_some() != is_bounded {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", expires());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(false);
    load(json!("5m"));
    wait_for(true);
    assert!(expires().is_some_and(|time| time <= Duration::from_secs(300)));
    load(json!(-1));
    wait_for(false);
}
