//! Answers that are kept, so that a request can go on from one: in memory, and as many as fit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::shared::{Caller, Shared};

/// The answers that are kept, of which the oldest go first.
#[derive(Debug)]
pub(crate) struct ResponseStore {
    most: usize,
    most_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    responses: HashMap<String, Stored>,
    order: VecDeque<String>,
    bytes: usize,
}

#[derive(Debug)]
struct Stored {
    /// Nobody else can see it.
    key: Option<usize>,
    response: Value,
    /// What was asked and answered up to here.
    items: Vec<Value>,
    bytes: usize,
}

impl ResponseStore {
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, kept: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, id: &str, caller: &Caller, read: impl FnOnce(&Stored) -> T) -> Option<T> {
        self.lock().responses.get(id).filter(|stored| stored.key == caller.key).map(read)
    }

    /// What was asked and answered up to a response.
    pub(super) fn conversation(&self, id: &str, caller: &Caller) -> Option<Vec<Value>> {
        self.read(id, caller, |stored| stored.items.clone())
    }

    pub(super) fn response(&self, id: &str, caller: &Caller) -> Option<Value> {
        self.read(id, caller, |stored| stored.response.clone())
    }

    pub(super) fn delete(&self, id: &str, caller: &Caller) -> bool {
        let mut kept = self.lock();
        let is_own = kept.responses.get(id).is_some_and(|stored| stored.key == caller.key);
        if is_own {
            kept.remove(id);
            kept.order.retain(|other| other != id);
        }
        is_own
    }

    fn keep(&self, id: String, stored: Stored) {
        if stored.bytes > self.most_bytes || self.most == 0 {
            return;
        }
        let mut kept = self.lock();
        kept.bytes += stored.bytes;
        kept.order.push_back(id.clone());
        kept.responses.insert(id, stored);
        while (kept.order.len() > self.most || kept.bytes > self.most_bytes)
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.remove(&oldest);
        }
    }
}

impl Kept {
    fn remove(&mut self, id: &str) {
        if let Some(stored) = self.responses.remove(id) {
            self.bytes -= stored.bytes;
        }
    }
}

/// What is needed to keep an answer when it is there.
pub(super) struct Keep {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Caller,
    /// What was asked.
    pub(super) items: Vec<Value>,
}

impl Keep {
    pub(super) fn keep(self, response: &Value) {
        let Self { shared, caller, mut items } = self;
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        items.extend(response["output"].as_array().into_iter().flatten().cloned());
        // What they take as text is about what they take.
        let bytes = items.iter().chain([response]).map(|value| value.to_string().len()).sum();
        shared.responses.keep(id, Stored { key: caller.key, response: response.clone(), items, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_nobody_sees_what_is_not_his() {
        let store = ResponseStore::new(2, 100);
        let stored =
            |bytes| Stored { key: Some(1), response: Value::Null, items: vec![Value::from(bytes)], bytes };
        let (own, other) =
            (Caller { key: Some(1), may_manage: false }, Caller { key: None, may_manage: true });
        for (id, bytes) in [("a", 10), ("b", 20), ("c", 30)] {
            store.keep(id.to_owned(), stored(bytes));
        }
        assert_eq!(store.conversation("a", &own), None);
        assert_eq!(store.conversation("b", &own), Some(vec![Value::from(20)]));
        assert_eq!((store.conversation("b", &other), store.delete("b", &other)), (None, false));
        // More bytes than there is room for beside the others.
        store.keep("d".to_owned(), stored(75));
        assert_eq!((store.conversation("b", &own), store.conversation("c", &own)), (None, None));
        store.keep("e".to_owned(), stored(101));
        assert!(store.conversation("d", &own).is_some() && store.conversation("e", &own).is_none());
        assert!(store.delete("d", &own) && !store.delete("d", &own));
        assert_eq!(store.lock().bytes, 0);
    }
}
