//! What every request passes: who may ask, and what is remembered of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tracing::info;

use crate::error::{ApiError, ApiResult};
use crate::options::{Management, ServerOptions};
use crate::page;
use crate::shared::{Caller, Shared};
use crate::{anthropic, ollama};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The most characters of a request id that a client gives.
const MAX_ID: usize = 128;
/// The most characters of a name that are repeated to whoever asked by it.
const MAX_SHOWN_HOST: usize = 128;

pub(crate) async fn pass(
    State(shared): State<Arc<Shared>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let id = request_id(request.headers()).unwrap_or_else(|| shared.new_id());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut line = Line { begin: Instant::now(), id, method, path, key: None, status: None };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let admitted = admit(&shared.options, &request);
    // From 1, as errors about a file of keys count them.
    line.key = admitted.as_ref().ok().and_then(|caller| caller.key).map(|key| key + 1);
    let is_preflight = line.method == Method::OPTIONS && origin.is_some();
    let mut response = match admitted {
        Err(refusal) => refusal.into_response(),
        Ok(_) if is_preflight => preflight(request.headers()),
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    let shape: Option<fn(&ApiError) -> Value> = match () {
        () if line.path.starts_with("/v1/messages") => Some(anthropic::error_body),
        () if line.path.starts_with("/api/") => Some(ollama::error_body),
        () => None,
    };
    if let Some(shape) = shape
        && let Some(error) = response.extensions_mut().remove::<ApiError>()
    {
        *response.body_mut() = Body::from(shape(&error).to_string());
        // It was that of the other body.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    if let Some(origin) = origin.filter(|origin| is_listed_origin(&shared.options, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, retry-after"),
        );
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&line.id) {
        headers.insert(REQUEST_ID, id);
    }
    line.status = Some(response.status());
    response
}

/// The line of a request in the log. It is written when this is dropped: where the client leaves before there is an answer, nothing
/// else of the request is reached.
struct Line {
    begin: Instant,
    id: String,
    method: Method,
    path: String,
    key: Option<usize>,
    /// That of the answer, as soon as there is one.
    status: Option<StatusCode>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { begin, id, method, path, key, status } = self;
        let (key, ms) = (*key, begin.elapsed().as_millis() as u64);
        // A path may hold anything that a client likes; `Debug` shows what a terminal would obey.
        match status {
            Some(status) => info!(%id, key, status = status.as_u16(), ms, "{method} {path:?}"),
            None => info!(%id, key, ms, "{method} {path:?}: the connection has ended before an answer"),
        }
    }
}

/// The id that a client gave its request, if it can stand in a log.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (is_plain && (1..=MAX_ID).contains(&id.len())).then(|| id.to_owned())
}

fn admit(options: &ServerOptions, request: &Request<Body>) -> ApiResult<Caller> {
    let headers = request.headers();
    // What is far too long, or too many, does not come here.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > options.limits.header_bytes {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(ApiError::new(status, Some("headers_too_large"), "the headers are too long"));
    }
    let path = request.uri().path();
    let is_free = path == "/health" || (options.page && page::is_part(request.method(), path));
    let host = check_host(options, request)?;
    if headers.get_all(header::ORIGIN).iter().nth(1).is_some() {
        return Err(ApiError::invalid("there is more than one Origin header"));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        // A page that this server itself has sent is not foreign.
        let is_own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(scheme, from)| matches!(scheme, "http" | "https") && Some(from) == host);
        if !is_own && !is_listed_origin(options, origin) {
            return Err(forbidden("pages of this origin may not ask this server (--allowed-origins)"));
        }
    }
    // A preflight request carries no key.
    let is_preflight = request.method() == Method::OPTIONS && headers.contains_key(header::ORIGIN);
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(|value| {
        let (scheme, key) = value.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    let shown = bearer.or_else(|| headers.get(API_KEY).map(HeaderValue::as_bytes));
    let is_open_to_all = matches!(options.management, Management::Everyone);
    if let (Management::Keys(keys), Some(shown)) = (&options.management, shown)
        && let Some(key) = keys.find(shown)
    {
        // Numbered behind the others.
        return Ok(Caller { key: Some(options.keys.len() + key), may_manage: true });
    }
    if options.keys.is_empty() || is_free || is_preflight {
        return Ok(Caller { key: None, may_manage: is_open_to_all && options.keys.is_empty() });
    }
    match shown.and_then(|key| options.keys.find(key)) {
        Some(key) => Ok(Caller { key: Some(key), may_manage: is_open_to_all }),
        None => {
            let message = "a valid key is needed, as Authorization: Bearer KEY or x-api-key: KEY";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), message))
        }
    }
}

/// Refuses names that are not this server's: a page of a stranger's domain whose name has been made to point here must
/// not reach it. Returns the header's value.
fn check_host<'a>(options: &ServerOptions, request: &'a Request<Body>) -> ApiResult<Option<&'a str>> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let asked = request.uri().authority().map(|authority| authority.as_str());
    let host = match (hosts.next(), hosts.next()) {
        // The name in the request line is the one that counts, and nobody has a reason to send two.
        (Some(host), None)
            if asked.is_some_and(|asked| !host.as_bytes().eq_ignore_ascii_case(asked.as_bytes())) =>
        {
            return Err(ApiError::invalid("the Host header names another host than the request line"));
        }
        (Some(host), None) => host.to_str().ok(),
        (None, _) => asked,
        (Some(_), Some(_)) => return Err(ApiError::invalid("there is more than one Host header")),
    };
    let is_free = !options.keys.is_empty() && options.allowed_hosts.is_empty();
    if is_free || host.is_some_and(|host| is_allowed_host(options, host)) {
        Ok(host)
    } else {
        Err(match host {
            // `Debug` shows what a terminal would obey.
            Some(host) => {
                let name: String = host.chars().take(MAX_SHOWN_HOST).collect();
                forbidden(format!("this server may not be asked by the name {name:?} (--allowed-hosts)"))
            }
            None => forbidden("this server may not be asked without a name (--allowed-hosts)"),
        })
    }
}

fn is_allowed_host(options: &ServerOptions, host: &str) -> bool {
    let name = name_of(host);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_address = bare.parse::<IpAddr>().is_ok();
    let is_local = name.eq_ignore_ascii_case("localhost");
    is_address
        || is_local
        || options.allowed_hosts.iter().any(|allowed| {
            allowed == "*" || allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host)
        })
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// Whether a page can be of such an origin: whether it is written as the header `Origin` has it, perhaps with a slash behind it, or is `*`.
pub(crate) fn is_origin(allowed: &str) -> bool {
    if matches!(allowed, "*" | "null") {
        return true;
    }
    let Some((scheme, host)) = allowed.trim_end_matches('/').split_once("://") else { return false };
    // Extensions and programs with a browser in them have schemes of their own.
    let is_scheme = scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@,*\\".contains(&byte))
}

fn is_listed_origin(options: &ServerOptions, origin: &HeaderValue) -> bool {
    let listed = |allowed: &String| {
        allowed == "*" || allowed.trim_end_matches('/').as_bytes().eq_ignore_ascii_case(origin.as_bytes())
    };
    options.allowed_origins.iter().any(listed)
}

fn forbidden(message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, Some("forbidden"), message)
}

/// What a browser asks before it lets a page of an allowed origin ask.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keys;

    fn request(headers: &[(&str, &str)]) -> Request<Body> {
        let mut builder = Request::builder().uri("/v1/models");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).expect("a request")
    }

    fn status(options: &ServerOptions, headers: &[(&str, &str)]) -> u16 {
        admit(options, &request(headers)).map_or_else(|error| error.status.as_u16(), |_| 200)
    }

    #[test]
    fn hosts() {
        let open = ServerOptions::default();
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:80", "[::1]", "192.168.1.7:8080"] {
            assert_eq!(status(&open, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "",
            ":80",
            "[::1",
            "a:b:c",
        ] {
            assert_eq!(status(&open, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(&open, &[]), 403);
        assert_eq!(status(&open, &[("host", "localhost"), ("host", "localhost")]), 400);
        let named = ServerOptions::default().with_allowed_hosts(["box.lan"]);
        assert_eq!(status(&named, &[("host", "box.lan:8080")]), 200);
        assert_eq!(status(&named, &[("host", "other.lan:8080")]), 403);
    }

    #[test]
    fn origins() {
        let options = ServerOptions::default().with_allowed_origins(["http://app.example:3000/"]);
        let with = |origin: &str| status(&options, &[("host", "localhost:8080"), ("origin", origin)]);
        assert_eq!(with("http://app.example:3000"), 200);
        assert_eq!(with("http://localhost:8080"), 200);
        for origin in ["http://app.example", "https://evil.example", "null", "http://localhost:3000", ""] {
            assert_eq!(with(origin), 403, "{origin}");
        }
    }

    #[test]
    fn what_is_an_origin() {
        for origin in [
            "*",
            "null",
            "http://localhost:3000",
            "https://app.example/",
            "http://[::1]:80",
            "HTTP://Box.lan",
            "chrome-extension://abcdef",
            "tauri://localhost",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        // Of no page is any of them the origin, so that they would allow nobody.
        for text in [
            "",
            "foo",
            "localhost:3000",
            "http://",
            "://host",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a,http://b",
            "http://*.example",
            "http://a b",
            "http://b\u{fc}cher.example",
        ] {
            assert!(!is_origin(text), "{text}");
            let options = ServerOptions::default().with_allowed_origins([text]);
            assert!(options.check().is_err(), "{text}");
        }
    }

    #[test]
    fn keys() {
        let options =
            ServerOptions::default().with_keys(Keys::new(["first-key", "second-key"]).expect("keys"));
        let with = |name: &str, value: &str| status(&options, &[("host", "any.example"), (name, value)]);
        assert_eq!(with("authorization", "Bearer first-key"), 200);
        assert_eq!(with("authorization", "bearer second-key"), 200);
        assert_eq!(with("x-api-key", "second-key"), 200);
        for value in [
            "first-key",
            "Basic first-key",
            "Bearer",
            "Bearer ",
            "Bearer first-key2",
            "Bearer\u{e9}first-key",
        ] {
            assert_eq!(with("authorization", value), 401, "{value}");
        }
        assert_eq!(status(&options, &[]), 401);
        // Who manages may do everything else as well.
        let managed =
            options.clone().with_management(Management::Keys(Keys::new(["manager-key"]).expect("keys")));
        let caller =
            |key: &str| admit(&managed, &request(&[("host", "x"), ("x-api-key", key)])).expect("admitted");
        assert!(caller("manager-key").may_manage && !caller("first-key").may_manage);
        assert_ne!(caller("manager-key").key, caller("first-key").key);
        let all = options.clone().with_management(Management::Everyone);
        assert!(
            admit(&all, &request(&[("host", "x"), ("x-api-key", "first-key")])).expect("admitted").may_manage
        );
        let health =
            Request::builder().uri("/health").header("host", "x").body(Body::empty()).expect("a request");
        assert!(admit(&options, &health).is_ok());
    }

    /// What is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_request_has_a_line_also_if_its_client_leaves() {
        use std::task::{Context, Waker};

        use futures_util::stream;
        use hyper::service::Service;
        use hyper_util::service::TowerToHyperService;

        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let cache = pippin::ModelCache::new(pippin::cache::CacheOptions::default());
        let routes = crate::router(&cache, ServerOptions::default()).expect("no contradiction");
        let routes = TowerToHyperService::new(routes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tracing::subscriber::with_default(subscriber, || {
            let _inside = runtime.enter();
            let request = |id: &str, body: Body| {
                let builder = Request::post("/v1/completions").header("host", "localhost");
                builder.header("x-request-id", id).body(body).expect("a request")
            };
            let answered = runtime.block_on(routes.call(request("first", Body::from("{"))));
            assert_eq!(answered.map(|response| response.status().as_u16()), Ok(400));
            // Its body never ends, and then the connection does.
            let body = Body::from_stream(stream::pending::<Result<String, std::io::Error>>());
            let mut waiting = Box::pin(routes.call(request("second", body)));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        });
        let log = String::from_utf8(log.0.lock().expect("whole").clone()).expect("UTF-8");
        let line = |id: &str| log.lines().find(|line| line.contains(&format!("id={id} "))).expect(id);
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(line("first").contains("status=400"), "{log}");
        let second = line("second");
        assert!(second.contains("POST \"/v1/completions\": the connection has ended"), "{log}");
        assert!(second.contains("ms=") && !second.contains("status="), "{log}");
    }
}
