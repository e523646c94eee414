use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pippin_sampling::TokenLogprob;
use pippin_text::{StopOutput, StopStrings, StopTokens, StreamDecoder};

use crate::channel::{Receiver, Wait};
use crate::container::Inner;
use crate::monitor::Record;
use crate::scheduler::Event;
use crate::{Result, memory};

/// The ways to read a stream, made of its `receive`.
macro_rules! readable {
    ($stream:ident, $item:ty) => {
        impl $stream {
            /// The next item, if it is there: without waiting. Pending: there is none yet. `Ready(None)`: there will be
            /// none any more.
            pub fn try_next(&mut self) -> Poll<Option<Result<$item>>> {
                self.receive(&mut Wait::Not)
            }

            /// [`try_next`](Self::try_next) for a task, which is woken when there is more. The model's thread wakes it;
            /// of several tasks, the last one that asked.
            pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<$item>>> {
                self.receive(&mut Wait::Wake(context))
            }

            /// The stream as a `futures_core::Stream`.
            #[cfg(feature = "async")]
            pub fn into_async(self) -> $crate::AsyncStream<Self> {
                $crate::AsyncStream::new(self)
            }
        }

        impl Iterator for $stream {
            type Item = Result<$item>;

            fn next(&mut self) -> Option<Self::Item> {
                match self.receive(&mut Wait::Block) {
                    Poll::Ready(item) => item,
                    // Not reached: it has waited.
                    Poll::Pending => None,
                }
            }
        }

        impl std::iter::FusedIterator for $stream {}

        #[cfg(feature = "async")]
        impl futures_core::Stream for $crate::AsyncStream<$stream> {
            type Item = Result<$item>;

            fn poll_next(
                self: std::pin::Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.get_mut().advance($stream::poll_next, context)
            }
        }
    };
}
pub(crate) use readable;

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model generated a stop token, its own or one of the request's, or the answer is all that its constraint asks for.
    Stop,
    /// This stop string appeared.
    StopString(String),
    /// `max_tokens` or the context is used up.
    Length,
    /// `max_time` has passed.
    TimeLimit,
    /// The request was cancelled.
    Cancelled,
}

impl FinishReason {
    /// The reason in one word, as the OpenAI API has it: `stop`, `length`, `cancelled`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stop | Self::StopString(_) => "stop",
            Self::Length | Self::TimeLimit => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The numbers of one request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerateInfo {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them needed no computing, because an earlier request began alike.
    pub cached_tokens: usize,
    /// Tokens generated, a stop token included.
    pub generated_tokens: usize,
    /// Tokens that were guessed ahead and computed, right or wrong.
    pub drafted_tokens: usize,
    /// How many of them were right, and needed no step of their own.
    pub accepted_tokens: usize,
    /// From the request to the first token, waiting for others included.
    pub time_to_first_token: Option<Duration>,
    /// From the first step to the first token.
    pub prompt_time: Duration,
    /// From the first token to the last.
    pub generate_time: Duration,
    /// The most memory this process has used so far, in bytes, where the system tells (Linux).
    pub peak_memory: Option<u64>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
}

impl GenerateInfo {
    /// Prompt tokens computed per second; 0 when there was nothing to time.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        rate(self.prompt_tokens - self.cached_tokens.min(self.prompt_tokens), self.prompt_time)
    }

    /// Tokens generated per second after the first; 0 for fewer than two.
    pub fn tokens_per_second(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.generate_time)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

/// Cancels a request from elsewhere: a signal handler, another thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(pub(crate) Arc<AtomicBool>);

impl CancelHandle {
    /// Ends the request within a step. What has been generated until then still comes out of its stream, followed by
    /// its numbers, with [`FinishReason::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the request has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a [`TokenStream`] yields.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TokenEvent {
    /// How much of the prompt has been read, where the parameters ask for it.
    Prompt {
        /// Tokens that are computed, those included that needed no computing.
        read: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// The next token. Stop tokens are counted, but not shown.
    Token {
        /// Its id.
        id: u32,
        /// Its log-probability, where the parameters ask for it.
        logprob: Option<f32>,
        /// The likeliest tokens in its place, likeliest first, as many as the parameters ask for.
        top_logprobs: Vec<TokenLogprob>,
    },
    /// The end.
    Info(GenerateInfo),
}

/// The token ids of an answer, as they are generated. The last item is [`TokenEvent::Info`], or an error.
///
/// It is read in one of three ways: as an [`Iterator`], which waits for each item; by [`try_next`](Self::try_next), which
/// does not wait; from a task, by [`poll_next`](Self::poll_next) or as a `futures_core::Stream`
/// ([`into_async`](Self::into_async)). They can be mixed.
///
/// Dropping the stream cancels the request. What has been generated and not been read yet is kept: at most one item for
/// each token that the request may generate, `max_tokens` or what the context holds.
#[derive(Debug)]
pub struct TokenStream {
    events: Receiver<Event>,
    cancel: CancelHandle,
    /// Keeps the model alive, and knows why its thread has died.
    model: Arc<Inner>,
    /// What ends the answer and is not shown.
    stop: Arc<StopTokens>,
    /// Where the request was counted when it began, and is when it ends.
    record: Arc<Record>,
    submitted: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    prompt_tokens: usize,
    cached_tokens: usize,
    generated_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    is_done: bool,
}

impl TokenStream {
    pub(crate) fn new(
        events: Receiver<Event>,
        cancel: CancelHandle,
        model: Arc<Inner>,
        stop: Arc<StopTokens>,
        submitted: Instant,
        prompt_tokens: usize,
    ) -> Self {
        let record = model.record();
        record.begin();
        Self {
            events,
            cancel,
            model,
            stop,
            record,
            submitted,
            started: None,
            first: None,
            last: None,
            prompt_tokens,
            cached_tokens: 0,
            generated_tokens: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            is_done: false,
        }
    }

    /// A handle to cancel the request from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub(crate) fn receive(&mut self, wait: &mut Wait<'_, '_>) -> Poll<Option<Result<TokenEvent>>> {
        while !self.is_done {
            match ready!(self.events.receive(wait)) {
                Some(Event::Started { cached, at }) => {
                    self.cached_tokens = cached;
                    self.started = Some(at);
                }
                Some(Event::Read(read)) => {
                    let total = self.prompt_tokens;
                    return Poll::Ready(Some(Ok(TokenEvent::Prompt { read, total })));
                }
                Some(Event::Guessed { tokens, right }) => {
                    self.drafted_tokens += tokens;
                    self.accepted_tokens += right;
                }
                Some(Event::Token { token: id, logprob, top_logprobs, at }) => {
                    self.generated_tokens += 1;
                    self.first.get_or_insert(at);
                    self.last = Some(at);
                    if !self.stop.contains(id) {
                        return Poll::Ready(Some(Ok(TokenEvent::Token { id, logprob, top_logprobs })));
                    }
                }
                Some(Event::Finished { reason, at }) => {
                    return Poll::Ready(Some(Ok(TokenEvent::Info(self.end(reason, at)))));
                }
                Some(Event::Failed(error)) => {
                    self.fail();
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.fail();
                    return Poll::Ready(Some(Err(self.model.worker.death())));
                }
            }
        }
        Poll::Ready(None)
    }

    /// Ends the stream here, for a reason that the model's thread does not know.
    fn stop(&mut self, reason: FinishReason) -> GenerateInfo {
        self.cancel.cancel();
        let end = self.last.unwrap_or_else(Instant::now);
        self.end(reason, end)
    }

    /// The numbers of the whole request, which is counted now.
    fn end(&mut self, reason: FinishReason, at: Instant) -> GenerateInfo {
        self.is_done = true;
        let info = self.info(reason, at);
        self.record.end(&info);
        info
    }

    fn fail(&mut self) {
        self.is_done = true;
        self.record.fail();
    }

    fn info(&self, finish_reason: FinishReason, end: Instant) -> GenerateInfo {
        let since = |start: Option<Instant>, end: Instant| {
            start.map_or(Duration::ZERO, |start| end.saturating_duration_since(start))
        };
        GenerateInfo {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            generated_tokens: self.generated_tokens,
            drafted_tokens: self.drafted_tokens,
            // What was right beyond a stop string is no part of the answer.
            accepted_tokens: self.accepted_tokens.min(self.generated_tokens),
            time_to_first_token: self.first.map(|first| first.saturating_duration_since(self.submitted)),
            prompt_time: since(self.started, self.first.unwrap_or(end)),
            generate_time: since(self.first, self.last.unwrap_or(end)),
            peak_memory: memory::peak(),
            finish_reason,
        }
    }
}

readable!(TokenStream, TokenEvent);

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.cancel.cancel();
        if !self.is_done {
            self.end(FinishReason::Cancelled, Instant::now());
        }
    }
}

/// What a [`GenerationStream`] yields.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GenerationEvent {
    /// How much of the prompt has been read, where the parameters ask for it.
    Prompt {
        /// Tokens that are computed, those included that needed no computing.
        read: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// The next token, with the text that is final now. The text may be empty, while a character is incomplete or might
    /// begin a stop string, and may include that of earlier tokens.
    Token {
        /// The token's id.
        id: u32,
        /// The text.
        text: String,
        /// The token's log-probability, where the parameters ask for it.
        logprob: Option<f32>,
        /// The likeliest tokens in its place, likeliest first, as many as the parameters ask for.
        top_logprobs: Vec<TokenLogprob>,
    },
    /// Text that was held back until the end.
    Chunk(String),
    /// The end.
    Info(GenerateInfo),
}

impl GenerationEvent {
    /// The text that this event adds to the answer.
    pub fn text(&self) -> &str {
        match self {
            Self::Token { text, .. } | Self::Chunk(text) => text,
            Self::Prompt { .. } | Self::Info(_) => "",
        }
    }
}

/// An answer, as it is generated. The last item is [`GenerationEvent::Info`], or an error.
///
/// Tokens become text here, on the thread that reads the stream, so that the model's thread is not held up. Dropping the
/// stream cancels the request within a step.
///
/// Like a [`TokenStream`], it is an [`Iterator`] that waits, has a [`try_next`](Self::try_next) that does not, and can be
/// read from a task ([`poll_next`](Self::poll_next), [`into_async`](Self::into_async)).
#[derive(Debug)]
pub struct GenerationStream {
    tokens: TokenStream,
    decoder: StreamDecoder,
    stop: StopStrings,
    stop_strings: Vec<String>,
    /// Tokens of which stop strings are not looked for.
    min_tokens: usize,
    /// What follows the event that was returned last.
    pending: VecDeque<GenerationEvent>,
    is_done: bool,
}

impl GenerationStream {
    /// A stream that ends at any of these strings behind the first `min_tokens` tokens.
    pub(crate) fn new(
        tokens: TokenStream,
        stop: StopStrings,
        stop_strings: Vec<String>,
        min_tokens: usize,
    ) -> Self {
        // Special tokens are text, as in mlx-lm: markers of tool calls and reasoning are among them.
        let decoder = StreamDecoder::new(&tokens.model.processor.tokenizer, false);
        Self { tokens, decoder, stop, stop_strings, min_tokens, pending: VecDeque::new(), is_done: false }
    }

    /// A handle to cancel the request from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.tokens.cancel_handle()
    }

    /// Reads the stream to its end.
    ///
    /// # Errors
    ///
    /// The error that ended the stream.
    pub fn collect_text(self) -> Result<(String, Option<GenerateInfo>)> {
        let (mut text, mut info) = (String::new(), None);
        for event in self {
            let event = event?;
            text.push_str(event.text());
            if let GenerationEvent::Info(last) = event {
                info = Some(last);
            }
        }
        Ok((text, info))
    }

    pub(crate) fn receive(&mut self, wait: &mut Wait<'_, '_>) -> Poll<Option<Result<GenerationEvent>>> {
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        if self.is_done {
            return Poll::Ready(None);
        }
        let event = ready!(self.tokens.receive(wait)).map(|event| match event? {
            TokenEvent::Token { id, logprob, top_logprobs } => self.token(id, logprob, top_logprobs),
            TokenEvent::Prompt { read, total } => Ok(GenerationEvent::Prompt { read, total }),
            TokenEvent::Info(info) => self.end(info),
        });
        // After an error of the decoder, the tokens that follow have no text to stand in.
        self.is_done = !matches!(event, Some(Ok(_)));
        Poll::Ready(event)
    }

    fn token(
        &mut self,
        id: u32,
        logprob: Option<f32>,
        top_logprobs: Vec<TokenLogprob>,
    ) -> Result<GenerationEvent> {
        let piece = self.decoder.push(id)?.unwrap_or_default();
        let found = self.look(piece);
        if let Some(index) = found.stopped {
            let info = self.tokens.stop(self.stop_string(index));
            self.pending.push_back(GenerationEvent::Info(info));
        }
        Ok(GenerationEvent::Token { id, text: found.text, logprob, top_logprobs })
    }

    fn end(&mut self, mut info: GenerateInfo) -> Result<GenerationEvent> {
        let piece = self.decoder.finish()?;
        let mut found = self.look(piece);
        match found.stopped {
            Some(index) => {
                let reason = self.stop_string(index);
                self.tokens.record.correct(&info.finish_reason, &reason);
                info.finish_reason = reason;
            }
            None => found.text.push_str(&self.stop.finish()),
        }
        if found.text.is_empty() {
            return Ok(GenerationEvent::Info(info));
        }
        self.pending.push_back(GenerationEvent::Info(info));
        Ok(GenerationEvent::Chunk(found.text))
    }

    /// Looks for stop strings where they count.
    fn look(&mut self, text: String) -> StopOutput {
        match self.tokens.generated_tokens > self.min_tokens {
            true => self.stop.push(&text),
            false => StopOutput { text, stopped: None },
        }
    }

    fn stop_string(&self, index: usize) -> FinishReason {
        FinishReason::StopString(self.stop_strings.get(index).cloned().unwrap_or_default())
    }
}

readable!(GenerationStream, GenerationEvent);
