use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{CancelHandle, EngineError, LoadProgress, ModelContainer, Result};

/// How often a waiter that can be cancelled looks whether it was.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// A load on its way, and those who wait for it.
#[derive(Debug)]
pub(super) struct Flight {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiters: usize,
    /// Nobody waited any more before it was over. No one can join then.
    is_abandoned: bool,
    progress: Vec<LoadProgress>,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    /// `None` when the last waiter has taken it: while it is here, the model counts as in use.
    Loaded(Option<ModelContainer>),
    Failed(Arc<EngineError>),
}

impl Flight {
    /// A load that one waits for.
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { waiters: 1, ..Inner::default() }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more waits, unless the load has been given up.
    pub(super) fn join(&self) -> bool {
        let mut inner = self.lock();
        if !inner.is_abandoned {
            inner.waiters += 1;
        }
        !inner.is_abandoned
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().is_abandoned
    }

    pub(super) fn report(&self, progress: LoadProgress) {
        self.lock().progress.push(progress);
        self.changed.notify_all();
    }

    /// The load has succeeded. Returns whether anyone waits for it; otherwise nothing is kept here.
    pub(super) fn succeed(&self, container: &ModelContainer) -> bool {
        let mut inner = self.lock();
        if inner.is_abandoned {
            return false;
        }
        inner.outcome = Some(Outcome::Loaded(Some(container.clone())));
        self.changed.notify_all();
        true
    }

    /// The load has failed.
    pub(super) fn fail(&self, error: EngineError) {
        self.lock().outcome = Some(Outcome::Failed(Arc::new(error)));
        self.changed.notify_all();
    }

    /// Waits for the end, as one of those who were counted by [`new`](Self::new) or [`join`](Self::join).
    pub(super) fn wait(
        &self,
        model: &str,
        cancel: Option<&CancelHandle>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<ModelContainer> {
        // Leaves also when the callback panics.
        let mut place = Place { flight: self, is_taken: true };
        let mut seen = 0;
        let mut inner = self.lock();
        loop {
            if seen < inner.progress.len() {
                let news = inner.progress[seen..].to_vec();
                seen = inner.progress.len();
                drop(inner);
                news.into_iter().for_each(&mut *progress);
                inner = self.lock();
                continue;
            }
            if inner.outcome.is_some() {
                place.is_taken = false;
                inner.waiters = inner.waiters.saturating_sub(1);
                let is_last = inner.waiters == 0;
                return match &mut inner.outcome {
                    Some(Outcome::Loaded(container)) => {
                        let found = if is_last { container.take() } else { container.clone() };
                        // Not reached: only the last one takes it.
                        found.ok_or_else(|| EngineError::LoadCancelled { model: model.to_owned() })
                    }
                    Some(Outcome::Failed(error)) => Err(EngineError::Load(Arc::clone(error))),
                    None => Err(EngineError::LoadCancelled { model: model.to_owned() }),
                };
            }
            if cancel.is_some_and(CancelHandle::is_cancelled) {
                drop(inner);
                drop(place);
                return Err(EngineError::LoadCancelled { model: model.to_owned() });
            }
            inner = match cancel {
                Some(_) => self.changed.wait_timeout(inner, POLL).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn leave(&self) {
        let mut inner = self.lock();
        inner.waiters = inner.waiters.saturating_sub(1);
        if inner.waiters > 0 {
            return;
        }
        match &mut inner.outcome {
            None => inner.is_abandoned = true,
            Some(Outcome::Loaded(container)) => {
                let container = container.take();
                drop(inner);
                drop(container);
            }
            Some(Outcome::Failed(_)) => {}
        }
    }
}

/// A waiter's place, given up when it is dropped.
struct Place<'a> {
    flight: &'a Flight,
    is_taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_taken {
            self.flight.leave();
        }
    }
}
