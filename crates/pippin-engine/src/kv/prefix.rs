use super::{PAGE_SIZE, PagePool};

/// The pages of finished sequences, kept until their memory is needed.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    /// Least recently used first.
    entries: Vec<Entry>,
}

/// Tokens whose keys and values are in these pages.
#[derive(Debug)]
struct Entry {
    tokens: Vec<u32>,
    pages: Vec<u32>,
}

/// The number of tokens with which two sequences begin alike.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// What of an entry a sequence can use.
#[derive(Debug, PartialEq)]
pub(crate) struct Match {
    entry: usize,
    /// Tokens that need not be computed again.
    pub(crate) tokens: usize,
    /// Whether the whole entry is a prefix of the sequence, which then continues in the entry's last page. Otherwise
    /// only full pages are shared, and the entry stays as it is.
    pub(crate) continues: bool,
}

impl PrefixCache {
    /// Finds the entry that saves a sequence of these tokens the most.
    pub(crate) fn find(&self, tokens: &[u32]) -> Option<Match> {
        let mut best: Option<Match> = None;
        for (index, entry) in self.entries.iter().enumerate() {
            let common = common_prefix(&entry.tokens, tokens);
            // The last token is computed again in any case: its logits are wanted.
            let usable = common.min(tokens.len().saturating_sub(1));
            let continues = common == entry.tokens.len();
            let tokens = if continues { usable } else { usable / PAGE_SIZE * PAGE_SIZE };
            // Of equals, the most recently used: its pages are the likeliest to stay.
            if tokens > 0 && best.as_ref().is_none_or(|best| tokens >= best.tokens) {
                best = Some(Match { entry: index, tokens, continues });
            }
        }
        best
    }

    /// The pages of a match.
    pub(crate) fn pages(&self, found: &Match) -> &[u32] {
        let pages = &self.entries[found.entry].pages;
        if found.continues { pages } else { &pages[..found.tokens / PAGE_SIZE] }
    }

    /// Records that a match is used, by someone who has retained its pages: an entry that is continued ends, one that
    /// is shared becomes the most recently used.
    pub(crate) fn accept(&mut self, found: &Match, pool: &mut PagePool) {
        let entry = self.entries.remove(found.entry);
        if found.continues {
            pool.release_all(entry.pages);
        } else {
            self.entries.push(entry);
        }
    }

    /// Keeps a finished sequence; takes its users' places in its pages over. `tokens` are those that were computed.
    pub(crate) fn insert(&mut self, tokens: Vec<u32>, pages: Vec<u32>, pool: &mut PagePool) {
        if tokens.is_empty() {
            return pool.release_all(pages);
        }
        // Of two entries of which one begins with the other, the longer does for both.
        if let Some(index) = self.entries.iter().position(|entry| entry.tokens.starts_with(&tokens)) {
            pool.release_all(pages);
            let entry = self.entries.remove(index);
            return self.entries.push(entry);
        }
        let (covered, kept) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| tokens.starts_with(&entry.tokens));
        self.entries = kept;
        let covered: Vec<Entry> = covered;
        for entry in covered {
            pool.release_all(entry.pages);
        }
        self.entries.push(Entry { tokens, pages });
    }

    /// How many pages would be free if everything here were given up.
    pub(crate) fn reclaimable(&self, pool: &PagePool) -> usize {
        let mut held = vec![0u32; pool.capacity()];
        for page in self.entries.iter().flat_map(|entry| &entry.pages) {
            held[*page as usize] += 1;
        }
        (0..pool.capacity()).filter(|page| held[*page] > 0 && held[*page] == pool.users(*page as u32)).count()
    }

    /// Gives up the last page of the least recently used entry: what is before it can still be used. Returns whether
    /// there was one; it is free only if no one else uses it.
    pub(crate) fn give_up_page(&mut self, pool: &mut PagePool) -> bool {
        let Some(entry) = self.entries.first_mut() else { return false };
        if let Some(page) = entry.pages.pop() {
            pool.release(page);
        }
        entry.tokens.truncate(entry.pages.len() * PAGE_SIZE);
        if entry.pages.is_empty() {
            self.entries.remove(0);
        }
        true
    }

    /// Gives up everything.
    pub(crate) fn clear(&mut self, pool: &mut PagePool) {
        for entry in self.entries.drain(..) {
            pool.release_all(entry.pages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: usize) -> Vec<u32> {
        (0..n as u32).collect()
    }

    fn take(pool: &mut PagePool, tokens: usize) -> Vec<u32> {
        (0..super::super::pages_for(tokens)).map(|_| pool.allocate().expect("a free page")).collect()
    }

    #[test]
    fn continues_a_whole_entry_and_shares_full_pages_of_others() {
        let mut pool = PagePool::new(8);
        let mut cache = PrefixCache::default();
        let pages = take(&mut pool, 40);
        cache.insert(tokens(40), pages.clone(), &mut pool);

        let found = cache.find(&tokens(50)).expect("a match");
        assert_eq!((found.tokens, found.continues), (40, true));
        assert_eq!(cache.pages(&found), pages);

        // The same prompt again: its last token is wanted.
        let found = cache.find(&tokens(40)).expect("a match");
        assert_eq!((found.tokens, found.continues), (39, true));

        // A shorter one, and one that differs in the second page: only the first page is shared.
        let mut other = tokens(40);
        other[35] = 99;
        for prompt in [&tokens(36), &other] {
            let found = cache.find(prompt).expect("a match");
            assert_eq!((found.tokens, found.continues), (32, false));
            assert_eq!(cache.pages(&found), &pages[..1]);
        }

        // Nothing worth sharing.
        assert_eq!(cache.find(&tokens(20)), None);
        assert_eq!(cache.find(&[7, 8, 9]), None);
        assert_eq!(cache.find(&[]), None);
    }

    #[test]
    fn keeps_one_of_nested_entries() {
        let mut pool = PagePool::new(8);
        let mut cache = PrefixCache::default();
        for n in [40, 70, 33] {
            let pages = take(&mut pool, n);
            cache.insert(tokens(n), pages, &mut pool);
        }
        assert_eq!(cache.entries.len(), 1);
        assert_eq!(cache.entries[0].tokens.len(), 70);
        assert_eq!(pool.free(), 5);
        cache.clear(&mut pool);
        assert_eq!(pool.free(), 8);
    }

    #[test]
    fn gives_up_the_end_of_the_oldest_entry_first() {
        let mut pool = PagePool::new(4);
        let mut cache = PrefixCache::default();
        let old = take(&mut pool, 64);
        cache.insert(tokens(64), old.clone(), &mut pool);
        let young = take(&mut pool, 40);
        cache.insert(vec![9; 40], young, &mut pool);
        assert_eq!(cache.reclaimable(&pool), 4);

        assert!(cache.give_up_page(&mut pool));
        assert_eq!(pool.free(), 1);
        assert_eq!(cache.find(&tokens(60)).expect("the first page is left").tokens, 32);

        // A page in use elsewhere is not counted, and does not become free.
        pool.retain(old[0]);
        assert_eq!(cache.reclaimable(&pool), 2);
        assert!(cache.give_up_page(&mut pool));
        assert_eq!(pool.free(), 1);
        assert!(cache.give_up_page(&mut pool) && cache.give_up_page(&mut pool));
        assert!(!cache.give_up_page(&mut pool));
        assert_eq!(pool.free(), 3);
    }
}
