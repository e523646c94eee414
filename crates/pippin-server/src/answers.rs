//! The answers of a request, as they are written, and how they leave.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{BoxStream, SelectAll, select_all, unfold};
use futures_util::{Stream, StreamExt};
use pippin::{FinishReason, GenerateInfo, GenerateParameters, GenerationEvent, ModelContainer, Result};
use serde_json::{Value, json};
use tracing::debug;

use crate::error::{ApiError, ApiResult};
use crate::shared::{Lease, Permit, Phase, Shared, now};

/// Answers that are written together. Dropping it cancels them.
pub(crate) struct Answers {
    events: SelectAll<BoxStream<'static, (usize, Result<GenerationEvent>)>>,
    shared: Arc<Shared>,
    deadline: Option<Instant>,
    usage: Usage,
    /// Answers for each prompt.
    per_prompt: usize,
    // What is held for the answers goes after them.
    _lease: Lease,
    _permit: Permit,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) generated: usize,
}

impl Usage {
    pub(crate) fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// What happens to the answer of this number.
#[derive(Debug)]
pub(crate) enum Piece {
    /// It goes on.
    Text { text: String, token: Option<(u32, Option<f32>)> },
    /// It ends.
    End(FinishReason),
}

impl Answers {
    /// Begins so many answers to each prompt. Seeds of several answers to one prompt follow each other.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        model: &ModelContainer,
        lease: Lease,
        permit: Permit,
        prompts: Vec<Vec<u32>>,
        parameters: &GenerateParameters,
        per_prompt: usize,
    ) -> ApiResult<Self> {
        let mut streams = Vec::with_capacity(prompts.len() * per_prompt);
        for (number, prompt) in prompts.into_iter().enumerate() {
            for copy in 0..per_prompt {
                let mut parameters = parameters.clone();
                parameters.seed = parameters.seed.map(|seed| seed.wrapping_add(copy as u64));
                let stream =
                    model.generate(prompt.clone(), &parameters).map_err(|error| shared.fault(error))?;
                let index = number * per_prompt + copy;
                streams.push(stream.into_async().map(move |event| (index, event)).boxed());
            }
        }
        Ok(Self {
            events: select_all(streams),
            shared: Arc::clone(shared),
            deadline: shared.options.limits.answer_time.map(|time| Instant::now() + time),
            usage: Usage::default(),
            per_prompt,
            _lease: lease,
            _permit: permit,
        })
    }

    /// What happens next; `None` at the end of all.
    pub(crate) async fn next(&mut self) -> Option<ApiResult<(usize, Piece)>> {
        let deadline = self.deadline;
        let too_late = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let (index, event) = tokio::select! {
            biased;
            () = self.shared.reached(Phase::Ending) => return Some(Err(ApiError::shutting_down())),
            () = too_late => {
                let message = "the answer took longer than the server allows";
                let status = axum::http::StatusCode::GATEWAY_TIMEOUT;
                return Some(Err(ApiError::new(status, Some("timeout"), message)));
            }
            event = self.events.next() => event?,
        };
        Some(match event {
            Err(error) => Err(self.shared.fault(error)),
            Ok(GenerationEvent::Token { id, text, logprob, .. }) => {
                Ok((index, Piece::Text { text, token: Some((id, logprob)) }))
            }
            Ok(GenerationEvent::Chunk(text)) => Ok((index, Piece::Text { text, token: None })),
            Ok(GenerationEvent::Info(info)) => {
                self.count(index, &info);
                Ok((index, Piece::End(info.finish_reason)))
            }
            Ok(_) => Ok((index, Piece::Text { text: String::new(), token: None })),
        })
    }

    fn count(&mut self, index: usize, info: &GenerateInfo) {
        self.usage.generated += info.generated_tokens;
        if index.is_multiple_of(self.per_prompt) {
            self.usage.prompt += info.prompt_tokens;
            self.usage.cached += info.cached_tokens;
        }
        debug!(
            prompt_tokens = info.prompt_tokens,
            cached_tokens = info.cached_tokens,
            generated_tokens = info.generated_tokens,
            tokens_per_second = info.tokens_per_second(),
            finish_reason = info.finish_reason.as_str(),
            "answered"
        );
    }

    /// The tokens of the answers that have ended.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }
}

/// Why an answer has ended, as OpenAI has it.
pub(crate) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopString(_) => "stop",
        _ => "length",
    }
}

/// What every part of an answer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) model: String,
    created: u64,
}

impl Head {
    pub(crate) fn new(id: String, object: &'static str, model: String) -> Self {
        Self { id, object, model, created: now() }
    }

    /// An object with these choices, and with the numbers of tokens where they are known.
    pub(crate) fn with(&self, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut object = json!({
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }
}

/// What a stream of OpenAI's is made with: the choices that begin it, and the choice of each piece (`None`: nothing to say).
pub(crate) trait Chunks: Send + 'static {
    fn begin(&mut self) -> Vec<Value>;
    fn chunk(&mut self, index: usize, piece: Piece) -> Option<Value>;
}

/// OpenAI's streams.
pub(crate) struct OpenAi<C> {
    pub(crate) head: Head,
    pub(crate) chunks: C,
    pub(crate) includes_usage: bool,
}

impl<C> OpenAi<C> {
    fn frame(&self, choices: Vec<Value>, usage: Option<Usage>) -> Frame {
        let usage = self.includes_usage.then(|| usage.map_or(Value::Null, Usage::to_json));
        Frame { event: None, data: self.head.with(choices, usage).to_string() }
    }
}

impl<C: Chunks> Frames for OpenAi<C> {
    fn begin(&mut self) -> Vec<Frame> {
        let choices = self.chunks.begin();
        if choices.is_empty() { Vec::new() } else { vec![self.frame(choices, None)] }
    }

    fn piece(&mut self, index: usize, piece: Piece) -> Vec<Frame> {
        let choice = self.chunks.chunk(index, piece);
        choice.map(|choice| self.frame(vec![choice], None)).into_iter().collect()
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        let usage = self.includes_usage.then(|| self.frame(Vec::new(), Some(usage)));
        let done = Frame { event: None, data: "[DONE]".to_owned() };
        usage.into_iter().chain([done]).collect()
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame { event: None, data: error.body().to_string() }
    }
}

/// A part of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Its kind, where the API has kinds.
    pub(crate) event: Option<&'static str>,
    pub(crate) data: String,
}

/// How an API says what happens.
pub(crate) trait Frames: Send + 'static {
    fn begin(&mut self) -> Vec<Frame>;
    fn piece(&mut self, index: usize, piece: Piece) -> Vec<Frame>;
    fn end(&mut self, usage: Usage) -> Vec<Frame>;
    /// The last frame of a stream that fails.
    fn error(&mut self, error: &ApiError) -> Frame;
}

/// The answers as server-sent events.
pub(crate) fn events(answers: Answers, frames: impl Frames) -> Response {
    let keep_alive = KeepAlive::new().interval(answers.shared.options.limits.keep_alive);
    let events = stream(answers, frames).map(|frame| {
        let event = Event::default().data(frame.data);
        Ok::<_, Infallible>(match frame.event {
            Some(kind) => event.event(kind),
            None => event,
        })
    });
    Sse::new(events).keep_alive(keep_alive).into_response()
}

fn stream(answers: Answers, mut frames: impl Frames) -> impl Stream<Item = Frame> {
    let begin = VecDeque::from(frames.begin());
    // Without answers, all that is left are the frames that wait.
    let first = (Some(answers), frames, begin);
    unfold(first, |(mut answers, mut frames, mut waiting)| async move {
        loop {
            if let Some(frame) = waiting.pop_front() {
                return Some((frame, (answers, frames, waiting)));
            }
            let running = answers.as_mut()?;
            match running.next().await {
                Some(Ok((index, piece))) => waiting.extend(frames.piece(index, piece)),
                Some(Err(error)) => {
                    waiting.push_back(frames.error(&error));
                    answers = None;
                }
                None => {
                    waiting.extend(frames.end(running.usage()));
                    answers = None;
                }
            }
        }
    })
}

/// An answer as a whole.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) text: String,
    pub(crate) tokens: Vec<(u32, Option<f32>)>,
    pub(crate) end: Option<FinishReason>,
}

impl Whole {
    /// Why it has ended, as OpenAI has it.
    pub(crate) fn finish_reason(&self) -> Option<&'static str> {
        self.end.as_ref().map(finish_reason)
    }
}

/// Waits for all answers.
pub(crate) async fn collect(answers: &mut Answers, count: usize) -> ApiResult<Vec<Whole>> {
    let mut all: Vec<Whole> = (0..count).map(|_| Whole::default()).collect();
    while let Some(piece) = answers.next().await {
        let (index, piece) = piece?;
        let Some(whole) = all.get_mut(index) else { continue };
        match piece {
            Piece::Text { text, token } => {
                whole.text.push_str(&text);
                whole.tokens.extend(token);
            }
            Piece::End(reason) => whole.end = Some(reason),
        }
    }
    Ok(all)
}

/// A token as text. What is half a character is shown as such.
pub(crate) fn token_text(model: &ModelContainer, token: u32) -> String {
    model.decode(&[token]).unwrap_or_default()
}
