//! Where a prefix is kept: names that follow from all tokens up to there.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// What of a page's worth of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The page of a cache group.
    Page(u32),
    /// What a slot holds after the tokens.
    State,
}

/// A page's worth of tokens, or fewer at the end of a prefix, after all those before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its name, which no other has: a hash of the namespace and all tokens up to its end.
    pub(crate) name: Hash,
    /// The name of the place before it.
    pub(crate) parent: Hash,
    /// Tokens before it.
    pub(crate) position: u64,
    pub(crate) tokens: Box<[u32]>,
}

impl Place {
    pub(crate) fn new(parent: Hash, position: u64, tokens: &[u32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(parent);
        update(&mut hash, tokens);
        Self { name: hash.finalize().into(), parent, position, tokens: tokens.into() }
    }
}

/// A way along places.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    at: Hash,
    position: u64,
}

impl Chain {
    /// The beginning of the prefixes of a namespace.
    pub(crate) fn new(namespace: &[u32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"pippin prefix");
        update(&mut hash, namespace);
        Self { at: hash.finalize().into(), position: 0 }
    }

    /// The place of the next tokens.
    pub(crate) fn next(&self, tokens: &[u32]) -> Place {
        Place::new(self.at, self.position, tokens)
    }

    /// Goes on to the place of the next tokens.
    pub(crate) fn advance(&mut self, tokens: &[u32]) -> Place {
        let place = self.next(tokens);
        self.at = place.name;
        self.position += tokens.len() as u64;
        place
    }
}

fn update(hash: &mut Sha256, tokens: &[u32]) {
    hash.update((tokens.len() as u64).to_le_bytes());
    for token in tokens {
        hash.update(token.to_le_bytes());
    }
}
