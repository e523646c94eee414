//! What happens in the folder of a model's prefixes, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::search::Saved;

/// How much use a model has had of the prefixes that are kept on disk. An entry is a page of a prefix, or a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PrefixCacheCounts {
    /// Requests whose beginning was there.
    pub hits: u64,
    /// Requests that asked in vain.
    pub misses: u64,
    /// Entries that were read for requests.
    pub entries_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Entries that were written.
    pub entries_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Entries that were damaged or could not be read: they are computed again.
    pub read_failures: u64,
    /// Entries that could not be written: the disk is full, say.
    pub write_failures: u64,
}

/// The same while it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    entries_read: AtomicU64,
    bytes_read: AtomicU64,
    entries_written: AtomicU64,
    bytes_written: AtomicU64,
    read_failures: AtomicU64,
    write_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> PrefixCacheCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PrefixCacheCounts {
            hits: read(&self.hits),
            misses: read(&self.misses),
            entries_read: read(&self.entries_read),
            bytes_read: read(&self.bytes_read),
            entries_written: read(&self.entries_written),
            bytes_written: read(&self.bytes_written),
            read_failures: read(&self.read_failures),
            write_failures: read(&self.write_failures),
        }
    }

    /// A request has been answered.
    pub(super) fn asked(&self, saved: Option<&Saved>) {
        let Some(saved) = saved else { return add(&self.misses, 1) };
        let pages = saved.pages.iter().map(|(_, _, payload)| payload);
        let bytes = pages.chain(&saved.state).map(|payload| payload.bytes().len() as u64);
        add(&self.hits, 1);
        add(&self.entries_read, bytes.clone().count() as u64);
        add(&self.bytes_read, bytes.sum());
    }

    pub(super) fn written(&self, bytes: u64) {
        add(&self.entries_written, 1);
        add(&self.bytes_written, bytes);
    }

    pub(super) fn not_read(&self) {
        add(&self.read_failures, 1);
    }

    pub(super) fn not_written(&self) {
        add(&self.write_failures, 1);
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
