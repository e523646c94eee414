use std::sync::Arc;

/// Those who find each other's prefixes. What is in one namespace is never found from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Namespace(Arc<[u32]>);

/// Begins the key of a namespace: no token has this id.
const MARK: u32 = u32::MAX;

impl Namespace {
    /// The namespace of a name; without one, that of all who have none.
    pub(crate) fn new(name: Option<&str>) -> Self {
        let key = |name: &str| std::iter::once(MARK).chain(name.bytes().map(u32::from)).collect();
        Self(name.map(key).unwrap_or_default())
    }

    /// What stands before the tokens of its prefixes: nothing where it has no name.
    pub(crate) fn key(&self) -> &[u32] {
        &self.0
    }
}

/// Tokens at the beginning of sequences of a namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix<'a> {
    /// The [`key`](Namespace::key) of the namespace.
    pub(crate) namespace: &'a [u32],
    pub(crate) tokens: &'a [u32],
}

impl<'a> Prefix<'a> {
    pub(crate) fn new(namespace: &'a Namespace, tokens: &'a [u32]) -> Self {
        Self { namespace: namespace.key(), tokens }
    }
}

impl<'a, T: AsRef<[u32]> + ?Sized> From<&'a T> for Prefix<'a> {
    fn from(tokens: &'a T) -> Self {
        Self { namespace: &[], tokens: tokens.as_ref() }
    }
}
