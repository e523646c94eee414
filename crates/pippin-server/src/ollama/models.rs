//! `GET /api/tags`, `GET /api/ps`, `POST /api/show`: which models there are, and what they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use pippin::loading::TextProcessor;
use pippin::models::ModelInfo;
use serde_json::{Map, Value, json};

use super::{model, time};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::shared::{Shared, blocking};

/// A century: what is kept for ever expires then.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(crate) async fn tags(State(shared): State<Arc<Shared>>) -> ApiResult<Response> {
    let models = blocking(move || {
        let names = shared.names();
        names.iter().filter_map(|name| tag(&shared, name)).collect::<Vec<Value>>()
    });
    Ok(json_response(&json!({"models": models.await?})))
}

pub(crate) async fn loaded(State(shared): State<Arc<Shared>>) -> ApiResult<Response> {
    let work = move || {
        let loaded = shared.cache.models().into_iter().filter(|model| model.is_loaded && !model.has_died);
        let describe = |model: pippin::cache::LoadedModel| {
            let name = shared.name_of(&model.model);
            let found = Found::of(&shared, &name);
            let digest = found.as_ref().map(Found::digest).unwrap_or_default();
            let details = found.as_ref().and_then(|found| shared.description(&found.directory));
            let expires = SystemTime::now() + model.expires_in.unwrap_or(FOR_EVER).min(FOR_EVER);
            json!({
                "name": name,
                "model": name,
                "size": model.bytes,
                "digest": digest,
                "details": details.as_deref().map(details_of),
                "expires_at": time(expires),
                "size_vram": 0,
                "context_length": model.context,
            })
        };
        loaded.map(describe).collect::<Vec<Value>>()
    };
    Ok(json_response(&json!({"models": blocking(work).await?})))
}

pub(crate) async fn show(State(shared): State<Arc<Shared>>, request: Request<Body>) -> ApiResult<Response> {
    let mut fields = Fields::read(request, &shared.options.limits).await?;
    let name = model(&mut fields, &shared)?;
    let work = move || {
        let configuration = shared.configuration(&name)?;
        let found = Found::of(&shared, &name).ok_or_else(|| ApiError::no_model(&name))?;
        let info = shared.description(&found.directory).ok_or_else(|| ApiError::no_model(&name))?;
        let processor =
            TextProcessor::from_dir(&found.directory, &configuration).map_err(|error| shared.fault(error))?;
        Ok(describe(&name, &found, &info, &processor))
    };
    let shown: ApiResult<Value> = blocking(work).await?;
    Ok(json_response(&shown?))
}

/// There are no encoders yet.
pub(crate) async fn embed() -> ApiError {
    let message = "embeddings are not supported by this version of Pippin";
    ApiError::new(StatusCode::BAD_REQUEST, Some("not_supported"), message)
}

/// Where a model is.
struct Found {
    directory: PathBuf,
    commit: Option<String>,
}

impl Found {
    fn of(shared: &Shared, name: &str) -> Option<Self> {
        let directory = shared.directory(name)?;
        // The folder of a hub model has its commit for a name.
        let commit = directory.file_name()?.to_str().filter(|name| is_commit(name)).map(str::to_owned);
        Some(Self { directory, commit })
    }

    /// Something that is another for another model: the commit, where there is one.
    fn digest(&self) -> String {
        self.commit.clone().unwrap_or_else(|| {
            use sha2::{Digest, Sha256};
            let hash = Sha256::digest(self.directory.as_os_str().as_encoded_bytes());
            hash.iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }

    fn modified(&self) -> SystemTime {
        std::fs::metadata(&self.directory).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A model of the list. `None`: it cannot be read.
fn tag(shared: &Shared, name: &str) -> Option<Value> {
    let found = Found::of(shared, name)?;
    let info = shared.description(&found.directory)?;
    Some(json!({
        "name": name,
        "model": name,
        "modified_at": time(found.modified()),
        "size": info.weight_bytes,
        "digest": found.digest(),
        "details": details_of(&info),
    }))
}

fn details_of(info: &ModelInfo) -> Value {
    json!({
        "parent_model": "",
        "format": "mlx",
        "family": info.family,
        "families": [info.family],
        "parameter_size": size(info.parameters),
        "quantization_level": quantization(info),
    })
}

/// As in the names of models: `7.6B`, `135M`.
fn size(parameters: u64) -> String {
    let (number, unit) = match parameters {
        1_000_000_000.. => (parameters as f64 / 1e9, "B"),
        _ => (parameters as f64 / 1e6, "M"),
    };
    if number < 10.0 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

fn quantization(info: &ModelInfo) -> String {
    match info.quantization {
        Some(spec) => format!("{}bit", spec.bits),
        None => info.dtype.to_string().to_ascii_uppercase(),
    }
}

fn describe(name: &str, found: &Found, info: &ModelInfo, processor: &TextProcessor) -> Value {
    let architecture = &info.model_type;
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("general.architecture", json!(architecture));
    put("general.basename", json!(name));
    put("general.parameter_count", json!(info.parameters));
    for (key, value) in [
        ("context_length", info.context_length),
        ("block_count", info.layers),
        ("embedding_length", info.hidden_size),
        ("attention.head_count", info.heads),
        ("attention.head_count_kv", info.kv_heads),
        ("attention.key_length", info.head_dim),
        ("vocab_size", info.vocab_size),
    ] {
        put(&format!("{architecture}.{key}"), json!(value));
    }
    let template = processor.chat_template.as_deref();
    let source = template.map_or("", |template| template.source(true));
    json!({
        "modelfile": format!("FROM {name}\n"),
        "parameters": "",
        "template": source,
        "license": licence(&found.directory),
        "details": details_of(info),
        "model_info": fields,
        "capabilities": capabilities(processor),
        "modified_at": time(found.modified()),
    })
}

/// What clients look at before they offer tools or thoughts.
fn capabilities(processor: &TextProcessor) -> Vec<&'static str> {
    let format = &processor.output_format;
    let shows = |with_tools, part: &str| {
        processor.chat_template.as_deref().is_some_and(|template| template.source(with_tools).contains(part))
    };
    let mut all = vec!["completion"];
    if shows(true, "tools") && format.dialect().is_some() {
        all.push("tools");
    }
    // Marks that the tokenizer has and the template knows nothing of are no thoughts; those of other models stand in headers.
    let thinks = match format.reasoning_marks() {
        Some((_, close)) => shows(false, close),
        None => format.has_thoughts(),
    };
    if thinks {
        all.push("thinking");
    }
    all
}

fn licence(directory: &Path) -> String {
    let file = ["LICENSE", "LICENSE.txt", "LICENSE.md"].map(|name| directory.join(name));
    let text = file.iter().find_map(|file| std::fs::read(file).ok()).unwrap_or_default();
    String::from_utf8_lossy(&text[..text.len().min(64 << 10)]).into_owned()
}
