//! Serves language models over HTTP, in the forms of the OpenAI API and of Anthropic's.
//!
//! A [`Server`] answers from the models of a [`ModelCache`], which loads them when they are asked for. It runs on threads
//! of its own, so that whoever starts it needs no async runtime; a program that has one takes the [`router`] and serves it
//! as it likes.
//!
//! ```no_run
//! use pippin::ModelCache;
//! use pippin::cache::CacheOptions;
//! use pippin_server::{Server, ServerOptions};
//!
//! let cache = ModelCache::new(CacheOptions::default());
//! let server = Server::start(&cache, ServerOptions::default().with_model("pippin-nano", "pippin-nano"))?;
//! println!("http://{}/v1", server.address());
//! server.set_ready();
//! server.wait_for_signal();
//! # Ok::<(), pippin_server::ServerError>(())
//! ```
//!
//! # Routes
//!
//! | route | what it does |
//! |---|---|
//! | `POST /v1/chat/completions` | answers a conversation, whole or as server-sent events |
//! | `POST /v1/completions` | continues texts or tokens, with log-probabilities of the prompt where asked for |
//! | `POST /v1/responses`, `GET` and `DELETE /v1/responses/{id}` | the same in OpenAI's newer form, with answers that are kept for the next request |
//! | `POST /v1/messages`, `/v1/messages/count_tokens` | the same for clients of Anthropic's API |
//! | `POST /api/chat`, `/api/generate`, `/api/show`, `GET /api/tags`, `/api/ps`, `/api/version` | the same for clients of Ollama's API |
//! | `GET /v1/models`, `/v1/models/{id}` | which models there are |
//! | `POST /models/load`, `/models/unload`, `/api/pull`, `DELETE /api/delete` | which models are loaded, and on this machine ([`Management`]) |
//! | `POST /tokenize`, `/detokenize`, `/apply-template`, `GET /tokenizer_info` | what a model sees |
//! | `GET /health` | 200, or 503 while loading or shutting down, or when a model has died or its device is lost |
//! | `GET /openapi.json` | this, for programs |
//! | `GET /metrics` | numbers for Prometheus |
//! | `GET /`, `/assets/…` | a web page to chat with the models, where [`ServerOptions::page`] says so |
//!
//! # Rules
//!
//! - Fields that are known are checked, and those that Pippin cannot honour yet are refused by name; others are ignored.
//!   Nothing that is accepted is without effect.
//! - A client that goes away cancels its request within a step of the model.
//! - A request may name the models that the server was given and, where [`ServerOptions::local_models`] says so, those
//!   of the hub that are on this machine. It never names a folder. Nothing is downloaded but by those who may ([`ServerOptions::management`]).
//! - Every route but `/health` needs a key where there are keys; the page itself can be had without one, and asks for it. Without keys a request must come by a name that is this
//!   machine's ([`ServerOptions::allowed_hosts`]), and never from a page of another origin, so that no web page can talk to the models through
//!   its reader's browser.
//! - Logs (`tracing`) hold no text of prompts or answers.

mod answers;
mod anthropic;
mod chat;
mod completions;
mod connections;
mod error;
mod fields;
mod gate;
mod health;
mod impatient;
mod instructions;
mod keys;
mod listing;
mod logging;
mod manage;
mod metrics;
mod ollama;
mod openapi;
mod options;
mod page;
mod parameters;
mod reasoning;
mod request;
mod responses;
mod serve;
mod shared;
mod structure;
mod text;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use pippin::ModelCache;

pub use error::ServerError;
pub use keys::Keys;
pub use logging::log_to_stderr;
pub use options::{Limits, Management, ServerOptions};
pub use serve::{RunningServer, Server};

use self::shared::Shared;

/// The routes of a server, for a program that serves them itself: from its own listener, beside routes of its own. Limits of
/// connections and headers, and shutting down, are then that program's.
///
/// # Errors
///
/// The options contradict each other.
pub fn router(cache: &ModelCache, options: ServerOptions) -> Result<Router, ServerError> {
    options.check()?;
    let shared = Shared::new(cache, options);
    shared.set_ready();
    Ok(routes(&shared))
}

fn routes(shared: &Arc<Shared>) -> Router {
    let page = if shared.options.page {
        Router::new().route("/", get(page::page)).route("/assets/{name}", get(page::asset))
    } else {
        Router::new()
    };
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(ollama::embed))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::one).delete(responses::delete))
        .route("/v1/models", get(listing::all))
        .route("/v1/models/{*model}", get(listing::one))
        .route("/api/chat", post(ollama::chat))
        .route("/api/generate", post(ollama::generate))
        .route("/api/tags", get(ollama::tags))
        .route("/api/ps", get(ollama::loaded))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(ollama::version))
        .route("/api/pull", post(manage::pull))
        .route("/api/delete", axum::routing::delete(manage::delete))
        .route("/models/load", post(manage::load))
        .route("/models/unload", post(manage::unload))
        .route("/api/embed", post(ollama::embed))
        .route("/api/embeddings", post(ollama::embed))
        .route("/tokenize", post(text::tokenize))
        .route("/detokenize", post(text::detokenize))
        .route("/tokenizer_info", get(text::tokenizer_info))
        .route("/apply-template", post(text::apply_template))
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::document))
        .merge(page)
        .method_not_allowed_fallback(error::wrong_method)
        .fallback(error::no_route)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(shared), gate::pass))
        .with_state(Arc::clone(shared))
}
