//! The fields of a request's body.

use std::error::Error as _;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};
use crate::options::Limits;

/// The fields of a JSON object. A field that is null counts as absent.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

/// What is wrong with a text that was to be JSON. Of what is JSON, but more than is read, that is said.
pub(crate) fn unread(what: &str, error: &serde_json::Error) -> String {
    let problem = error.to_string();
    let place = problem.find(" at line ").map_or("", |at| &problem[at..]);
    match () {
        () if problem.starts_with("number out of range") => {
            format!("{what} has a number that is too large{place}: none is above 1.8·10^308")
        }
        () if problem.starts_with("recursion limit exceeded") => {
            format!("{what} is nested too deeply{place}: 127 values within values are allowed")
        }
        () => format!("{what} is no JSON: {problem}"),
    }
}

impl Fields {
    /// Reads a body, within its limits.
    pub(crate) async fn read(request: Request<Body>, limits: &Limits) -> ApiResult<Self> {
        let too_long = || {
            let message = format!("the body has more than {} bytes", limits.body_bytes);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large"), message)
        };
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if length
            .and_then(|length| length.parse::<u64>().ok())
            .is_some_and(|length| length > limits.body_bytes as u64)
        {
            return Err(too_long());
        }
        let body = to_bytes(request.into_body(), limits.body_bytes);
        let bytes = match tokio::time::timeout(limits.body_time, body).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                let is_too_long =
                    error.source().is_some_and(|source| source.to_string() == "length limit exceeded");
                // Or the client is gone, and reads no answer.
                let broken = || ApiError::invalid("the body cannot be read: it is not sent as HTTP has it");
                return Err(if is_too_long { too_long() } else { broken() });
            }
            Err(_) => {
                let message = "the body did not come in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, Some("timeout"), message));
            }
        };
        Self::parse(&bytes)
    }

    fn parse(body: &[u8]) -> ApiResult<Self> {
        let read = serde_json::from_slice(body);
        // Clients cut texts in the middle of a character; that must not end their sessions.
        let read =
            read.or_else(|error| mended(body).map_or(Err(error), |mended| serde_json::from_slice(&mended)));
        match read {
            Ok(Value::Object(mut fields)) => {
                fields.retain(|_, value| !value.is_null());
                Ok(Self(fields))
            }
            Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(unread("the body", &error))),
        }
    }

    /// The fields of an object within a body.
    pub(crate) fn from_object(mut fields: Map<String, Value>) -> Self {
        fields.retain(|_, value| !value.is_null());
        Self(fields)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Gives a field the name that it has elsewhere.
    pub(crate) fn rename(&mut self, name: &str, other: &str) {
        self.0.remove(other);
        if let Some(value) = self.0.remove(name) {
            self.0.insert(other.to_owned(), value);
        }
    }

    pub(crate) fn boolean(&mut self, name: &str) -> ApiResult<Option<bool>> {
        self.typed(name, "true or false", |value| value.as_bool())
    }

    pub(crate) fn text(&mut self, name: &str) -> ApiResult<Option<String>> {
        self.typed(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn count(&mut self, name: &str, low: usize, high: usize) -> ApiResult<Option<usize>> {
        let expected = match (low, high) {
            (low, usize::MAX) => format!("a whole number from {low}"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        let read = |value: &Value| {
            usize::try_from(value.as_u64()?).ok().filter(|count| (low..=high).contains(count))
        };
        self.typed(name, &expected, read)
    }

    pub(crate) fn number(&mut self, name: &str, low: f32, high: f32) -> ApiResult<Option<f32>> {
        let expected = match (low, high) {
            (f32::MIN, f32::MAX) => "a number".to_owned(),
            (low, f32::MAX) => format!("a number from {low}"),
            (low, high) => format!("a number from {low} to {high}"),
        };
        // NaN is in no range, and infinity in none of these.
        let read =
            |value: &Value| Some(value.as_f64()? as f32).filter(|number| (low..=high).contains(number));
        self.typed(name, &expected, read)
    }

    pub(crate) fn object(&mut self, name: &str) -> ApiResult<Option<Map<String, Value>>> {
        self.typed(name, "an object", |value| value.as_object().cloned())
    }

    pub(crate) fn list(&mut self, name: &str) -> ApiResult<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(ApiError::field(name, "a list")),
        }
    }

    /// The messages of a conversation, as many as there may be.
    pub(crate) fn messages(&mut self, limits: &Limits) -> ApiResult<Vec<Value>> {
        let Some(messages) = self.list("messages")? else {
            return Err(ApiError::field("messages", "a list of messages"));
        };
        match (1..=limits.messages).contains(&messages.len()) {
            true => Ok(messages),
            false => Err(ApiError::field("messages", format!("1 to {} messages", limits.messages))),
        }
    }

    /// A text or a list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> ApiResult<Option<Vec<String>>> {
        self.typed(name, "a string or a list of strings", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        })
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> ApiResult<Option<T>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| ApiError::field(name, expected)),
        }
    }

    /// Refuses a field unless its value asks for nothing.
    pub(crate) fn refuse_unless(
        &mut self,
        name: &str,
        asks_for_nothing: fn(&Value) -> bool,
    ) -> ApiResult<()> {
        match self.take(name) {
            Some(value) if !asks_for_nothing(&value) => Err(ApiError::unsupported(name)),
            _ => Ok(()),
        }
    }

    /// Refuses what the APIs that clients know have and Pippin has not, rather than to pass over it.
    pub(crate) fn refuse_unsupported(&mut self) -> ApiResult<()> {
        for name in UNSUPPORTED {
            self.refuse_unless(name, asks_for_nothing)?;
        }
        self.refuse_unless("function_call", |value| matches!(value.as_str(), Some("none" | "auto")))?;
        self.refuse_unless("modalities", |value| *value == serde_json::json!(["text"]))?;
        // Hints: what is usual, and a guess of what the answer will repeat, which changes nothing in it.
        self.refuse_unless("verbosity", |value| *value == "medium")?;
        self.refuse_unless("prediction", |value| value["type"] == "content")?;
        self.refuse_unless("typical_p", |value| value.as_f64() == Some(1.0))?;
        self.refuse_unless("best_of", |value| *value == 1)
    }
}

/// JSON in which escaped halves of surrogate pairs without their other halves are replaced. `None`: there are none.
fn mended(body: &[u8]) -> Option<Vec<u8>> {
    let unit = |at: usize| {
        let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut mended, mut at, mut is_changed) = (Vec::with_capacity(body.len()), 0, false);
    while let Some(byte) = body.get(at) {
        let length = match (byte, unit(at), unit(at + 6)) {
            (b'\\', Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff), _) => {
                mended.extend_from_slice(b"\\ufffd");
                (at, is_changed) = (at + 6, true);
                continue;
            }
            // Whatever is escaped begins no escape itself.
            (b'\\', ..) => 2,
            _ => 1,
        };
        let end = (at + length).min(body.len());
        mended.extend_from_slice(&body[at..end]);
        at = end;
    }
    is_changed.then_some(mended)
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

/// Fields of OpenAI's API and of servers like this one that would change an answer.
const UNSUPPORTED: &[&str] = &[
    // OpenAI
    "functions",
    "audio",
    "web_search_options",
    "store",
    "suffix",
    // vLLM, SGLang
    "allowed_token_ids",
    "return_token_ids",
    "bad_words",
    "prompt_logprobs",
    "use_beam_search",
    "truncate_prompt_tokens",
    // llama.cpp
    "grammar",
    "dry_multiplier",
    "dynatemp_range",
    "mirostat",
    "top_n_sigma",
    "lora",
    // mlx-lm
    "adapters",
    "draft_model",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).expect("an object")
    }

    #[test]
    fn values_are_checked() {
        let mut read = fields(r#"{"a": 1.5, "b": -1, "c": 3, "d": 1e300, "e": null, "f": ["x", 1]}"#);
        assert_eq!(read.number("a", 0.0, 2.0).expect("fits"), Some(1.5));
        assert_eq!(read.number("b", 0.0, 2.0).expect_err("negative").param.as_deref(), Some("b"));
        assert_eq!(read.count("c", 1, 3).expect("fits"), Some(3));
        assert!(read.number("d", 0.0, f32::MAX).is_err());
        assert_eq!(read.boolean("e").expect("absent"), None);
        assert!(read.texts("f").is_err());
        for bad in [&b"[1]"[..], b"{", b"", b"{\"a\": NaN}", b"\xff", b"{\"a\": 1e999}"] {
            assert!(Fields::parse(bad).is_err(), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Fields::parse(format!("{{\"a\": {deep}").as_bytes()).is_err());
    }

    #[test]
    fn what_is_json_is_not_called_something_else() {
        let message = |body: &str| Fields::parse(body.as_bytes()).expect_err("refused").message;
        let large = message("{\"a\":\n 1e740}");
        assert!(large.starts_with("the body has a number that is too large at line 2 column"), "{large}");
        let nested =
            |levels: usize| format!("{{\"a\": {}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(Fields::parse(nested(127).as_bytes()).is_ok());
        assert!(message(&nested(128)).starts_with("the body is nested too deeply at line 1"));
        assert!(message("{\"a\": NaN}").starts_with("the body is no JSON"));
    }

    #[test]
    fn halves_of_characters_are_replaced() {
        for (text, expected) in [
            (r#"{"a": "x\ud83e"}"#, "x\u{fffd}"),
            (r#"{"a": "\udc00\ud83e\udd14 \uD83E"}"#, "\u{fffd}\u{1f914} \u{fffd}"),
            (r#"{"a": "\\ud83e\ud83e"}"#, "\\ud83e\u{fffd}"),
        ] {
            assert_eq!(fields(text).text("a").expect("a text").as_deref(), Some(expected));
        }
        assert!(Fields::parse(br#"{"a": "\ud83e}"#).is_err());
        assert!(Fields::parse(br#"{"a": "\ud8"}"#).is_err());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, param) in [
            (r#"{"functions": [{}]}"#, "functions"),
            (r#"{"best_of": 2}"#, "best_of"),
            (r#"{"store": true}"#, "store"),
        ] {
            let error = fields(text).refuse_unsupported().expect_err(text);
            assert_eq!(error.param.as_deref(), Some(param));
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
        }
        let nothing = r#"{"functions": [], "store": false,
            "best_of": 1, "modalities": ["text"], "what": "ever"}"#;
        fields(nothing).refuse_unsupported().expect("asks for nothing");
    }
}
