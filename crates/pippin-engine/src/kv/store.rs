use pippin_models::{CacheGroup, CacheLayout};
use pippin_tensor::GIVEN_BACK;

use super::tree::{NodeId, ROOT, Tree};
use super::{PAGE_SIZE, PagePool, pages_for};

/// A sequence's pages, for each cache group in order.
pub(crate) type Pages = Vec<Vec<u32>>;

/// Where a sequence can go on with what others have left behind.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Tokens that need not be computed again.
    pub(crate) tokens: usize,
    /// Tokens, in full pages, that somebody has had before, whether or not one can go on after them.
    pub(crate) matched: usize,
    /// The nodes of the full pages.
    path: Vec<NodeId>,
    /// The node of a last page that is not full. Who goes on there takes it over.
    tail: Option<NodeId>,
}

/// Pages and slots: free, in use, and those that finished sequences have left behind.
///
/// A sequence's full pages are shared by content as soon as they have been computed, so that sequences that run find each
/// other's too. Where one can go on, every group must still have what the next token sees, and a model that keeps state
/// must have a snapshot of it: a slot of its own, with a copy.
#[derive(Debug)]
pub(crate) struct Store {
    groups: Vec<CacheGroup>,
    has_state: bool,
    pools: Vec<PagePool>,
    tree: Tree,
    /// Free slots for sequences.
    slots: Vec<usize>,
    /// Free slots for snapshots.
    copies: Vec<usize>,
}

impl Store {
    /// With so many pages for each group, and slots of which the first are for sequences and the others for snapshots.
    pub(crate) fn new(layout: &CacheLayout, pages: &[usize], sequences: usize, slots: usize) -> Self {
        let copies = if layout.has_state() { sequences.min(slots)..slots } else { 0..0 };
        Self {
            groups: layout.groups.clone(),
            has_state: layout.has_state(),
            pools: pages.iter().map(|pages| PagePool::new(*pages)).collect(),
            tree: Tree::new(layout.groups.len()),
            slots: (0..sequences.min(slots)).rev().collect(),
            copies: copies.rev().collect(),
        }
    }

    /// Takes a slot for a sequence.
    pub(crate) fn take_slot(&mut self) -> Option<usize> {
        self.slots.pop()
    }

    pub(crate) fn release_slot(&mut self, slot: usize) {
        self.slots.push(slot);
    }

    /// Takes a slot for a snapshot, that of the least recently used one if need be.
    pub(crate) fn take_copy(&mut self) -> Option<usize> {
        if self.copies.is_empty()
            && let Some(id) = self.tree.oldest_snapshot()
        {
            self.give_up_snapshot(id);
        }
        self.copies.pop()
    }

    pub(crate) fn release_copy(&mut self, slot: usize) {
        self.copies.push(slot);
    }

    /// Finds where a sequence of these tokens can go on. The last token is computed again in any case: its logits are
    /// wanted.
    pub(crate) fn find(&self, tokens: &[u32]) -> Found {
        let usable = tokens.len().saturating_sub(1);
        let (mut found, mut path) = (Found::default(), Vec::new());
        // For each group, how many pages in a row end here.
        let mut runs = vec![0; self.groups.len()];
        let (mut at, mut depth) = (ROOT, 0);
        loop {
            let position = path.len() * PAGE_SIZE;
            if position > 0 && self.continues(at, position, &runs, position) {
                (found.tokens, found.tail, depth) = (position, None, path.len());
            }
            for id in self.tree.tails(at, &tokens[position..]) {
                let end = position + self.tree.node(id).tokens.len();
                // Keys and values can be used up to any token, state only as it is.
                let end = if self.has_state { end } else { end.min(usable) };
                if position < end && end <= usable && self.continues(id, end, &runs, position) {
                    (found.tokens, found.tail, depth) = (end, Some(id), path.len());
                    break;
                }
            }
            let next = tokens[..usable].get(position..position + PAGE_SIZE);
            let Some(next) = next.and_then(|chunk| self.tree.child(at, chunk)) else { break };
            for (run, page) in runs.iter_mut().zip(&self.tree.node(next).pages) {
                *run = if page.is_some() { *run + 1 } else { 0 };
            }
            path.push(next);
            at = next;
        }
        found.matched = path.len() * PAGE_SIZE;
        path.truncate(depth);
        found.path = path;
        found
    }

    /// Whether a sequence can go on after `end` tokens, the last of them at a node, where `runs` pages of each group end
    /// at `position`.
    fn continues(&self, id: NodeId, end: usize, runs: &[usize], position: usize) -> bool {
        let reaches = |(group, run): (&CacheGroup, &usize)| {
            (position / PAGE_SIZE).saturating_sub(group.given_back(end) / PAGE_SIZE) <= *run
        };
        (!self.has_state || self.tree.node(id).snapshot.is_some())
            && self.groups.iter().zip(runs).all(reaches)
    }

    /// Whether a sequence of so many tokens, with steps of at most so many, would have the pages that it needs, where
    /// others have been `promised` some of each group.
    pub(crate) fn fits(&self, found: &Found, tokens: usize, step: usize, promised: &[usize]) -> bool {
        self.groups.iter().enumerate().all(|(index, group)| {
            let pool = &self.pools[index];
            let first = group.given_back(found.tokens) / PAGE_SIZE;
            let shared = found.path.get(first..).unwrap_or_default();
            let nodes = shared.iter().chain(&found.tail);
            let pages = || nodes.clone().filter_map(|id| self.tree.node(*id).pages[index]);
            // Idle pages that are found do not make room.
            let idle = pages().filter(|page| pool.is_idle(*page)).count();
            let needed = match group.reach.limit() {
                None => {
                    pages_for(tokens).saturating_sub(found.path.len() + usize::from(found.tail.is_some()))
                }
                Some(limit) => {
                    // Both steps that may be on their way hold pages that were not given back yet.
                    let most = pages_for(limit) + 2 + pages_for(2 * step);
                    pages_for(tokens).min(most).saturating_sub(pages().count())
                }
            };
            needed + promised[index] <= pool.available() - idle
        })
    }

    /// For each group, the pages that a running sequence of so many tokens will soon need beyond those that it has.
    pub(crate) fn outstanding(&self, tokens: usize, pages: &Pages) -> impl Iterator<Item = usize> {
        self.groups.iter().zip(pages).map(move |(group, pages)| match group.reach.limit() {
            // One to go on; without it, a newcomer would only be sent away again.
            None => 1,
            Some(limit) => {
                let held = pages.len() - pages.partition_point(|page| *page == GIVEN_BACK);
                pages_for(tokens).min(pages_for(limit) + 2).saturating_sub(held)
            }
        })
    }

    /// Goes on at what was found: the pages, and the slot whose state is to be copied before anything else happens.
    pub(crate) fn adopt(&mut self, found: &Found) -> (Pages, Option<usize>) {
        let last = found.tail.or(found.path.last().copied());
        let snapshot = last.filter(|_| self.has_state).and_then(|id| self.tree.node(id).snapshot);
        let mut pages = Pages::with_capacity(self.groups.len());
        for (index, group) in self.groups.iter().enumerate() {
            let first = group.given_back(found.tokens) / PAGE_SIZE;
            let mut list = Vec::with_capacity(found.path.len() + 1);
            for (i, id) in found.path.iter().enumerate() {
                // What is before the first has no page that would be of use, or none at all.
                let page = self.tree.node(*id).pages[index].filter(|_| i >= first);
                if let Some(page) = page {
                    self.pools[index].retain(page);
                    self.tree.touch_page(*id, index);
                }
                list.push(page.unwrap_or(GIVEN_BACK));
            }
            pages.push(list);
        }
        for id in found.path.iter().rev() {
            self.tree.touch(*id);
        }
        match found.tail {
            Some(tail) if self.groups.is_empty() => self.tree.touch(tail),
            Some(tail) => {
                let parent = self.tree.parent(tail);
                let node = self.tree.remove(tail);
                self.prune(parent);
                for (index, page) in node.pages.into_iter().enumerate() {
                    if let Some(page) = page {
                        self.pools[index].recall(page);
                        pages[index].push(page);
                    }
                }
                self.copies.extend(node.snapshot);
            }
            None => {}
        }
        (pages, snapshot)
    }

    /// Takes the pages that so many tokens need for good: those of groups that give none back before the end.
    pub(crate) fn reserve(&mut self, pages: &mut Pages, tokens: usize) {
        for (group, list) in pages.iter_mut().enumerate() {
            if self.groups[group].reach.limit().is_none() {
                while list.len() < pages_for(tokens)
                    && let Some(page) = self.take_page(group)
                {
                    list.push(page);
                }
            }
        }
    }

    /// Takes pages until a sequence has room for so many tokens. Returns for how many it has.
    pub(crate) fn grow(&mut self, pages: &mut Pages, tokens: usize) -> usize {
        let mut room = tokens;
        for (group, list) in pages.iter_mut().enumerate() {
            while list.len() < pages_for(tokens)
                && let Some(page) = self.take_page(group)
            {
                list.push(page);
            }
            room = room.min(list.len() * PAGE_SIZE);
        }
        room
    }

    /// Gives back the pages that no token from `length` on sees.
    pub(crate) fn give_back(&mut self, pages: &mut Pages, length: usize) {
        for ((group, pool), list) in self.groups.iter().zip(&mut self.pools).zip(pages) {
            let end = (group.given_back(length) / PAGE_SIZE).min(list.len());
            let begin = list.partition_point(|page| *page == GIVEN_BACK).min(end);
            for page in &mut list[begin..end] {
                pool.release(std::mem::replace(page, GIVEN_BACK));
            }
        }
    }

    /// Shares the full pages of computed tokens. Pages that others have with the same content take the place of the
    /// sequence's own, so that whoever has a page has those before it as the tree has them.
    pub(crate) fn publish(&mut self, tokens: &[u32], pages: &mut Pages) {
        if self.groups.is_empty() {
            return;
        }
        let mut at = ROOT;
        for (i, chunk) in tokens.chunks_exact(PAGE_SIZE).enumerate() {
            at = self.tree.child(at, chunk).unwrap_or_else(|| self.tree.add(at, chunk));
            for (group, list) in pages.iter_mut().enumerate() {
                let (own, pool) = (list[i], &mut self.pools[group]);
                match self.tree.node(at).pages[group] {
                    _ if own == GIVEN_BACK => {}
                    Some(page) if page == own => {}
                    Some(page) => {
                        pool.retain(page);
                        pool.release(std::mem::replace(&mut list[i], page));
                    }
                    None => {
                        pool.retain(own);
                        pool.remember(own);
                        self.tree.set_page(at, group, Some(own));
                    }
                }
            }
        }
        self.prune(at);
    }

    /// Keeps a snapshot of the state after these tokens, which are full pages.
    pub(crate) fn attach(&mut self, tokens: &[u32], snapshot: usize) {
        let mut at = ROOT;
        for chunk in tokens.chunks_exact(PAGE_SIZE) {
            at = match self.tree.child(at, chunk) {
                Some(id) => id,
                None if self.groups.is_empty() => self.tree.add(at, chunk),
                // Its pages were given up in the meantime.
                None => return self.release_copy(snapshot),
            };
        }
        self.set_snapshot(at, snapshot);
    }

    fn set_snapshot(&mut self, id: NodeId, snapshot: usize) {
        if id == ROOT || self.tree.node(id).snapshot.is_some() {
            self.release_copy(snapshot);
        } else {
            self.tree.set_snapshot(id, Some(snapshot));
        }
        self.tree.touch(id);
    }

    /// Keeps what a sequence leaves behind: the pages of the tokens that were computed, and a snapshot of its state.
    pub(crate) fn leave(&mut self, tokens: &[u32], mut pages: Pages, snapshot: Option<usize>) {
        let full = tokens.len() / PAGE_SIZE;
        let tail = &tokens[full * PAGE_SIZE..];
        self.publish(tokens, &mut pages);
        match snapshot {
            Some(snapshot) if tail.is_empty() => self.attach(tokens, snapshot),
            None if tail.is_empty() || self.has_state => {}
            snapshot => self.leave_tail(&tokens[..full * PAGE_SIZE], tail, &mut pages, snapshot),
        }
        self.release(pages);
    }

    fn leave_tail(&mut self, before: &[u32], tail: &[u32], pages: &mut Pages, snapshot: Option<usize>) {
        let mut at = ROOT;
        for chunk in before.chunks_exact(PAGE_SIZE) {
            at = self.tree.child(at, chunk).unwrap_or_else(|| self.tree.add(at, chunk));
        }
        let id = match self.tree.child(at, tail) {
            Some(id) => id,
            None => {
                let id = self.tree.add(at, tail);
                for (group, list) in pages.iter_mut().enumerate() {
                    let index = before.len() / PAGE_SIZE;
                    // The sequence's use of the page becomes the tree's.
                    let page = list.swap_remove(index);
                    self.pools[group].remember(page);
                    self.tree.set_page(id, group, Some(page));
                }
                id
            }
        };
        match snapshot {
            Some(snapshot) => self.set_snapshot(id, snapshot),
            None => self.tree.touch(id),
        }
    }

    /// Gives back all of a sequence's pages.
    pub(crate) fn release(&mut self, pages: Pages) {
        for (pool, list) in self.pools.iter_mut().zip(pages) {
            // In reverse, so that the pages are given out again in the order in which they were.
            for page in list.into_iter().rev().filter(|page| *page != GIVEN_BACK) {
                pool.release(page);
            }
        }
    }

    /// Forgets what these tokens have left behind, as far as nobody else uses it.
    pub(crate) fn forget(&mut self, tokens: &[u32]) {
        for id in self.tree.path(tokens).into_iter().rev() {
            if self.tree.has_children(id) || self.is_used(id) {
                return self.prune(id);
            }
            self.remove(id);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        while let Some(id) = self.tree.oldest_leaf() {
            self.remove(id);
        }
    }

    /// Gives up all snapshots.
    pub(crate) fn clear_snapshots(&mut self) {
        while let Some(id) = self.tree.oldest_snapshot() {
            self.give_up_snapshot(id);
        }
    }

    /// Takes a page, from what is only remembered if need be.
    fn take_page(&mut self, group: usize) -> Option<u32> {
        loop {
            if let Some(page) = self.pools[group].allocate() {
                return Some(page);
            }
            if self.pools[group].available() == 0 || !self.give_up_page(group) {
                return None;
            }
        }
    }

    /// Gives up the least recently used page of a group, or a leaf that has none. Returns whether there was one.
    fn give_up_page(&mut self, group: usize) -> bool {
        if self.groups[group].reach.limit().is_some() {
            // Pages in between can go: what follows them beyond their reach can be used without.
            for _ in 0..self.tree.pages(group) {
                let Some(id) = self.tree.oldest_page(group) else { return false };
                match self.tree.node(id).pages[group] {
                    Some(page) if self.pools[group].is_idle(page) => {
                        self.tree.set_page(id, group, None);
                        self.pools[group].forget(page);
                        self.tidy(id);
                        return true;
                    }
                    _ => self.tree.touch_page(id, group),
                }
            }
        } else {
            // Without a page, nothing that follows it can be used: the ends go first.
            for _ in 0..self.tree.leaves() {
                let Some(id) = self.tree.oldest_leaf() else { return false };
                if !self.is_used(id) {
                    let parent = self.tree.parent(id);
                    self.remove(id);
                    self.prune(parent);
                    return true;
                }
                self.tree.touch(id);
            }
        }
        false
    }

    /// Whether somebody else than the tree uses a node's pages.
    fn is_used(&self, id: NodeId) -> bool {
        let pages = self.tree.node(id).pages.iter().zip(&self.pools);
        pages.into_iter().any(|(page, pool)| page.is_some_and(|page| !pool.is_idle(page)))
    }

    fn give_up_snapshot(&mut self, id: NodeId) {
        self.copies.extend(self.tree.set_snapshot(id, None));
        self.tidy(id);
    }

    /// Removes a node that has lost something, if nobody can go on there any more.
    fn tidy(&mut self, id: NodeId) {
        if self.tree.node(id).tokens.len() < PAGE_SIZE {
            let parent = self.tree.parent(id);
            self.remove(id);
            self.prune(parent);
        } else {
            self.prune(id);
        }
    }

    /// Removes a node without children.
    fn remove(&mut self, id: NodeId) {
        let node = self.tree.remove(id);
        for (pool, page) in self.pools.iter_mut().zip(node.pages) {
            if let Some(page) = page {
                pool.forget(page);
            }
        }
        self.copies.extend(node.snapshot);
    }

    /// Removes a node that holds nothing and leads nowhere, and those before it that then do the same.
    fn prune(&mut self, mut id: NodeId) {
        while self.tree.is_bare(id) {
            let parent = self.tree.parent(id);
            self.tree.remove(id);
            id = parent;
        }
    }

    /// The pages of a group.
    #[cfg(test)]
    pub(crate) fn pool(&self, group: usize) -> &PagePool {
        &self.pools[group]
    }

    /// Free slots: for sequences, and for snapshots.
    #[cfg(test)]
    pub(crate) fn free_slots(&self) -> (usize, usize) {
        (self.slots.len(), self.copies.len())
    }
}
