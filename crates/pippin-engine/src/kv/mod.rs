//! Whose page of the KV cache is whose.
//!
//! The cache itself lives in the model; here it is only numbers. A [`PagePool`] counts how many sequences use each
//! page, and a [`PrefixCache`] keeps the pages of finished sequences for requests that begin alike.

mod pool;
mod prefix;

pub(crate) use pool::PagePool;
pub(crate) use prefix::{PrefixCache, common_prefix};

/// Tokens per page. A page is what is shared between sequences and the least that is allocated: smaller ones waste less
/// memory at the end of a sequence, larger ones make shorter page tables.
pub(crate) const PAGE_SIZE: usize = 32;

/// The pages that this many tokens need.
pub(crate) fn pages_for(tokens: usize) -> usize {
    tokens.div_ceil(PAGE_SIZE)
}
