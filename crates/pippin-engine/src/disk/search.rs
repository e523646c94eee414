//! Where a sequence can go on with what is kept outside of the caches.

use std::collections::HashMap;
use std::time::Instant;

use super::entry::Payload;
use super::place::{Chain, Part, Place};
use super::{MAX_READ, Shape};
use crate::kv::{PAGE_SIZE, Prefix};

/// Where parts of prefixes are.
pub(crate) trait Source {
    /// Whether it seems to be there.
    fn has(&self, place: &Place, part: Part) -> bool;

    /// Its bytes, as many as these. `None` where there is nothing, or something else.
    fn read(&self, place: &Place, part: Part, bytes: usize) -> Option<Payload>;
}

/// What a sequence needs to go on after some tokens, beside the pages before the first.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// Tokens after which it goes on.
    pub(crate) tokens: usize,
    /// So many pages at its beginning are not part of it.
    pub(crate) from: usize,
    /// The contents of pages, by the page's index in its sequence and its cache group.
    pub(crate) pages: Vec<(usize, usize, Payload)>,
    /// What its slot holds.
    pub(crate) state: Option<Payload>,
}

/// A page of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Spot {
    index: usize,
    /// How many tokens it has.
    tokens: usize,
}

impl Spot {
    fn full(index: usize) -> Self {
        Self { index, tokens: PAGE_SIZE }
    }

    /// The tokens up to its end.
    fn end(self) -> usize {
        self.index * PAGE_SIZE + self.tokens
    }
}

/// Looks for the longest prefix of these tokens that can be gone on with, beyond the first `from` pages, which the caller
/// has. The last token is computed in any case. At `until` it ends, with what it has by then.
pub(crate) fn search<'a>(
    prefix: impl Into<Prefix<'a>>,
    from: usize,
    shape: &Shape,
    source: &impl Source,
    until: Instant,
) -> Option<Saved> {
    let Prefix { namespace, tokens } = prefix.into();
    let mut search = Search {
        tokens,
        from,
        shape,
        source,
        chains: vec![Chain::new(namespace)],
        there: HashMap::new(),
        read: HashMap::new(),
    };
    search.walk();
    while let Some(last) = search.longest() {
        let mut needs = search.needs(last).into_iter();
        if needs.all(|(spot, part)| Instant::now() < until && search.read(spot, part)) {
            return Some(search.saved(last));
        }
        if Instant::now() >= until {
            let last = (from..last.index).rev().map(Spot::full).find(|last| search.has_read(*last))?;
            return Some(search.saved(last));
        }
    }
    None
}

struct Search<'a, S> {
    tokens: &'a [u32],
    from: usize,
    shape: &'a Shape,
    source: &'a S,
    /// The ways to full pages, as far as it makes sense to go: the first is to page 0.
    chains: Vec<Chain>,
    /// Whether a part seems to be there, once that has been asked.
    there: HashMap<(Spot, Part), bool>,
    read: HashMap<(Spot, Part), Payload>,
}

impl<S: Source> Search<'_, S> {
    /// Goes along the full pages, as far as there are those that all later tokens see.
    fn walk(&mut self) {
        let usable = self.tokens.len().saturating_sub(1);
        for index in 0..usable / PAGE_SIZE {
            let groups = self.shape.groups.iter().enumerate();
            let for_good = groups.filter(|(_, group)| group.reach.limit().is_none());
            let parts: Vec<Part> = for_good.map(|(group, _)| Part::Page(group as u32)).collect();
            let spot = Spot::full(index);
            if index >= self.from && !parts.into_iter().all(|part| self.is_there(spot, part)) {
                return;
            }
            let mut chain = self.chains[index].clone();
            chain.advance(&self.tokens[index * PAGE_SIZE..][..PAGE_SIZE]);
            self.chains.push(chain);
        }
    }

    /// The last page of the longest prefix for which all seems to be there.
    fn longest(&mut self) -> Option<Spot> {
        for index in (self.from..self.chains.len()).rev() {
            let rest = self.tokens.len() - index * PAGE_SIZE;
            // A full page stands for the end before which it lies, and was looked at with the ways.
            let full = (index + 1 < self.chains.len()).then_some(PAGE_SIZE);
            for tokens in full.into_iter().chain((1..PAGE_SIZE.min(rest + 1)).rev()) {
                let last = Spot { index, tokens };
                // State is of use only as it is; keys and values up to any token.
                let is_usable = last.end() < self.tokens.len() || self.shape.state.is_none() && rest > 1;
                if is_usable && self.can_go_on(last) {
                    return Some(last);
                }
            }
        }
        None
    }

    fn can_go_on(&mut self, last: Spot) -> bool {
        // The last page first: that is what most lack.
        if !self.shape.parts().all(|part| self.is_there(last, part)) {
            return false;
        }
        let needs = self.needs(last);
        needs.iter().all(|(spot, part)| self.is_there(*spot, *part))
            && needs.iter().filter_map(|(_, part)| self.shape.bytes(*part)).sum::<usize>() <= MAX_READ
    }

    /// All parts that a sequence needs which goes on after a page.
    fn needs(&self, last: Spot) -> Vec<(Spot, Part)> {
        let mut needs = Vec::new();
        for spot in (self.from..last.index).map(Spot::full).chain([last]) {
            for (group, description) in self.shape.groups.iter().enumerate() {
                if spot.index >= description.given_back(last.end()) / PAGE_SIZE {
                    needs.push((spot, Part::Page(group as u32)));
                }
            }
        }
        needs.extend(self.shape.state.map(|_| (last, Part::State)));
        needs
    }

    fn place(&self, spot: Spot) -> Place {
        self.chains[spot.index].next(&self.tokens[spot.index * PAGE_SIZE..][..spot.tokens])
    }

    fn is_there(&mut self, spot: Spot, part: Part) -> bool {
        if let Some(is_there) = self.there.get(&(spot, part)) {
            return *is_there;
        }
        let is_there = self.source.has(&self.place(spot), part);
        self.there.insert((spot, part), is_there);
        is_there
    }

    /// Reads a part, unless that has been done. What cannot be read is not there.
    fn read(&mut self, spot: Spot, part: Part) -> bool {
        let bytes = self.shape.bytes(part).unwrap_or_default();
        if self.read.contains_key(&(spot, part)) {
            return true;
        }
        let payload = self.source.read(&self.place(spot), part, bytes);
        self.there.insert((spot, part), payload.is_some());
        payload.map(|payload| self.read.insert((spot, part), payload)).is_some()
    }

    fn has_read(&self, last: Spot) -> bool {
        self.needs(last).iter().all(|key| self.read.contains_key(key))
    }

    fn saved(mut self, last: Spot) -> Saved {
        let tokens = last.end().min(self.tokens.len() - 1);
        let mut saved = Saved { tokens, from: self.from, ..Saved::default() };
        for (spot, part) in self.needs(last) {
            match (self.read.remove(&(spot, part)), part) {
                (Some(payload), Part::Page(group)) => saved.pages.push((spot.index, group as usize, payload)),
                (payload, _) => saved.state = payload,
            }
        }
        saved
    }
}
