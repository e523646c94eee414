//! Loading, unloading, downloading and deleting models: for those who may manage the server, not for all who may use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use futures_util::stream::unfold;
use pippin::EngineError;
use pippin::config::KeepAlive;
use pippin::hub::{HubCache, HubClient, HubError, ModelLocation, PullEvent, PullOptions, PullPlan};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::ollama;
use crate::shared::{Caller, Phase, Shared, blocking};

/// Lines of progress that wait for a client that reads slowly; what does not fit is left out.
const WAITING_LINES: usize = 64;

impl Caller {
    /// Refuses those who may not manage the server.
    pub(crate) fn check_management(&self) -> ApiResult<()> {
        if self.may_manage {
            return Ok(());
        }
        let message =
            "this is for those who manage the server, which has to be allowed where it is started (--manage)";
        Err(ApiError::new(StatusCode::FORBIDDEN, Some("management_not_allowed"), message))
    }
}

/// The fields of a request by somebody who may manage the server, and the model that it names.
async fn managed(shared: &Shared, caller: &Caller, request: Request<Body>) -> ApiResult<(Fields, String)> {
    caller.check_management()?;
    let mut fields = Fields::read(request, &shared.options.limits).await?;
    let name = ollama::model(&mut fields, shared)?;
    Ok((fields, name))
}

/// `POST /models/load`: returns when the model is there.
pub(crate) async fn load(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let (mut fields, name) = managed(&shared, &caller, request).await?;
    let keep_alive = keep_alive(&mut fields)?;
    let ready = shared.ready(&caller, Some(name), 1).await?;
    shared.keep(&caller, &ready.name, keep_alive).await?;
    Ok(json_response(&json!({"success": true, "model": ready.name, "context": ready.model.context()})))
}

/// `POST /models/unload`: at once, or when the answers that use the model have ended.
pub(crate) async fn unload(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let (_, name) = managed(&shared, &caller, request).await?;
    let was_loaded = shared.unload(&name).await?;
    Ok(json_response(&json!({"success": true, "model": name, "was_loaded": was_loaded})))
}

/// `DELETE /api/delete`.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let (_, name) = managed(&shared, &caller, request).await?;
    let HubModel { id, quantization, cache, .. } = {
        let (shared, name) = (Arc::clone(&shared), name.clone());
        blocking(move || shared.hub_model(&name)).await??
    };
    shared.unload(&name).await?;
    let work = move || {
        let removal = cache.plan_removal_of(&id, None, quantization.as_deref())?;
        cache.remove(&removal)
    };
    blocking(work).await?.map_err(|error| of_hub(&error, &name))?;
    Ok(json_response(&json!({"status": "success"})))
}

/// `POST /api/pull`: a line for each step, or, without a stream, one object at the end. A client that goes away ends the download;
/// what has been fetched is kept.
pub(crate) async fn pull(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let (mut fields, name) = managed(&shared, &caller, request).await?;
    let is_streamed = fields.boolean("stream")?.unwrap_or(true);
    let (model, client) = {
        let (shared, name) = (Arc::clone(&shared), name.clone());
        blocking(move || Ok::<_, ApiError>((shared.hub_model(&name)?, shared.hub_client()?))).await??
    };
    let (sender, receiver) = mpsc::channel(WAITING_LINES);
    let cancel = Cancel::default();
    let pull = {
        let options = PullOptions::default().with_cancel(Arc::clone(&cancel.0));
        tokio::task::spawn_blocking(move || download(&client, &model, &options, &sender))
    };
    let mut progress = Progress { receiver, pull: Some(pull), shared, name, cancel };
    if is_streamed {
        let lines = unfold(progress, |mut progress| async move {
            let line = progress.next().await?;
            Some((Ok::<_, std::convert::Infallible>(format!("{line}\n")), progress))
        });
        let mut response = Response::new(Body::from_stream(lines));
        let kind = HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    let mut last = Value::Null;
    while let Some(line) = progress.next().await {
        last = line;
    }
    match last.get("error").and_then(Value::as_str) {
        Some(message) => Err(ApiError::new(StatusCode::BAD_GATEWAY, Some("download_failed"), message)),
        None => Ok(json_response(&last)),
    }
}

/// Ends a download when it is dropped.
#[derive(Debug, Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A download that is under way.
struct Progress {
    receiver: mpsc::Receiver<Value>,
    pull: Option<tokio::task::JoinHandle<Result<(), HubError>>>,
    shared: Arc<Shared>,
    name: String,
    cancel: Cancel,
}

impl Progress {
    /// What is told next; the last thing is how it ended.
    async fn next(&mut self) -> Option<Value> {
        let pull = self.pull.as_mut()?;
        let line = tokio::select! {
            biased;
            () = self.shared.reached(Phase::Draining) => {
                self.cancel.0.store(true, Ordering::Relaxed);
                Some(json!({"error": "the server is shutting down; what has been fetched is kept"}))
            }
            line = self.receiver.recv() => line,
        };
        if let Some(line) = line {
            if line.get("error").is_some() {
                self.pull = None;
            }
            return Some(line);
        }
        let outcome = pull.await;
        self.pull = None;
        Some(match outcome {
            Ok(Ok(())) => json!({"status": "success"}),
            Ok(Err(error)) => json!({"error": of_hub(&error, &self.name).message}),
            Err(_) => json!({"error": "the download failed; the server's log says why"}),
        })
    }
}

fn download(
    client: &HubClient,
    model: &HubModel,
    options: &PullOptions,
    lines: &mpsc::Sender<Value>,
) -> Result<(), HubError> {
    // A line that does not fit is followed by others that say more.
    let tell = |line: Value| drop(lines.try_send(line));
    tell(json!({"status": "pulling manifest"}));
    let HubModel { id, revision, quantization, cache } = model;
    let plan: PullPlan = client.plan_of(cache, id, revision, quantization.as_deref())?;
    let status = format!("pulling {}", plan.id);
    let digest = format!("sha1:{}", plan.commit);
    client.pull(cache, &plan, options, |event| match event {
        PullEvent::Progress { done, total, .. } => {
            tell(json!({"status": status, "digest": digest, "total": total, "completed": done}));
        }
        PullEvent::Retry { path, reason, wait } => {
            tell(json!({"status": format!("{path}: {reason}; trying again in {} s", wait.as_secs())}));
        }
        PullEvent::Waiting { path } => {
            tell(json!({"status": format!("waiting for another download of {path}")}))
        }
        PullEvent::Skipped { path, reason } => tell(json!({"status": format!("left out {path}: {reason}")})),
        _ => {}
    })?;
    tell(json!({"status": "verifying sha256 digest"}));
    Ok(())
}

/// A model of the hub by its parts.
struct HubModel {
    id: String,
    revision: String,
    quantization: Option<String>,
    cache: HubCache,
}

impl Shared {
    /// The model of the hub that a name stands for, whether or not it is here.
    fn hub_model(&self, name: &str) -> ApiResult<HubModel> {
        let configuration = self.configuration(name)?;
        let Some(cache) = self.options.local_models.clone() else {
            let message = "this server has no place for models of the hub";
            return Err(ApiError::new(StatusCode::CONFLICT, Some("no_cache"), message).at("model"));
        };
        let quantization = configuration.quantization.clone();
        match configuration.location {
            ModelLocation::Hub { id, revision } => Ok(HubModel { id, revision, quantization, cache }),
            _ => Err(ApiError::field("model", "a model of the hub, such as mlx-community/Qwen3-4B-4bit")),
        }
    }

    fn hub_client(&self) -> ApiResult<HubClient> {
        let options = match &self.options.hub {
            Some(options) => Ok(options.clone()),
            None => pippin::hub::HubOptions::from_env(),
        };
        options.and_then(HubClient::new).map_err(|error| of_hub(&error, ""))
    }

    pub(crate) async fn unload(self: &Arc<Self>, name: &str) -> ApiResult<bool> {
        let (shared, name) = (Arc::clone(self), name.to_owned());
        let work = move || {
            let model = shared.configuration(&name)?.name();
            match shared.cache.unload(&model) {
                Err(EngineError::ModelInUse { .. }) => {
                    let at_once = KeepAlive::For(Duration::ZERO);
                    shared.cache.set_keep_alive(&model, at_once).map(|()| true)
                }
                outcome => outcome,
            }
            .map_err(|error| shared.fault(error))
        };
        blocking(work).await?
    }

    /// Keeps a loaded model for so long after its last use. Who may not manage the server changes nothing.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        caller: &Caller,
        name: &str,
        keep_alive: Option<KeepAlive>,
    ) -> ApiResult<()> {
        let Some(keep_alive) = keep_alive.filter(|_| caller.may_manage) else { return Ok(()) };
        let (shared, name) = (Arc::clone(self), name.to_owned());
        let work = move || {
            let model = shared.configuration(&name)?.name();
            // One that was named at the start stays, unless whoever manages the server says for how long.
            let is_bounded = keep_alive != KeepAlive::Forever;
            let unpin = || if is_bounded { shared.cache.unpin(&model).map(drop) } else { Ok(()) };
            let set = || shared.cache.set_keep_alive(&model, keep_alive);
            unpin().and_then(|()| set()).map_err(|error| shared.fault(error))
        };
        blocking(work).await?
    }
}

/// `keep_alive` as Ollama has it: seconds, or a duration such as `5m`; below zero: for ever.
pub(crate) fn keep_alive(fields: &mut Fields) -> ApiResult<Option<KeepAlive>> {
    let wrong = || ApiError::field("keep_alive", "seconds, a duration such as 5m or 1h30m, or -1");
    let seconds = match fields.take("keep_alive") {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_f64().ok_or_else(wrong)?,
        Some(Value::String(text)) => duration(&text).ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    Ok(Some(match seconds < 0.0 {
        true => KeepAlive::Forever,
        // A century is as good as for ever.
        false => KeepAlive::For(Duration::from_secs_f64(seconds.min(100.0 * 365.0 * 86_400.0))),
    }))
}

/// Seconds of a duration as Go writes it.
fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    if rest.starts_with(|c: char| c.is_ascii_digit())
        && let Ok(seconds) = rest.parse::<f64>()
    {
        return seconds.is_finite().then_some(sign * seconds);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        let units = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        sum += number * seconds;
        rest = &rest[digits + unit.len()..];
    }
    Some(sign * sum)
}

/// What a client is told of the hub.
fn of_hub(error: &HubError, name: &str) -> ApiError {
    let message = error.to_string();
    match error {
        HubError::InUse { .. } => {
            ApiError::new(StatusCode::CONFLICT, Some("model_in_use"), message).at("model")
        }
        HubError::NotCached { .. } => ApiError::no_model(name),
        HubError::Changed { .. } => ApiError::new(StatusCode::CONFLICT, Some("model_changed"), message),
        _ => ApiError::new(StatusCode::BAD_GATEWAY, Some("hub_error"), message).at("model"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("0", 0.0),
            ("-1", -1.0),
            ("-1s", -1.0),
            ("1.5h", 5400.0),
            ("300", 300.0),
        ] {
            assert_eq!(duration(text), Some(seconds), "{text}");
        }
        for text in ["", "-", "m", "5x", "5m3", "inf", "NaN", "1h-3m", "--1"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
