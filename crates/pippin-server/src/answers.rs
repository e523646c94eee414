//! The answers of a request, as they are written, and how they leave.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{BoxStream, SelectAll, select_all, unfold};
use futures_util::{Stream, StreamExt};
use pippin::chat::{OutputEvent, ParsedOutput};
use pippin::generate::TokenLogprob;
use pippin::text::OutputParser;
use pippin::{
    CancelHandle, FinishReason, GenerateInfo, GenerateParameters, GenerationEvent, GenerationStream,
    ModelContainer, Result,
};
use serde_json::{Value, json};
use tracing::debug;

use crate::error::{ApiError, ApiResult};
use crate::shared::{Lease, Permit, Phase, Ready, Shared, blocking, now};

/// Answers that are written together. Dropping it cancels them.
pub(crate) struct Answers {
    events: SelectAll<BoxStream<'static, (usize, Result<GenerationEvent>)>>,
    readers: Vec<Reader>,
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
    /// Those of thoughts.
    pub(crate) reasoning: usize,
    /// What reading and writing took, all answers together.
    pub(crate) prompt_time: Duration,
    pub(crate) generate_time: Duration,
}

impl Usage {
    pub(crate) fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        })
    }
}

/// What happens to an answer next.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// What it has come to say.
    pub(crate) parts: Vec<OutputEvent>,
    /// The token that came, if one did.
    pub(crate) token: Option<Token>,
    /// How much of its prompt has been read, if that is news: so many tokens of so many.
    pub(crate) progress: Option<(usize, usize)>,
    /// Why it ends, if it does.
    pub(crate) end: Option<End>,
}

/// A token with its log-probability and those of the likeliest in its place, where they are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<TokenLogprob>,
}

/// Why an answer has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: FinishReason,
    /// Whether it calls tools.
    pub(crate) has_calls: bool,
}

impl End {
    /// Whether the answer came to its own end.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.reason, FinishReason::Stop | FinishReason::StopString(_))
    }

    /// The reason, as OpenAI has it.
    pub(crate) fn as_str(&self) -> &'static str {
        match self.is_whole() {
            true if self.has_calls => "tool_calls",
            true => "stop",
            false => "length",
        }
    }
}

/// How answers are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// What takes them apart; without, all is text.
    pub(crate) parser: Option<OutputParser>,
    /// Whether an answer ends with its first call.
    pub(crate) one_call: bool,
}

/// An answer that is being read.
#[derive(Debug)]
struct Reader {
    reading: Reading,
    cancel: CancelHandle,
    /// Calls so far.
    calls: usize,
    /// Whether nothing that comes is part of it any more.
    is_cut: bool,
}

impl Reader {
    fn read(&mut self, text: String) -> Vec<OutputEvent> {
        let parts = match &mut self.reading.parser {
            _ if self.is_cut => Vec::new(),
            Some(parser) => parser.push(&text),
            None if text.is_empty() => Vec::new(),
            None => vec![OutputEvent::Content(text)],
        };
        self.keep(parts)
    }

    fn finish(&mut self) -> Vec<OutputEvent> {
        let parts = match &mut self.reading.parser {
            Some(parser) if !self.is_cut => parser.finish(),
            _ => Vec::new(),
        };
        self.keep(parts)
    }

    /// Names the calls, and ends the answer behind the first where there is to be one.
    fn keep(&mut self, mut parts: Vec<OutputEvent>) -> Vec<OutputEvent> {
        for (at, part) in parts.iter_mut().enumerate() {
            let OutputEvent::ToolCall { call, .. } = part else { continue };
            self.calls += 1;
            // Of the form that all templates take: Mistral's want nine letters or digits.
            call.id.get_or_insert_with(call_id);
            if self.reading.one_call {
                self.is_cut = true;
                self.cancel.cancel();
                parts.truncate(at + 1);
                break;
            }
        }
        parts
    }

    fn end(&self, reason: FinishReason) -> End {
        let reason = if self.is_cut { FinishReason::Stop } else { reason };
        End { reason, has_calls: self.calls > 0 }
    }

    fn is_thinking(&self) -> bool {
        !self.is_cut && self.reading.parser.as_ref().is_some_and(OutputParser::is_reasoning)
    }
}

/// A name for a call that no other call of a conversation has.
fn call_id() -> String {
    let mut random = RandomState::new().hash_one(0);
    let digit = |_| {
        let digit = char::from_digit((random % 36) as u32, 36).unwrap_or_default();
        random /= 36;
        digit
    };
    (0..9).map(digit).collect()
}

impl Answers {
    /// Begins so many answers to each prompt. Seeds of several answers to one prompt follow each other.
    pub(crate) async fn begin(
        shared: &Arc<Shared>,
        ready: Ready,
        prompts: Vec<Vec<u32>>,
        mut parameters: GenerateParameters,
        per_prompt: usize,
        reading: &Reading,
    ) -> ApiResult<Self> {
        let Ready { model, lease, permit, namespace, .. } = ready;
        parameters.cache_namespace = namespace.or(parameters.cache_namespace);
        let is_constrained = parameters.constraint.is_some();
        let generate = move || {
            let mut streams = Vec::with_capacity(prompts.len() * per_prompt);
            for prompt in prompts {
                // Once for all answers to the prompt.
                let constraint = model.prepare_constraint(&prompt, &parameters)?;
                for copy in 0..per_prompt {
                    let mut parameters = parameters.clone();
                    parameters.seed = parameters.seed.map(|seed| seed.wrapping_add(copy as u64));
                    streams.push(model.generate_prepared(prompt.clone(), &parameters, constraint.clone())?);
                }
            }
            Ok(streams)
        };
        // A constraint is compiled, which takes its time.
        let streams = if is_constrained { blocking(generate).await? } else { generate() };
        let streams: Vec<GenerationStream> = streams.map_err(|error| shared.fault(error))?;
        let reader = |stream: &GenerationStream| Reader {
            reading: reading.clone(),
            cancel: stream.cancel_handle(),
            calls: 0,
            is_cut: false,
        };
        Ok(Self {
            readers: streams.iter().map(reader).collect(),
            events: select_all(
                streams
                    .into_iter()
                    .enumerate()
                    .map(|(index, stream)| stream.into_async().map(move |event| (index, event)).boxed()),
            ),
            shared: Arc::clone(shared),
            deadline: shared.options.limits.answer_time.map(|time| Instant::now() + time),
            usage: Usage::default(),
            per_prompt,
            _lease: lease,
            _permit: permit,
        })
    }

    /// How many answers there are.
    pub(crate) fn count(&self) -> usize {
        self.readers.len()
    }

    /// What happens next, and to the answer of which number; `None` at the end of all.
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
        let reader = self.readers.get_mut(index)?;
        let piece = match event {
            Err(error) => return Some(Err(self.shared.fault(error))),
            Ok(GenerationEvent::Token { id, text, logprob, top_logprobs: top }) => {
                self.usage.reasoning += usize::from(reader.is_thinking());
                let token = (!reader.is_cut).then_some(Token { id, logprob, top });
                Piece { parts: reader.read(text), token, ..Piece::default() }
            }
            Ok(GenerationEvent::Chunk(text)) => Piece { parts: reader.read(text), ..Piece::default() },
            Ok(GenerationEvent::Info(info)) => {
                let parts = reader.finish();
                let end = Some(reader.end(info.finish_reason.clone()));
                self.add(index, &info);
                Piece { parts, end, ..Piece::default() }
            }
            Ok(GenerationEvent::Prompt { read, total }) => {
                Piece { progress: Some((read, total)), ..Piece::default() }
            }
            Ok(_) => Piece::default(),
        };
        Some(Ok((index, piece)))
    }

    fn add(&mut self, index: usize, info: &GenerateInfo) {
        self.usage.generated += info.generated_tokens;
        self.usage.prompt_time += info.prompt_time;
        self.usage.generate_time += info.generate_time;
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

/// What a stream of OpenAI's is made with: the choices that begin it, and those that say each piece, one in a frame.
pub(crate) trait Chunks: Send + 'static {
    fn begin(&mut self) -> Vec<Value>;
    fn chunks(&mut self, index: usize, piece: Piece) -> Vec<Value>;
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
        if let Some((read, total)) = piece.progress {
            // As llama.cpp's server has it.
            let mut chunk = self.head.with(Vec::new(), None);
            chunk["prompt_progress"] = json!({"processed": read, "total": total, "index": index});
            return vec![Frame { event: None, data: chunk.to_string() }];
        }
        let choices = self.chunks.chunks(index, piece);
        choices.into_iter().map(|choice| self.frame(vec![choice], None)).collect()
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
        let event = Event::default();
        // Before the data: clients that read line by line know by it what the data is.
        let event = match frame.event {
            Some(kind) => event.event(kind),
            None => event,
        };
        Ok::<_, Infallible>(event.data(frame.data))
    });
    Sse::new(events).keep_alive(keep_alive).into_response()
}

/// The answers as lines of JSON.
pub(crate) fn lines(answers: Answers, frames: impl Frames) -> Response {
    let lines = stream(answers, frames).map(|frame| Ok::<_, Infallible>(frame.data + "\n"));
    let mut response = Response::new(Body::from_stream(lines));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
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
    pub(crate) output: ParsedOutput,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: Option<End>,
}

impl Whole {
    /// Why it has ended, as OpenAI has it.
    pub(crate) fn finish_reason(&self) -> Option<&'static str> {
        self.end.as_ref().map(End::as_str)
    }
}

/// Waits for all answers.
pub(crate) async fn collect(answers: &mut Answers) -> ApiResult<Vec<Whole>> {
    let mut all: Vec<Whole> = (0..answers.count()).map(|_| Whole::default()).collect();
    while let Some(piece) = answers.next().await {
        let (index, piece) = piece?;
        let Some(whole) = all.get_mut(index) else { continue };
        whole.output.extend(piece.parts);
        whole.tokens.extend(piece.token);
        whole.end = whole.end.take().or(piece.end);
    }
    Ok(all)
}

/// A token as text. What is half a character is shown as such.
pub(crate) fn token_text(model: &ModelContainer, token: u32) -> String {
    model.decode(&[token]).unwrap_or_default()
}
