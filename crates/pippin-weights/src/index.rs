//! The index of a checkpoint: which file is said to hold which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Quoted, WeightsError};
use crate::files::EXTENSION;
use crate::safetensors::{MAX_HEADER_LENGTH, MAX_TENSORS, json_offset, json_problem};

/// What an index says: which file holds which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightIndex {
    pub(crate) tensors: BTreeMap<String, String>,
}

impl WeightIndex {
    /// The most bytes of an index that are read.
    pub const MAX_BYTES: u64 = MAX_HEADER_LENGTH;

    /// Reads the text of an index. `path` is its name for errors.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Index`] when it is no index, which leaves the names of the files to go by;
    /// [`WeightsError::UnsafeShard`] when it names a file outside the model's folder.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, WeightsError> {
        let bad =
            |problem| WeightsError::Index { path: path.to_owned(), field: "weight_map".to_owned(), problem };
        // Some editors begin a file with a mark of its byte order.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let Index(tensors) = serde_json::from_slice(text)
            .map_err(|error| bad(format!("{} (byte {})", json_problem(&error), json_offset(text, &error))))?;
        let index = Self { tensors };
        for shard in index.shards() {
            check_name(path, shard)?;
        }
        if index.tensors.is_empty() {
            return Err(bad("names no tensor".to_owned()));
        }
        if let Some(other) = index.shards().into_iter().find(|name| !name.ends_with(EXTENSION)) {
            return Err(bad(format!("names {}, which is not a {EXTENSION} file", Quoted(other))));
        }
        Ok(index)
    }

    /// The names of the files, in order.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<&str> {
        self.tensors.values().map(String::as_str).collect()
    }

    /// The names of the tensors, in order.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// Refuses names that lead out of the folder.
fn check_name(index: &Path, shard: &str) -> Result<(), WeightsError> {
    let problem =
        if shard.starts_with('/') || shard.contains(['\\', ':', '\0']) || Path::new(shard).is_absolute() {
            "an index may only name files of its own folder"
        } else if shard.contains("..") {
            "the name contains `..`"
        } else if shard.split('/').any(|part| part == ".") {
            "the name contains `.` as a folder"
        } else {
            return Ok(());
        };
    Err(WeightsError::UnsafeShard {
        path: index.to_owned(),
        shard: shard.to_owned(),
        problem: problem.to_owned(),
    })
}

/// The index file; only `weight_map` is of interest.
struct Index(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IndexVisitor;
        impl<'de> Visitor<'de> for IndexVisitor {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `weight_map`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut weight_map = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if weight_map.is_some() {
                        return Err(A::Error::custom("`weight_map` occurs twice"));
                    } else {
                        weight_map = Some(map.next_value::<WeightMap>()?);
                    }
                }
                match weight_map {
                    Some(WeightMap(map)) => Ok(Index(map)),
                    None => Err(A::Error::custom("`weight_map` is missing")),
                }
            }
        }
        deserializer.deserialize_map(IndexVisitor)
    }
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightMapVisitor;
        impl<'de> Visitor<'de> for WeightMapVisitor {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`weight_map` as an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut shards = BTreeMap::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    if shards.contains_key(&tensor) {
                        return Err(A::Error::custom(format_args!(
                            "tensor {} occurs twice",
                            Quoted(&tensor)
                        )));
                    }
                    if shards.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    let shard = map.next_value::<String>()?;
                    shards.insert(tensor, shard);
                }
                Ok(WeightMap(shards))
            }
        }
        deserializer.deserialize_map(WeightMapVisitor)
    }
}
