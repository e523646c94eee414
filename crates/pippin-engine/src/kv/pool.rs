/// The pages of a cache group, with the number of users of each.
#[derive(Debug)]
pub(crate) struct PagePool {
    /// Pages without users; the last one is given out next. Low numbers come first and freed ones are used again
    /// first, so that the part of the cache's memory that was ever touched stays small.
    free: Vec<u32>,
    users: Vec<u32>,
    /// Whether one of a page's users only remembers it: the tree, which gives it up when it is needed.
    remembered: Vec<bool>,
    /// Pages with no other user than that.
    idle: usize,
}

impl PagePool {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            free: (0..pages as u32).rev().collect(),
            users: vec![0; pages],
            remembered: vec![false; pages],
            idle: 0,
        }
    }

    /// The number of pages without users.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// The number of pages that are free, or would be if all that is only remembered were given up.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle
    }

    /// The number of pages, free or not.
    pub(crate) fn capacity(&self) -> usize {
        self.users.len()
    }

    /// The number of users of a page.
    #[cfg(test)]
    pub(crate) fn users(&self, page: u32) -> u32 {
        self.users[page as usize]
    }

    /// Whether a page is remembered and has no other user.
    pub(crate) fn is_idle(&self, page: u32) -> bool {
        self.remembered[page as usize] && self.users[page as usize] == 1
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
        self.idle -= usize::from(self.is_idle(page));
        self.users[page as usize] += 1;
    }

    /// Takes a user from a page; the last one frees it.
    pub(crate) fn release(&mut self, page: u32) {
        let users = &mut self.users[page as usize];
        debug_assert!(*users > 0, "page {page} is free");
        *users = users.saturating_sub(1);
        if *users == 0 {
            debug_assert!(!self.remembered[page as usize], "page {page} is remembered");
            self.free.push(page);
        }
        self.idle += usize::from(self.is_idle(page));
    }

    /// One of the users of a page only remembers it from now on.
    pub(crate) fn remember(&mut self, page: u32) {
        debug_assert!(!self.remembered[page as usize], "page {page} is remembered already");
        self.remembered[page as usize] = true;
        self.idle += usize::from(self.is_idle(page));
    }

    /// The user that remembered a page uses it from now on.
    pub(crate) fn recall(&mut self, page: u32) {
        self.idle -= usize::from(self.is_idle(page));
        self.remembered[page as usize] = false;
    }

    /// The user that remembered a page leaves it.
    pub(crate) fn forget(&mut self, page: u32) {
        self.recall(page);
        self.release(page);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model that is a map from page to users: no page is given out twice, none is lost, and those that
        /// are only remembered are counted.
        #[test]
        fn behaves_like_a_map(pages in 1usize..20, steps in prop::collection::vec((0u8..6, any::<u32>()), 0..200)) {
            let mut pool = PagePool::new(pages);
            let mut model: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
            for (operation, choice) in steps {
                let used: Vec<u32> = model.keys().copied().collect();
                let chosen = (!used.is_empty()).then(|| used[choice as usize % used.len()]);
                let is_remembered = chosen.is_some_and(|page| model[&page].1);
                match (operation, chosen) {
                    (0, _) => match pool.allocate() {
                        Some(page) => prop_assert_eq!(model.insert(page, (1, false)), None),
                        None => prop_assert_eq!(model.len(), pages),
                    },
                    (1, Some(page)) => {
                        pool.retain(page);
                        model.entry(page).or_default().0 += 1;
                    }
                    (2, Some(page)) if !is_remembered || model[&page].0 > 1 => {
                        pool.release(page);
                        model.entry(page).or_default().0 -= 1;
                    }
                    (3, Some(page)) if !is_remembered => {
                        pool.remember(page);
                        model.entry(page).or_default().1 = true;
                    }
                    (4, Some(page)) if is_remembered => {
                        pool.recall(page);
                        model.entry(page).or_default().1 = false;
                    }
                    (5, Some(page)) if is_remembered => {
                        pool.forget(page);
                        let (users, _) = model[&page];
                        model.insert(page, (users - 1, false));
                    }
                    _ => {}
                }
                model.retain(|_, (users, _)| *users > 0);
                prop_assert_eq!(pool.free() + model.len(), pages);
                let idle = model.values().filter(|page| **page == (1, true)).count();
                prop_assert_eq!(pool.available(), pool.free() + idle);
                for page in 0..pages as u32 {
                    prop_assert_eq!(pool.users(page), model.get(&page).map_or(0, |page| page.0));
                }
            }
        }
    }

    #[test]
    fn pages_are_used_again_before_new_ones() {
        let mut pool = PagePool::new(10);
        let first: Vec<u32> = (0..3).filter_map(|_| pool.allocate()).collect();
        assert_eq!(first, [0, 1, 2]);
        first.into_iter().rev().for_each(|page| pool.release(page));
        let again: Vec<u32> = (0..4).filter_map(|_| pool.allocate()).collect();
        assert_eq!(again, [0, 1, 2, 3]);
    }
}
