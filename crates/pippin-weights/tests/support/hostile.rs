//! What damaged and hostile files are opened with: under a bound on memory, and with a look at what errors say.

use std::fs;
use std::path::Path;

use pippin_weights::WeightsError;

#[path = "allocations.rs"]
pub(crate) mod allocations;

use allocations::peak;

/// Opens these bytes, as a file of this name in a folder of its own.
pub(crate) fn open<T>(
    name: &str,
    bytes: &[u8],
    open: impl FnOnce(&Path) -> Result<T, WeightsError>,
) -> Result<T, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let (result, peak) = peak(|| open(&path));
    let bound = 16 * bytes.len() + (32 << 10);
    assert!(peak <= bound, "{peak} bytes allocated for a file of {}", bytes.len());
    if let Err(error) = &result {
        let message = error.to_string();
        assert!(message.contains(name), "no file in: {message}");
        assert!(message.len() < 2000, "long message: {message}");
        assert!(!message.contains(['\u{1b}', '\n']), "unescaped: {message}");
        assert!(error.hint().is_some(), "no hint for: {message}");
    }
    result
}

/// Checks that a file is refused, and that the message has these parts.
#[track_caller]
pub(crate) fn assert_refused<T>(opened: Result<T, WeightsError>, parts: &[&str]) {
    let Err(error) = opened else { panic!("the file was accepted") };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}
