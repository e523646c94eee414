//! Prefixes that are kept outside of the caches: asked for before a sequence is admitted, restored when it is, kept when it has
//! ended.

use std::time::{Duration, Instant};

use pippin_models::SlotEdit;

use super::sequence::{Outside, Sequence};
use super::{ExportRequest, Scheduler};
use crate::disk::{pieces, search};
use crate::kv::{Found, PAGE_SIZE, Pages, Prefix};

/// How many waiting sequences have asked the disk. More would hold more memory than they save time.
const AHEAD: usize = 2;
/// How long a scheduler without anything else to do waits for the disk before it looks for commands.
const PAUSE: Duration = Duration::from_millis(5);

impl Scheduler {
    /// The waiting sequence that is next: the first that does not wait for the disk.
    pub(super) fn next_waiting(&mut self) -> Option<usize> {
        let Some(disk) = &self.disk else {
            return (!self.waiting.is_empty()).then_some(0);
        };
        let mut pause =
            if self.running.is_empty() && self.flights.is_empty() { PAUSE } else { Duration::ZERO };
        for (index, sequence) in self.waiting.iter_mut().take(AHEAD).enumerate() {
            if matches!(sequence.outside, Outside::Unknown) && !sequence.is_score() {
                let found = self.store.find(sequence.whole());
                // One token is computed in any case, and a part of a page is not worth the way.
                let is_missing = sequence.tokens.len() > found.tokens + PAGE_SIZE;
                sequence.outside = match is_missing {
                    true => Outside::Asked(disk.ask(&sequence.namespace, &sequence.tokens, found.pages())),
                    false => Outside::Known(None),
                };
            }
            let Outside::Asked(lookup) = &sequence.outside else { return Some(index) };
            if let Some(saved) = lookup.poll(std::mem::take(&mut pause)) {
                sequence.outside = Outside::Known(saved);
                return Some(index);
            }
        }
        None
    }

    /// What a waiting sequence can go on with in the caches, where nothing better is kept outside of them.
    pub(super) fn found(&mut self, index: usize) -> Found {
        let sequence = &mut self.waiting[index];
        // All logits of a sequence that is scored are wanted.
        if sequence.is_score() {
            return Found::default();
        }
        let found = self.store.find(sequence.whole());
        if let (Outside::Brought(bundle), Some(shape)) = (&sequence.outside, &self.shape) {
            let until = Instant::now() + Duration::from_secs(60);
            let saved = search(sequence.whole(), found.pages(), shape, &**bundle, until);
            sequence.outside = Outside::Known(saved);
        }
        match &sequence.outside {
            Outside::Known(Some(saved)) if saved.tokens > found.tokens && saved.from <= found.pages() => {
                found.without_tail()
            }
            _ => {
                sequence.outside = Outside::Known(None);
                found
            }
        }
    }

    /// Puts what is kept of a sequence into pages and its slot. Returns the pages and how many tokens they hold; `None` where nothing is
    /// kept, or it cannot be restored.
    pub(super) fn restore(
        &mut self,
        sequence: &mut Sequence,
        slot: usize,
        found: &Found,
    ) -> Option<(Pages, usize)> {
        let Outside::Known(saved) = &mut sequence.outside else { return None };
        let saved = saved.take()?;
        let (mut pages, _) = self.store.adopt(found);
        let mut restore = || {
            if !self.store.take_room(&mut pages, saved.tokens) {
                return None;
            }
            self.edits.push(SlotEdit::Reset { slot });
            self.flush().ok()?;
            for (index, group, payload) in &saved.pages {
                // What is in the caches by now is shared with others.
                if *index >= found.pages() {
                    let page = pages[*group][*index];
                    self.model.write_page(*group, page, payload.bytes()).ok()?;
                }
            }
            match &saved.state {
                Some(state) => self.model.write_slot(slot, state.bytes()).ok(),
                None => Some(()),
            }
        };
        if restore().is_none() {
            self.store.release(pages);
            return None;
        }
        let prefix = sequence.prefix(saved.tokens);
        if let Some(disk) = &self.disk {
            disk.restored(prefix, &saved);
        }
        self.store.publish(prefix, &mut pages);
        if saved.state.is_some()
            && saved.tokens.is_multiple_of(PAGE_SIZE)
            && let Some(to) = self.store.take_copy()
        {
            self.edits.push(SlotEdit::Copy { from: slot, to });
            self.store.attach(prefix, to);
        }
        Some((pages, saved.tokens))
    }

    /// Keeps what an ended sequence has left behind.
    pub(super) fn keep(&mut self, sequence: &Sequence, computed: usize) {
        if self.disk.is_none() || sequence.is_score() || computed < PAGE_SIZE || self.flush().is_err() {
            return;
        }
        let prefix = sequence.prefix(computed);
        let kept = self.store.kept(prefix);
        if let Some(disk) = &self.disk {
            disk.keep(&mut *self.model, prefix, &kept);
        }
    }

    /// Gives what the caches hold of a prefix.
    pub(super) fn export(&mut self, request: ExportRequest) {
        let ExportRequest { namespace, tokens, reply } = request;
        let mut parts = Vec::new();
        if self.shape.is_some() && self.flush().is_ok() {
            let prefix = Prefix::new(&namespace, &tokens);
            for (place, part, piece) in pieces(prefix, &self.store.kept(prefix)) {
                let Ok(bytes) = piece.read(&mut *self.model) else { break };
                parts.push((place, part, bytes));
            }
        }
        // A failed send means that nobody waits for it any more.
        let _ = reply.send(parts);
    }
}
