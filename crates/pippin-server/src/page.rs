//! `GET /` and `/assets/…`: the web page, which is a client of this server like any other.
//!
//! Its files are made from `web/` and embedded as they are; `web/build.mjs` makes them anew.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::error::{ApiError, ApiResult};

const ASSETS: &str = "/assets/";

/// What the page may do: run its own scripts, and talk to this server. It loads nothing from elsewhere, no page can have it
/// in a frame, and text becomes markup through DOMPurify only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types dompurify";

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../assets/", $name)) as &[u8])),*]
    };
}

const FILES: &[(&str, &[u8])] = files![
    "index.html"
    "LICENCES.txt"
    "chunk.js"
    "code.js"
    "icon.svg"
    "main.css"
    "main.js"
    "math.js"
    "theme.js"
    "KaTeX_AMS-Regular.woff2"
    "KaTeX_Caligraphic-Bold.woff2"
    "KaTeX_Caligraphic-Regular.woff2"
    "KaTeX_Fraktur-Bold.woff2"
    "KaTeX_Fraktur-Regular.woff2"
    "KaTeX_Main-Bold.woff2"
    "KaTeX_Main-BoldItalic.woff2"
    "KaTeX_Main-Italic.woff2"
    "KaTeX_Main-Regular.woff2"
    "KaTeX_Math-BoldItalic.woff2"
    "KaTeX_Math-Italic.woff2"
    "KaTeX_SansSerif-Bold.woff2"
    "KaTeX_SansSerif-Italic.woff2"
    "KaTeX_SansSerif-Regular.woff2"
    "KaTeX_Script-Regular.woff2"
    "KaTeX_Size1-Regular.woff2"
    "KaTeX_Size2-Regular.woff2"
    "KaTeX_Size3-Regular.woff2"
    "KaTeX_Size4-Regular.woff2"
    "KaTeX_Typewriter-Regular.woff2"
];

struct File {
    bytes: &'static [u8],
    /// A hash of the bytes, in the quotes that the header wants.
    tag: String,
}

static PAGE: LazyLock<HashMap<&'static str, File>> = LazyLock::new(|| {
    let file = |(name, bytes): &(&'static str, &'static [u8])| {
        let hash = Sha256::digest(bytes);
        let start: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        (*name, File { bytes, tag: format!("\"{start}\"") })
    };
    FILES.iter().map(file).collect()
});

/// Whether a request is for a part of the page. There are no secrets in it: it may be had without a key, and asks for one.
pub(crate) fn is_part(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && (path == "/" || path.starts_with(ASSETS))
}

pub(crate) async fn page(headers: HeaderMap) -> ApiResult<Response> {
    file("index.html", &headers)
}

pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    file(&name, &headers)
}

fn file(name: &str, asked: &HeaderMap) -> ApiResult<Response> {
    let Some(File { bytes, tag }) = PAGE.get(name) else {
        let message = format!("there is no GET {ASSETS}{name}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, Some("unknown_url"), message));
    };
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    });
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(*bytes))
    };
    let headers = response.headers_mut();
    let tag = HeaderValue::from_str(tag).map_err(|error| ApiError::invalid(error.to_string()))?;
    headers.insert(header::ETAG, tag);
    // Another version of the server has other files under the same names: browsers ask whether theirs still hold.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    Ok(response)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    /// The list by which stale files are noticed. Nobody asks for it.
    const SOURCES: &str = "SOURCES.sha256";

    fn folder(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    #[test]
    fn all_files_are_embedded() {
        let there = std::fs::read_dir(folder("assets")).expect("a folder");
        let there: BTreeSet<_> =
            there.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8")).collect();
        let embedded = FILES.iter().map(|(name, _)| *name).chain([SOURCES]);
        assert_eq!(there, embedded.map(str::to_owned).collect());
    }

    #[test]
    fn files_are_made_from_the_sources_that_are_here() {
        let list = std::fs::read_to_string(folder("assets").join(SOURCES)).expect("a list");
        let mut listed = BTreeSet::new();
        for line in list.lines() {
            let (hash, name) = line.split_once("  ").expect("a hash and a name");
            let mut bytes = std::fs::read(folder("web").join(name)).unwrap_or_default();
            // A checkout may have added some.
            bytes.retain(|byte| *byte != b'\r');
            let now: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(now, hash, "{name} has changed: npm run build in crates/pippin-server/web");
            listed.insert(name.to_owned());
        }
        for file in std::fs::read_dir(folder("web/src")).expect("a folder") {
            let name = format!("src/{}", file.expect("a file").file_name().to_string_lossy());
            assert!(listed.contains(&name), "{name} is new: npm run build in crates/pippin-server/web");
        }
    }

    #[test]
    fn the_page_names_only_its_own_files() {
        let (_, page) = FILES[0];
        let page = std::str::from_utf8(page).expect("UTF-8");
        let names: Vec<_> = page.split(['"', '\'']).filter_map(|part| part.strip_prefix("assets/")).collect();
        assert!(names.len() >= 4, "{names:?}");
        for name in names {
            assert!(PAGE.contains_key(name), "{name}");
        }
        assert!(!page.contains("://") && !page.contains("style="), "{page}");
    }

    #[test]
    fn only_reading_is_free() {
        assert!(is_part(&Method::GET, "/") && is_part(&Method::HEAD, "/assets/main.js"));
        for (method, path) in [
            (Method::POST, "/"),
            (Method::DELETE, "/assets/main.js"),
            (Method::GET, "/assets"),
            (Method::GET, "//"),
            (Method::GET, "/v1/models"),
        ] {
            assert!(!is_part(&method, path), "{method} {path}");
        }
    }
}
