/// The pages of a KV cache, with the number of users of each.
#[derive(Debug)]
pub(crate) struct PagePool {
    /// Pages without users; the last one is given out next. Low numbers come first and freed ones are used again
    /// first, so that the part of the cache's memory that was ever touched stays small.
    free: Vec<u32>,
    users: Vec<u32>,
}

impl PagePool {
    pub(crate) fn new(pages: usize) -> Self {
        Self { free: (0..pages as u32).rev().collect(), users: vec![0; pages] }
    }

    /// The number of pages without users.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// The number of users of a page.
    pub(crate) fn users(&self, page: u32) -> u32 {
        self.users[page as usize]
    }

    /// The number of pages, free or not.
    pub(crate) fn capacity(&self) -> usize {
        self.users.len()
    }

    /// Takes a free page.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.users[page as usize] = 1;
        Some(page)
    }

    /// Adds a user to a page that has one.
    pub(crate) fn retain(&mut self, page: u32) {
        debug_assert!(self.users[page as usize] > 0, "page {page} is free");
        self.users[page as usize] += 1;
    }

    /// Takes a user from a page; the last one frees it.
    pub(crate) fn release(&mut self, page: u32) {
        let users = &mut self.users[page as usize];
        debug_assert!(*users > 0, "page {page} is free");
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.free.push(page);
        }
    }

    /// Releases all pages of a list.
    pub(crate) fn release_all(&mut self, pages: Vec<u32>) {
        // In reverse, so that the pages are given out again in the order in which they were.
        for page in pages.into_iter().rev() {
            self.release(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model that is a map from page to users: no page is given out twice, none is lost.
        #[test]
        fn behaves_like_a_map(pages in 1usize..20, steps in prop::collection::vec((0u8..3, any::<u32>()), 0..200)) {
            let mut pool = PagePool::new(pages);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (operation, choice) in steps {
                let used: Vec<u32> = model.keys().copied().collect();
                let chosen = (!used.is_empty()).then(|| used[choice as usize % used.len()]);
                match (operation, chosen) {
                    (0, _) => match pool.allocate() {
                        Some(page) => prop_assert_eq!(model.insert(page, 1), None),
                        None => prop_assert_eq!(model.len(), pages),
                    },
                    (1, Some(page)) => {
                        pool.retain(page);
                        *model.entry(page).or_default() += 1;
                    }
                    (2, Some(page)) => {
                        pool.release(page);
                        let users = model.get_mut(&page).expect("in use");
                        *users -= 1;
                        if *users == 0 {
                            model.remove(&page);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(pool.free() + model.len(), pages);
                for page in 0..pages as u32 {
                    prop_assert_eq!(pool.users(page), model.get(&page).copied().unwrap_or(0));
                }
            }
        }
    }

    #[test]
    fn pages_are_used_again_before_new_ones() {
        let mut pool = PagePool::new(10);
        let first: Vec<u32> = (0..3).filter_map(|_| pool.allocate()).collect();
        assert_eq!(first, [0, 1, 2]);
        pool.release_all(first);
        let again: Vec<u32> = (0..4).filter_map(|_| pool.allocate()).collect();
        assert_eq!(again, [0, 1, 2, 3]);
    }
}
