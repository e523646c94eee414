//! Kernels, compiled on first use and kept on disk.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::nvrtc::Nvrtc;

/// The sources, in the order in which they build on each other.
const SOURCES: &[(&str, &str)] = &[
    COMMON,
    ("rows.cu", include_str!("../kernels/rows.cu")),
    ("products.cu", include_str!("../kernels/products.cu")),
    ("tiles.cu", include_str!("../kernels/tiles.cu")),
    CACHE,
    ("attention.cu", include_str!("../kernels/attention.cu")),
    ("mixers.cu", include_str!("../kernels/mixers.cu")),
    ("drawing.cu", include_str!("../kernels/drawing.cu")),
];

const COMMON: (&str, &str) = ("common.cu", include_str!("../kernels/common.cu"));
const CACHE: (&str, &str) = ("cache.cu", include_str!("../kernels/cache.cu"));
/// The sources of kernels for one kind of cache, which are compiled when there is one.
const FLASH_SOURCES: [(&str, &str); 3] = [COMMON, CACHE, ("flash.cu", include_str!("../kernels/flash.cu"))];

/// Architectures for which the kernels are known to compile, the oldest first.
pub const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_89", "sm_90a", "sm_100"];

/// Bytes of the checksum in front of a kept binary.
const CHECKSUM: usize = 32;

/// One translation unit; its lines know where they are from.
fn source() -> String {
    joined(SOURCES)
}

fn joined(sources: &[(&str, &str)]) -> String {
    let files = sources.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}"));
    files.collect()
}

/// The kernels of [`crate::flash`] for heads of a width, in a format with a name and a number.
fn flash_source(width: usize, (format, number): (&str, u32)) -> String {
    format!("{}\nFLASH({width}, {number}, {format})\n", joined(&FLASH_SOURCES))
}

/// The same as [`load`] for them.
pub(crate) fn load_flash(architecture: &str, width: usize, format: (&str, u32)) -> Result<Vec<u8>, String> {
    load_source(architecture, &flash_source(width, format))
}

/// The kernels as a binary for devices of a compute capability such as `sm_90`: from disk, or compiled.
pub(crate) fn load(architecture: &str) -> Result<Vec<u8>, String> {
    load_source(architecture, &source())
}

fn load_source(architecture: &str, source: &str) -> Result<Vec<u8>, String> {
    let nvrtc = Nvrtc::get();
    let kept = Kept::new(folder(), source, architecture, nvrtc.as_ref().ok().map(|nvrtc| nvrtc.version));
    kept.or_made(|| nvrtc?.compile(source, architecture))
}

/// Whether there are kernels for an architecture, or what can make them.
///
/// # Errors
///
/// Neither, in words.
pub(crate) fn check(architecture: &str) -> Result<(), String> {
    match Nvrtc::get() {
        Ok(_) => Ok(()),
        Err(problem) => match Kept::new(folder(), &source(), architecture, None).read() {
            Some(_) => Ok(()),
            None => Err(problem),
        },
    }
}

/// Where kernels are kept, and what compiles them, in words.
pub(crate) fn describe() -> [(&'static str, String); 2] {
    let nvrtc = match Nvrtc::get() {
        Ok(Nvrtc { path, version: (major, minor), .. }) => format!("{major}.{minor}, {}", path.display()),
        Err(problem) => problem,
    };
    let folder = folder().map_or_else(|| "nowhere".to_owned(), |folder| folder.display().to_string());
    [("NVRTC", nvrtc), ("kernels", folder)]
}

/// Compiles the kernels for an architecture, which needs NVRTC but no device. `None`: this machine has no NVRTC.
///
/// # Errors
///
/// What the compiler says.
pub fn compile_for(architecture: &str) -> Option<Result<Vec<u8>, String>> {
    Some(Nvrtc::get().ok()?.compile(&source(), architecture))
}

/// The same for attention of heads of a width over a cache of 16 bits.
///
/// # Errors
///
/// What the compiler says.
pub fn compile_flash_for(architecture: &str, width: usize) -> Option<Result<Vec<u8>, String>> {
    Some(Nvrtc::get().ok()?.compile(&flash_source(width, crate::flash::BF16), architecture))
}

/// Kernels on disk: those of a source, an architecture and a version of the compiler.
struct Kept {
    folder: Option<PathBuf>,
    /// How names of files begin and end; between stands the compiler's version.
    around: [String; 2],
    version: Option<(i32, i32)>,
}

impl Kept {
    /// Without a version of the compiler, those of any are as good: there is none that could make better ones.
    fn new(folder: Option<PathBuf>, source: &str, architecture: &str, version: Option<(i32, i32)>) -> Self {
        let key = Sha256::new().chain_update(architecture).chain_update([0]).chain_update(source).finalize();
        let around = [format!("{}-", hex(&key)), format!("-{architecture}.cubin")];
        Self { folder, around, version }
    }

    fn file(&self) -> Option<PathBuf> {
        let ([before, behind], (major, minor)) = (&self.around, self.version?);
        Some(self.folder.as_ref()?.join(format!("{before}{major}.{minor}{behind}")))
    }

    /// A binary that is as it was written.
    fn read(&self) -> Option<Vec<u8>> {
        let files = match self.file() {
            Some(file) => vec![file],
            None => {
                let [before, behind] = &self.around;
                let is_one = |name: &str| name.starts_with(before) && name.ends_with(behind);
                let all = fs::read_dir(self.folder.as_ref()?).ok()?.flatten();
                all.filter(|file| file.file_name().to_str().is_some_and(is_one))
                    .map(|file| file.path())
                    .collect()
            }
        };
        files.iter().find_map(|file| {
            let kept = fs::read(file).ok()?;
            let (sum, binary) = kept.split_at_checked(CHECKSUM)?;
            (sum == Sha256::digest(binary).as_slice()).then(|| binary.to_vec())
        })
    }

    /// The binary from disk, or a new one, which is kept if it can be.
    fn or_made(&self, make: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
        if let Some(binary) = self.read() {
            return Ok(binary);
        }
        let binary = make()?;
        // Where nothing can be kept, they are compiled again.
        if let Some(file) = self.file() {
            let _ = keep(&file, &binary);
        }
        Ok(binary)
    }
}

/// Where binaries are kept.
fn folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().filter(|path| !path.as_os_str().is_empty());
    Some(cache.or_else(|| Some(home()?.join(".cache")))?.join("pippin").join("kernels"))
}

/// Writes a file that is whole or not there.
fn keep(file: &std::path::Path, binary: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder)?;
    let partial = file.with_extension(format!("partial-{}", std::process::id()));
    let mut to = fs::File::create(&partial)?;
    to.write_all(&Sha256::digest(binary))?;
    to.write_all(binary)?;
    drop(to);
    fs::rename(&partial, file).inspect_err(|_| drop(fs::remove_file(&partial)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are launched so that they may begin before the one in front of them has ended.
    #[test]
    fn every_kernel_waits_for_the_one_before_it() {
        for (name, text) in SOURCES.iter().chain(&FLASH_SOURCES) {
            let mut kernels = text.split("extern \"C\" __global__").skip(1).peekable();
            assert!(
                kernels.peek().is_some() || matches!(*name, "common.cu" | "cache.cu"),
                "{name}: no kernel"
            );
            for kernel in kernels {
                let Some((_, body)) = kernel.split_once('{') else { panic!("{name}: {kernel}") };
                let first = body.find("\n}").map_or(body, |end| &body[..end]);
                let waits = [
                    "begin();",
                    "wait_for_inputs();",
                    "tiles_one_of<",
                    "tiles_many_of<",
                    "tiles_wide_of<",
                    "split_attention<",
                    "rows_attention<",
                ];
                assert!(
                    waits.iter().any(|call| first.contains(call)),
                    "{name}: {}",
                    kernel.lines().next().unwrap_or_default()
                );
            }
        }
    }

    const VERSION: Option<(i32, i32)> = Some((13, 0));

    fn made(kept: &Kept, binary: &str) -> (Vec<u8>, bool) {
        let mut is_made = false;
        let make = || {
            is_made = true;
            Ok(binary.as_bytes().to_vec())
        };
        (kept.or_made(make).expect("a binary"), is_made)
    }

    #[test]
    fn kernels_are_compiled_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = |source: &str, architecture: &str, version| {
            Kept::new(Some(folder.path().join("new")), source, architecture, version)
        };
        assert_eq!(made(&kept("a", "sm_90", VERSION), "one"), (b"one".to_vec(), true));
        assert_eq!(made(&kept("a", "sm_90", VERSION), "two"), (b"one".to_vec(), false));
        // Another source, architecture or compiler makes others.
        for other in
            [kept("b", "sm_90", VERSION), kept("a", "sm_80", VERSION), kept("a", "sm_90", Some((12, 9)))]
        {
            assert_eq!(made(&other, "two"), (b"two".to_vec(), true));
            assert_eq!(made(&other, "three"), (b"two".to_vec(), false));
        }
        // Without a compiler, what another has made does.
        let failing = |kept: Kept| kept.or_made(|| Err("no compiler".to_owned()));
        assert!(failing(kept("a", "sm_90", None)).is_ok());
        assert_eq!(failing(kept("a", "sm_70", None)), Err("no compiler".to_owned()));
    }

    #[test]
    fn what_is_damaged_is_compiled_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::new(Some(folder.path().to_owned()), "a", "sm_90", VERSION);
        let file = kept.file().expect("a file");
        made(&kept, "one");
        let whole = fs::read(&file).expect("kept");
        let mut wrong = whole.clone();
        wrong[CHECKSUM] ^= 1;
        for damaged in [&wrong[..], &whole[..whole.len() - 1], &whole[..CHECKSUM / 2], b""] {
            fs::write(&file, damaged).expect("written");
            assert_eq!(made(&kept, "two"), (b"two".to_vec(), true));
            assert_eq!(made(&kept, "three"), (b"two".to_vec(), false));
        }
    }

    #[test]
    fn what_cannot_be_kept_is_compiled_each_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a file");
        fs::write(&file, "").expect("written");
        // No folder can be made below a file, whoever asks. Or there is no place at all.
        for place in [Some(file.join("kernels")), None] {
            let kept = Kept::new(place, "a", "sm_90", VERSION);
            assert_eq!(made(&kept, "one"), (b"one".to_vec(), true));
            assert_eq!(made(&kept, "two"), (b"two".to_vec(), true));
        }
        // Where a file is a folder, nothing is left behind.
        let kept = Kept::new(Some(folder.path().to_owned()), "a", "sm_90", VERSION);
        let at = kept.file().expect("a name");
        fs::create_dir_all(at.join("inner")).expect("created");
        assert_eq!(made(&kept, "one"), (b"one".to_vec(), true));
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 2);
    }
}
