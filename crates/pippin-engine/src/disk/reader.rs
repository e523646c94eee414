//! The thread that reads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::folder::Folder;
use super::search::{Saved, search};
use super::{Identified, MAX_READING, Shape};
use crate::kv::{Namespace, Prefix};

#[derive(Debug)]
struct Question {
    namespace: Namespace,
    tokens: Vec<u32>,
    from: usize,
    asked: Instant,
    answer: Sender<Option<Saved>>,
}

/// Answers what there is of prefixes. Whoever asked and does not wait any more is passed over.
///
/// The thread ends with what it is doing when the reader is dropped, which does not wait for it.
#[derive(Debug)]
pub(super) struct Reader {
    questions: Sender<Question>,
    identified: Arc<Identified>,
}

impl Reader {
    pub(super) fn start(
        folder: Folder,
        shape: Arc<Shape>,
        identified: Arc<Identified>,
    ) -> std::io::Result<Self> {
        let (questions, receiver) = channel::<Question>();
        let shared = Arc::clone(&identified);
        std::thread::Builder::new().name("pippin-prefix-read".to_owned()).spawn(move || {
            // Before anybody asks.
            let Some(identity) = shared.get() else { return };
            let (entries, counters) = (folder.of(identity), folder.counters());
            for Question { namespace, tokens, from, asked, answer } in receiver {
                let prefix = Prefix::new(&namespace, &tokens);
                let saved = search(prefix, from, &shape, &entries, asked + MAX_READING);
                counters.asked(saved.as_ref());
                let _ = answer.send(saved);
            }
        })?;
        Ok(Self { questions, identified })
    }

    /// Asks for a prefix of these tokens, beyond the first `from` pages.
    pub(super) fn ask(&self, namespace: Namespace, tokens: Vec<u32>, from: usize) -> Receiver<Option<Saved>> {
        let (answer, receiver) = channel();
        // Without an identity there is nothing: the answer's sender is dropped.
        if !self.identified.takes_long() {
            let _ = self.questions.send(Question { namespace, tokens, from, asked: Instant::now(), answer });
        }
        receiver
    }
}
