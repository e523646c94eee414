//! What goes wrong: in starting a server, and in answering a request.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use pippin::EngineError;
use serde_json::{Value, json};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Others could reach it, and it has no keys.
    #[error("{} can be reached from other machines, and there are no keys", .address.ip())]
    Unprotected {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// What no browser sends as the origin of a page.
    #[error("{origin:?} is no origin")]
    Origin {
        /// What stands among the allowed origins.
        origin: String,
    },
    /// The operating system refuses threads.
    #[error("cannot start the server's threads: {0}")]
    Threads(std::io::Error),
    /// The file of keys cannot be read.
    #[error("{}: {error}", .path.display())]
    KeysFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file of keys has none.
    #[error("{} holds no key", .path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
    /// A key that is too short, or that no header can carry. It is not shown.
    #[error("key {number} must have at least 8 characters, all of them visible ones of ASCII")]
    Key {
        /// Which, from 1.
        number: usize,
    },
    /// Parameters that hold by default are out of range.
    #[error("{0}")]
    Parameters(String),
}

impl ServerError {
    /// What can be done about it, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unprotected { .. } => {
                "give a file of keys (--keys-file), or let everyone in who reaches it (--no-key)"
            }
            Self::Listen { .. } => "choose another --port or --host",
            Self::Origin { .. } => {
                "an origin is what a page's address begins with, such as http://localhost:3000; give the flag once for each, or * for any"
            }
            Self::NoKeys { .. } | Self::Key { .. } => "one key stands in each line: openssl rand -hex 24",
            _ => return None,
        })
    }
}

/// What a client is told when its request cannot be answered, in the shape of the OpenAI API.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field at fault.
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    /// After how many seconds it may be tried again.
    pub(crate) retry_after: Option<u32>,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, retry_after: None }
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, None, message)
    }

    /// A field whose value cannot be.
    pub(crate) fn field(name: &str, expected: impl fmt::Display) -> Self {
        Self::invalid(format!("{name} must be {expected}")).at(name)
    }

    /// A field that is known, and not supported.
    pub(crate) fn unsupported(name: &str) -> Self {
        let message = format!("{name} is not supported by this version of Pippin");
        Self::new(StatusCode::BAD_REQUEST, Some("unsupported_parameter"), message).at(name)
    }

    pub(crate) fn no_model(name: &str) -> Self {
        let message = format!("the model {name:?} does not exist, or is not on the server's machine");
        Self::new(StatusCode::NOT_FOUND, Some("model_not_found"), message).at("model")
    }

    /// A model of the hub that is known by another name than its own, and is not there.
    pub(crate) fn not_downloaded(name: &str, id: &str) -> Self {
        let message = format!("the model {name:?} ({id}) is not on the server's machine");
        Self::new(StatusCode::NOT_FOUND, Some("model_not_found"), message).at("model")
    }

    pub(crate) fn shutting_down() -> Self {
        let message = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("shutting_down"), message).again_after(5)
    }

    pub(crate) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn again_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let root = error.root();
        let with = |status, code| Self::new(status, Some(code), error.to_string());
        match root {
            EngineError::Parameter { field, .. } => Self::invalid(error.to_string()).at(*field),
            EngineError::PromptTooLong { .. } | EngineError::PromptTooLarge { .. } => {
                with(StatusCode::BAD_REQUEST, "context_length_exceeded").at("messages")
            }
            EngineError::EmptyPrompt | EngineError::TokenOutOfRange { .. } => {
                Self::invalid(error.to_string())
            }
            EngineError::Grammar(error) => Self::of_grammar(error),
            EngineError::NoChatTemplate { .. } => {
                with(StatusCode::BAD_REQUEST, "no_chat_template").at("messages")
            }
            EngineError::Text(_) if !matches!(error, EngineError::Load(_)) => {
                Self::invalid(error.to_string()).at("messages")
            }
            // The names of files are for the log.
            EngineError::Hub(_) => {
                let message = "the model does not exist, or is not on the server's machine";
                Self::new(StatusCode::NOT_FOUND, Some("model_not_found"), message).at("model")
            }
            EngineError::OverBudget { .. } | EngineError::TooManyModels { .. } => {
                with(StatusCode::SERVICE_UNAVAILABLE, "no_room_for_model").at("model").again_after(10)
            }
            EngineError::ModelThreadDied { .. } => {
                let message = "the model has died, and is loaded anew for the next request";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("model_died"), message).again_after(1)
            }
            EngineError::DeviceLost { .. } => {
                let message = "the model's device is lost; the model is loaded anew for the next request, if that can be";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("device_lost"), message).again_after(10)
            }
            EngineError::QueueFull { .. } => {
                let message = "too many requests wait for this model; try again later";
                Self::new(StatusCode::TOO_MANY_REQUESTS, Some("queue_full"), message).again_after(1)
            }
            EngineError::LoadCancelled { .. } => Self::shutting_down(),
            _ if error.is_out_of_memory() => {
                let message = "the device has no memory left";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Some("out_of_memory"), message).again_after(5)
            }
            EngineError::NonFiniteLogits { .. } => {
                with(StatusCode::INTERNAL_SERVER_ERROR, "non_finite_logits")
            }
            _ if matches!(error, EngineError::Load(_)) => {
                let message = "the model cannot be loaded; the server's log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, Some("model_load_failed"), message)
            }
            _ => {
                let message = "the request failed; the server's log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, Some("internal_error"), message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(&self.body());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // Other APIs have other shapes: the gate sees to that.
        response.extensions_mut().insert(self);
        response
    }
}

/// A name in a path, unless it is no text.
pub(crate) type IdResult = Result<Path<String>, PathRejection>;

pub(crate) fn path_name(name: IdResult) -> ApiResult<String> {
    name.map(|Path(name)| name).map_err(|_| ApiError::invalid("the path is no text"))
}

/// JSON with its header.
pub(crate) fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) async fn no_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {method} {}", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, Some("unknown_url"), message)
}

pub(crate) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), message)
}
