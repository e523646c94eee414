//! Prefixes that outlive the process: what pages and slots hold of them, on disk.
//!
//! A page of a cache group, or the state after a page, is one *entry*: a file of its own, named by a chain of hashes over the
//! namespace and all tokens up to there ([`place`]). Two prefixes that begin alike so share what they have in common, as
//! they do in memory, and one that ends within another needs nothing of its own.
//!
//! # Never a wrong answer
//!
//! An entry is used only if its header is, byte for byte, the one that its reader would have written ([`entry`]): form, engine version,
//! [identity](Identity) of model and device, all that comes before, its own tokens, its length; and if its checksum is right. Anything
//! else is removed, and computed. The identity holds the SHA-256 of the model's files, because fine-tuned models have the same shapes,
//! sizes and most of the bytes of their origin; it is taken once per file ([`pippin_hub::content_hash`]).
//!
//! # Several processes
//!
//! Entries are written to a temporary file, synchronised, and renamed. They never change, so no lock is needed: who finds one finds all of
//! it, or nothing, and two that write the same write the same bytes. What is over the budget goes by the time of last use ([`folder`]).
//!
//! # Threads
//!
//! The model's thread only copies bytes. One thread reads ([`reader`]) and one writes ([`writer`]); what they cannot keep up with is computed again, or
//! not kept.

mod bundle;
mod counts;
mod entry;
mod folder;
mod identity;
mod place;
mod reader;
mod search;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use pippin_models::{CacheGroup, LanguageModel};

use crate::kv::{Kept, Namespace, PAGE_SIZE, Prefix};
use crate::{EngineError, Result};
pub(crate) use bundle::Bundle;
pub(crate) use counts::Counters;
pub use counts::PrefixCacheCounts;
use folder::Folder;
#[cfg(test)]
pub(crate) use folder::file_name;
pub(crate) use folder::replace;
pub(crate) use identity::{Identified, Identity};
pub(crate) use place::{Chain, Part, Place};
use reader::Reader;
pub(crate) use search::{Saved, search};
use writer::Writer;

/// Bytes that may wait to be written.
const MAX_WAITING: usize = 256 << 20;
/// Bytes that are read for one request.
pub(crate) const MAX_READ: usize = 1 << 30;
/// How long a request waits for the disk at most.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// When the reader stops and gives what it has.
const MAX_READING: Duration = Duration::from_secs(4);

/// What pages and slots of a model look like outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) groups: Vec<CacheGroup>,
    /// Bytes of a page of each group.
    pub(crate) pages: Vec<usize>,
    /// Bytes of a slot, if the model keeps state.
    pub(crate) state: Option<usize>,
}

impl Shape {
    /// That of a model whose caches have been allocated; `None` where its device does not give their contents.
    pub(crate) fn of(model: &dyn LanguageModel) -> Option<Self> {
        model.kept_as()?;
        let layout = &model.info().cache;
        let pages =
            (0..layout.groups.len()).map(|group| model.kept_bytes(Some(group))).collect::<Option<_>>()?;
        let state = if layout.has_state() { Some(model.kept_bytes(None)?) } else { None };
        Some(Self { groups: layout.groups.clone(), pages, state })
    }

    /// Bytes of a part.
    pub(crate) fn bytes(&self, part: Part) -> Option<usize> {
        match part {
            Part::Page(group) => self.pages.get(group as usize).copied(),
            Part::State => self.state,
        }
    }

    /// All parts that a page's worth of tokens can have.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        let pages = (0..self.pages.len() as u32).map(Part::Page);
        pages.chain(self.state.map(|_| Part::State))
    }
}

/// The prefixes of a model on disk, as its scheduler sees them.
#[derive(Debug)]
pub(crate) struct Disk {
    shape: Arc<Shape>,
    reader: Reader,
    writer: Writer,
    counters: Arc<Counters>,
}

/// What was asked of the disk.
#[derive(Debug)]
pub(crate) struct Lookup {
    answer: Receiver<Option<Saved>>,
    until: Instant,
}

impl Lookup {
    /// The answer, if there is one by now; waits for it, but no longer than `wait`. A disk that does not answer in time has
    /// nothing.
    pub(crate) fn poll(&self, wait: Duration) -> Option<Option<Saved>> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.answer.recv_timeout(wait) {
            Ok(saved) => Some(saved),
            Err(Disconnected) => Some(None),
            Err(Timeout) => (Instant::now() >= self.until).then_some(None),
        }
    }
}

impl Disk {
    /// Keeps prefixes of a model in a folder of at most so many bytes.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or written to, or a thread cannot be started.
    pub(crate) fn open(
        path: PathBuf,
        budget: u64,
        shape: Shape,
        identified: Arc<Identified>,
    ) -> Result<Self> {
        let failed = |source| EngineError::PrefixCache { path: path.clone(), source };
        Folder::prepare(&path).map_err(failed)?;
        let shape = Arc::new(shape);
        let folder = Folder::new(path.clone(), budget);
        let counters = folder.counters();
        let reader = Reader::start(folder.clone(), Arc::clone(&shape), Arc::clone(&identified));
        let reader = reader.map_err(EngineError::Thread)?;
        let writer = Writer::start(folder, identified).map_err(EngineError::Thread)?;
        Ok(Self { shape, reader, writer, counters })
    }

    /// Where it counts what it does.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Asks what there is of a prefix of these tokens, beyond the first `from` pages.
    pub(crate) fn ask(&self, namespace: &Namespace, tokens: &[u32], from: usize) -> Lookup {
        let until = Instant::now() + MAX_WAIT;
        Lookup { answer: self.reader.ask(namespace.clone(), tokens.to_vec(), from), until }
    }

    /// Keeps what a model has of a prefix, unless it is kept already. Stops where more waits to be written than may.
    pub(crate) fn keep(&self, model: &mut dyn LanguageModel, prefix: Prefix<'_>, kept: &[Kept]) {
        let mut used = Vec::new();
        for (place, part, source) in pieces(prefix, kept) {
            if self.shape.bytes(part).is_none() {
                continue;
            }
            if !self.writer.is_kept(&place, part) {
                // What cannot be read is not kept, and what follows it is of no use.
                let Ok(bytes) = source.read(model) else { break };
                if !self.writer.write(place.clone(), part, bytes) {
                    break;
                }
            }
            used.push((place, part));
        }
        self.writer.touch(used);
    }
}

impl Disk {
    /// This was read and found right: it need not be written.
    pub(crate) fn restored(&self, prefix: Prefix<'_>, saved: &Saved) {
        let mut chain = Chain::new(prefix.namespace);
        let places: Vec<Place> =
            prefix.tokens.chunks(PAGE_SIZE).map(|tokens| chain.advance(tokens)).collect();
        let pages = saved.pages.iter().map(|(index, group, _)| (*index, Part::Page(*group as u32)));
        let state = saved.state.as_ref().map(|_| (places.len() - 1, Part::State));
        for (index, part) in pages.chain(state) {
            self.writer.note(&places[index], part);
        }
    }
}

/// Where a model has a part of a prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece {
    Page(usize, u32),
    Slot(usize),
}

impl Piece {
    pub(crate) fn read(self, model: &mut dyn LanguageModel) -> Result<Vec<u8>, pippin_models::ModelError> {
        match self {
            Self::Page(group, page) => model.read_page(group, page),
            Self::Slot(slot) => model.read_slot(slot),
        }
    }
}

/// The parts of a prefix that a model has, in order.
pub(crate) fn pieces(prefix: Prefix<'_>, kept: &[Kept]) -> Vec<(Place, Part, Piece)> {
    let mut chain = Chain::new(prefix.namespace);
    let mut pieces = Vec::new();
    for (tokens, kept) in prefix.tokens.chunks(PAGE_SIZE).zip(kept) {
        let place = chain.advance(&tokens[..kept.tokens]);
        for (group, page) in kept.pages.iter().enumerate() {
            let piece = page.map(|page| (place.clone(), Part::Page(group as u32), Piece::Page(group, page)));
            pieces.extend(piece);
        }
        pieces.extend(kept.snapshot.map(|slot| (place.clone(), Part::State, Piece::Slot(slot))));
    }
    pieces
}
