//! A server of its own for each test, and a client that says exactly what it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pippin::ModelCache;
use pippin::cache::CacheOptions;
use pippin_server::{RunningServer, Server, ServerOptions};
use serde_json::{Value, json};

/// The models of all tests.
pub(crate) fn cache() -> ModelCache {
    static CACHE: LazyLock<ModelCache> = LazyLock::new(|| ModelCache::new(options()));
    CACHE.clone()
}

pub(crate) fn options() -> CacheOptions {
    CacheOptions::default().with_keep_alive(pippin::config::KeepAlive::Forever)
}

pub(crate) struct TestServer {
    pub(crate) cache: ModelCache,
    pub(crate) running: RunningServer,
}

/// A server with pippin-nano.
pub(crate) fn server() -> TestServer {
    server_with(cache(), |options| options)
}

pub(crate) fn server_with(
    cache: ModelCache,
    change: impl FnOnce(ServerOptions) -> ServerOptions,
) -> TestServer {
    let options = ServerOptions::default().with_model("pippin-nano", "pippin-nano");
    let running = Server::start(&cache, change(options)).expect("starts");
    running.set_ready();
    TestServer { cache, running }
}

impl TestServer {
    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], body.to_string().as_bytes())
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        Connection::open(self.address(), method, path, headers, body).reply()
    }

    /// The events of a stream.
    pub(crate) fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let reply = self.post(path, body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        let mut events = Vec::new();
        let mut data: Vec<&str> = reply.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", reply.body);
        for line in data {
            events.push(serde_json::from_str(line).expect("JSON"));
        }
        events
    }

    /// Waits until so many requests to the model have ended in this way, and none is running.
    pub(crate) fn wait_for_cancelled(&self, count: u64) {
        let begin = Instant::now();
        loop {
            let counts = self.cache.monitor().model("pippin-nano").expect("watched").requests;
            if counts.running == 0 && counts.cancelled >= count {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{counts:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A question whose greedy answer is short.
pub(crate) fn question(text: &str) -> Value {
    json!({
        "model": "pippin-nano",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 12,
    })
}

/// A request whose answer would go on until the context is full.
pub(crate) fn endless(cache: &ModelCache) -> Value {
    let model = cache.get("pippin-nano").expect("loads");
    let mut biases = serde_json::Map::new();
    for token in model.processor().stop_tokens.iter() {
        biases.insert(token.to_string(), json!(-100));
    }
    let mut request = question("Count.");
    request["logit_bias"] = biases.into();
    request["max_tokens"] = json!(100_000);
    request["stream"] = json!(true);
    request
}

/// A request on its way.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(
        address: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("host: {address}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("set");
        stream.write_all(format!("{text}\r\n").as_bytes()).expect("sent");
        // Whoever refuses a body need not read it.
        let _ = stream.write_all(body);
        Self(BufReader::new(stream))
    }

    /// Reads the next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("read");
        line
    }

    /// Reads until a line holds this.
    pub(crate) fn read_until(&mut self, part: &str) {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the stream ended before {part:?}");
            if line.contains(part) {
                return;
            }
        }
    }

    /// All that comes until the connection ends, as it comes.
    pub(crate) fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        // It may end in any way.
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads to the end.
    pub(crate) fn reply(mut self) -> Reply {
        let status = self.line();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut reply = Reply { status: status.expect("a status"), headers, body: String::new() };
        let mut body = Vec::new();
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line();
                let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk).expect("a chunk");
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            // A server that refuses a body may close the connection while there is more of it.
            let _ = self.0.read_to_end(&mut body);
        }
        reply.body = String::from_utf8(body).expect("UTF-8");
        reply
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn answer(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Expects an error with this status and these `param` and `code`.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, param: Option<&str>, code: Option<&str>) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let error = &self.json()["error"];
        assert_eq!((error["param"].as_str(), error["code"].as_str()), (param, code), "{self:?}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
    }
}
