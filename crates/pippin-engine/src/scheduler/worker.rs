use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use super::{Job, Request, Scheduler};
use crate::{EngineError, Result};

/// What the model's thread is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Generate(Request),
    Job(Job),
    ClearCache,
}

/// The thread that owns a model.
///
/// It is built, used and dropped on that thread, because devices tie contexts and streams to threads. The thread ends
/// when the worker is dropped; dropping waits for it, which takes one step at most.
#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` only while the worker is dropped.
    commands: Mutex<Option<Sender<Command>>>,
    thread: Option<JoinHandle<()>>,
    /// What ended the thread.
    death: Arc<OnceLock<Death>>,
}

/// Why a model's thread has ended although there were handles.
#[derive(Debug)]
enum Death {
    /// A panic with this message.
    Panic(String),
    /// The device is lost.
    Lost(String),
}

impl Worker {
    /// Starts the thread, and waits until `build` has made a scheduler there. What `build` returns beside it is passed
    /// on.
    pub(crate) fn start<T: Send + 'static>(
        build: impl FnOnce() -> Result<(Scheduler, T)> + Send + 'static,
    ) -> Result<(Self, T)> {
        let (commands, receiver) = channel();
        let (ready, built) = channel();
        let death = Arc::new(OnceLock::new());
        let thread = std::thread::Builder::new()
            .name("pippin-model".to_owned())
            .spawn({
                let death = Arc::clone(&death);
                move || {
                    let scheduler = catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|panic| {
                        Err(EngineError::ModelThreadDied { message: panic_message(&*panic) })
                    });
                    let mut scheduler = match scheduler {
                        Ok((scheduler, extra)) => {
                            // A failed send means that the caller has panicked; `serve` then ends at once.
                            let _ = ready.send(Ok(extra));
                            scheduler
                        }
                        Err(error) => {
                            let _ = ready.send(Err(error));
                            return;
                        }
                    };
                    let end = catch_unwind(AssertUnwindSafe(|| serve(&mut scheduler, &receiver)));
                    let reason = match end {
                        Ok(()) => scheduler.lost().map(|message| Death::Lost(message.to_owned())),
                        Err(panic) => Some(Death::Panic(panic_message(&*panic))),
                    };
                    if let Some(reason) = reason {
                        // Before the scheduler is dropped, and the streams' channels with it: whoever finds a channel
                        // closed must find the reason too.
                        let _ = death.set(reason);
                    }
                }
            })
            .map_err(EngineError::Thread)?;
        let worker = Self { commands: Mutex::new(Some(commands)), thread: Some(thread), death };
        let extra = built.recv().unwrap_or_else(|_| Err(worker.death()))?;
        Ok((worker, extra))
    }

    /// Hands a command to the thread.
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        // After a panic the streams end before the channel of commands does: what came between would be lost.
        if self.death.get().is_some() {
            return Err(self.death());
        }
        let commands = self.commands.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*commands {
            Some(commands) => commands.send(command).map_err(|_| self.death()),
            None => Err(self.death()),
        }
    }

    /// Why a channel to or from the thread is closed.
    pub(crate) fn death(&self) -> EngineError {
        match self.death.get() {
            Some(Death::Panic(message)) => EngineError::ModelThreadDied { message: message.clone() },
            Some(Death::Lost(message)) => EngineError::DeviceLost { message: message.clone() },
            None => EngineError::ModelThreadDied { message: "it ended without a message".to_owned() },
        }
    }

    /// Whether the thread has ended because its device is lost.
    pub(crate) fn has_lost_device(&self) -> bool {
        matches!(self.death.get(), Some(Death::Lost(_)))
    }

    /// Whether the thread still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.death.get().is_none() && self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        *self.commands.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been caught on the thread itself.
            let _ = thread.join();
        }
    }
}

/// Runs until all senders of commands are gone, or the device is.
fn serve(scheduler: &mut Scheduler, commands: &Receiver<Command>) {
    while scheduler.lost().is_none() {
        if scheduler.is_idle() {
            match commands.recv() {
                Ok(command) => obey(scheduler, command),
                Err(_) => return,
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => obey(scheduler, command),
                Err(TryRecvError::Empty) => break,
                // Streams keep their model alive, so nobody waits for what is still running.
                Err(TryRecvError::Disconnected) => return scheduler.drain(),
            }
        }
        scheduler.step();
    }
}

fn obey(scheduler: &mut Scheduler, command: Command) {
    match command {
        Command::Generate(request) => scheduler.submit(request),
        Command::Job(job) => scheduler.submit_job(job),
        Command::ClearCache => scheduler.clear_cache(),
    }
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
