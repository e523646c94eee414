//! HTTP as the hub needs it: redirects that do not carry the token away, stalls that end, waits that a server asks for.
//!
//! `ureq` does the protocol and TLS. Redirects are followed here rather than there, because the first answer of the hub
//! carries the file's hash and commit, and because where the token goes is not left to anybody else.

use std::io::Read;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Body};

use crate::{HubError, Result};

/// How many redirects one request may take. The hub needs one or two.
const MAX_REDIRECTS: usize = 8;
/// How much of an error's body is looked at.
const MAX_ERROR_BYTES: u64 = 4096;

/// How patient the client is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// For the next byte to come. A slow transfer is fine, one that stands still is not.
    pub stall: Duration,
    /// Failures in a row, without any progress between them, after which a download ends.
    pub retries: u32,
    /// The wait after the first failure; each further one doubles it.
    pub backoff: Duration,
    /// The longest wait, a server's wish included.
    pub longest_wait: Duration,
    /// For how long a server is tried that cannot even be connected to: its name cannot be resolved, or it refuses every connection.
    pub unreachable: Duration,
}

impl Patience {
    /// Waits so long for a connection.
    #[must_use]
    pub fn with_connect(mut self, connect: Duration) -> Self {
        self.connect = connect;
        self
    }

    /// Waits so long for the next byte.
    #[must_use]
    pub fn with_stall(mut self, stall: Duration) -> Self {
        self.stall = stall;
        self
    }

    /// Ends after so many failures in a row.
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Waits so long after the first failure, and twice as long after each further one.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }

    /// Never waits longer than this.
    #[must_use]
    pub fn with_longest_wait(mut self, longest_wait: Duration) -> Self {
        self.longest_wait = longest_wait;
        self
    }

    /// Tries a server that cannot be connected to for so long.
    #[must_use]
    pub fn with_unreachable(mut self, unreachable: Duration) -> Self {
        self.unreachable = unreachable;
        self
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            retries: 7,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            unreachable: Duration::from_secs(10),
        }
    }
}

impl Patience {
    /// How long to wait after the failure number `failures` (from 1): exponential, with up to half of it at random so
    /// that many clients do not come back together.
    pub(crate) fn wait(&self, failures: u32, error: &HubError) -> Duration {
        let full = self.backoff.saturating_mul(1 << (failures - 1).min(16)).min(self.longest_wait);
        let own = full.mul_f64(0.5 + 0.5 * random());
        match error {
            // A server that asks for no wait, or names a moment that has passed, gets the usual one.
            HubError::RateLimited { retry_after: Some(wait), .. } => (*wait).min(self.longest_wait).max(own),
            _ => own,
        }
    }
}

/// A number from 0 to 1 that differs from process to process and call to call.
fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A secret for the hub. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, without the white space around it: `None` when nothing else is there.
    ///
    /// # Errors
    ///
    /// [`HubError::Setting`] for characters that no token has, and that could end the header that carries it.
    pub fn new(text: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "a token has no white space and no special characters".to_owned();
            return Err(HubError::Setting { variable: "HF_TOKEN", problem });
        }
        Ok(Some(Self(text.to_owned())))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What to ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    /// The first byte and the one after the last.
    pub(crate) range: Option<(u64, u64)>,
    /// Ask for the headers only, and do not follow redirects.
    pub(crate) head: bool,
}

/// An answer that means success.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The headers of the last hop.
    pub(crate) headers: HeaderMap,
    /// What the hub itself said about the file, before it sent us elsewhere.
    pub(crate) linked: Linked,
    /// Where the answer came from.
    pub(crate) url: String,
    body: Body,
}

/// The hub's headers about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Linked {
    pub(crate) commit: Option<String>,
    /// Without quotes and weakness mark: a SHA-256 for large files, a git hash for small ones.
    pub(crate) etag: Option<String>,
    pub(crate) size: Option<u64>,
}

impl Linked {
    fn fill(&mut self, headers: &HeaderMap, is_redirect: bool) {
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bare = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        self.commit = self.commit.take().or_else(|| get("x-repo-commit").map(str::to_owned));
        self.size = self.size.or_else(|| get("x-linked-size").and_then(|size| size.parse().ok()));
        self.etag = self.etag.take().or_else(|| get("x-linked-etag").map(bare));
        // The ETag of a store that the hub sends us to is its own affair.
        if self.etag.is_none() && !is_redirect && self.commit.is_some() {
            self.etag = get("etag").map(bare);
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    pub(crate) fn into_reader(self) -> impl Read + Send {
        self.body.into_reader()
    }

    /// The whole body, when it is not larger than this.
    pub(crate) fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let url = shown(&self.url);
        let length = self.content_length();
        if length.is_some_and(|length| length > limit) {
            return Err(HubError::TooLarge { what: url, limit });
        }
        let host = host_of(&self.url);
        let mut bytes = Vec::with_capacity(length.unwrap_or(0).min(1 << 20) as usize);
        self.into_reader().take(limit + 1).read_to_end(&mut bytes).map_err(|error| HubError::Network {
            host: host.clone(),
            reason: error.to_string(),
            is_connected: true,
        })?;
        if bytes.len() as u64 > limit {
            return Err(HubError::TooLarge { what: url, limit });
        }
        if length.is_some_and(|length| length != bytes.len() as u64) {
            let reason = "the answer was cut short".to_owned();
            return Err(HubError::Network { host, reason, is_connected: true });
        }
        Ok(bytes)
    }
}

/// The transport: an agent, the place it talks to, and the secret for that place alone.
#[derive(Clone)]
pub(crate) struct Http {
    agent: Agent,
    origin: String,
    is_trusted: bool,
    token: Option<Token>,
}

impl Http {
    pub(crate) fn new(endpoint: &str, token: Option<Token>, patience: &Patience) -> Result<Self> {
        let problem =
            |problem: &str| HubError::Setting { variable: "HF_ENDPOINT", problem: problem.to_owned() };
        let uri: Uri = endpoint.parse().map_err(|_| problem("it is no address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(problem("it is not of the form https://HOST"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(problem("it holds a user name or a password"));
        }
        let is_local = is_loopback(&uri);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("pippin/", env!("CARGO_PKG_VERSION")))
            // Weights do not compress, and a length that is not the file's hides a truncated transfer.
            .accept_encoding("identity")
            .timeout_connect(Some(patience.connect))
            .timeout_resolve(Some(patience.connect))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .timeout_per_write(Some(patience.stall))
            .max_response_header_size(64 << 10)
            .input_buffer_size(64 << 10)
            .output_buffer_size(8 << 10)
            .max_idle_connections(32)
            .max_idle_connections_per_host(32);
        // Proxies are for the world outside; the variables stay in force for every other endpoint.
        if is_local {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().into(),
            origin: origin(&uri),
            is_trusted: is_local || uri.scheme_str() == Some("https"),
            token,
        })
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks once, and follows redirects.
    ///
    /// The token goes to the endpoint's origin (scheme, host and port) and nowhere else; and not over an unencrypted
    /// connection, except to this machine.
    pub(crate) fn get(&self, url: &str, ask: Ask) -> Result<Answer> {
        let mut url = url.to_owned();
        let mut linked = Linked::default();
        for _ in 0..=MAX_REDIRECTS {
            let uri: Uri = url.parse().map_err(|_| HubError::Protocol {
                url: shown(&url),
                problem: "no valid address".to_owned(),
            })?;
            let mut request = if ask.head { self.agent.head(&uri) } else { self.agent.get(&uri) };
            if let Some((start, end)) = ask.range {
                request = request.header("range", format!("bytes={start}-{}", end.saturating_sub(1)));
            }
            if let Some(Token(token)) = &self.token
                && self.is_trusted
                && origin(&uri) == self.origin
            {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| network(&uri, &error))?;
            let status = response.status().as_u16();
            let (parts, body) = response.into_parts();
            let headers = parts.headers;
            let location = headers.get("location").and_then(|value| value.to_str().ok());
            let is_redirect = matches!(status, 301 | 302 | 303 | 307 | 308) && location.is_some();
            linked.fill(&headers, is_redirect);
            if let (true, Some(location)) = (is_redirect, location) {
                let next = join(&uri, location);
                let is_known = next.as_ref().is_some_and(|next| origin(next) == origin(&uri));
                if ask.head && !is_known {
                    return Ok(Answer { status, headers, linked, url, body });
                }
                let next = next.ok_or_else(|| HubError::Protocol {
                    url: shown(&url),
                    problem: "a redirect to no valid address".to_owned(),
                })?;
                if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                    let problem = "a redirect to an unencrypted connection".to_owned();
                    return Err(HubError::Protocol { url: shown(&url), problem });
                }
                url = next.to_string();
                // A short body that is read to its end leaves the connection usable.
                let _ = std::io::copy(&mut body.into_reader().take(MAX_ERROR_BYTES), &mut std::io::sink());
                continue;
            }
            let answer = Answer { status, headers, linked, url, body };
            return if (200..300).contains(&status) { Ok(answer) } else { Err(failure(answer)) };
        }
        Err(HubError::Protocol { url: shown(&url), problem: "too many redirects".to_owned() })
    }
}

/// A failed answer as an error. What it means for a model is the client's to say.
fn failure(answer: Answer) -> HubError {
    let url = shown(&answer.url);
    let host = host_of(&answer.url);
    let status = answer.status;
    let retry_after =
        answer.header("retry-after").and_then(|value| retry_after(value, answer.header("date")));
    // A server that says when it will be back is busy rather than broken.
    if status == 429 || (status == 503 && retry_after.is_some()) {
        return HubError::RateLimited { host, status, retry_after };
    }
    let code = answer.header("x-error-code").unwrap_or_default().to_owned();
    let message = answer.header("x-error-message").unwrap_or_default().to_owned();
    let message = match (code.is_empty(), message.is_empty()) {
        (true, _) => message,
        (false, true) => code,
        (false, false) => format!("{code}: {message}"),
    };
    HubError::Status { url, status, message: message.chars().take(300).collect() }
}

/// The wait that `Retry-After` asks for: seconds, or a moment. A moment is compared with what the server takes for now,
/// which is its `Date`: its clock and ours may differ.
fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are only a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now =
        date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or(Duration::ZERO))
}

fn network(uri: &Uri, error: &ureq::Error) -> HubError {
    let host = uri.host().unwrap_or_default().to_owned();
    let reason = match error {
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "there is no such host, or no connection".to_owned(),
        error => error.to_string(),
    };
    HubError::Network { host, reason, is_connected: is_connected(error) }
}

/// Whether there was a connection before this happened.
fn is_connected(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => false,
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => false,
        ureq::Error::Io(error) => {
            let kinds = [
                ErrorKind::ConnectionRefused,
                ErrorKind::HostUnreachable,
                ErrorKind::NetworkUnreachable,
                ErrorKind::NetworkDown,
                ErrorKind::AddrNotAvailable,
            ];
            // Names that cannot be resolved have no kind of their own: the words are the standard library's, the number Windows's.
            let is_unknown_name = error.raw_os_error() == Some(11_001)
                || error.to_string().starts_with("failed to lookup address information");
            !kinds.contains(&error.kind()) && !is_unknown_name
        }
        _ => true,
    }
}

impl HubError {
    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 500..),
            _ => false,
        }
    }
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{host}:{port}")
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address without its query, which may hold a signature that is as good as a token.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

fn host_of(url: &str) -> String {
    url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

/// Whether two addresses have the same origin.
pub(crate) fn same_origin(a: &str, b: &str) -> bool {
    match (a.parse::<Uri>(), b.parse::<Uri>()) {
        (Ok(a), Ok(b)) => origin(&a) == origin(&b),
        _ => false,
    }
}

/// The address that a `Location` means.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let next = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let next: Uri = next.split('#').next()?.parse().ok()?;
    (matches!(next.scheme_str(), Some("http" | "https")) && next.host().is_some()).then_some(next)
}

/// Percent-encodes everything but what stands for itself in every part of an address.
pub(crate) fn encode(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            b'/' if keep_slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://hub.example/a/b?x=1".parse().expect("valid");
        for (location, expected) in [
            ("https://cdn.example/x?s=1", Some("https://cdn.example/x?s=1")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/c", Some("https://hub.example/c")),
            ("c", Some("https://hub.example/a/c")),
            ("ftp://x/y", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(join(&base, location).map(|uri| uri.to_string()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        assert!(same_origin("https://a.example/x", "https://A.example:443/y"));
        for other in
            ["http://a.example", "https://b.example", "https://a.example:444", "https://a.example.evil"]
        {
            assert!(!same_origin("https://a.example/", other), "{other}");
        }
    }

    #[test]
    fn tokens_are_checked_and_hidden() {
        assert!(Token::new(" \n").expect("fine").is_none());
        assert!(Token::new("hf_abc\r\nX-Evil: 1").is_err());
        let token = Token::new(" hf_secret\n").expect("fine").expect("some");
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn waits_grow_and_have_an_end() {
        let patience = Patience::default();
        let error = HubError::BadToken;
        assert!(patience.wait(1, &error) <= Duration::from_millis(500));
        assert!(patience.wait(40, &error) <= patience.longest_wait);
        let asked = |seconds| HubError::RateLimited {
            host: String::new(),
            status: 429,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(patience.wait(1, &asked(7)), Duration::from_secs(7));
        assert_eq!(patience.wait(1, &asked(1_000_000)), patience.longest_wait);
        assert_eq!(patience.wait(1, &asked(u64::MAX)), patience.longest_wait);
        // Nobody is asked again at once.
        assert!(patience.wait(1, &asked(0)) >= Duration::from_millis(250));
    }

    #[test]
    fn servers_name_seconds_or_a_moment() {
        let seconds = |value, date| retry_after(value, date).map(|wait| wait.as_secs());
        let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, expected) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            // The two older forms of a date.
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            // It has passed.
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(seconds(value, now), expected, "{value:?}");
        }
        let far = retry_after("Fri, 31 Dec 9999 23:59:59 GMT", now).expect("a wait");
        assert!(far > Duration::from_secs(7000 * 365 * 86_400), "{far:?}");
        // Without the server's clock, ours counts.
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT", None), Some(0));
        assert!(seconds("Fri, 31 Dec 9999 23:59:59 GMT", Some("nonsense")) > Some(0));
    }

    #[test]
    fn odd_names_are_encoded() {
        assert_eq!(encode("a b/ü#?.bin", true), "a%20b/%C3%BC%23%3F.bin");
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
