//! A hub on loopback: the API, files with ETags, redirects and ranges, and every fault that a test asks for.
//!
//! Large files are served as the real hub serves them: the hub answers with their hash and size and a redirect to a
//! store, which is another server (another port) and must never see the token.
//!
//! Other crates' tests use this file too (`#[path = …]`); besides `std` it needs `pippin_hub` and `serde_json` only.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::missing_docs_in_private_items)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pippin_hub::FileHash;
use serde_json::{Value, json};

/// A running hub. It ends with this handle.
pub struct FakeHub {
    state: Arc<State>,
}

struct State {
    hub: SocketAddr,
    store: SocketAddr,
    models: Mutex<BTreeMap<String, Model>>,
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Request>>,
    sent: Mutex<BTreeMap<String, u64>>,
    /// Bytes a second over all connections; 0: as fast as it goes.
    rate: AtomicU64,
    next_slot: Mutex<Option<Instant>>,
    is_over: AtomicBool,
}

/// A model of the fake hub.
#[derive(Clone, Default)]
pub struct Model {
    pub commit: String,
    /// Further names of the commit, besides `main` and the commit itself.
    pub branches: Vec<String>,
    pub files: BTreeMap<String, File>,
    pub is_gated: bool,
    /// Only this token sees it.
    pub private_to: Option<String>,
    /// Laid over the API's answer: downloads, likes, tags, ….
    pub extra: Value,
}

#[derive(Clone)]
pub struct File {
    pub content: Arc<Vec<u8>>,
    pub is_lfs: bool,
    pub hash: FileHash,
}

impl File {
    pub fn new(content: Vec<u8>, is_lfs: bool) -> Self {
        let hash = if is_lfs { FileHash::sha256(&content) } else { FileHash::git_blob(&content) };
        Self { content: Arc::new(content), is_lfs, hash }
    }
}

impl Model {
    pub fn new(commit: &str) -> Self {
        Self { commit: commit.to_owned(), extra: json!({}), ..Self::default() }
    }

    /// A model of one shard with this many bytes of weights, and a few small files.
    pub fn small(bytes: usize) -> Self {
        Self::new(COMMIT)
            .with("config.json", br#"{"model_type": "llama"}"#.to_vec())
            .with("tokenizer.json", br#"{"version": "1.0"}"#.to_vec())
            .with("tokenizer_config.json", b"{}".to_vec())
            .with("README.md", b"# A model\n".to_vec())
            .with_lfs("model.safetensors", safetensors(bytes, 1))
            .with_lfs("pytorch_model.bin", vec![7; 1000])
    }

    /// A model of several shards, each with this many bytes of weights, and an index.
    pub fn sharded(shards: usize, bytes: usize) -> Self {
        let mut model = Self::new(COMMIT)
            .with("config.json", br#"{"model_type": "llama"}"#.to_vec())
            .with("tokenizer.json", br#"{"version": "1.0"}"#.to_vec());
        let mut map = serde_json::Map::new();
        for shard in 1..=shards {
            let name = format!("model-{shard:05}-of-{shards:05}.safetensors");
            map.insert(format!("tensor{shard}"), json!(name));
            model = model.with_lfs(&name, safetensors(bytes, shard as u64));
        }
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        model.with("model.safetensors.index.json", index.into_bytes())
    }

    /// The files of a folder.
    pub fn from_folder(folder: &Path) -> Self {
        let mut model = Self::new(COMMIT);
        for entry in folder.read_dir().expect("a folder").flatten() {
            let name = entry.file_name().into_string().expect("UTF-8");
            let content = std::fs::read(entry.path()).expect("readable");
            let is_lfs = name.ends_with(".safetensors");
            model.files.insert(name, File::new(content, is_lfs));
        }
        model
    }

    pub fn with(mut self, name: &str, content: Vec<u8>) -> Self {
        self.files.insert(name.to_owned(), File::new(content, false));
        self
    }

    pub fn with_lfs(mut self, name: &str, content: Vec<u8>) -> Self {
        self.files.insert(name.to_owned(), File::new(content, true));
        self
    }

    pub fn extra(mut self, extra: Value) -> Self {
        self.extra = extra;
        self
    }
}

/// The commit of the ready-made models.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A safetensors file with one tensor of reproducible bytes.
pub fn safetensors(bytes: usize, seed: u64) -> Vec<u8> {
    let header = format!(r#"{{"w{seed}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.reserve(bytes + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let end = file.len() + bytes;
    while file.len() < end {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.extend_from_slice(&state.to_le_bytes());
    }
    file.truncate(end);
    file
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Requests whose path holds this text.
    pub path: String,
    /// How many of them.
    pub times: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Status {
        code: u16,
        retry_after: Option<&'static str>,
        error_code: &'static str,
    },
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes, for so long.
    StallAfter(usize, Duration),
    /// One byte is another.
    WrongContent,
    /// The length, in all headers, is wrong by so much, and the body with it.
    WrongLength(i64),
    /// Ranges are not honoured: the whole file, with status 200.
    IgnoreRange,
    /// A 206 whose range is not the one that was asked for.
    WrongRange,
    RedirectTo(String),
    /// The hub's header names another hash.
    WrongEtag,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<(u64, Option<u64>)>,
    pub authorization: Option<String>,
    /// Whether it reached the store rather than the hub.
    pub is_store: bool,
}

impl FakeHub {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub fn start_at(address: &str) -> Self {
        let hub = TcpListener::bind(address).expect("a port");
        let store = TcpListener::bind("127.0.0.1:0").expect("a port");
        let state = Arc::new(State {
            hub: hub.local_addr().expect("an address"),
            store: store.local_addr().expect("an address"),
            models: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            sent: Mutex::default(),
            rate: AtomicU64::new(0),
            next_slot: Mutex::new(None),
            is_over: AtomicBool::new(false),
        });
        for (listener, is_store) in [(hub, false), (store, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if state.is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let Ok(stream) = stream else { continue };
                    let state = state.clone();
                    std::thread::spawn(move || {
                        let _ = state.serve(stream, is_store);
                    });
                }
            });
        }
        Self { state }
    }

    /// `http://127.0.0.1:PORT`, for `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.state.hub)
    }

    /// The store that large files are redirected to.
    pub fn store(&self) -> String {
        format!("http://{}", self.state.store)
    }

    pub fn add(&self, id: &str, model: Model) -> &Self {
        lock(&self.state.models).insert(id.to_owned(), model);
        self
    }

    pub fn model(&self, id: &str) -> Model {
        lock(&self.state.models)[id].clone()
    }

    /// From now on, the next `times` requests whose path holds `path` go wrong.
    pub fn fault(&self, path: &str, times: usize, kind: Kind) -> &Self {
        lock(&self.state.faults).push(Fault { path: path.to_owned(), times, kind });
        self
    }

    pub fn clear_faults(&self) -> &Self {
        lock(&self.state.faults).clear();
        self
    }

    /// Bytes a second over all connections.
    pub fn set_rate(&self, rate: u64) -> &Self {
        self.state.rate.store(rate, Ordering::Relaxed);
        self
    }

    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    pub fn forget_requests(&self) {
        lock(&self.state.requests).clear();
        lock(&self.state.sent).clear();
    }

    /// Bytes of a file's content that were written to connections, by file name.
    pub fn sent(&self, name: &str) -> u64 {
        lock(&self.state.sent).get(name).copied().unwrap_or(0)
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        // Wakes the listeners.
        let _ = TcpStream::connect(self.state.hub);
        let _ = TcpStream::connect(self.state.store);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body and what is said about it.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
    /// The name under which the sent bytes are counted, for files.
    name: Option<String>,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: Arc::new(body.into()), name: None }
    }

    fn json(value: &Value) -> Self {
        Self::new(200, value.to_string()).header("content-type", "application/json")
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let mut reply = Self::new(status, json!({"error": message}).to_string());
        if !code.is_empty() {
            reply = reply.header("x-error-code", code);
        }
        reply.header("x-error-message", message)
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl State {
    fn serve(&self, stream: TcpStream, is_store: bool) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split_whitespace();
            let method = words.next().unwrap_or_default().to_owned();
            let target = words.next().unwrap_or_default().to_owned();
            let mut headers = BTreeMap::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                match line.trim_end().split_once(':') {
                    Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                    None => break,
                };
            }
            let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
            let range = headers.get("range").and_then(|range| {
                let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
                Some((start.parse().ok()?, end.parse::<u64>().ok().map(|end| end + 1)))
            });
            let request = Request {
                method,
                path: target,
                range,
                authorization: headers.remove("authorization"),
                is_store,
            };
            lock(&self.requests).push(request.clone());
            if !self.answer(&mut stream, &request)? {
                return Ok(());
            }
        }
    }

    /// The fault that this request is to meet, if any.
    fn fault(&self, request: &Request) -> Option<Kind> {
        let mut faults = lock(&self.faults);
        let name = self.stored_name(&request.path);
        let fault = faults.iter_mut().find(|fault| {
            fault.times > 0
                && (request.path.contains(&fault.path)
                    || name.as_ref().is_some_and(|name| format!("/store/{name}").contains(&fault.path)))
        })?;
        fault.times -= 1;
        Some(fault.kind.clone())
    }

    /// The name of the file that a path of the store stands for.
    fn stored_name(&self, path: &str) -> Option<String> {
        let hash = path.strip_prefix("/store/")?.split('?').next()?;
        let models = lock(&self.models);
        let mut files = models.values().flat_map(|model| &model.files);
        let (name, _) = files.find(|(_, file)| file.is_lfs && file.hash.as_hex() == hash)?;
        Some(name.clone())
    }

    /// Answers a request; `false` when the connection is to end.
    fn answer(&self, stream: &mut TcpStream, request: &Request) -> std::io::Result<bool> {
        let fault = self.fault(request);
        let mut reply = match &fault {
            Some(Kind::Status { code, retry_after, error_code }) => {
                let mut reply = Reply::error(*code, error_code, "a fault");
                if let Some(time) = retry_after {
                    reply = reply.header("retry-after", time);
                }
                reply
            }
            Some(Kind::RedirectTo(address)) => Reply::new(302, "").header("location", address),
            _ if request.is_store => self.stored(request),
            _ => self.route(request),
        };
        if matches!(fault, Some(Kind::WrongEtag)) {
            for (name, value) in &mut reply.headers {
                if name.ends_with("etag") {
                    *value = format!("\"{}\"", "0".repeat(64));
                }
            }
        }
        let total = reply.body.len() as u64;
        let mut start = 0;
        let mut end = total;
        let is_file = reply.name.is_some() && reply.status == 200;
        if is_file {
            reply.headers.push(("accept-ranges".to_owned(), "bytes".to_owned()));
        }
        if let (true, Some((from, to)), false) =
            (is_file, request.range, matches!(fault, Some(Kind::IgnoreRange)))
        {
            if from >= total {
                reply = Reply::new(416, "").header("content-range", &format!("bytes */{total}"));
                (start, end) = (0, 0);
            } else {
                start = from;
                end = to.unwrap_or(total).min(total);
                reply.status = 206;
                let shift = u64::from(matches!(fault, Some(Kind::WrongRange)));
                let off = if let Some(Kind::WrongLength(off)) = fault { off } else { 0 };
                let value = format!(
                    "bytes {}-{}/{}",
                    start + shift,
                    end - 1 + shift,
                    total.saturating_add_signed(off)
                );
                reply.headers.push(("content-range".to_owned(), value));
            }
        }
        let mut length = end - start;
        let mut body = reply.body[start as usize..end as usize].to_vec_if(&fault);
        if let Some(Kind::WrongLength(off)) = fault {
            length = length.saturating_add_signed(off);
            if let Some(body) = &mut body {
                body.resize(length as usize, 0);
            }
        }
        let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(true);
        }
        let bytes = body.as_deref().unwrap_or(&reply.body[start as usize..end as usize]);
        match fault {
            Some(Kind::CutAfter(count)) if count < bytes.len() => {
                self.send(stream, &bytes[..count], reply.name.as_deref())?;
                let _ = stream.shutdown(std::net::Shutdown::Both);
                Ok(false)
            }
            Some(Kind::StallAfter(count, time)) => {
                self.send(stream, &bytes[..count.min(bytes.len())], reply.name.as_deref())?;
                std::thread::sleep(time);
                Ok(false)
            }
            _ => {
                self.send(stream, bytes, reply.name.as_deref())?;
                Ok(true)
            }
        }
    }

    fn send(&self, stream: &mut TcpStream, bytes: &[u8], name: Option<&str>) -> std::io::Result<()> {
        let rate = self.rate.load(Ordering::Relaxed);
        for piece in bytes.chunks(if rate == 0 { 1 << 20 } else { 32 << 10 }) {
            if rate > 0 && name.is_some() {
                let mut slot = lock(&self.next_slot);
                let now = Instant::now();
                let start = slot.unwrap_or(now).max(now);
                let next = start + Duration::from_secs_f64(piece.len() as f64 / rate as f64);
                *slot = Some(next);
                drop(slot);
                std::thread::sleep(start - now);
            }
            stream.write_all(piece)?;
            if let Some(name) = name {
                *lock(&self.sent).entry(name.to_owned()).or_default() += piece.len() as u64;
            }
            if self.is_over.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
        }
        Ok(())
    }

    fn stored(&self, request: &Request) -> Reply {
        let Some(name) = self.stored_name(&request.path) else {
            return Reply::error(404, "", "no such object");
        };
        let models = lock(&self.models);
        let hash =
            request.path.trim_start_matches("/store/").split('?').next().unwrap_or_default().to_owned();
        let file = models
            .values()
            .flat_map(|model| &model.files)
            .find(|(_, file)| file.is_lfs && file.hash.as_hex() == hash)
            .map(|(_, file)| file.clone());
        match file {
            Some(file) => Reply {
                status: 200,
                headers: vec![("etag".to_owned(), "\"the store's own\"".to_owned())],
                body: file.content,
                name: Some(name),
            },
            None => Reply::error(404, "", "no such object"),
        }
    }

    fn route(&self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let models = lock(&self.models);
        if path == "/api/models" {
            return self.search(&models, query);
        }
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (organisation, name, rest) = match parts.as_slice() {
            ["api", "models", organisation, name, rest @ ..] => (organisation, name, Err(rest)),
            [organisation, name, "resolve", revision, path @ ..] => {
                (organisation, name, Ok((revision, path.join("/"))))
            }
            _ => return Reply::error(404, "", "no such page"),
        };
        let id = format!("{organisation}/{name}");
        let is_visible = |model: &Model| {
            model
                .private_to
                .as_ref()
                .is_none_or(|token| request.authorization == Some(format!("Bearer {token}")))
        };
        let Some(model) = models.get(&id).filter(|model| is_visible(model)) else {
            return Reply::error(401, "RepoNotFound", "Invalid username or password.");
        };
        let revision = match &rest {
            Ok((revision, _)) => (**revision).to_owned(),
            Err([]) => "main".to_owned(),
            Err(["revision" | "tree", revision]) => (*revision).to_owned(),
            Err(_) => return Reply::error(404, "", "no such page"),
        };
        if revision != "main" && revision != model.commit && !model.branches.contains(&revision) {
            return Reply::error(404, "RevisionNotFound", "Invalid rev id");
        }
        if matches!(&rest, Err(["tree", _])) {
            return Reply::json(&tree(model));
        }
        let Ok((_, path)) = rest else {
            return Reply::json(&describe(&id, model, query.contains("blobs=true")));
        };
        if model.is_gated && request.authorization.is_none() {
            return Reply::error(401, "GatedRepo", "Access to this model is restricted.");
        }
        if model.is_gated && request.authorization.as_deref() != Some("Bearer hf_accepted") {
            return Reply::error(403, "GatedRepo", "You are not in the authorized list.");
        }
        let Some(file) = model.files.get(&path) else {
            return Reply::error(404, "EntryNotFound", "Entry not found");
        };
        let hash = &file.hash;
        if file.is_lfs {
            return Reply::new(302, "Found")
                .header("x-repo-commit", &model.commit)
                .header("x-linked-size", &file.content.len().to_string())
                .header("x-linked-etag", &format!("\"{}\"", hash.as_hex()))
                .header(
                    "location",
                    &format!("http://{}/store/{}?signature=secret", self.store, hash.as_hex()),
                );
        }
        Reply {
            status: 200,
            headers: vec![
                ("x-repo-commit".to_owned(), model.commit.clone()),
                ("etag".to_owned(), format!("\"{}\"", hash.as_hex())),
            ],
            body: file.content.clone(),
            name: Some(path),
        }
    }

    fn search(&self, models: &BTreeMap<String, Model>, query: &str) -> Reply {
        let parameters: Vec<(String, String)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        let get =
            |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let mut found: Vec<Value> = models
            .iter()
            .map(|(id, model)| describe(id, model, false))
            .filter(|model| {
                let id = model["id"].as_str().unwrap_or_default().to_lowercase();
                let has_tag =
                    |tag: &str| model["tags"].as_array().is_some_and(|tags| tags.contains(&json!(tag)));
                get("search")
                    .is_none_or(|words| words.to_lowercase().split_whitespace().all(|word| id.contains(word)))
                    && get("author")
                        .is_none_or(|author| id.starts_with(&format!("{}/", author.to_lowercase())))
                    && parameters.iter().filter(|(key, _)| key == "filter").all(|(_, tag)| has_tag(tag))
            })
            .collect();
        if let Some(field) = get("sort") {
            found.sort_by(|a, b| match (a[field].as_f64(), b[field].as_f64()) {
                (Some(a), Some(b)) => b.total_cmp(&a),
                _ => b[field].as_str().cmp(&a[field].as_str()),
            });
        }
        let start: usize = get("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let limit: usize = get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(1000);
        let count = found.len();
        let page: Vec<Value> = found.into_iter().skip(start).take(limit).collect();
        let reply = Reply::json(&Value::Array(page));
        if start + limit >= count {
            return reply;
        }
        let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("cursor=")).collect();
        let next = format!("http://{}/api/models?{}&cursor={}", self.hub, rest.join("&"), start + limit);
        reply.header("link", &format!("<{next}>; rel=\"next\""))
    }
}

/// The files as the API lists them.
fn tree(model: &Model) -> Value {
    let entries = model.files.iter().map(|(name, file)| {
        let size = file.content.len();
        let mut entry = json!({"type": "file", "path": name, "size": size, "oid": file.hash.as_hex()});
        if file.is_lfs {
            entry["oid"] = json!(FileHash::git_blob(b"pointer").as_hex());
            entry["lfs"] = json!({"oid": file.hash.as_hex(), "size": size, "pointerSize": 134});
        }
        entry
    });
    Value::Array(entries.collect())
}

/// A model as the API describes it.
fn describe(id: &str, model: &Model, with_blobs: bool) -> Value {
    let siblings: Vec<Value> = model
        .files
        .iter()
        .map(|(name, file)| {
            let mut entry = json!({"rfilename": name});
            if with_blobs {
                entry["size"] = json!(file.content.len());
                entry["blobId"] =
                    json!(FileHash::git_blob(if file.is_lfs { b"pointer" } else { &file.content }).as_hex());
                if file.is_lfs {
                    let sha256 = file.hash.as_hex().to_owned();
                    entry["lfs"] = json!({"sha256": sha256, "size": file.content.len(), "pointerSize": 134});
                }
            }
            entry
        })
        .collect();
    let mut value = json!({
        "_id": "0", "id": id, "modelId": id, "sha": model.commit, "private": model.private_to.is_some(),
        "gated": if model.is_gated { json!("manual") } else { json!(false) }, "disabled": false,
        "downloads": 0, "likes": 0, "tags": [], "author": id.split('/').next(),
        "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
        "siblings": siblings,
    });
    if let (Some(value), Some(extra)) = (value.as_object_mut(), model.extra.as_object()) {
        value.extend(extra.clone());
    }
    value
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Copies a body where a fault is to change it.
trait ToVecIf {
    fn to_vec_if(&self, fault: &Option<Kind>) -> Option<Vec<u8>>;
}

impl ToVecIf for [u8] {
    fn to_vec_if(&self, fault: &Option<Kind>) -> Option<Vec<u8>> {
        match fault {
            Some(Kind::WrongLength(_)) => Some(self.to_vec()),
            Some(Kind::WrongContent) => {
                let mut body = self.to_vec();
                if let Some(byte) = body.last_mut() {
                    *byte ^= 1;
                }
                Some(body)
            }
            _ => None,
        }
    }
}
