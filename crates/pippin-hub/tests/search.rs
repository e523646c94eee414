//! Searching, and describing models that are not here, against a hub on loopback.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use pippin_hub::{
    Fit, HubClient, HubError, HubOptions, Judge, ModelSearch, Patience, SearchSort, describe_remote, search,
};
use serde_json::{Value, json};
use support::{FakeHub, Kind, Model};

fn options(endpoint: String) -> HubOptions {
    let patience = Patience::default().with_stall(Duration::from_secs(5));
    HubOptions::new(endpoint).with_patience(patience.with_backoff(Duration::from_millis(1)).with_retries(1))
}

fn client(hub: &FakeHub) -> HubClient {
    HubClient::new(options(hub.endpoint())).expect("a client")
}

fn judge() -> Judge<'static> {
    Judge {
        is_supported: &|family| family == "qwen3",
        budget: Some(4_000_000_000),
        total_memory: Some(6_000_000_000),
        context: 4096,
    }
}

/// What the hub says of a quantized model: so many million parameters, in words of 32 bits and scales.
fn described(family: &str, millions: u64, bits: u64, downloads: u64) -> Value {
    let weights = millions * 1_000_000;
    json!({
        "downloads": downloads, "likes": downloads / 10, "tags": ["mlx", "license:mit"],
        "safetensors": {"parameters": {"U32": weights * bits / 32, "BF16": weights / 32}},
        "config": {"model_type": family, "quantization_config": {"bits": bits, "group_size": 64}},
    })
}

fn hub() -> FakeHub {
    let hub = FakeHub::start();
    for (name, family, millions, bits, downloads) in [
        ("Small-4bit", "qwen3", 600, 4, 10),
        ("Small-8bit", "qwen3", 600, 8, 20),
        ("Middle-4bit", "qwen3", 8000, 4, 30),
        ("Large-4bit", "qwen3", 70_000, 4, 40),
        ("Other-4bit", "mamba", 600, 4, 50),
    ] {
        hub.add(
            &format!("mlx-community/{name}"),
            Model::new(support::COMMIT).extra(described(family, millions, bits, downloads)),
        );
    }
    hub.add("somebody/Small-4bit", Model::new(support::COMMIT).extra(described("qwen3", 600, 4, 1000)));
    hub.add("somebody/Not-for-MLX", Model::new(support::COMMIT).extra(json!({"downloads": 5000})));
    hub
}

fn names(hub: &FakeHub, change: impl FnOnce(&mut ModelSearch)) -> Vec<String> {
    let mut wanted = ModelSearch::default();
    change(&mut wanted);
    let found = search(&client(hub), &wanted, &judge()).expect("found");
    found.models.into_iter().map(|model| model.id.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn models_are_described_and_sorted() {
    let hub = hub();
    let found = search(&client(&hub), &ModelSearch::default(), &judge()).expect("found");
    let ids: Vec<&str> = found.models.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(ids[0], "mlx-community/Other-4bit");
    assert_eq!(ids.len(), 5);
    assert!(ids.iter().all(|id| id.starts_with("mlx-community/")));
    let small = found.models.iter().find(|model| model.id.ends_with("Small-4bit")).expect("found");
    assert_eq!((small.family.as_deref(), small.bits, small.supported), (Some("qwen3"), Some(4), Some(true)));
    assert_eq!((small.parameters, small.bytes), (Some(600_000_000), Some(337_500_000)));
    assert_eq!((small.downloads, small.likes, small.fits), (10, 1, Some(Fit::Yes)));
    let fits = |name: &str| found.models.iter().find(|model| model.id.ends_with(name)).expect("found").fits;
    assert_eq!(fits("Middle-4bit"), Some(Fit::Tight));
    assert_eq!(fits("Large-4bit"), Some(Fit::No));
    assert_eq!(found.models[0].supported, Some(false));
    assert!(!found.has_more && !found.is_cut);
}

#[test]
fn filters_narrow() {
    let hub = hub();
    assert_eq!(names(&hub, |search| search.words = "small".to_owned()), ["Small-8bit", "Small-4bit"]);
    assert_eq!(names(&hub, |search| search.bits = Some(8)), ["Small-8bit"]);
    assert_eq!(names(&hub, |search| search.family = Some("Mamba".to_owned())), ["Other-4bit"]);
    assert_eq!(names(&hub, |search| search.fits_only = true), ["Other-4bit", "Small-8bit", "Small-4bit"]);
    assert_eq!(
        names(&hub, |search| {
            search.fits_only = true;
            search.supported_only = true;
        }),
        ["Small-8bit", "Small-4bit"]
    );
    assert_eq!(
        names(&hub, |search| search.author = Some("somebody".to_owned())),
        ["Not-for-MLX", "Small-4bit"]
    );
    // Of all authors, only what is made for MLX.
    assert_eq!(names(&hub, |search| search.author = None).len(), 6);
    assert_eq!(names(&hub, |search| search.sort = SearchSort::Likes)[0], "Other-4bit");
    assert!(names(&hub, |search| search.words = "nothing of this name".to_owned()).is_empty());
}

#[test]
fn pages_follow_each_other_across_the_hubs() {
    let hub = FakeHub::start();
    for index in 0..250_u64 {
        let family = if index % 2 == 0 { "qwen3" } else { "llama" };
        hub.add(
            &format!("mlx-community/Model-{index:03}"),
            Model::new(support::COMMIT).extra(described(family, 100, 4, 1000 - index)),
        );
    }
    let page = |page, family: Option<&str>| {
        let mut wanted = ModelSearch::default();
        (wanted.limit, wanted.page, wanted.family) = (60, page, family.map(str::to_owned));
        search(&client(&hub), &wanted, &judge()).expect("found")
    };
    let all: Vec<String> =
        (1..=5).flat_map(|number| page(number, None).models).map(|model| model.id).collect();
    let expected: Vec<String> = (0..250).map(|index| format!("mlx-community/Model-{index:03}")).collect();
    assert_eq!(all, expected);
    assert!(page(4, None).has_more && !page(5, None).has_more);
    assert!(page(6, None).models.is_empty());
    let even = page(2, Some("qwen3"));
    assert_eq!((even.models[0].id.as_str(), even.models.len()), ("mlx-community/Model-120", 60));
    assert!(even.has_more);
}

#[test]
fn the_network_can_be_switched_off() {
    let hub = hub();
    let mut options = options(hub.endpoint());
    options.is_offline = true;
    let client = HubClient::new(options).expect("a client");
    let error = search(&client, &ModelSearch::default(), &judge()).expect_err("offline");
    assert_eq!(error.to_string(), "searching the hub needs the network, and HF_HUB_OFFLINE is set");
    let error = describe_remote(&client, "a/b", "main", &judge()).expect_err("offline");
    assert!(error.to_string().contains("a/b") && error.hint().is_some(), "{error}");
    assert!(hub.requests().is_empty());
}

#[test]
fn odd_values_hide_nothing_else() {
    let hub = FakeHub::start();
    for (name, extra) in [
        (
            "Numbers",
            json!({"downloads": "17", "likes": 2.0, "usedStorage": -1, "safetensors": {"parameters": {"BF16": 1e40}}}),
        ),
        (
            "Nulls",
            json!({"downloads": null, "tags": null, "siblings": null, "gated": null, "config": null, "sha": null}),
        ),
        (
            "Kinds",
            json!({"downloads": {}, "tags": ["mlx", 7], "lastModified": 5, "library_name": ["mlx"], "private": "no",
            "config": {"model_type": 4, "quantization": {"bits": null}, "quantization_config": {"bits": "4"}}}),
        ),
        ("Lists", json!({"config": [1], "safetensors": "none", "tags": "mlx", "pipeline_tag": {}})),
    ] {
        let model = Model::new(support::COMMIT).with("config.json", b"\xef\xbb\xbf{\"model_type\": \"qwen3\", \"rope_theta\": NaN, \"head_dim\": \"64\", \"quantization\": {\"bits\": \"4\", \"group_size\": null}}".to_vec());
        hub.add(&format!("mlx-community/{name}"), model.extra(extra));
        let id = format!("mlx-community/{name}");
        let described = describe_remote(&client(&hub), &id, "main", &judge()).expect(name);
        // Where the list of files is not one, the configuration is not known to be there.
        if name != "Nulls" {
            assert_eq!(
                (described.supported, described.bits, described.shape.head_dim),
                (Some(true), Some(4), Some(64))
            );
        }
    }
    let found = search(&client(&hub), &ModelSearch::default(), &judge()).expect("found");
    assert_eq!(found.models.len(), 4, "{found:?}");
    assert_eq!(found.models[0].downloads, 17);
}

#[test]
fn failures_of_the_hub_are_errors() {
    let hub = hub();
    let status = |code| Kind::Status { code, retry_after: None, error_code: "" };
    hub.fault("/api/models", 1, status(500));
    assert_eq!(names(&hub, |_| {}).len(), 5);
    hub.fault("/api/models", 10, status(500));
    let error = search(&client(&hub), &ModelSearch::default(), &judge()).expect_err("broken");
    assert!(matches!(error, HubError::Status { status: 500, .. }), "{error}");
    hub.clear_faults().fault("/api/models", 10, Kind::CutAfter(10));
    assert!(matches!(
        search(&client(&hub), &ModelSearch::default(), &judge()),
        Err(HubError::Network { .. })
    ));
    let nobody = HubClient::new(options("http://127.0.0.1:1".to_owned())).expect("a client");
    let error = search(&nobody, &ModelSearch::default(), &judge()).expect_err("nobody is there");
    assert!(matches!(error, HubError::Network { .. }) && error.hint().is_some(), "{error}");
}

#[test]
fn a_hub_that_cannot_be_reached_is_given_up_soon() {
    let patience = |unreachable| {
        Patience::default()
            .with_backoff(Duration::from_millis(100))
            .with_retries(6)
            .with_unreachable(unreachable)
    };
    // Six retries would take at least three seconds.
    for address in ["http://127.0.0.1:1", "http://no-such-host.invalid"] {
        let options = HubOptions::new(address.to_owned()).with_patience(patience(Duration::from_millis(400)));
        let begin = Instant::now();
        let error = search(&HubClient::new(options).expect("a client"), &ModelSearch::default(), &judge())
            .expect_err("nobody is there");
        assert!(matches!(error, HubError::Network { is_connected: false, .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_millis(2500), "{address}: {:?}", begin.elapsed());
    }
    // Who has once answered is given its time.
    let hub = hub();
    hub.fault("/api/models", 5, Kind::CutAfter(0));
    let patience = patience(Duration::ZERO).with_backoff(Duration::from_millis(5));
    let options = HubOptions::new(hub.endpoint()).with_patience(patience);
    search(&HubClient::new(options).expect("a client"), &ModelSearch::default(), &judge()).expect("found");
}

/// A server that gives one answer, whatever it is asked.
fn parrot(
    head: &'static str,
    body: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let own = address.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(head.replace("HERE", &own).as_bytes()).and_then(|()| body(&mut stream));
        }
    });
    address
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    for body in [
        "",
        "{",
        "[",
        "null",
        "{\"error\": 1}",
        "[1]",
        "[{}]",
        "[{\"id\": 7}]",
        "[{\"id\": 7}, {\"id\": null}]",
    ] {
        let address = parrot("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", move |stream| {
            stream.write_all(body.as_bytes())
        });
        let client = HubClient::new(options(address)).expect("a client");
        let error = search(&client, &ModelSearch::default(), &judge()).expect_err(body);
        assert!(matches!(error, HubError::Protocol { .. }), "{body}: {error}");
    }
    // What is odd but harmless is left out.
    let odd = r#"[{"id": "../../etc"}, {"id": "a/b", "downloads": null, "safetensors": 3, "config": [], "gated": "auto"}, {"id": 7}, 3]"#;
    let address = parrot("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", move |stream| {
        stream.write_all(odd.as_bytes())
    });
    let found =
        search(&HubClient::new(options(address)).expect("a client"), &ModelSearch::default(), &judge())
            .expect("found");
    assert_eq!(found.models.len(), 1);
    assert_eq!((found.models[0].bytes, found.models[0].supported, found.models[0].gated), (None, None, true));
}

#[test]
fn huge_and_endless_answers_are_refused() {
    let address =
        parrot("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n[", |_| Ok(()));
    let error =
        search(&HubClient::new(options(address)).expect("a client"), &ModelSearch::default(), &judge())
            .expect_err("huge");
    assert!(matches!(error, HubError::TooLarge { .. }), "{error}");
    let address = parrot("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[", |stream| {
        let block = vec![b' '; 1 << 20];
        loop {
            stream.write_all(&block)?;
        }
    });
    let error =
        search(&HubClient::new(options(address)).expect("a client"), &ModelSearch::default(), &judge())
            .expect_err("endless");
    assert!(matches!(error, HubError::TooLarge { .. }), "{error}");
    // Pages without end: a search reads no more than twenty.
    let address = parrot(
        "HTTP/1.1 200 OK\r\nconnection: close\r\nlink: <HERE/api/models?cursor=x>; rel=\"next\"\r\n\r\n",
        |stream| stream.write_all(b"[{\"id\": \"a/b\"}]"),
    );
    let mut wanted = ModelSearch::default();
    wanted.bits = Some(4);
    let found =
        search(&HubClient::new(options(address)).expect("a client"), &wanted, &judge()).expect("found");
    assert!(found.is_cut && found.models.is_empty() && found.examined == 20, "{found:?}");
}

fn config() -> Value {
    json!({
        "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151_936, "max_position_embeddings": 40_960, "quantization": {"group_size": 64, "bits": 4}
    })
}

#[test]
fn models_are_described_before_they_are_downloaded() {
    let hub = FakeHub::start();
    let model = Model::new(support::COMMIT)
        .with("config.json", config().to_string().into_bytes())
        .with("README.md", vec![b'x'; 1000])
        .with_lfs("model.safetensors", support::safetensors(100_000, 1))
        .extra(described("qwen3", 600, 4, 7));
    hub.add("mlx-community/Qwen3-0.6B-4bit", model);
    let described =
        describe_remote(&client(&hub), "mlx-community/Qwen3-0.6B-4bit", "main", &judge()).expect("described");
    assert_eq!(described.commit.as_deref(), Some(support::COMMIT));
    assert_eq!((described.supported, described.fits), (Some(true), Some(Fit::Yes)));
    assert_eq!(described.license.as_deref(), Some("mit"));
    assert_eq!((described.parameters, described.bits), (Some(600_000_000), Some(4)));
    assert!(described.weight_bytes.expect("the file's size") > 100_000);
    assert_eq!(described.memory.expect("an estimate").kv_cache, 114_688 * 4096);
    assert_eq!(described.files.len(), 3);
    // Of the files, only the configuration was fetched; nothing from the store.
    let paths: Vec<String> = hub.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert!(paths[1].ends_with("/config.json"), "{paths:?}");
}

#[test]
fn remote_models_that_cannot_be_described_say_why() {
    let hub = FakeHub::start();
    let with = |config: Vec<u8>| Model::new(support::COMMIT).with("config.json", config);
    hub.add("a/broken", with(b"{".to_vec()));
    hub.add("a/large", with(vec![b' '; 5 << 20]));
    hub.add("a/strange", with(b"[1, 2, 3]".to_vec()));
    hub.add("a/none", Model::new(support::COMMIT));
    let describe = |id: &str, revision: &str| describe_remote(&client(&hub), id, revision, &judge());
    assert!(matches!(describe("a/broken", "main"), Err(HubError::Protocol { .. })));
    assert!(matches!(describe("a/large", "main"), Err(HubError::TooLarge { .. })));
    assert!(matches!(describe("a/absent", "main"), Err(HubError::NotOnHub { .. })));
    assert!(matches!(describe("a/none", "v2"), Err(HubError::NoRevision { .. })));
    assert!(matches!(describe("../x", "main"), Err(HubError::InvalidName { .. })));
    for id in ["a/strange", "a/none"] {
        let described = describe(id, "main").expect(id);
        assert_eq!((described.supported, described.weight_bytes, described.fits), (None, None, None));
    }
}
