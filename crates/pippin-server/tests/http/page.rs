//! The web page: who gets it, and with what headers. What it does is tested in a browser (`web/tests`).

use pippin_server::Keys;

use crate::support::{cache, question, server, server_with};

#[test]
fn the_page_and_what_it_names_are_there() {
    let server = server();
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let names: Vec<_> = page.body.split('"').filter_map(|part| part.strip_prefix("assets/")).collect();
    assert!(names.contains(&"main.js") && names.contains(&"main.css"), "{}", page.body);
    for name in names {
        let asset = server.get(&format!("/assets/{name}"));
        let expected = match name.rsplit_once('.').expect("an ending").1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            other => panic!("{other}"),
        };
        assert_eq!((asset.status, asset.header("content-type")), (200, Some(expected)), "{name}");
        assert!(!asset.body.is_empty(), "{name}");
    }
    let licences = server.get("/assets/LICENCES.txt");
    for name in ["katex", "highlight.js", "marked", "dompurify", "preact"] {
        assert!(licences.body.contains(name), "{name}");
    }
    let head = server.send("HEAD", "/", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn the_policy_is_strict() {
    let server = server();
    for path in ["/", "/assets/main.js", "/assets/icon.svg"] {
        let reply = server.get(path);
        let policy = reply.header("content-security-policy").expect("a policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.split("; ").any(|known| known == part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"));
    }
}

#[test]
fn browsers_keep_what_has_not_changed() {
    let server = server();
    let first = server.get("/assets/main.js");
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let tag = first.header("etag").expect("a tag");
    for known in [tag.to_owned(), format!("\"other\", W/{tag}")] {
        let again = server.send("GET", "/assets/main.js", &[("if-none-match", &known)], b"");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{known}");
        assert_eq!(again.header("etag"), Some(tag));
    }
    let changed = server.send("GET", "/assets/main.css", &[("if-none-match", tag)], b"");
    assert_eq!(changed.status, 200);
}

#[test]
fn what_is_not_there() {
    let server = server();
    for path in
        ["/assets/no.js", "/assets/", "/assets/SOURCES.sha256", "/assets/..%2f..%2fCargo.toml", "/index.html"]
    {
        server.get(path).fails(404, None, Some("unknown_url"));
    }
    server.post("/", &question("Hello!")).fails(405, None, Some("method_not_allowed"));
}

#[test]
fn the_page_needs_no_key_and_the_api_does() {
    let keys = Keys::new(["the-only-key"]).expect("a key");
    let server = server_with(cache(), |options| options.with_keys(keys));
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.get("/assets/main.js").status, 200);
    server.get("/assets/no.js").fails(404, None, Some("unknown_url"));
    for path in ["/v1/models", "/metrics", "/assets", "//", "/assets%2fmain.js"] {
        server.get(path).fails(401, None, Some("invalid_api_key"));
    }
    server.post("/", &question("Hello!")).fails(401, None, Some("invalid_api_key"));
}

#[test]
fn strangers_names_get_no_page() {
    let server = server();
    for path in ["/", "/assets/main.js"] {
        server.send("GET", path, &[("host", "evil.example")], b"").fails(403, None, Some("forbidden"));
    }
}

#[test]
fn the_page_may_ask_the_server_that_it_came_from() {
    let server = server_with(cache(), |options| options.with_allowed_hosts(["box.lan"]));
    let body = question("Hello!").to_string();
    let port = server.address().port();
    let hosts = [server.address().to_string(), format!("localhost:{port}"), "box.lan".to_owned()];
    for host in &hosts {
        // Behind a proxy with TLS the page's address begins with https.
        for scheme in ["http", "https"] {
            let headers = [("host", host.as_str()), ("origin", &format!("{scheme}://{host}"))];
            server.send("POST", "/v1/chat/completions", &headers, body.as_bytes()).answer();
        }
    }
    // The same machine, and another page of it.
    let headers = [("host", hosts[0].as_str()), ("origin", "http://127.0.0.1:1")];
    let refused = server.send("POST", "/v1/chat/completions", &headers, body.as_bytes());
    refused.fails(403, None, Some("forbidden"));
}

#[test]
fn a_server_without_a_page() {
    let server = server_with(cache(), |options| options.with_page(false));
    for path in ["/", "/assets/main.js"] {
        server.get(path).fails(404, None, Some("unknown_url"));
    }
    assert_eq!(server.get("/v1/models").status, 200);
    let keys = Keys::new(["the-only-key"]).expect("a key");
    let closed = server_with(cache(), |options| options.with_page(false).with_keys(keys));
    closed.get("/").fails(401, None, Some("invalid_api_key"));
}
