//! Reading the small text files of a model folder: bounded, and with errors that name the file.

use std::io::Read;
use std::path::Path;

use pippin_weights::{json, open_file_of_model};
use serde_json::{Map, Value};

use crate::error::{Result, TextError};

/// Configuration files: `config.json` is some kilobytes, `tokenizer_config.json` up to a few megabytes.
pub(crate) const CONFIG_LIMIT: u64 = 32 << 20;
/// `tokenizer.json`: the largest vocabularies known (256k entries with merges) need 35 MB.
pub(crate) const TOKENIZER_LIMIT: u64 = 256 << 20;

/// Reads a text file of at most `limit` bytes; `None` when there is none.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path, limit)? else { return Ok(None) };
    match String::from_utf8(bytes) {
        // A byte order mark is not part of the text.
        Ok(text) => Ok(Some(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        })),
        Err(error) => Err(TextError::Malformed {
            path: path.to_owned(),
            problem: format!("not UTF-8 text at byte {}", error.utf8_error().valid_up_to()),
        }),
    }
}

/// Reads a file of at most `limit` bytes; `None` when there is none.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let io = |source| TextError::Io { path: path.to_owned(), source };
    let Some(file) = open_file_of_model(path).map_err(io)? else { return Ok(None) };
    let metadata = file.metadata().map_err(io)?;
    if metadata.len() > limit {
        return Err(TextError::TooLarge { path: path.to_owned(), size: metadata.len(), limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // The file may grow between the two calls; the limit holds nevertheless.
    let size = file.take(limit + 1).read_to_end(&mut bytes).map_err(io)? as u64;
    if size > limit {
        return Err(TextError::TooLarge { path: path.to_owned(), size, limit });
    }
    Ok(Some(bytes))
}

/// Reads a file that holds one JSON object; `None` when there is none.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(text) = read_text(path, CONFIG_LIMIT)? else { return Ok(None) };
    let malformed = |problem| TextError::Malformed { path: path.to_owned(), problem };
    match json::parse(text.as_bytes()) {
        Ok(Value::Object(map)) => Ok(Some(map)),
        Ok(other) => Err(malformed(format!("must hold a JSON object, found {}", kind(&other)))),
        Err(error) => Err(malformed(format!("not valid JSON: {error}"))),
    }
}

/// [`read_object`] of a file that a model need not have: one that cannot be read is as good as none, and a warning.
pub(crate) fn read_optional_object(path: &Path, warnings: &mut Vec<String>) -> Map<String, Value> {
    match read_object(path) {
        Ok(object) => object.unwrap_or_default(),
        Err(error) => {
            let problem = match error {
                // Its advice, to download the model again, is for files that are needed.
                TextError::Malformed { path, problem } => format!("{}: {problem}", path.display()),
                error => error.to_string(),
            };
            warnings.push(format!("{problem}; going on without the file"));
            Map::new()
        }
    }
}

/// Leaves so many warnings as somebody reads.
pub(crate) fn cut(warnings: &mut Vec<String>) {
    const MOST: usize = 5;
    if warnings.len() > MOST + 1 {
        let rest = warnings.len() - MOST;
        warnings.truncate(MOST);
        warnings.push(format!("and {rest} more of the kind"));
    }
}

/// The JSON type of a value, for error messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_may_have_the_numbers_of_python() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"time_step_limit": [0.0, Infinity], "eos_token_id": 2}"#).expect("written");
        let object = read_object(&path).expect("readable").expect("there");
        assert_eq!(object["eos_token_id"], 2);
        // What is wrong otherwise is reported as it stands in the file.
        std::fs::write(&path, r#"{"a": Infinity, "b" 2}"#).expect("written");
        let error = read_object(&path).expect_err("not JSON").to_string();
        assert!(error.contains("config.json") && error.contains("column 7"), "{error}");
    }
}
