//! Addresses of models, as they are copied from a browser or from another program's command.

use crate::cache::{is_hub_id, is_revision};
use crate::client::{DEFAULT_ENDPOINT, SHORT_HOST};
use crate::{HubError, Result};

/// What a text means that stands for a model: without the spaces and quotes around it.
pub(crate) fn trimmed(text: &str) -> &str {
    let mut text = text.trim();
    for (open, close) in [('"', '"'), ('\'', '\''), ('`', '`'), ('<', '>'), ('“', '”')] {
        if let Some(inner) = text.strip_prefix(open).and_then(|text| text.strip_suffix(close)) {
            text = inner.trim();
        }
    }
    text
}

/// The hosts whose addresses are models: the hub's, and that of the server that is asked.
fn hosts(endpoint: Option<&str>) -> Vec<String> {
    let host = |endpoint: &str| without_scheme(endpoint).trim_end_matches('/').to_ascii_lowercase();
    let hub = host(DEFAULT_ENDPOINT);
    let mut hosts = vec![format!("www.{hub}"), hub, SHORT_HOST.to_owned()];
    hosts.extend(endpoint.map(host));
    hosts
}

fn without_scheme(text: &str) -> &str {
    text.split_once("://").map_or(text, |(_, rest)| rest)
}

/// An address as errors show it: short, and without the name and the password that may stand before the host.
fn shown(address: &str) -> String {
    let without = address.split_once("://").and_then(|(scheme, rest)| {
        let (user, _) = rest.split('/').next()?.rsplit_once('@')?;
        Some(format!("{scheme}://{}", &rest[user.len() + 1..]))
    });
    without.as_deref().unwrap_or(address).chars().take(200).collect()
}

/// The model that an address is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) id: String,
    pub(crate) revision: String,
    /// Which of its quantizations: the word after a colon, or the GGUF file that the address is of.
    pub(crate) quantization: Option<String>,
}

/// The model of an address; `None` for a text that is no address. Any address with a scheme is one; without,
/// it has to begin with a host that is known.
///
/// # Errors
///
/// [`HubError::Address`]: it is of another server, or of something else than a model.
pub(crate) fn parse(text: &str, endpoint: Option<&str>) -> Result<Option<Address>> {
    let failed = |problem: String| HubError::Address { address: shown(text), problem };
    let text = trimmed(text);
    let path = match text.split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("hf") => path,
        None if text.get(..3).is_some_and(|scheme| scheme.eq_ignore_ascii_case("hf:")) => &text[3..],
        Some((scheme, rest))
            if !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                return Err(failed(format!("models do not come by {}", scheme.to_ascii_lowercase())));
            }
            match after_host(rest, endpoint) {
                Some(path) => path,
                None => {
                    let server = endpoint.unwrap_or(DEFAULT_ENDPOINT);
                    return Err(failed(format!(
                        "it is on another server than {server}, where models are looked for"
                    )));
                }
            }
        }
        Some(_) => return Ok(None),
        None => {
            // What git is given: a colon behind the host. One further on stands before a quantization.
            let rest = text.strip_prefix("git@").map(|rest| match rest.split_once(':') {
                Some((host, path)) if !host.contains('/') => format!("{host}/{path}"),
                _ => rest.to_owned(),
            });
            match after_host(rest.as_deref().unwrap_or(text), endpoint) {
                Some(path) => return of_path(path, &failed).map(Some),
                None => return Ok(None),
            }
        }
    };
    of_path(path, &failed).map(Some)
}

/// What follows a known host.
fn after_host<'a>(rest: &'a str, endpoint: Option<&str>) -> Option<&'a str> {
    hosts(endpoint).iter().find_map(|host| {
        let (found, path) = (rest.get(..host.len())?, rest.get(host.len()..)?);
        let is_whole = path.is_empty() || path.starts_with(['/', '?', '#']);
        (found.eq_ignore_ascii_case(host) && is_whole).then_some(path)
    })
}

fn of_path(path: &str, failed: &dyn Fn(String) -> HubError) -> Result<Address> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    if parts.first().is_some_and(|part| part == "api") {
        parts.remove(0);
    }
    match parts.first().map(String::as_str) {
        Some("models") => drop(parts.remove(0)),
        Some(
            kind @ ("datasets" | "spaces" | "collections" | "papers" | "docs" | "blog" | "posts" | "buckets"
            | "kernels"),
        ) => {
            return Err(failed(format!("it is one of the hub's {kind}, not a model")));
        }
        _ => {}
    }
    let mut parts = parts.into_iter();
    let (Some(organisation), Some(name)) = (parts.next(), parts.next()) else {
        return Err(failed("it names no model: ORGANISATION/NAME".to_owned()));
    };
    let Named { name, revision, mut quantization } = named(&name);
    let id = format!("{organisation}/{}", name.strip_suffix(".git").unwrap_or(name));
    let revision = revision.map(str::to_owned);
    let view = parts.next();
    let parts: Vec<String> = parts.collect();
    if let (Some("blob" | "resolve" | "raw"), Some(file)) = (view.as_deref(), parts.last())
        && crate::gguf::is_model(file)
    {
        quantization = Some(file.clone());
    }
    let parts = parts.into_iter();
    let revision = match (revision, view.as_deref()) {
        (Some(revision), _) => revision,
        (None, Some("tree" | "blob" | "resolve" | "raw" | "blame" | "commit" | "commits" | "revision")) => {
            let rest: Vec<String> = parts.collect();
            match rest.as_slice() {
                // The names of pull requests and conversions have three parts.
                [refs, kind, name, ..] if refs == "refs" => format!("refs/{kind}/{name}"),
                [revision, ..] => revision.clone(),
                [] => "main".to_owned(),
            }
        }
        _ => "main".to_owned(),
    };
    if !is_hub_id(&id) {
        return Err(HubError::InvalidName { name: id, what: "hub id" });
    }
    if !is_revision(&revision) {
        return Err(HubError::InvalidName { name: revision, what: "revision" });
    }
    Ok(Address { id, revision, quantization })
}

/// A name with what may follow it: `name@revision`, `name:quantization`, `name:quantization@revision`,
/// `name@revision:quantization`.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) revision: Option<&'a str>,
    pub(crate) quantization: Option<String>,
}

pub(crate) fn named(text: &str) -> Named<'_> {
    let (name, rest) = match text.find(['@', ':']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let after = |mark: char| {
        let (_, rest) = rest.split_once(mark)?;
        Some(rest.split(['@', ':']).next().unwrap_or(rest))
    };
    let quantization = after(':').map(|quantization| quantization.chars().take(200).collect());
    Named { name, revision: after('@'), quantization }
}

/// A part of an address in which characters may stand as `%` and two digits.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..2).filter(|_| *first == b'%');
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { others.get(2..).unwrap_or_default() } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: Option<&str> = Some("http://127.0.0.1:8080/");

    fn model(text: &str) -> Option<String> {
        parse(text, ENDPOINT).expect("no error").map(|Address { id, revision, quantization }| {
            format!("{id}@{revision}{}", quantization.map(|name| format!(":{name}")).unwrap_or_default())
        })
    }

    #[test]
    fn addresses_of_models() {
        for base in [
            DEFAULT_ENDPOINT.to_owned(),
            without_scheme(DEFAULT_ENDPOINT).to_owned(),
            format!("www.{}", without_scheme(DEFAULT_ENDPOINT)),
            format!("HTTP://{}", without_scheme(DEFAULT_ENDPOINT).to_uppercase()),
            SHORT_HOST.to_owned(),
            format!("https://{SHORT_HOST}"),
            "hf:/".to_owned(),
            "http://127.0.0.1:8080".to_owned(),
            "127.0.0.1:8080".to_owned(),
            format!("git@{SHORT_HOST}"),
        ] {
            for (path, expected) in [
                ("org/name", "org/name@main"),
                ("org/name/", "org/name@main"),
                ("org/name.git", "org/name@main"),
                ("org/name?library=mlx#files", "org/name@main"),
                ("org/name/tree/main", "org/name@main"),
                ("org/name/tree/v1/sub/folder", "org/name@v1"),
                ("org/name/tree/refs%2Fpr%2F1", "org/name@refs/pr/1"),
                ("org/name/tree/refs/pr/1", "org/name@refs/pr/1"),
                ("org/name/blob/main/config.json", "org/name@main"),
                ("org/name/resolve/c0ffee/model.safetensors?download=true", "org/name@c0ffee"),
                ("org/name/tree", "org/name@main"),
                ("org/name/discussions/3", "org/name@main"),
                ("org/name@v2", "org/name@v2"),
                ("org/name:Q4_K_M", "org/name@main:Q4_K_M"),
                ("org/name:Q4_K_M@v2", "org/name@v2:Q4_K_M"),
                ("org/name@v2:Q4_K_M", "org/name@v2:Q4_K_M"),
                ("org/name/blob/main/sub/name-Q8_0.gguf", "org/name@main:name-Q8_0.gguf"),
                ("models/org/name", "org/name@main"),
                ("api/models/org/name/revision/v1", "org/name@v1"),
            ] {
                let text = format!("{base}/{path}");
                assert_eq!(model(&text).as_deref(), Some(expected), "{text}");
                assert_eq!(model(&format!(" \"{text}\"\n")).as_deref(), Some(expected), "{text}");
            }
        }
        for (path, expected) in
            [("org/name.git", "org/name@main"), ("org/name:Q4_K_M", "org/name@main:Q4_K_M")]
        {
            assert_eq!(model(&format!("git@{SHORT_HOST}:{path}")).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn the_short_form_of_addresses() {
        assert_eq!(model("hf:org/name:Q4_K_M").as_deref(), Some("org/name@main:Q4_K_M"));
        assert_eq!(model("hf:org/name").as_deref(), Some("org/name@main"));
    }

    #[test]
    fn what_is_no_address() {
        for text in
            ["", "org/name", "qwen3-4b", "What is ://?", "://x", "/a/b", &format!("{SHORT_HOST}x/org/name")]
        {
            assert_eq!(model(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_model() {
        for (path, part) in [
            ("https://elsewhere.example/org/name", "another server"),
            ("ftp://elsewhere.example/org/name", "do not come by ftp"),
            ("hf://datasets/org/name", "datasets"),
            ("http://127.0.0.1:8080/spaces/org/name", "spaces"),
            ("http://127.0.0.1:8080/", "names no model"),
            ("http://127.0.0.1:8080", "names no model"),
            ("http://127.0.0.1:8080/gpt2", "names no model"),
            ("http://127.0.0.1:80801/org/name", "another server"),
            ("http://127.0.0.1:8080@elsewhere.example/org/name", "another server"),
        ] {
            let error = parse(path, ENDPOINT).expect_err(path);
            assert!(matches!(error, HubError::Address { .. }), "{path}: {error:?}");
            assert!(error.to_string().contains(part) && error.hint().is_some(), "{path}: {error}");
        }
        for path in [
            "hf://../..",
            "hf://org/name/tree/..",
            "hf://org/na%00me",
            "hf://org/name@",
            "hf://org/n%2Fame",
            "hf://%/%%2",
        ] {
            assert!(matches!(parse(path, None), Err(HubError::InvalidName { .. })), "{path}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("https://user:pw@host.example/a/m"), "https://host.example/a/m");
        assert_eq!(shown("https://host.example/a@b"), "https://host.example/a@b");
        assert_eq!(shown("org/name"), "org/name");
    }
}
