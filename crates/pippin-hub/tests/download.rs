//! Downloads from a hub on loopback that does everything wrong that a hub can do.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use pippin_hub::{
    FileState, HubCache, HubClient, HubError, HubOptions, Patience, PullEvent, PullOptions, PulledModel,
    Resolver, Result, Token,
};
use support::{COMMIT, FakeHub, Kind, Model, safetensors};
use tempfile::TempDir;

const ID: &str = "org/model";
const MB: usize = 1 << 20;

struct Place {
    hub: FakeHub,
    folder: TempDir,
}

impl Place {
    fn with(model: Model) -> Self {
        let hub = FakeHub::start();
        hub.add(ID, model);
        Self { hub, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn options(&self) -> HubOptions {
        let patience = Patience::default().with_stall(Duration::from_millis(300));
        HubOptions::new(self.hub.endpoint())
            .with_patience(patience.with_backoff(Duration::from_millis(5)).with_retries(4))
    }

    fn client(&self) -> HubClient {
        HubClient::new(self.options()).expect("valid")
    }

    fn client_with(&self, token: &str) -> HubClient {
        let token = Token::new(token).expect("valid");
        HubClient::new(self.options().with_token(token)).expect("valid")
    }

    fn cache(&self) -> HubCache {
        HubCache::new(self.folder.path())
    }

    fn pull(&self) -> Result<PulledModel> {
        self.pull_with(&self.client(), |_| {})
    }

    fn pull_with(&self, client: &HubClient, progress: impl FnMut(&PullEvent)) -> Result<PulledModel> {
        let plan = client.plan(&self.cache(), ID, "main")?;
        client.pull(&self.cache(), &plan, &PullOptions::default(), progress)
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("models--org--model")
    }

    /// Expects the model to be there, byte for byte.
    #[track_caller]
    fn is_whole(&self) {
        let folder = self.cache().find(ID, "main").expect("found");
        for (name, file) in self.hub.model(ID).files {
            let path = folder.join(&name);
            if path.exists() {
                assert!(fs::read(&path).expect("readable") == *file.content, "{name} differs");
            }
        }
        for name in names(&self.repository().join("blobs")) {
            assert!(!name.contains("pippin"), "{name} is left over");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_pulled_into_the_standard_layout() {
    let place = Place::with(Model::small(5 * MB));
    let mut finished = Vec::new();
    let mut last = None;
    let pulled = place
        .pull_with(&place.client(), |event| match event {
            PullEvent::Finished { path, .. } => finished.push(path.clone()),
            PullEvent::Progress { done, total, .. } => last = Some((*done, *total)),
            _ => {}
        })
        .expect("pulled");
    place.is_whole();
    finished.sort();
    assert_eq!(finished, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(last, Some((pulled.total_bytes, pulled.total_bytes)));
    assert_eq!(pulled.transferred_bytes, pulled.total_bytes);
    assert_eq!(pulled.commit, COMMIT);
    assert_eq!(fs::read_to_string(place.repository().join("refs/main")).expect("readable"), COMMIT);
    // Neither README.md nor pytorch_model.bin.
    assert_eq!(names(&pulled.directory).len(), 4);
    let link = fs::read_link(pulled.directory.join("model.safetensors")).expect("a link");
    let hash = place.hub.model(ID).files["model.safetensors"].hash.clone();
    assert_eq!(link, Path::new("../../blobs").join(hash.as_hex()));

    // A second time, nothing is transferred but the list.
    place.hub.forget_requests();
    assert_eq!(place.pull().expect("pulled").transferred_bytes, 0);
    assert_eq!(place.hub.requests().len(), 1);
}

#[test]
fn shards_come_in_parallel_and_in_ranges() {
    let place = Place::with(Model::sharded(3, 9 * MB));
    place.pull().expect("pulled");
    place.is_whole();
    let ranges =
        place.hub.requests().iter().filter(|request| request.is_store && request.range.is_some()).count();
    assert!(ranges >= 6, "{ranges}");
}

#[test]
fn faults_that_pass_are_overcome() {
    let stall = Kind::StallAfter(3 * MB / 2, Duration::from_secs(2));
    let status = |code| Kind::Status { code, retry_after: None, error_code: "" };
    for (what, path, times, kind) in [
        ("cut", "/store/", 4, Kind::CutAfter(MB + 7)),
        ("cut at once", "/store/", 3, Kind::CutAfter(0)),
        ("stalled", "/store/", 2, stall),
        ("500s of the store", "/store/", 4, status(500)),
        ("500s of the hub", "/resolve/", 3, status(503)),
        ("500s of the API", "/api/", 3, status(502)),
        ("wrong content, once", "/store/", 1, Kind::WrongContent),
        ("no ranges", "/store/", 100, Kind::IgnoreRange),
        ("another range", "/store/", 2, Kind::WrongRange),
        ("wrong length, once", "/store/", 1, Kind::WrongLength(-5)),
        ("an expired address", "/store/", 2, status(403)),
    ] {
        let place = Place::with(Model::small(9 * MB));
        place.hub.fault(path, times, kind);
        place.pull().unwrap_or_else(|error| panic!("{what}: {error}"));
        place.is_whole();
    }
}

#[test]
fn faults_that_stay_are_told_apart() {
    let status = |code, error_code| Kind::Status { code, retry_after: None, error_code };
    type Check = fn(&HubError) -> bool;
    let cases: [(&str, &str, Kind, Check); 9] = [
        ("wrong content", "/store/", Kind::WrongContent, |error| {
            matches!(error, HubError::Mismatch { what: "SHA-256", .. })
        }),
        ("wrong small file", "config.json", Kind::WrongContent, |error| {
            matches!(error, HubError::Mismatch { what: "git hash", .. })
        }),
        ("too short", "/store/", Kind::WrongLength(-1000), |error| {
            matches!(error, HubError::Mismatch { what: "the size", .. })
        }),
        ("too long", "/store/", Kind::WrongLength(1000), |error| {
            matches!(error, HubError::Mismatch { what: "the size", .. })
        }),
        ("another ETag", "/resolve/", Kind::WrongEtag, |error| {
            matches!(error, HubError::Mismatch { what: "the ETag", .. })
        }),
        ("500 for ever", "/resolve/", status(500, ""), |error| {
            matches!(error, HubError::Status { status: 500, .. })
        }),
        (
            "a missing file",
            "tokenizer.json",
            status(404, "EntryNotFound"),
            |error| matches!(error, HubError::NoFile { path, .. } if path == "tokenizer.json"),
        ),
        ("cut for ever", "/store/", Kind::CutAfter(0), |error| matches!(error, HubError::Network { .. })),
        (
            "redirects for ever",
            "/resolve/",
            Kind::RedirectTo("/org/model/resolve/main/x".to_owned()),
            |error| matches!(error, HubError::Protocol { .. }),
        ),
    ];
    for (what, path, kind, is_expected) in cases {
        let place = Place::with(Model::small(5 * MB));
        place.hub.fault(path, usize::MAX, kind);
        let error = place.pull().expect_err(what);
        assert!(is_expected(&error), "{what}: {error:?}");
        assert!(place.cache().find(ID, "main").is_err(), "{what}");
        // Nothing wrong has got a name, and when the fault is gone, it goes on.
        place.hub.clear_faults();
        place.pull().unwrap_or_else(|error| panic!("{what}: {error}"));
        place.is_whole();
    }
}

#[test]
fn servers_that_want_peace_get_it() {
    let place = Place::with(Model::small(MB));
    place.hub.fault("/store/", 1, Kind::Status { code: 429, retry_after: Some("1"), error_code: "" });
    let mut waits = Vec::new();
    place
        .pull_with(&place.client(), |event| {
            if let PullEvent::Retry { wait, .. } = event {
                waits.push(*wait);
            }
        })
        .expect("pulled");
    assert_eq!(waits, [Duration::from_secs(1)]);
    place.is_whole();

    // It is really left alone: during an hour's wait it is not asked, whatever else goes on.
    let place = Place::with(Model::small(MB));
    place.hub.fault("/store/", 1, Kind::Status { code: 429, retry_after: Some("3600"), error_code: "" });
    let mut options = place.options();
    options.patience.longest_wait = Duration::from_secs(7200);
    let client = HubClient::new(options).expect("a client");
    let plan = client.plan(&place.cache(), ID, "main").expect("planned");
    let options = PullOptions::default();
    let mut reports = None;
    let error = client
        .pull(&place.cache(), &plan, &options, |event| match event {
            PullEvent::Retry { .. } => reports = Some(0),
            PullEvent::Progress { .. } => {
                reports = reports.map(|reports| reports + 1);
                if reports > Some(10) {
                    options.cancel.store(true, Ordering::Relaxed);
                }
            }
            _ => {}
        })
        .expect_err("cancelled during the wait");
    assert!(matches!(error, HubError::Cancelled), "{error:?}");

    // A wish for a whole day, or for millennia, is not granted, and not waited for longer than said. A moment that has
    // passed asks for nothing, and gets the usual wait.
    for (code, time, longest) in [
        (429, "86400", 200),
        (429, "99999999999999999999", 200),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", 200),
        (429, "Sun, 06 Nov 1994 08:49:37 GMT", 5),
    ] {
        let place = Place::with(Model::small(MB));
        place.hub.fault("/store/", 1, Kind::Status { code, retry_after: Some(time), error_code: "" });
        let mut options = place.options();
        options.patience.longest_wait = Duration::from_millis(200);
        let mut waits = Vec::new();
        place
            .pull_with(&HubClient::new(options).expect("valid"), |event| {
                if let PullEvent::Retry { wait, .. } = event {
                    waits.push(*wait);
                }
            })
            .expect("pulled");
        place.is_whole();
        let longest = Duration::from_millis(longest);
        assert!(matches!(*waits, [wait] if wait <= longest && wait >= longest / 2), "{time}: {waits:?}");
    }
}

#[test]
fn files_that_the_hub_does_not_have_are_marked_and_asked_for_again() {
    let place = Place::with(Model::small(MB));
    let status = Kind::Status { code: 404, retry_after: None, error_code: "EntryNotFound" };
    place.hub.fault("tokenizer.json", 1, status);
    assert!(matches!(place.pull(), Err(HubError::NoFile { .. })));
    // Where the Python tools look for it.
    let mark = place.repository().join(".no_exist").join(COMMIT).join("tokenizer.json");
    assert_eq!(fs::read(&mark).expect("a mark"), b"");
    place.pull().expect("pulled");
    place.is_whole();
    assert!(!mark.exists(), "the Python tools would not find the file");

    // Nothing is marked because of a failure that says nothing about the file.
    for code in [403, 404] {
        let place = Place::with(Model::small(MB));
        place.hub.fault("tokenizer.json", 1, Kind::Status { code, retry_after: None, error_code: "" });
        place.pull().expect_err("refused");
        assert!(!place.repository().join(".no_exist").exists());
    }
}

#[test]
fn the_token_stays_with_the_hub() {
    let place = Place::with(Model { private_to: Some("hf_secret".to_owned()), ..Model::small(5 * MB) });
    let elsewhere = FakeHub::start();
    place.hub.fault("tokenizer.json", 1, Kind::RedirectTo(format!("{}/x", elsewhere.endpoint())));
    let mut reasons = String::new();
    place
        .pull_with(&place.client_with("hf_secret"), |event| reasons += &format!("{event:?}"))
        .expect("pulled in the end");
    assert!(reasons.contains("Retry") && !reasons.contains("secret"), "{reasons}");
    place.is_whole();
    let requests = place.hub.requests();
    assert!(requests.iter().any(|request| request.is_store));
    for request in requests.iter().chain(&elsewhere.requests()) {
        let expected =
            if request.path.starts_with("/x") || request.is_store { None } else { Some("Bearer hf_secret") };
        assert_eq!(request.authorization.as_deref(), expected, "{}", request.path);
    }
    assert_eq!(elsewhere.requests().len(), 1);
}

#[test]
fn closed_doors_say_what_opens_them() {
    let place = Place::with(Model { is_gated: true, ..Model::small(MB) });
    for (client, has_token) in [(place.client(), false), (place.client_with("hf_other"), true)] {
        let error = place.pull_with(&client, |_| {}).expect_err("gated");
        assert!(
            matches!(&error, HubError::Gated { has_token: token, .. } if *token == has_token),
            "{error:?}"
        );
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("/org/model"), "{hint}");
        assert_eq!(hint.contains("HF_TOKEN"), !has_token, "{hint}");
    }
    place.pull_with(&place.client_with("hf_accepted"), |_| {}).expect("pulled");

    let place = Place::with(Model { private_to: Some("hf_mine".to_owned()), ..Model::small(MB) });
    let error = place.pull().expect_err("private");
    assert!(matches!(error, HubError::NotOnHub { has_token: false, .. }), "{error:?}");
    assert!(error.hint().expect("a hint").contains("HF_TOKEN"));
    assert!(matches!(
        place.client().plan(&place.cache(), "org/other", "main"),
        Err(HubError::NotOnHub { .. })
    ));
    let place = Place::with(Model::small(MB));
    assert!(matches!(place.client().plan(&place.cache(), ID, "v9"), Err(HubError::NoRevision { .. })));
    let mut options = place.options();
    options.is_offline = true;
    place.hub.forget_requests();
    let client = HubClient::new(options).expect("valid");
    assert!(matches!(client.plan(&place.cache(), ID, "main"), Err(HubError::Offline { .. })));
    assert!(place.hub.requests().is_empty());
}

#[test]
fn cancelled_downloads_go_on_where_they_stopped() {
    let place = Place::with(Model::small(20 * MB));
    place.hub.set_rate(40 << 20);
    let client = place.client();
    let plan = client.plan(&place.cache(), ID, "main").expect("planned");
    let options = PullOptions::default();
    let cancel = options.cancel.clone();
    let error = client.pull(&place.cache(), &plan, &options, |event| {
        if matches!(event, PullEvent::Progress { transferred, .. } if *transferred > 8 << 20) {
            cancel.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(error, Err(HubError::Cancelled)), "{error:?}");
    let plan = client.plan(&place.cache(), ID, "main").expect("planned");
    assert!(plan.missing_bytes() < plan.total_bytes() - (8 << 20));
    let pulled = client.pull(&place.cache(), &plan, &PullOptions::default(), |_| {}).expect("pulled");
    assert_eq!(pulled.transferred_bytes, plan.missing_bytes());
    place.is_whole();
}

#[test]
fn another_revision_takes_what_is_there() {
    let place = Place::with(Model::small(5 * MB));
    place.pull().expect("pulled");
    let next = "89abcdef0123456789abcdef0123456789abcdef";
    let changed =
        Model { commit: next.to_owned(), ..Model::small(5 * MB).with("config.json", b"{\"a\": 1}".to_vec()) };
    place.hub.add(ID, changed);
    let pulled = place.pull().expect("pulled");
    assert_eq!((pulled.commit.as_str(), pulled.transferred_bytes), (next, 8));
    let model = place.cache().model(ID).expect("there");
    assert_eq!(model.revisions.len(), 2);

    // Removing the old one leaves what the new one shares.
    let removal = place.cache().plan_removal(ID, Some(COMMIT)).expect("planned");
    assert!(!removal.is_all && removal.bytes < 100_000, "{removal:?}");
    place.cache().remove(&removal).expect("removed");
    place.is_whole();
    assert_eq!(place.cache().model(ID).expect("there").revisions.len(), 1);
    assert_eq!(names(&place.repository().join("blobs")).len(), 4);
}

#[test]
fn branches_tags_and_commits_are_revisions() {
    let place =
        Place::with(Model { branches: vec!["v1".to_owned(), "refs/pr/1".to_owned()], ..Model::small(MB) });
    let client = place.client();
    for revision in ["v1", "refs/pr/1", COMMIT] {
        let plan = client.plan(&place.cache(), ID, revision).expect("planned");
        let pulled = client.pull(&place.cache(), &plan, &PullOptions::default(), |_| {}).expect("pulled");
        assert_eq!(place.cache().find(ID, revision).expect("found"), pulled.directory);
        // What another revision brought is not fetched again.
        assert_eq!(pulled.transferred_bytes == 0, revision != "v1", "{revision}");
    }
    let refs = place.repository().join("refs");
    assert_eq!(fs::read_to_string(refs.join("refs/pr/1")).expect("readable"), COMMIT);
    // A commit needs no name, and the branch that nobody asked for has none.
    assert_eq!(names(&refs), ["refs", "v1"]);
    assert!(matches!(place.cache().find(ID, "main"), Err(HubError::NotCached { .. })));
}

#[test]
fn damage_is_seen_and_repaired() {
    let place = Place::with(Model::sharded(2, MB));
    place.pull().expect("pulled");
    let model = place.cache().model(ID).expect("there");
    assert!(model.revisions[0].is_verified && model.revisions[0].problem.is_none(), "{model:?}");
    let blob =
        model.revisions[0].path.join("model-00002-of-00002.safetensors").canonicalize().expect("there");
    let mut bytes = fs::read(&blob).expect("readable");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&blob, &bytes).expect("written");
    let error = place.cache().find(ID, "main").expect_err("damaged");
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
    assert!(error.hint().expect("a hint").contains("pippin pull"));
    let checks = place.cache().verify(ID, false, |_, _| {}).expect("readable");
    let damaged: Vec<_> = checks.iter().filter(|check| check.state == FileState::Damaged).collect();
    assert_eq!(damaged.len(), 1);
    place.pull().expect("pulled");
    place.is_whole();
    assert!(
        place
            .cache()
            .verify(ID, true, |_, _| {})
            .expect("readable")
            .iter()
            .all(|c| c.state == FileState::Right)
    );

    // One shard fewer, and the model is not there.
    fs::remove_file(&blob).expect("removed");
    assert!(matches!(place.cache().find(ID, "main"), Err(HubError::Incomplete { .. })));
}

#[test]
fn names_with_tricks_are_refused() {
    let index = |name: &str| serde_json::json!({"weight_map": {"a": name}}).to_string().into_bytes();
    for name in
        ["../../../evil.safetensors", "/tmp/evil.safetensors", "..\\evil.safetensors", "aux.safetensors"]
    {
        let model =
            Model::small(100).with("model.safetensors.index.json", index(name)).with_lfs(name, vec![1; 10]);
        let place = Place::with(model);
        assert!(matches!(place.pull(), Err(HubError::UnsafePath { .. })), "{name}");
        let listed = Place::with(Model::small(100).with(&format!("{name}.jinja"), vec![1; 10]));
        assert!(matches!(listed.pull(), Err(HubError::UnsafePath { .. })), "{name}");
        assert!(names(place.folder.path()).is_empty() && names(listed.folder.path()).is_empty());
    }
    // An index that names what is not there is no trick, but of no use.
    let place = Place::with(Model::small(100).with("model.safetensors.index.json", index("x.safetensors")));
    place.pull().expect("pulled");
    place.is_whole();
    let client = place.client();
    for (id, revision) in
        [("../..", "main"), ("a/b/c", "main"), ("org/model", "../../x"), ("org/model", "a b")]
    {
        assert!(matches!(client.plan(&place.cache(), id, revision), Err(HubError::InvalidName { .. })));
    }
    // A commit that is none.
    let place = Place::with(Model { commit: "../../../../tmp/evil".to_owned(), ..Model::small(100) });
    assert!(matches!(place.pull(), Err(HubError::Protocol { .. })));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_cache_are_refused() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().expect("a temporary folder");
    let secret = outside.path().join("secret.safetensors");
    fs::write(&secret, safetensors(100, 1)).expect("written");

    // A weight file that is a link to elsewhere is not loaded.
    let place = Place::with(Model::small(MB));
    let pulled = place.pull().expect("pulled");
    let link = pulled.directory.join("model.safetensors");
    fs::remove_file(&link).expect("removed");
    symlink(&secret, &link).expect("linked");
    assert!(matches!(place.cache().find(ID, "main"), Err(HubError::ForeignLink { .. })));
    // Pulling puts the right link there, and touches nothing outside.
    place.pull().expect("pulled");
    place.is_whole();
    assert_eq!(fs::read(&secret).expect("readable"), safetensors(100, 1));

    // Folders that lead elsewhere are not written to.
    for folder in ["snapshots", "refs"] {
        let place = Place::with(Model::small(MB));
        fs::create_dir_all(place.repository()).expect("created");
        let elsewhere = outside.path().join(folder);
        fs::create_dir(&elsewhere).expect("created");
        symlink(&elsewhere, place.repository().join(folder)).expect("linked");
        assert!(matches!(place.pull(), Err(HubError::ForeignLink { .. })), "{folder}");
        assert!(names(&elsewhere).iter().all(|name| name == COMMIT), "{folder}");
    }
}

/// What a checkpoint is loaded from is what the cache calls complete.
#[track_caller]
fn loads(place: &Place) -> Vec<String> {
    let folder = place.cache().find(ID, "main").expect("found");
    let checkpoint = pippin_weights::Checkpoint::open(&folder).expect("it loads");
    let names = checkpoint
        .files()
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn the_weights_are_the_files_that_there_are() {
    let five: serde_json::Map<String, serde_json::Value> = (1..=5)
        .map(|number| (format!("t{number}"), format!("model-{number:05}-of-00005.safetensors").into()))
        .collect();
    let five = serde_json::json!({"metadata": null, "weight_map": five}).to_string().into_bytes();
    let index = "model.safetensors.index.json";
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let single = ["model.safetensors"];

    // The index of the model that it was converted from.
    let place = Place::with(Model::sharded(2, 1000).with(index, five.clone()));
    let plan = place.client().plan(&place.cache(), ID, "main").expect("planned");
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("model-00001-of-00005")),
        "{:?}",
        plan.warnings
    );
    place.pull().expect("pulled");
    assert_eq!(loads(&place), shards);
    assert!(place.cache().model(ID).expect("there").revisions[0].is_verified);
    assert!(
        place.cache().verify(ID, true, |_, _| {}).expect("read").iter().all(|c| c.state == FileState::Right)
    );

    let place = Place::with(Model::small(1000).with(index, five.clone()));
    place.pull().expect("pulled");
    assert_eq!(loads(&place), single);

    // Indexes that cannot be read, or cannot be had.
    for text in [
        "",
        "[",
        r#"{"weight_map": {"a": "model-00001-of-00002.safetensors",}}"#,
        r#"{"weight_map": {}}"#,
        "{}",
    ] {
        let place = Place::with(Model::sharded(2, 1000).with(index, text.into()));
        place.pull().expect("pulled");
        assert_eq!(loads(&place), shards, "{text}");
    }
    for code in [403, 404] {
        let place = Place::with(Model::sharded(2, 1000));
        place.hub.fault(index, usize::MAX, Kind::Status { code, retry_after: None, error_code: "" });
        place.pull().expect("pulled");
        assert_eq!(loads(&place), shards);
    }

    // Strays: not loaded, and so not downloaded.
    let mut model = Model::sharded(2, 1000);
    for stray in [
        "model.fp16.safetensors",
        "model-00003-of-00005.safetensors",
        "consolidated.safetensors",
        "adapters.safetensors",
        "._model.safetensors",
        "onnx/model.safetensors",
    ] {
        model = model.with_lfs(stray, safetensors(1000, 9));
    }
    let place = Place::with(model.clone());
    let pulled = place.pull().expect("pulled");
    assert_eq!(loads(&place), shards);
    assert_eq!(names(&pulled.directory).len(), 5);
    // Without the index it is the same.
    model.files.remove(index);
    let place = Place::with(model);
    place.pull().expect("pulled");
    assert_eq!(loads(&place), shards);

    // What is incomplete on the hub is so here, and named.
    let mut model = Model::sharded(3, 1000);
    model.files.remove("model-00002-of-00003.safetensors");
    for has_index in [true, false] {
        if !has_index {
            model.files.remove(index);
        }
        let error = Place::with(model.clone()).pull().expect_err("incomplete");
        assert!(
            matches!(&error, HubError::NoWeights { problem, .. } if problem.contains("model-00002-of-00003")),
            "{error}"
        );
    }
    for (file, part) in [
        ("adapter_config.json", "adapter"),
        ("mmproj-x.gguf", "safetensors"),
        ("consolidated.safetensors", "model*.safetensors"),
        ("weights.npz", "NumPy"),
    ] {
        let model = Model::new(COMMIT).with("config.json", b"{}".to_vec()).with(file, b"{}".to_vec());
        let error = Place::with(model).pull().expect_err("nothing to load").to_string();
        assert!(error.contains(part), "{file}: {error}");
    }
}

/// A model in several quantizations, as GGUF files.
fn quantized() -> Model {
    Model::new(COMMIT)
        .with("README.md", b"x".to_vec())
        .with("config.json", b"{}".to_vec())
        .with_lfs("quince-Q4_K_M.gguf", vec![1; 3000])
        .with_lfs("quince-Q8_0.gguf", vec![2; 5000])
        .with_lfs("BF16/quince-BF16-00001-of-00002.gguf", vec![3; 2000])
        .with_lfs("BF16/quince-BF16-00002-of-00002.gguf", vec![4; 1000])
        .with_lfs("mmproj-quince-F16.gguf", vec![5; 1000])
}

#[test]
fn one_quantization_of_several_gguf_files_is_pulled() {
    let place = Place::with(quantized());
    let (client, cache) = (place.client(), place.cache());
    let files = |quantization: Option<&str>| {
        let plan = client.plan_of(&cache, ID, "main", quantization)?;
        Ok::<_, HubError>(plan.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>())
    };
    assert_eq!(files(Some("q4_k_m")).expect("planned"), ["quince-Q4_K_M.gguf"]);
    assert_eq!(files(Some("quince-Q8_0.gguf")).expect("planned"), ["quince-Q8_0.gguf"]);
    assert_eq!(
        files(Some("BF16")).expect("planned"),
        ["BF16/quince-BF16-00001-of-00002.gguf", "BF16/quince-BF16-00002-of-00002.gguf"]
    );
    let message = files(Some("Q5_K_M")).expect_err("not there").to_string();
    assert!(message.contains("no quantization \"Q5_K_M\"; it has BF16, Q4_K_M, Q8_0"), "{message}");
    let message = files(None).expect_err("which").to_string();
    assert!(message.contains("several quantizations: BF16, Q4_K_M, Q8_0; say which"), "{message}");

    let mut resolver = Resolver::from_env();
    resolver.cache = Some(place.cache());
    let named = |quantization: &str| resolver.resolve(&format!("hf:{ID}:{quantization}"));
    assert!(matches!(named("BF16"), Err(HubError::NotCached { .. })));
    let plan = client.plan_of(&cache, ID, "main", Some("BF16")).expect("planned");
    client.pull(&cache, &plan, &PullOptions::default(), |_| {}).expect("pulled");
    let found = named("bf16").expect("there");
    assert!(found.directory.ends_with("BF16/quince-BF16-00001-of-00002.gguf"), "{:?}", found.directory);
    assert_eq!(found.configuration.name(), format!("{ID}:bf16"));
    assert!(matches!(named("Q8_0"), Err(HubError::NotCached { .. })), "another quantization is there");
    // The only one there needs no name.
    assert_eq!(resolver.resolve(ID).expect("there").directory, found.directory);
    let list = cache.model(ID).expect("there");
    assert_eq!((list.revisions[0].problem.as_deref(), list.revisions[0].bytes), (None, 3000));
    assert!(list.revisions[0].is_verified);

    let plan = client.plan_of(&cache, ID, "main", Some("Q8_0")).expect("planned");
    client.pull(&cache, &plan, &PullOptions::default(), |_| {}).expect("pulled");
    assert!(named("Q8_0").expect("there").directory.ends_with("quince-Q8_0.gguf"));
    assert!(named("BF16").is_ok());
    let message = resolver.resolve(ID).expect_err("which").to_string();
    assert!(message.contains("several quantizations: BF16, Q8_0"), "{message}");
    let checks = cache.verify(ID, true, |_, _| {}).expect("readable");
    assert!(checks.len() == 3 && checks.iter().all(|check| check.state == FileState::Right), "{checks:?}");
    let removal = cache.plan_removal(ID, None).expect("planned");
    assert!(removal.is_all && removal.bytes >= 8000);
}

#[test]
fn a_set_of_gguf_files_that_is_not_whole_is_refused() {
    let mut model = quantized();
    model.files.remove("BF16/quince-BF16-00002-of-00002.gguf");
    let place = Place::with(model);
    let error = place.client().plan_of(&place.cache(), ID, "main", Some("BF16")).expect_err("not whole");
    assert!(error.to_string().contains("BF16-00002-of-00002.gguf"), "{error}");
}

#[test]
fn a_shard_that_is_gone_is_missed_without_an_index() {
    let mut model = Model::sharded(2, 1000);
    model.files.remove("model.safetensors.index.json");
    let place = Place::with(model);
    let pulled = place.pull().expect("pulled");
    fs::remove_file(pulled.directory.join("model-00002-of-00002.safetensors")).expect("removed");
    let error = place.cache().find(ID, "main").expect_err("incomplete");
    assert!(
        matches!(&error, HubError::Incomplete { problem, .. } if problem.contains("model-00002")),
        "{error}"
    );
    let list = place.cache().model(ID).expect("there");
    assert!(list.revisions[0].problem.as_ref().is_some_and(|problem| problem.contains("model-00002")));
    let checks = place.cache().verify(ID, false, |_, _| {}).expect("readable");
    assert!(checks.iter().any(|check| check.state == FileState::Missing && check.path.contains("00002")));
}

#[test]
fn files_that_a_model_does_without_may_be_refused() {
    let model = || {
        Model::small(5 * MB)
            .with("generation_config.json", vec![b' '; 1000])
            .with_lfs("special_tokens_map.json", vec![b' '; 9 * MB])
    };
    for code in [401, 403, 404] {
        let place = Place::with(model());
        for name in ["generation_config.json", "special_tokens_map.json"] {
            place.hub.fault(
                &format!("resolve/{COMMIT}/{name}"),
                usize::MAX,
                Kind::Status { code, retry_after: None, error_code: "" },
            );
        }
        let mut skipped = Vec::new();
        let pulled = place
            .pull_with(&place.client(), |event| {
                if let PullEvent::Skipped { path, .. } = event {
                    skipped.push(path.clone());
                }
            })
            .expect("pulled");
        skipped.sort();
        assert_eq!(skipped, ["generation_config.json", "special_tokens_map.json"], "{code}");
        place.is_whole();
        assert_eq!(names(&pulled.directory).len(), 4);
        // Once the hub gives them out, they come.
        place.hub.clear_faults();
        let pulled = place.pull().expect("pulled");
        assert_eq!(names(&pulled.directory).len(), 6);
    }
    // A server in trouble is another matter, and so is a model that is closed.
    let place = Place::with(model());
    place.hub.fault(
        "generation_config.json",
        usize::MAX,
        Kind::Status { code: 500, retry_after: None, error_code: "" },
    );
    assert!(matches!(place.pull(), Err(HubError::Status { status: 500, .. })));
    let place = Place::with(Model { is_gated: true, ..model() });
    assert!(matches!(place.pull(), Err(HubError::Gated { .. })));

    // Damaged in the cache, or gone from it.
    let place = Place::with(model());
    let pulled = place.pull().expect("pulled");
    let blob = pulled.directory.join("generation_config.json").canonicalize().expect("there");
    fs::write(&blob, "{").expect("written");
    assert!(place.cache().find(ID, "main").is_ok());
    assert!(
        place
            .cache()
            .verify(ID, false, |_, _| {})
            .expect("read")
            .iter()
            .any(|c| c.state == FileState::Damaged)
    );
    fs::remove_file(&blob).expect("removed");
    assert!(place.cache().find(ID, "main").is_ok());
    place.pull().expect("pulled");
    assert!(blob.exists());
    let config = pulled.directory.join("config.json").canonicalize().expect("there");
    fs::write(config, "{}").expect("written");
    assert!(matches!(place.cache().find(ID, "main"), Err(HubError::Incomplete { .. })));
}

#[cfg(unix)]
#[test]
fn blobs_may_be_on_another_disk() {
    use std::os::unix::fs::symlink;
    let other = tempfile::tempdir().expect("a temporary folder");
    let place = Place::with(Model::sharded(2, MB));
    let blobs = place.repository().join("blobs");
    fs::create_dir_all(place.repository()).expect("created");
    symlink(other.path(), &blobs).expect("linked");
    place.pull().expect("pulled");
    place.is_whole();
    loads(&place);
    assert!(place.cache().model(ID).expect("there").revisions[0].is_verified);
    assert!(
        place.cache().verify(ID, true, |_, _| {}).expect("read").iter().all(|c| c.state == FileState::Right)
    );
    // One revision of two takes its own blobs with it.
    let next = "89abcdef0123456789abcdef0123456789abcdef";
    let changed = Model::sharded(2, MB).with("config.json", b"{\"a\": 1}".to_vec());
    place.hub.add(ID, Model { commit: next.to_owned(), ..changed });
    place.pull().expect("pulled");
    let count = names(other.path()).len();
    let removal = place.cache().plan_removal(ID, Some(COMMIT)).expect("planned");
    place.cache().remove(&removal).expect("removed");
    assert_eq!(names(other.path()).len(), count - 1);
    // The whole model leaves nothing there.
    let removal = place.cache().plan_removal(ID, None).expect("planned");
    assert!(removal.bytes > 2 * MB as u64, "{removal:?}");
    place.cache().remove(&removal).expect("removed");
    assert!(names(other.path()).is_empty() && !place.repository().exists());

    // The same with the whole model, under another name.
    let place = Place::with(Model::small(MB));
    symlink(other.path(), place.repository()).expect("linked");
    place.pull().expect("pulled");
    place.is_whole();
    loads(&place);
}

/// Newer versions of `huggingface_hub` keep a blob once for several models.
#[cfg(unix)]
#[test]
fn blobs_that_models_share_are_checked_by_their_own_names() {
    use std::os::unix::fs::symlink;
    let place = Place::with(Model::small(MB));
    let pulled = place.pull().expect("pulled");
    let blob = pulled.directory.join("model.safetensors").canonicalize().expect("there");
    let shared = place.folder.path().join("blobs/ab").join("ab".repeat(32));
    fs::create_dir_all(shared.parent().expect("a folder")).expect("created");
    fs::rename(&blob, &shared).expect("moved");
    symlink(format!("../../blobs/ab/{}", "ab".repeat(32)), &blob).expect("linked");
    let _ = fs::remove_file(place.repository().join(".pippin/verified"));
    place.is_whole();
    loads(&place);
    assert!(
        place.cache().verify(ID, true, |_, _| {}).expect("read").iter().all(|c| c.state == FileState::Right)
    );
    assert_eq!(place.pull().expect("pulled").transferred_bytes, 0);
    // Damage is seen, and mended without a change to what others use.
    let mut bytes = fs::read(&shared).expect("readable");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&shared, &bytes).expect("written");
    assert!(matches!(place.cache().find(ID, "main"), Err(HubError::Incomplete { .. })));
    place.pull().expect("pulled");
    place.is_whole();
    assert_eq!(fs::read(&shared).expect("readable"), bytes);
}

#[test]
fn a_revision_that_is_not_there_names_one_that_is() {
    let place = Place::with(Model::small(MB));
    let client = place.client();
    let plan = client.plan(&place.cache(), ID, COMMIT).expect("planned");
    client.pull(&place.cache(), &plan, &PullOptions::default(), |_| {}).expect("pulled");
    let error = place.cache().find(ID, "main").expect_err("no such name");
    assert!(error.hint().is_some_and(|hint| hint.contains(&format!("{ID}@{COMMIT}"))), "{error:?}");
}

#[test]
fn models_in_use_stay() {
    let place = Place::with(Model::small(MB));
    let pulled = place.pull().expect("pulled");
    let removal = place.cache().plan_removal(ID, None).expect("planned");
    let lock = HubCache::use_lock(&pulled.directory).expect("a snapshot");
    assert!(matches!(place.cache().remove(&removal), Err(HubError::InUse { .. })));
    place.is_whole();
    drop(lock);
    place.cache().remove(&removal).expect("removed");
    assert!(!place.repository().exists());
    assert!(place.cache().models().expect("readable").is_empty());
    assert!(HubCache::use_lock(Path::new("/")).is_none());
}

#[test]
fn many_threads_may_finish_one_model() {
    let place = Place::with(Model::small(100));
    let plan = place.client().plan(&place.cache(), ID, "main").expect("planned");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let pulled = place.client().pull(&place.cache(), &plan, &PullOptions::default(), |_| {});
                    pulled.expect("pulled, or there already");
                }
            });
        }
    });
    place.is_whole();
    let refs = fs::read_dir(place.repository().join("refs")).expect("a folder");
    let names: Vec<_> = refs.map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(names, ["main"]);
}

#[test]
fn what_was_not_planned_is_not_removed() {
    let next = "89abcdef0123456789abcdef0123456789abcdef";
    let changed =
        || Model { commit: next.to_owned(), ..Model::small(MB).with("config.json", b"{\"a\": 1}".to_vec()) };
    // What happens between the question and the answer, and what the error says of it.
    type Change = fn(&Place);
    let changes: [(&str, Change); 6] = [
        ("the revision 89abcdef0123 is there now", |place| {
            let next = "89abcdef0123456789abcdef0123456789abcdef";
            let model = Model::small(MB).with("config.json", b"{\"a\": 1}".to_vec());
            place.hub.add(ID, Model { commit: next.to_owned(), ..model });
            place.pull().expect("pulled");
        }),
        ("was added", |place| {
            fs::write(place.repository().join("blobs/0123.incomplete"), "of another tool").expect("written");
        }),
        ("was added", |place| {
            let notes = place.repository().join("snapshots").join(COMMIT).join("notes/a/b.txt");
            fs::create_dir_all(notes.parent().expect("a folder")).expect("created");
            fs::write(notes, "mine").expect("written");
        }),
        ("was added", |place| {
            fs::write(place.repository().join("refs/mine"), COMMIT).expect("written");
        }),
        ("is another now", |place| {
            let blob = &names(&place.repository().join("blobs"))[0];
            fs::write(place.repository().join("blobs").join(blob), "repaired, or damaged").expect("written");
        }),
        ("it has gone", |place| fs::remove_dir_all(place.repository()).expect("removed")),
    ];
    for (expected, change) in changes {
        for revision in [None, Some(COMMIT)] {
            let place = Place::with(Model::small(MB));
            place.pull().expect("pulled");
            let removal = place.cache().plan_removal(ID, revision).expect("planned");
            change(&place);
            let before = tree(&place.repository());
            // One revision alone: that another one came changes which of its blobs are needed.
            match place.cache().remove(&removal).expect_err("changed") {
                HubError::Changed { id, what } => {
                    assert_eq!(id, ID);
                    let other = revision.is_some() && expected.starts_with("the revision");
                    assert!(what.contains(expected) || other, "{expected}: {what}");
                }
                other => panic!("{expected}: {other}"),
            }
            assert_eq!(tree(&place.repository()), before, "{expected}");
            // Asked again, it goes.
            if let Ok(removal) = place.cache().plan_removal(ID, None) {
                place.cache().remove(&removal).expect("removed");
            }
            assert!(!place.repository().exists(), "{expected}");
        }
    }

    // A revision's blobs that a third one has come to share.
    let place = Place::with(Model::small(MB));
    place.pull().expect("pulled");
    place.hub.add(ID, changed());
    place.pull().expect("pulled");
    let weights = place.repository().join("snapshots").join(next).join("model.safetensors");
    fs::remove_file(weights).expect("removed");
    let removal = place.cache().plan_removal(ID, Some(COMMIT)).expect("planned");
    place.pull().expect("repaired");
    assert!(matches!(place.cache().remove(&removal), Err(HubError::Changed { .. })));
    place.cache().find(ID, "main").expect("whole");
}

#[test]
fn downloads_of_other_tools_are_not_removed_under_them() {
    let place = Place::with(Model::small(MB));
    place.pull().expect("pulled");
    let partial = place.repository().join("blobs/0123.incomplete");
    fs::write(&partial, "so far").expect("written");
    let removal = place.cache().plan_removal(ID, None).expect("planned");
    let repository = place.repository();
    let name = repository.file_name().expect("a name");
    let lock = place.cache().root().join(".locks").join(name).join("0123.lock");
    let held = fs::File::create(lock).expect("created");
    held.lock().expect("locked");
    assert!(matches!(place.cache().remove(&removal), Err(HubError::InUse { .. })));
    place.is_whole();
    assert_eq!(place.cache().prune().expect("pruned").busy, 1);
    drop(held);
    place.cache().remove(&removal).expect("removed");
    assert!(!place.repository().exists());
}

#[test]
fn a_plan_is_brought_up_to_date() {
    let place = Place::with(Model::small(MB));
    let mut plan = place.client().plan(&place.cache(), ID, "main").expect("planned");
    let all = plan.missing_bytes();
    place.pull().expect("pulled");
    plan.refresh(&place.cache());
    assert_eq!(plan.missing_bytes(), 0);
    let removal = place.cache().plan_removal(ID, None).expect("planned");
    place.cache().remove(&removal).expect("removed");
    plan.refresh(&place.cache());
    assert_eq!(plan.missing_bytes(), all);
}

/// What is in a folder: names, and what stands in the files.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().expect("known").is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn one_downloads_and_the_other_waits() {
    let place = Place::with(Model::small(20 * MB));
    place.hub.set_rate(20 << 20);
    let results: Vec<(u64, bool)> = std::thread::scope(|scope| {
        let pull = || {
            let mut has_waited = false;
            let pulled = place.pull_with(&place.client(), |event| {
                has_waited |= matches!(event, PullEvent::Waiting { .. });
            });
            (pulled.expect("pulled").transferred_bytes, has_waited)
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(pull)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    place.is_whole();
    let size = place.hub.model(ID).files["model.safetensors"].content.len() as u64;
    assert_eq!(place.hub.sent("model.safetensors"), size, "{results:?}");
    assert!(results.iter().any(|(_, has_waited)| *has_waited), "{results:?}");
}

#[test]
fn partial_files_are_pruned_unless_somebody_works_on_them() {
    let place = Place::with(Model::small(5 * MB));
    place.hub.fault("/store/", usize::MAX, Kind::CutAfter(100));
    place.pull().expect_err("cut");
    place.hub.clear_faults();
    let blobs = place.repository().join("blobs");
    fs::write(blobs.join("abc.incomplete"), vec![1; 10_000]).expect("written");
    let model = place.cache().model(ID).expect("there");
    assert!(model.partial_bytes > 0 && model.revisions[0].problem.is_some());
    let pruned = place.cache().prune().expect("pruned");
    assert!(pruned.files >= 2 && pruned.busy == 0, "{pruned:?}");
    assert!(names(&blobs).iter().all(|name| !name.contains('.')), "{:?}", names(&blobs));
    place.pull().expect("pulled");
    place.is_whole();
}

#[test]
fn a_full_disk_is_noticed_before() {
    let mut model = Model::small(100);
    let files = serde_json::json!([
        {"rfilename": "config.json", "size": 2, "blobId": "0".repeat(40)},
        {"rfilename": "model.safetensors", "size": 1_u64 << 60, "lfs": {"sha256": "0".repeat(64), "size": 1_u64 << 60}},
    ]);
    model.extra = serde_json::json!({"siblings": files});
    let place = Place::with(model);
    let error = place.pull().expect_err("too large");
    assert!(matches!(error, HubError::NoSpace { .. }), "{error:?}");
    assert!(error.hint().expect("a hint").contains("pippin prune"));
    assert!(place.hub.requests().iter().all(|request| !request.is_store));
}

#[test]
fn searches_have_pages() {
    let hub = FakeHub::start();
    for (name, downloads) in [("a/one-mlx", 5), ("b/two-mlx", 50), ("b/three", 500), ("c/four-mlx", 1)] {
        let extra =
            serde_json::json!({"downloads": downloads, "tags": ["mlx"], "likes": null, "gated": "auto"});
        hub.add(name, Model::small(10).extra(extra));
    }
    let client = HubClient::new(HubOptions::new(hub.endpoint())).expect("valid");
    let query = pippin_hub::SearchQuery {
        words: "mlx".to_owned(),
        filters: vec!["mlx".to_owned()],
        sort: Some("downloads".to_owned()),
        limit: Some(2),
        ..Default::default()
    };
    let page = client.search(&query).expect("found");
    let ids =
        |page: &pippin_hub::SearchPage| page.models.iter().map(|model| model.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&page), ["b/two-mlx", "a/one-mlx"]);
    assert!(page.models[0].gated && page.models[0].likes == 0);
    let page = client.search_next(page.next.as_deref().expect("more")).expect("found");
    assert_eq!((ids(&page), page.next), (vec!["c/four-mlx".to_owned()], None));
    assert!(client.search_next("https://evil.example/api/models").is_err());
    assert_eq!(client.fetch_small("a/one-mlx", "main", "tokenizer_config.json", 100).expect("there"), b"{}");
    assert!(matches!(
        client.fetch_small("a/one-mlx", "main", "tokenizer.json", 3),
        Err(HubError::TooLarge { .. })
    ));
    assert!(matches!(client.fetch_small("a/one-mlx", "main", "x.json", 3), Err(HubError::NoFile { .. })));
}

#[test]
fn empty_and_equal_files_are_fine() {
    let model = Model::small(MB)
        .with("tokenizer_config.json", Vec::new())
        .with("generation_config.json", b"{}".to_vec())
        .with("special_tokens_map.json", b"{}".to_vec());
    let place = Place::with(model);
    place.pull().expect("pulled");
    place.is_whole();
}
