//! Where a sequence can go on, and what it needs then.

use pippin_models::CacheGroup;
use pippin_tensor::GIVEN_BACK;

use super::store::{Pages, Store};
use super::tree::NodeId;
use super::{PAGE_SIZE, Prefix, pages_for};

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

impl Found {
    /// The full pages that are shared.
    pub(crate) fn pages(&self) -> usize {
        self.path.len()
    }

    /// The same without a last page that is not full, for who has something better to go on with.
    #[must_use]
    pub(crate) fn without_tail(self) -> Self {
        Self { tokens: self.path.len() * PAGE_SIZE, tail: None, ..self }
    }
}

impl Store {
    /// Finds where a sequence of these tokens can go on. The last token is computed again in any case: its logits are
    /// wanted.
    pub(crate) fn find<'a>(&self, prefix: impl Into<Prefix<'a>>) -> Found {
        let Prefix { namespace, tokens } = prefix.into();
        let usable = tokens.len().saturating_sub(1);
        let (mut found, mut path) = (Found::default(), Vec::new());
        let Some(root) = self.tree.root(namespace) else { return found };
        // For each group, how many pages in a row end here.
        let mut runs = vec![0; self.groups.len()];
        let (mut at, mut depth) = (root, 0);
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
}
