//! NVRTC, CUDA's run-time compiler: found and loaded when it is first needed.
//!
//! `cudarc` would load it too, but only by the names that the CUDA versions had which it was generated for, and only where the system
//! looks for libraries.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

/// The major versions that are looked for, the newest first.
const VERSIONS: [u32; 2] = [13, 12];
/// Folders of toolkits below the root.
const TOOLKITS: [&str; 2] = ["usr/local", "opt"];

/// What the library's functions return: 0 means success.
type Status = c_int;
type Program = *mut c_void;

/// NVRTC, loaded.
pub(crate) struct Nvrtc {
    /// Where it is, or by which name the system has found it.
    pub(crate) path: PathBuf,
    /// Its major and minor version.
    pub(crate) version: (i32, i32),
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    binary_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    binary: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    /// The functions are its.
    _library: Library,
}

impl Nvrtc {
    /// The library, looked for once.
    ///
    /// # Errors
    ///
    /// It is nowhere, in words.
    pub(crate) fn get() -> Result<&'static Self, String> {
        static FOUND: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
        let find = || {
            let all = candidates(|name| std::env::var_os(name), Path::new("/"));
            let mut problems = Vec::new();
            for path in &all {
                match Self::load(path) {
                    Ok(found) => return Ok(found),
                    // What is there and cannot be used is worth a word.
                    Err(problem) if path.is_file() => problems.push(format!("{}: {problem}", path.display())),
                    Err(_) => {}
                }
            }
            let mut message = "CUDA's run-time compiler (NVRTC, libnvrtc) is not installed".to_owned();
            if !problems.is_empty() {
                message = format!("NVRTC cannot be loaded: {}", problems.join("; "));
            }
            Err(message)
        };
        FOUND.get_or_init(find).as_ref().map_err(Clone::clone)
    }

    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // What it loads itself when it compiles; found by its name where it is in memory already, whatever the folder.
        if let Some(folder) = path.parent().filter(|folder| folder.is_absolute()) {
            for builtins in entries(folder, |name| name.contains("nvrtc-builtins")) {
                // SAFETY: as below. It stays loaded; that it cannot be loaded is for NVRTC to say.
                unsafe { Library::new(builtins) }.map(std::mem::forget).unwrap_or_default();
            }
        }
        // SAFETY: loading a library runs its initialisers, which NVRTC's users must trust anyway. The types are those of its header,
        // and the same since CUDA 11.
        unsafe {
            let library = Library::new(path)?;
            let version_of: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status =
                *library.get(b"nvrtcVersion\0")?;
            let (mut major, mut minor) = (0, 0);
            version_of(&mut major, &mut minor);
            Ok(Self {
                path: path.to_owned(),
                version: (major, minor),
                create: *library.get(b"nvrtcCreateProgram\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0")?,
                log: *library.get(b"nvrtcGetProgramLog\0")?,
                binary_size: *library.get(b"nvrtcGetCUBINSize\0")?,
                binary: *library.get(b"nvrtcGetCUBIN\0")?,
                _library: library,
            })
        }
    }

    /// Compiles a source for devices of a compute capability such as `sm_90`.
    ///
    /// # Errors
    ///
    /// What the compiler says.
    pub(crate) fn compile(&self, source: &str, architecture: &str) -> Result<Vec<u8>, String> {
        let check = |status: Status| match status {
            0 => Ok(()),
            status => Err(format!("NVRTC fails with status {status}")),
        };
        let text = |text: &str| CString::new(text).map_err(|_| "a zero byte in the source".to_owned());
        let (source, name) = (text(source)?, text("pippin.cu")?);
        let options = [text(&format!("--gpu-architecture={architecture}"))?, text("-default-device")?];
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = Compiled { program: std::ptr::null_mut(), of: self };
        // SAFETY: all texts outlive the calls, and sizes are those that the library gives.
        unsafe {
            let none = std::ptr::null();
            check((self.create)(&mut program.program, source.as_ptr(), name.as_ptr(), 0, none, none))?;
            if (self.compile)(program.program, options.len() as c_int, options.as_ptr()) != 0 {
                let mut size = 0;
                check((self.log_size)(program.program, &mut size))?;
                let mut log = vec![0_u8; size];
                check((self.log)(program.program, log.as_mut_ptr().cast()))?;
                let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned());
                return Err(format!("NVRTC, for {architecture}: {}", log.unwrap_or_default().trim()));
            }
            let mut size = 0;
            check((self.binary_size)(program.program, &mut size))?;
            let mut binary = vec![0_u8; size];
            check((self.binary)(program.program, binary.as_mut_ptr().cast()))?;
            Ok(binary)
        }
    }
}

/// A program of the compiler's, destroyed when dropped.
struct Compiled<'n> {
    program: Program,
    of: &'n Nvrtc,
}

impl Drop for Compiled<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: created by the library, and destroyed once.
            unsafe { (self.of.destroy)(&mut self.program) };
        }
    }
}

/// Where the library may be, the best place first: where the environment says that CUDA is, where the system looks for libraries, and
/// where toolkits are installed.
fn candidates(variable: impl Fn(&str) -> Option<OsString>, root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let named = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(variable);
    for folder in named.filter(|folder| !folder.is_empty()) {
        all.extend(of_toolkit(Path::new(&folder)));
    }
    all.extend(VERSIONS.map(|version| PathBuf::from(library_name(version))));
    all.push(PathBuf::from(format!("{DLL_PREFIX}nvrtc{DLL_SUFFIX}")));
    for folder in TOOLKITS.map(|folder| root.join(folder)) {
        let mut toolkits = entries(&folder, |name| name == "cuda" || name.starts_with("cuda-"));
        // `cuda` is the one that somebody has chosen; of the others, the newest.
        toolkits.sort_by_key(|path| std::cmp::Reverse(version_in(path)));
        all.extend(toolkits.iter().flat_map(|toolkit| of_toolkit(toolkit)));
    }
    all
}

/// The name of the library of a major version, as the system finds it.
fn library_name(major: u32) -> String {
    match cfg!(windows) {
        true => format!("nvrtc64_{major}0_0.dll"),
        false => format!("{DLL_PREFIX}nvrtc{DLL_SUFFIX}.{major}"),
    }
}

/// The libraries in a toolkit's folder.
fn of_toolkit(toolkit: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["lib64", "lib", "bin"].map(|name| toolkit.join(name)).into();
    folders.extend(entries(&toolkit.join("targets"), |_| true).into_iter().map(|target| target.join("lib")));
    let mut found = Vec::new();
    for folder in folders {
        let names: Vec<String> = VERSIONS.map(library_name).into();
        let names = names.into_iter().chain([format!("{DLL_PREFIX}nvrtc{DLL_SUFFIX}")]);
        found.extend(names.map(|name| folder.join(name)).filter(|path| path.is_file()));
    }
    found
}

/// The version in the name of a toolkit's folder; one without is the highest.
fn version_in(path: &Path) -> (u32, u32) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(version) = name.strip_prefix("cuda-") else { return (u32::MAX, 0) };
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// What a folder has of this name.
fn entries(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = all
        .filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn toolkits_are_looked_for_where_they_are() {
        let root = tempfile::tempdir().expect("a folder");
        let place = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(&path, "").expect("written");
            path
        };
        let thirteen = library_name(13);
        let own = place(&format!("my cuda/lib/{thirteen}"));
        let old = place(&format!("usr/local/cuda-12.9/lib64/{}", library_name(12)));
        let new = place(&format!("usr/local/cuda-13.0/targets/x86_64-linux/lib/{thirteen}"));
        let plain = place("usr/local/cuda-12.10/lib64/libnvrtc.so");
        let opt = place(&format!("opt/cuda/lib64/{thirteen}"));
        place("usr/local/cudnn/lib64/libnvrtc.so.13");
        let home = root.path().join("my cuda").into_os_string();
        let variable = |name: &str| match name {
            "CUDA_PATH" => Some(OsString::new()),
            "CUDA_HOME" => Some(home.clone()),
            _ => None,
        };
        let by_name = [thirteen.as_str(), &library_name(12), "libnvrtc.so"].map(PathBuf::from);
        let expected: Vec<PathBuf> =
            [own].into_iter().chain(by_name.clone()).chain([new, plain, old, opt]).collect();
        if cfg!(target_os = "linux") {
            assert_eq!(candidates(variable, root.path()), expected);
        }
        let nowhere = tempfile::tempdir().expect("a folder");
        assert_eq!(candidates(|_| None, nowhere.path()), by_name);
    }

    #[test]
    fn what_is_no_library_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libnvrtc.so.13");
        fs::write(&path, "no library").expect("written");
        assert!(Nvrtc::load(&path).is_err());
    }
}
