//! Ctrl-C.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pippin::CancelHandle;

use crate::exit::Exit;

/// What Ctrl-C does at the moment: stop the answer that is being written; between answers, nothing in the interactive
/// mode, and end the program in all others.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answer: Option<CancelHandle>,
    is_interactive: bool,
}

impl Interrupt {
    /// Takes over the signal.
    pub(crate) fn install() -> Self {
        let interrupt = Self::default();
        let state = interrupt.clone();
        // Where this is refused, Ctrl-C ends the program at once, as it would without us.
        let _ = ctrlc::set_handler(move || state.signal());
        interrupt
    }

    fn signal(&self) {
        let mut state = self.state();
        match state.answer.take() {
            Some(answer) => answer.cancel(),
            // The line editor sees Ctrl-C as a key; a signal from elsewhere would leave the terminal in its raw mode.
            None if state.is_interactive => {}
            // Loading, reading, or asked a second time.
            None => std::process::exit(i32::from(Exit::Interrupted.code())),
        }
    }

    /// From now on, Ctrl-C between answers is left to the line editor.
    pub(crate) fn set_interactive(&self) {
        self.state().is_interactive = true;
    }

    /// Lets Ctrl-C stop this answer for as long as the guard lives.
    pub(crate) fn watch(&self, answer: CancelHandle) -> Watch<'_> {
        self.state().answer = Some(answer);
        Watch(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Interrupt::watch`].
pub(crate) struct Watch<'a>(&'a Interrupt);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.state().answer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_stops_the_answer_once() {
        let interrupt = Interrupt::default();
        interrupt.set_interactive();
        let answer = CancelHandle::default();
        let watch = interrupt.watch(answer.clone());
        interrupt.signal();
        assert!(answer.is_cancelled());
        interrupt.signal();
        drop(watch);

        let finished = CancelHandle::default();
        drop(interrupt.watch(finished.clone()));
        interrupt.signal();
        assert!(!finished.is_cancelled());
    }
}
