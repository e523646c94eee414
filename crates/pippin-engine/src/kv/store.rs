use pippin_models::{CacheGroup, CacheLayout};
use pippin_tensor::GIVEN_BACK;

use super::tree::{NodeId, ROOT, Tree};
use super::{PAGE_SIZE, PagePool, Prefix, pages_for};

/// A sequence's pages, for each cache group in order.
pub(crate) type Pages = Vec<Vec<u32>>;

/// What is left of a page's worth of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// How many tokens: a page's worth, or fewer at the end of a sequence.
    pub(crate) tokens: usize,
    /// For each cache group, the page.
    pub(crate) pages: Vec<Option<u32>>,
    /// The slot with the state after the tokens.
    pub(crate) snapshot: Option<usize>,
}

/// Pages and slots: free, in use, and those that finished sequences have left behind.
///
/// A sequence's full pages are shared by content as soon as they have been computed, so that sequences that run find each
/// other's too. Where one can go on, every group must still have what the next token sees, and a model that keeps state
/// must have a snapshot of it: a slot of its own, with a copy.
#[derive(Debug)]
pub(crate) struct Store {
    pub(super) groups: Vec<CacheGroup>,
    pub(super) has_state: bool,
    pub(super) pools: Vec<PagePool>,
    pub(super) tree: Tree,
    /// Free slots for sequences.
    slots: Vec<usize>,
    /// Free slots for snapshots.
    pub(super) copies: Vec<usize>,
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
            // The next token's own page stays.
            let end = (group.given_back(length).min(length) / PAGE_SIZE).min(list.len());
            let begin = list.partition_point(|page| *page == GIVEN_BACK).min(end);
            for page in &mut list[begin..end] {
                pool.release(std::mem::replace(page, GIVEN_BACK));
            }
        }
    }

    /// Shares the full pages of computed tokens. Pages that others have with the same content take the place of the
    /// sequence's own, so that whoever has a page has those before it as the tree has them.
    pub(crate) fn publish<'a>(&mut self, prefix: impl Into<Prefix<'a>>, pages: &mut Pages) {
        let Prefix { namespace, tokens } = prefix.into();
        if self.groups.is_empty() || tokens.len() < PAGE_SIZE {
            return;
        }
        let mut at = self.tree.root_or_add(namespace);
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
    pub(crate) fn attach<'a>(&mut self, prefix: impl Into<Prefix<'a>>, snapshot: usize) {
        let Prefix { namespace, tokens } = prefix.into();
        if tokens.len() < PAGE_SIZE {
            return self.release_copy(snapshot);
        }
        let mut at = self.tree.root_or_add(namespace);
        for chunk in tokens.chunks_exact(PAGE_SIZE) {
            at = match self.tree.child(at, chunk) {
                Some(id) => id,
                None if self.groups.is_empty() => self.tree.add(at, chunk),
                // Its pages were given up in the meantime.
                None => {
                    self.prune(at);
                    return self.release_copy(snapshot);
                }
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
    pub(crate) fn leave<'a>(
        &mut self,
        prefix: impl Into<Prefix<'a>>,
        mut pages: Pages,
        snapshot: Option<usize>,
    ) {
        let prefix = prefix.into();
        let tokens = prefix.tokens;
        let full = tokens.len() / PAGE_SIZE;
        let tail = &tokens[full * PAGE_SIZE..];
        self.publish(prefix, &mut pages);
        match snapshot {
            Some(snapshot) if tail.is_empty() => self.attach(prefix, snapshot),
            None if tail.is_empty() || self.has_state => {}
            snapshot => {
                let before = Prefix { tokens: &tokens[..full * PAGE_SIZE], ..prefix };
                self.leave_tail(before, tail, &mut pages, snapshot);
            }
        }
        self.release(pages);
    }

    fn leave_tail(
        &mut self,
        Prefix { namespace, tokens: before }: Prefix<'_>,
        tail: &[u32],
        pages: &mut Pages,
        snapshot: Option<usize>,
    ) {
        let mut at = self.tree.root_or_add(namespace);
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
    pub(crate) fn forget<'a>(&mut self, prefix: impl Into<Prefix<'a>>) {
        for id in self.tree.path(prefix.into()).into_iter().rev() {
            if self.tree.has_children(id) || self.is_used(id) {
                return self.prune(id);
            }
            self.remove(id);
        }
    }

    /// What is left of these tokens, page by page, as far as it is there; at the end the longest page that they do not fill.
    pub(crate) fn kept<'a>(&self, prefix: impl Into<Prefix<'a>>) -> Vec<Kept> {
        let prefix = prefix.into();
        let path = self.tree.path(prefix);
        let tail = &prefix.tokens[path.len() * PAGE_SIZE..];
        let last = path.last().copied().or_else(|| self.tree.root(prefix.namespace));
        let tail = last.filter(|_| (1..PAGE_SIZE).contains(&tail.len()));
        let tail = tail.and_then(|at| self.tree.tails(at, &prefix.tokens[path.len() * PAGE_SIZE..]).next());
        let kept = |id: NodeId| {
            let node = self.tree.node(id);
            Kept { tokens: node.tokens.len(), pages: node.pages.clone(), snapshot: node.snapshot }
        };
        path.into_iter().chain(tail).map(kept).collect()
    }

    /// Takes pages for a sequence that goes on after `tokens` tokens which it has not computed, beyond those that it has.
    /// Pages that no later token sees are left out. Returns whether there were enough.
    pub(crate) fn take_room(&mut self, pages: &mut Pages, tokens: usize) -> bool {
        self.give_back(pages, tokens);
        for (group, list) in pages.iter_mut().enumerate() {
            let first = self.groups[group].given_back(tokens) / PAGE_SIZE;
            while list.len() < pages_for(tokens) {
                let page = if list.len() < first { Some(GIVEN_BACK) } else { self.take_page(group) };
                let Some(page) = page else { return false };
                list.push(page);
            }
        }
        true
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
    pub(super) fn prune(&mut self, mut id: NodeId) {
        while self.tree.is_bare(id) {
            let parent = self.tree.parent(id);
            self.tree.remove(id);
            id = parent;
        }
    }

    /// How much of the fullest group's pages is in use, from 0 to 1. What is only remembered does not count.
    pub(crate) fn use_share(&self) -> f64 {
        let share = |pool: &PagePool| {
            let capacity = pool.capacity().max(1);
            (capacity - pool.available().min(capacity)) as f64 / capacity as f64
        };
        self.pools.iter().map(share).fold(0.0, f64::max)
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
