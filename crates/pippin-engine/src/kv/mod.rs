//! Whose page of the KV cache, and whose slot, is whose.
//!
//! The caches themselves live in the model; here they are only numbers. A [`PagePool`] counts the users of each page of a
//! cache group; a [`Store`] hands pages and slots out to sequences and keeps what they leave behind in a tree of
//! pages, for requests that begin alike.

mod find;
mod pool;
mod prefix;
mod store;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use find::Found;
pub(crate) use pool::PagePool;
pub(crate) use prefix::{Namespace, Prefix};
pub(crate) use store::{Kept, Pages, Store};

/// Tokens per page. A page is what is shared between sequences and the least that is allocated: smaller ones waste less
/// memory at the end of a sequence, larger ones make shorter page tables.
pub(crate) const PAGE_SIZE: usize = 32;

/// The pages that this many tokens need.
pub(crate) fn pages_for(tokens: usize) -> usize {
    tokens.div_ceil(PAGE_SIZE)
}
