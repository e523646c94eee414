//! Kernels, compiled on first use and kept on disk.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use cudarc::nvrtc::sys as nvrtc;
use sha2::{Digest, Sha256};

/// The sources, in the order in which they build on each other.
const SOURCES: [(&str, &str); 6] = [
    ("common.cu", include_str!("../kernels/common.cu")),
    ("rows.cu", include_str!("../kernels/rows.cu")),
    ("products.cu", include_str!("../kernels/products.cu")),
    ("attention.cu", include_str!("../kernels/attention.cu")),
    ("mixers.cu", include_str!("../kernels/mixers.cu")),
    ("drawing.cu", include_str!("../kernels/drawing.cu")),
];

/// Architectures for which the kernels are known to compile, the oldest first.
pub const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_89", "sm_90a", "sm_100"];

/// Bytes of the checksum in front of a kept binary.
const CHECKSUM: usize = 32;

/// One translation unit; its lines know where they are from.
fn source() -> String {
    let files = SOURCES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}"));
    files.collect()
}

/// The kernels as a binary for devices of a compute capability such as `sm_90`: from disk, or compiled.
pub(crate) fn load(architecture: &str) -> Result<Vec<u8>, String> {
    let source = source();
    let key = Sha256::new()
        .chain_update(architecture)
        .chain_update([0])
        .chain_update(version().map_or(String::new(), |(major, minor)| format!("{major}.{minor}")))
        .chain_update([0])
        .chain_update(&source)
        .finalize();
    let file = folder().map(|folder| folder.join(format!("{}-{architecture}.cubin", hex(&key))));
    if let Some(kept) = file.as_deref().and_then(|file| fs::read(file).ok())
        && let Some((sum, binary)) = kept.split_at_checked(CHECKSUM)
        && sum == Sha256::digest(binary).as_slice()
    {
        return Ok(binary.to_vec());
    }
    let binary = compile(&source, architecture)?;
    // Where nothing can be kept, they are compiled again.
    if let Some(file) = file {
        let _ = keep(&file, &binary);
    }
    Ok(binary)
}

/// Compiles the kernels for an architecture, which needs NVRTC but no device. `None`: this machine has no NVRTC.
///
/// # Errors
///
/// What the compiler says.
pub fn compile_for(architecture: &str) -> Option<Result<Vec<u8>, String>> {
    is_present().then(|| compile(&source(), architecture))
}

fn is_present() -> bool {
    // SAFETY: loading a library runs its initialisers, which NVRTC's users must trust anyway.
    unsafe { nvrtc::is_culib_present() }
}

fn version() -> Option<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and both pointers are valid.
    let found = is_present()
        && unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) } == nvrtc::nvrtcResult::NVRTC_SUCCESS;
    found.then_some((major, minor))
}

/// A program of the compiler's, destroyed when dropped.
struct Program(nvrtc::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by the library, and destroyed once.
        unsafe { nvrtc::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn compile(source: &str, architecture: &str) -> Result<Vec<u8>, String> {
    if !is_present() {
        return Err("NVRTC, CUDA's run-time compiler (libnvrtc), is not installed".to_owned());
    }
    let check = |result: nvrtc::nvrtcResult| match result {
        nvrtc::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        result => Err(format!("NVRTC: {result:?}")),
    };
    let text = |text: &str| CString::new(text).map_err(|_| "a zero byte in the source".to_owned());
    let (source, name) = (text(source)?, text("pippin.cu")?);
    let options = [text(&format!("--gpu-architecture={architecture}"))?, text("-default-device")?];
    let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program = Program(std::ptr::null_mut());
    // SAFETY: all texts outlive the calls, and sizes are those that the library gives.
    unsafe {
        let none = std::ptr::null();
        check(nvrtc::nvrtcCreateProgram(&mut program.0, source.as_ptr(), name.as_ptr(), 0, none, none))?;
        let result = nvrtc::nvrtcCompileProgram(program.0, options.len() as i32, options.as_ptr());
        if result != nvrtc::nvrtcResult::NVRTC_SUCCESS {
            let mut size = 0;
            check(nvrtc::nvrtcGetProgramLogSize(program.0, &mut size))?;
            let mut log = vec![0_u8; size];
            check(nvrtc::nvrtcGetProgramLog(program.0, log.as_mut_ptr().cast()))?;
            let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned());
            return Err(format!("NVRTC, for {architecture}: {}", log.unwrap_or_default().trim()));
        }
        let mut size = 0;
        check(nvrtc::nvrtcGetCUBINSize(program.0, &mut size))?;
        let mut binary = vec![0_u8; size];
        check(nvrtc::nvrtcGetCUBIN(program.0, binary.as_mut_ptr().cast()))?;
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
    fs::rename(&partial, file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
