use pippin::ModelCache;
use pippin_server::{Keys, Server, ServerError, ServerOptions};

use crate::support::{cache, options, question, server, server_with};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn every_route_but_health_needs_a_key() {
    let keys = Keys::new(["the-first-key", "the-second-key"]).expect("keys");
    let server = server_with(cache(), |options| options.with_keys(keys));
    for (method, path) in [
        ("POST", CHAT),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/pippin-nano"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/apply-template"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/x"),
        ("POST", "/models/load"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),
        ("GET", "/no/such/route"),
        ("DELETE", "/health/"),
    ] {
        let reply = server.send(method, path, &[], b"{}");
        reply.fails(401, None, Some("invalid_api_key"));
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        let wrong = server.send(method, path, &[("authorization", "Bearer the-third-key")], b"{}");
        wrong.fails(401, None, Some("invalid_api_key"));
    }
    assert_eq!(server.get("/health").status, 200);
    let body = question("Hello!").to_string();
    for header in [("authorization", "Bearer the-first-key"), ("x-api-key", "the-second-key")] {
        server.send("POST", CHAT, &[header], body.as_bytes()).answer();
    }
}

#[test]
fn an_address_that_others_reach_needs_keys() {
    let cache = ModelCache::new(options());
    let open = || ServerOptions::default().with_address("0.0.0.0:0".parse().expect("an address"));
    let refused = Server::start(&cache, open()).expect_err("nobody is kept out");
    assert!(matches!(refused, ServerError::Unprotected { .. }));
    assert!(refused.hint().is_some());
    Server::start(&cache, open().with_without_keys(true)).expect("as it was told").shut_down();
    let keys = Keys::new(["a-long-key"]).expect("a key");
    Server::start(&cache, open().with_keys(keys)).expect("has keys").shut_down();
}

#[test]
fn strangers_names_are_refused() {
    let server = server();
    for host in ["evil.example", "evil.example:8080", "127.0.0.1.nip.io"] {
        server.send("GET", "/v1/models", &[("host", host)], b"").fails(403, None, Some("forbidden"));
    }
    for host in ["localhost", "localhost:8080", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(server.send("GET", "/v1/models", &[("host", host)], b"").status, 200, "{host}");
    }
    // A whole address in the request line is another way to name the host.
    for (uri, host, status) in [
        ("http://evil.example/v1/models", "localhost", 400),
        ("http://localhost/v1/models", "evil.example", 400),
        ("http://evil.example/v1/models", "evil.example", 403),
        ("http://localhost/v1/models", "localhost", 200),
    ] {
        assert_eq!(server.send("GET", uri, &[("host", host)], b"").status, status, "{uri} {host}");
    }
    let two = server.send("GET", "/v1/models", &[("host", "localhost"), ("host", "evil.example")], b"");
    two.fails(400, None, None);
    let named = server_with(cache(), |options| options.with_allowed_hosts(["box.lan"]));
    assert_eq!(named.send("GET", "/v1/models", &[("host", "box.lan:80")], b"").status, 200);
}

#[test]
fn pages_of_other_origins_are_refused_unless_they_are_listed() {
    let page = [("origin", "http://app.example")];
    let closed = server();
    let refused = closed.send("POST", CHAT, &page, question("Hello!").to_string().as_bytes());
    refused.fails(403, None, Some("forbidden"));
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(closed.send("OPTIONS", CHAT, &page, b"").status, 403);
    assert_eq!(closed.get("/health").header("access-control-allow-origin"), None);

    let listed = server_with(cache(), |options| options.with_allowed_origins(["http://app.example"]));
    let asked = [
        page[0],
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let preflight = listed.send("OPTIONS", CHAT, &asked, b"");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("http://app.example"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("content-type"));
    let answered = listed.send("GET", "/v1/models", &page, b"");
    assert_eq!(answered.status, 200);
    assert_eq!(answered.header("access-control-allow-origin"), Some("http://app.example"));
    assert_eq!(listed.send("GET", "/v1/models", &[("origin", "null")], b"").status, 403);
    let two = listed.send("GET", "/v1/models", &[page[0], ("origin", "http://evil.example")], b"");
    two.fails(400, None, None);
}

#[test]
fn requests_have_ids() {
    let server = server();
    let own = server.get("/health");
    assert!(own.header("x-request-id").is_some_and(|id| id.len() == 24), "{own:?}");
    assert_ne!(own.header("x-request-id"), server.get("/health").header("x-request-id"));
    let given = server.send("GET", "/health", &[("x-request-id", "abc-1.2_3")], b"");
    assert_eq!(given.header("x-request-id"), Some("abc-1.2_3"));
    let odd = server.send("GET", "/health", &[("x-request-id", "a b")], b"");
    assert_ne!(odd.header("x-request-id"), Some("a b"));
}

#[test]
fn keys_do_not_learn_of_each_others_prompts() {
    let keys = || Keys::new(["first-key", "second-key"]).expect("keys");
    let request = question(&"A prompt of which others are to know nothing. ".repeat(20)).to_string();
    for is_shared in [false, true] {
        let cache = pippin::ModelCache::new(crate::support::options());
        let server = server_with(cache, |options| options.with_keys(keys()).with_shared_prefixes(is_shared));
        let cached = |key: &str| {
            let reply = server.send("POST", CHAT, &[("x-api-key", key)], request.as_bytes()).answer();
            reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
        };
        assert_eq!(cached("first-key"), 0);
        assert!(cached("first-key") > 100);
        assert_eq!(cached("second-key") > 100, is_shared);
        assert!(cached("second-key") > 100);
    }
}
