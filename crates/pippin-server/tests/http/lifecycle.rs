use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pippin::ModelCache;
use pippin_server::{Limits, Server, ServerOptions};
use serde_json::json;

use crate::support::{Connection, TestServer, endless, options, question, server_with};

const CHAT: &str = "/v1/chat/completions";

/// A server whose numbers are its own.
fn alone(limits: Limits) -> TestServer {
    server_with(ModelCache::new(options()), |options| options.with_limits(limits))
}

#[test]
fn a_client_that_goes_away_cancels_its_request() {
    let server = alone(Limits::default());
    let mut request = endless(&server.cache);
    let mut stream = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    stream.read_until("content\":\"");
    drop(stream);
    server.wait_for_cancelled(1);
    // The same where the answer was to come as a whole.
    request["stream"] = json!(false);
    let whole = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    let begin = Instant::now();
    while server.cache.monitor().model("pippin-nano").expect("watched").requests.running == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(whole);
    server.wait_for_cancelled(2);
    assert_eq!(server.post(CHAT, &question("Hello!")).status, 200);
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let server = alone(Limits { write_time: Duration::from_millis(300), ..Limits::default() });
    // What an answer repeats of its request is more than a connection holds: nobody reads it.
    let request = json!({
        "input": "x", "max_output_tokens": 1, "instructions": "x", "metadata": {"x": "y".repeat(3 << 20)}, "stream": true,
    });
    let body = request.to_string();
    let connection = Connection::open(server.address(), "POST", "/v1/responses", &[], body.as_bytes());
    let begin = Instant::now();
    loop {
        let reply = server.get("/metrics");
        if reply.body.contains("pippin_answers_under_way 0") && begin.elapsed() > Duration::from_millis(200) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", reply.body);
        std::thread::sleep(Duration::from_millis(20));
    }
    // It cannot be read to its end any more.
    let body = connection.rest();
    assert!(
        !body.contains("response.completed") && !body.contains("response.incomplete"),
        "{} bytes",
        body.len()
    );
}

#[test]
fn shutting_down_finishes_what_has_begun() {
    let server = alone(Limits { shutdown_time: Duration::from_secs(600), ..Limits::default() });
    let mut request = question("Tell me a story.");
    request["stream"] = json!(true);
    let mut stream = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    stream.read_until("data: ");
    let address = server.address();
    server.running.shut_down();
    stream.read_until("[DONE]");
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn shutting_down_cuts_what_takes_too_long() {
    let server = alone(Limits { shutdown_time: Duration::from_millis(100), ..Limits::default() });
    let request = endless(&server.cache);
    let mut stream = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    stream.read_until("content\":\"");
    let begin = Instant::now();
    let TestServer { cache, running } = server;
    running.shut_down();
    assert!(begin.elapsed() < Duration::from_secs(30));
    stream.read_until("shutting_down");
    let begin = Instant::now();
    while cache.monitor().model("pippin-nano").expect("watched").requests.running > 0 {
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn an_answer_has_its_time() {
    let server = alone(Limits { answer_time: Some(Duration::from_millis(300)), ..Limits::default() });
    let mut request = endless(&server.cache);
    let mut stream = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    stream.read_until("\"code\":\"timeout\"");
    request["stream"] = json!(false);
    server.post(CHAT, &request).fails(504, None, Some("timeout"));
    server.wait_for_cancelled(2);
}

#[test]
fn health_follows_the_server() {
    let cache = ModelCache::new(options());
    let options = ServerOptions::default().with_model("pippin-nano", "pippin-nano");
    let server = TestServer { running: Server::start(&cache, options).expect("starts"), cache };
    let loading = server.get("/health");
    assert_eq!((loading.status, loading.json()["status"].as_str()), (503, Some("loading")));
    server.running.set_ready();
    assert_eq!(server.get("/health").answer()["status"], "ok");
    // A model that is asked for is loaded.
    assert!(server.cache.models().is_empty());
    server.post(CHAT, &question("Hello!")).answer();
    assert_eq!(server.cache.models()[0].model, "pippin-nano");
}

#[test]
fn silence_is_filled_with_comments() {
    let server = alone(Limits { keep_alive: Duration::from_millis(1), ..Limits::default() });
    let mut request = endless(&server.cache);
    request["messages"][0]["content"] = json!("word ".repeat(300));
    request["max_tokens"] = json!(3);
    let reply = server.post(CHAT, &request);
    assert!(reply.body.lines().any(|line| line.starts_with(':')), "{}", reply.body);
}

#[test]
fn slow_headers_are_not_waited_for() {
    let server = alone(Limits { header_time: Duration::from_millis(200), ..Limits::default() });
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    std::io::Write::write_all(&mut stream, b"GET /health HTTP/1.1\r\nhost: lo").expect("sent");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).expect("it is closed");
}

/// A connection on which this has been said so far.
fn said(server: &TestServer, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream.write_all(text.as_bytes()).expect("sent");
    stream
}

const HALF: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let minute = Duration::from_secs(60);
    let limits = Limits { connections: 4, header_time: minute, body_time: minute, ..Limits::default() };
    let server = alone(limits);
    server.cache.get("pippin-nano").expect("loads");
    let mut request = endless(&server.cache);
    request["max_tokens"] = json!(2000);
    // One that is answered stays; those that wait for nothing, or for what does not come, make room.
    let stream = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    let mut used = said(&server, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    used.read_exact(&mut [0; 12]).expect("answered, and kept");
    let others = [said(&server, "GET /hea"), said(&server, HALF)];
    let begin = Instant::now();
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut next = said(&server, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let mut status = [0; 12];
        next.read_exact(&mut status).expect("answered");
        assert_eq!(&status, b"HTTP/1.1 200");
        kept.push(next);
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    for mut other in others.into_iter().chain([used]) {
        // Closed, in one way or the other.
        let _ = other.read_to_end(&mut Vec::new());
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let answer = stream.rest();
    assert!(answer.contains("[DONE]"), "{} bytes", answer.len());
}

#[test]
fn shutting_down_does_not_wait_for_requests_that_do_not_come() {
    let minute = Duration::from_secs(60);
    let limits =
        Limits { header_time: minute, body_time: minute, shutdown_time: minute, ..Limits::default() };
    let server = alone(limits);
    let _others = [said(&server, "GET /hea"), said(&server, HALF), said(&server, "")];
    // All of them are known to the server.
    server.get("/health");
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    server.running.shut_down();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
