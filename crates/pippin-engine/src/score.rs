//! How likely a text is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pippin_sampling::TokenScore;

use crate::channel::{Receiver, Wait, channel};
use crate::container::Inner;
use crate::scheduler::{Command, Job, ScoreRequest};
use crate::{CancelHandle, EngineError, GenerateParameters, ModelContainer, Result};

impl ModelContainer {
    /// The log-probability of each token but the first, given those before it.
    ///
    /// # Errors
    ///
    /// No tokens, more than the context holds, or one outside the vocabulary.
    pub fn score(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let scores = self.score_tokens(tokens.to_vec(), 0)?.wait()?;
        Ok(scores.into_iter().map(|score| score.logprob).collect())
    }

    /// Begins to score tokens: for each but the first its log-probability, given those before it, and the `top_logprobs`
    /// likeliest tokens in its place. It runs beside other requests, and is cancelled when the task is dropped.
    ///
    /// # Errors
    ///
    /// No tokens, more than the context holds, one outside the vocabulary, `top_logprobs` above 20, or a full queue.
    pub fn score_tokens(&self, tokens: Vec<u32>, top_logprobs: usize) -> Result<ScoreTask> {
        if top_logprobs > GenerateParameters::MAX_TOP_LOGPROBS {
            return Err(EngineError::parameter("top_logprobs", top_logprobs, "at most 20"));
        }
        self.check(&tokens)?;
        if tokens.len() > self.context() {
            return Err(EngineError::PromptTooLong { prompt: tokens.len(), context: self.context() });
        }
        let (reply, scores) = channel();
        let cancel = CancelHandle::default();
        let (cancelled, place) = (Arc::clone(&cancel.0), self.inner.places.take()?);
        let request = ScoreRequest { tokens, top_logprobs, reply, cancelled, place };
        self.inner.worker.send(Command::Job(Job::Score(request)))?;
        Ok(ScoreTask::new(scores, cancel, Arc::clone(&self.inner)))
    }
}

/// The scores of a text that is being read. See [`ModelContainer::score_tokens`].
///
/// [`wait`](Self::wait) waits for them on this thread; as a [`Future`] it is awaited by a task of any runtime. Dropping it
/// cancels the work within a step.
#[derive(Debug)]
#[must_use = "the scores are in it, and dropping it cancels the work"]
pub struct ScoreTask {
    scores: Receiver<Result<Vec<TokenScore>>>,
    cancel: CancelHandle,
    /// Keeps the model alive, and knows why its thread has died.
    model: Arc<Inner>,
}

impl ScoreTask {
    pub(crate) fn new(
        scores: Receiver<Result<Vec<TokenScore>>>,
        cancel: CancelHandle,
        model: Arc<Inner>,
    ) -> Self {
        Self { scores, cancel, model }
    }

    /// A handle to cancel the work from elsewhere. The scores are then [`EngineError::ScoreCancelled`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Waits for the scores: one for each token but the first.
    ///
    /// # Errors
    ///
    /// The work was cancelled, a step failed, or the model's thread has died.
    pub fn wait(self) -> Result<Vec<TokenScore>> {
        match self.receive(&mut Wait::Block) {
            Poll::Ready(scores) => scores,
            // Not reached: it has waited.
            Poll::Pending => Err(self.model.worker.death()),
        }
    }

    fn receive(&self, wait: &mut Wait<'_, '_>) -> Poll<Result<Vec<TokenScore>>> {
        self.scores.receive(wait).map(|scores| scores.unwrap_or_else(|| Err(self.model.worker.death())))
    }
}

impl Future for ScoreTask {
    type Output = Result<Vec<TokenScore>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.receive(&mut Wait::Wake(context))
    }
}

impl Drop for ScoreTask {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
