use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pippin_sampling::TokenScore;

use crate::channel::{Receiver, Wait};
use crate::container::Inner;
use crate::{CancelHandle, Result};

/// The scores of a text that is being read. See [`ModelContainer::score_tokens`](crate::ModelContainer::score_tokens).
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

    /// A handle to cancel the work from elsewhere. The scores are then [`EngineError::ScoreCancelled`](crate::EngineError).
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
