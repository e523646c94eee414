//! The form of an entry.
//!
//! All numbers are little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 8 | `PIPPINKV` |
//! | 4 | the form's version |
//! | 4 | the cache group, or 2³² − 1 for a state |
//! | 32 | identity of model, device and engine |
//! | 32 | name of the place before |
//! | 8 | tokens before |
//! | 8 | bytes of the payload |
//! | 4 | tokens `n` |
//! | 4 `n` | the tokens |
//! | … | the payload |
//! | 32 | SHA-256 of all of that |

use sha2::{Digest, Sha256};

use super::place::{Hash, Part, Place};
use super::{Identity, Shape};
use crate::kv::PAGE_SIZE;

const MAGIC: &[u8; 8] = b"PIPPINKV";
const VERSION: u32 = 1;
/// Bytes before the tokens.
const FIXED: usize = 100;
/// Bytes of the checksum.
const CHECKSUM: usize = 32;

/// The header of an entry. All of it is known to whoever looks for one.
pub(super) fn header(identity: &Identity, place: &Place, part: Part, payload: usize) -> Vec<u8> {
    let kind = match part {
        Part::Page(group) => group,
        Part::State => u32::MAX,
    };
    let mut bytes = Vec::with_capacity(FIXED + 4 * place.tokens.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&identity.0);
    bytes.extend_from_slice(&place.parent);
    bytes.extend_from_slice(&place.position.to_le_bytes());
    bytes.extend_from_slice(&(payload as u64).to_le_bytes());
    bytes.extend_from_slice(&(place.tokens.len() as u32).to_le_bytes());
    bytes.extend(place.tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

/// The length of an entry.
pub(super) fn length(place: &Place, payload: usize) -> usize {
    FIXED + 4 * place.tokens.len() + payload + CHECKSUM
}

/// What follows the payload.
pub(super) fn checksum(header: &[u8], payload: &[u8]) -> Hash {
    Sha256::new().chain_update(header).chain_update(payload).finalize().into()
}

/// A whole entry.
pub(super) fn encode(identity: &Identity, place: &Place, part: Part, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(identity, place, part, payload.len());
    let checksum = checksum(&bytes, payload);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// The payload of an entry that is just as expected. Of any other, `None`.
pub(super) fn decode(
    identity: &Identity,
    place: &Place,
    part: Part,
    payload: usize,
    mut bytes: Vec<u8>,
) -> Option<Payload> {
    let expected = header(identity, place, part, payload);
    if bytes.len() != length(place, payload) || !bytes.starts_with(&expected) {
        return None;
    }
    let end = bytes.len() - CHECKSUM;
    let is_right = checksum(&bytes[..expected.len()], &bytes[expected.len()..end]) == bytes[end..];
    bytes.truncate(end);
    is_right.then_some(Payload { bytes, start: expected.len() })
}

/// Reads an entry of which only identity and shape are known. `None` where it is none of theirs, or broken.
pub(super) fn read(identity: &Identity, shape: &Shape, bytes: Vec<u8>) -> Option<(Place, Part, Payload)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let part = match number(12)? {
        u32::MAX => Part::State,
        group => Part::Page(group),
    };
    let parent: Hash = bytes.get(48..80)?.try_into().ok()?;
    let position = u64::from_le_bytes(bytes.get(80..88)?.try_into().ok()?);
    let count = number(96)? as usize;
    if !(1..=PAGE_SIZE).contains(&count) {
        return None;
    }
    let tokens: Vec<u32> = (0..count).map(|i| number(FIXED + 4 * i)).collect::<Option<_>>()?;
    let place = Place::new(parent, position, &tokens);
    let payload = decode(identity, &place, part, shape.bytes(part)?, bytes)?;
    Some((place, part, payload))
}

/// Bytes of a page or of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    bytes: Vec<u8>,
    /// What comes before is the header.
    start: usize,
}

impl Payload {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The header with which it was read, and the bytes.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.start)
    }
}
