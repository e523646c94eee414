//! The machine: memory, cores, GPUs, and how fast it reads.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// How long one measurement of the bandwidth reads.
const MEASURE_TIME: Duration = Duration::from_millis(60);
/// How long a stored measurement is used.
const MEASURE_VALID: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long `nvidia-smi` may take: a driver that hangs must not hang Pippin.
const TOOL_TIME: Duration = Duration::from_secs(3);

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gpu {
    /// Its name, as the driver spells it.
    pub name: String,
    /// Bytes of its memory.
    pub total_memory: Option<u64>,
    /// Bytes that are free.
    pub available_memory: Option<u64>,
}

/// The machine as this process sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Hardware {
    /// Bytes of memory that this process may use: the machine's, or less in a container.
    pub total_memory: Option<u64>,
    /// Bytes of those that can be had without swapping.
    pub available_memory: Option<u64>,
    /// The container's limit (cgroup), where it is below the machine's memory.
    pub memory_limit: Option<u64>,
    /// Threads that run at once.
    pub cores: usize,
    /// The processor's name, where the system tells.
    pub processor: Option<String>,
    /// `x86_64`, `aarch64`, ….
    pub architecture: &'static str,
    /// `linux`, `macos`, ….
    pub system: &'static str,
    /// What the processor has of the instruction sets that kernels use.
    pub instruction_sets: Vec<&'static str>,
    /// NVIDIA GPUs.
    pub gpus: Vec<Gpu>,
    /// Whether processor and GPU are Apple's and share their memory.
    pub is_apple_silicon: bool,
}

impl Hardware {
    /// Looks at this machine. The first call may take a few tenths of a second where there are NVIDIA GPUs.
    pub fn detect() -> Self {
        let root = Path::new("/");
        let mut memory = Memory::read(root);
        if cfg!(target_os = "macos") && memory.total.is_none() {
            memory.total = command(Path::new("/usr/sbin/sysctl"), &["-n", "hw.memsize"])
                .and_then(|text| text.trim().parse().ok());
            // What is free cannot be told cheaply; half of it is what other programs usually leave.
            memory.available = memory.total.map(|total| total / 2);
        }
        Self {
            total_memory: memory.total,
            available_memory: memory.available,
            memory_limit: memory.limit,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor(root),
            architecture: std::env::consts::ARCH,
            system: std::env::consts::OS,
            instruction_sets: instruction_sets(),
            gpus: gpus(root),
            is_apple_silicon: cfg!(all(target_os = "macos", target_arch = "aarch64")),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    total: Option<u64>,
    available: Option<u64>,
    limit: Option<u64>,
}

impl Memory {
    fn read(root: &Path) -> Self {
        let meminfo = read(&root.join("proc/meminfo")).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let (machine, mut available) = (field("MemTotal:"), field("MemAvailable:"));
        let mut limit = None;
        for (maximum, used) in cgroup_limits(root) {
            if machine.is_some_and(|machine| maximum < machine) {
                limit = Some(limit.map_or(maximum, |limit: u64| limit.min(maximum)));
                let left = maximum.saturating_sub(used);
                available = available.map(|available| available.min(left));
            }
        }
        Self { total: limit.or(machine), available, limit }
    }
}

/// The memory limits of the groups that this process is in, each with what of it is in use and cannot be dropped.
fn cgroup_limits(root: &Path) -> Vec<(u64, u64)> {
    let mut limits = Vec::new();
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let is_second = controllers.is_empty();
        if !is_second && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        let (mount, maximum, used, dropped) = if is_second {
            ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ")
        } else {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        };
        let mount = root.join(mount);
        // In a container the mount often is the group itself, whatever the path says; a parent's limit holds too.
        let group = mount.join(path.trim_start_matches('/'));
        let mut folders: Vec<&Path> =
            group.ancestors().take_while(|folder| folder.starts_with(&mount)).collect();
        if folders.is_empty() {
            folders.push(&mount);
        }
        for folder in folders.into_iter().take(32) {
            let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
            let Some(maximum) = number(maximum) else { continue };
            let cache = read(&folder.join("memory.stat")).and_then(|text| {
                text.lines().find_map(|line| line.strip_prefix(dropped))?.trim().parse::<u64>().ok()
            });
            limits.push((maximum, number(used).unwrap_or(0).saturating_sub(cache.unwrap_or(0))));
        }
    }
    limits
}

fn read(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn processor(root: &Path) -> Option<String> {
    let info = read(&root.join("proc/cpuinfo"))?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[allow(clippy::vec_init_then_push, unused_mut, reason = "what is pushed depends on the architecture")]
fn instruction_sets() -> Vec<&'static str> {
    let mut sets = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        for (is_there, name) in [
            (std::arch::is_x86_feature_detected!("avx2"), "avx2"),
            (std::arch::is_x86_feature_detected!("fma"), "fma"),
            (std::arch::is_x86_feature_detected!("avx512f"), "avx512f"),
            (std::arch::is_x86_feature_detected!("avx512bw"), "avx512bw"),
            (std::arch::is_x86_feature_detected!("avx512vnni"), "avx512vnni"),
        ] {
            if is_there {
                sets.push(name);
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        sets.push("neon");
        for (is_there, name) in [
            (std::arch::is_aarch64_feature_detected!("dotprod"), "dotprod"),
            (std::arch::is_aarch64_feature_detected!("i8mm"), "i8mm"),
            (std::arch::is_aarch64_feature_detected!("sve"), "sve"),
        ] {
            if is_there {
                sets.push(name);
            }
        }
    }
    sets
}

fn gpus(root: &Path) -> Vec<Gpu> {
    let driver = root.join("proc/driver/nvidia");
    let mut found: Vec<Gpu> = std::fs::read_dir(driver.join("gpus"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = read(&entry.path().join("information"))?;
            let name = text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned();
            Some(Gpu { name, total_memory: None, available_memory: None })
        })
        .collect();
    // Only the driver's tool knows how much memory there is; without a driver it is not even looked for.
    if driver.exists()
        && let Some(tool) = ["usr/bin/nvidia-smi", "usr/local/bin/nvidia-smi"]
            .iter()
            .map(|path| root.join(path))
            .find(|path| path.is_file())
        && let Some(text) =
            command(&tool, &["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"])
    {
        let listed = read_gpu_list(&text);
        if !listed.is_empty() {
            found = listed;
        }
    }
    found
}

/// Reads the lines of `nvidia-smi`: name, MiB in all, MiB free.
fn read_gpu_list(text: &str) -> Vec<Gpu> {
    let mebibytes = |text: Option<&str>| text?.trim().parse::<u64>().ok()?.checked_mul(1 << 20);
    text.lines()
        .take(64)
        .filter_map(|line| {
            let mut fields = line.split(',');
            let name = fields.next()?.trim().to_owned();
            let (total_memory, available_memory) = (mebibytes(fields.next()), mebibytes(fields.next()));
            (total_memory.is_some() && !name.is_empty()).then_some(Gpu {
                name,
                total_memory,
                available_memory,
            })
        })
        .collect()
}

/// What a program prints, when it ends well and in time.
fn command(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + TOOL_TIME;
    // A few lines: they fit into the pipe, so the program ends without being read.
    let status = loop {
        match child.try_wait().ok()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take()?, &mut text).ok()?;
    status.success().then_some(text)
}

/// How fast the processor reads memory, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Bandwidth {
    /// Bytes per second, all cores together.
    pub bytes_per_second: f64,
    /// Whether it was measured earlier and remembered.
    pub is_remembered: bool,
    /// Whether it is what the device was made for, and was not measured.
    pub is_told: bool,
}

impl Bandwidth {
    /// So many bytes per second, as a device was made.
    pub const fn told(bytes_per_second: f64) -> Self {
        Self { bytes_per_second, is_remembered: false, is_told: true }
    }
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    machine: String,
    bytes_per_second: f64,
    /// Seconds since 1970.
    measured: u64,
}

/// How fast this machine's processor reads memory: measured within about a fifth of a second, and remembered for a month in
/// `pippin/bandwidth.json` of the XDG cache folder. `again` measures in any case.
///
/// Other programs that use the memory at the same time make it look slower.
pub fn memory_bandwidth(hardware: &Hardware, again: bool) -> Bandwidth {
    static MEASURED: OnceLock<Bandwidth> = OnceLock::new();
    if !again && let Some(bandwidth) = MEASURED.get() {
        return *bandwidth;
    }
    // A build without optimization measures itself rather than the machine.
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let machine = format!(
        "{build} {} {} cores {}",
        env!("CARGO_PKG_VERSION"),
        hardware.cores,
        hardware.processor.as_deref().unwrap_or(hardware.architecture)
    );
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let path = cache_file();
    let remembered = path.as_deref().and_then(|path| {
        let text = crate::cache::read_limited(path, 4096)?;
        let remembered: Remembered = serde_json::from_str(&text).ok()?;
        let is_valid = remembered.machine == machine
            && remembered.measured <= now
            && now - remembered.measured < MEASURE_VALID.as_secs()
            && (1e6..1e15).contains(&remembered.bytes_per_second);
        is_valid.then_some(remembered.bytes_per_second)
    });
    let bandwidth = match remembered {
        Some(bytes_per_second) if !again => {
            Bandwidth { bytes_per_second, is_remembered: true, is_told: false }
        }
        _ => {
            let bytes_per_second = measure(hardware);
            // It is only a saving of time: a folder that cannot be written to is no failure.
            if let Some(path) = path {
                let remembered = Remembered { machine, bytes_per_second, measured: now };
                let _ = store(&path, &remembered);
            }
            Bandwidth { bytes_per_second, is_remembered: false, is_told: false }
        }
    };
    *MEASURED.get_or_init(|| bandwidth)
}

fn store(path: &Path, remembered: &Remembered) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, serde_json::to_vec(remembered)?)?;
    std::fs::rename(&temporary, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

fn cache_file() -> Option<PathBuf> {
    Some(user_folder()?.join("bandwidth.json"))
}

/// Where Pippin keeps what it would otherwise have to find out again: `pippin` in the XDG cache folder, or its like.
pub(crate) fn user_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(crate::expand_path).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let folder = variable("XDG_CACHE_HOME")
        .or_else(|| if cfg!(windows) { variable("LOCALAPPDATA") } else { Some(home()?.join(".cache")) })?;
    Some(folder.join("pippin"))
}

/// Reads memory that is too much for the caches, on all cores at once, and tells how many bytes per second that were.
fn measure(hardware: &Hardware) -> f64 {
    let threads = hardware.cores.clamp(1, 256);
    let available = hardware.available_memory.unwrap_or(1 << 30);
    let total =
        (threads << 25).clamp(128 << 20, 768 << 20).min(usize::try_from(available / 8).unwrap_or(128 << 20));
    let words = (total / threads / 8).max(1 << 16);
    let (ready, go) = (AtomicUsize::new(0), AtomicBool::new(false));
    let read = || {
        // Written, so that there is memory behind it.
        let data = vec![1_u64; words];
        ready.fetch_add(1, Ordering::Release);
        while !go.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let started = Instant::now();
        let (mut sum, mut bytes) = (0_u64, 0_u64);
        while started.elapsed() < MEASURE_TIME {
            for block in data.chunks(1 << 16) {
                sum = sum.wrapping_add(std::hint::black_box(sum_of(block)));
            }
            bytes += 8 * words as u64;
        }
        std::hint::black_box(sum);
        bytes as f64 / started.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        // A thread that the system refuses is one reader less.
        let start = || std::thread::Builder::new().spawn_scoped(scope, read);
        let readers: Vec<_> = (0..threads).filter_map(|_| start().ok()).collect();
        while ready.load(Ordering::Acquire) < readers.len() {
            std::thread::yield_now();
        }
        go.store(true, Ordering::Release);
        readers.into_iter().filter_map(|reader| reader.join().ok()).sum()
    })
}

/// Sums with independent accumulators, which compilers turn into vectors.
fn sum_of(block: &[u64]) -> u64 {
    let mut lanes = [0_u64; 32];
    let chunks = block.chunks_exact(32);
    let rest = chunks.remainder().iter().fold(0_u64, |sum, value| sum.wrapping_add(*value));
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(*value);
        }
    }
    lanes.iter().fold(rest, |sum, lane| sum.wrapping_add(*lane))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, text).expect("written");
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n");

    #[test]
    fn memory_is_the_machines() {
        let root = machine(&[MEMINFO]);
        let memory = Memory::read(root.path());
        assert_eq!(memory.total, Some(16_000_000 * 1024));
        assert_eq!(memory.available, Some(8_000_000 * 1024));
        assert_eq!(memory.limit, None);
        assert_eq!(Memory::read(Path::new("/no/such/folder")), Memory::default());
    }

    #[test]
    fn containers_have_less() {
        let gigabyte = 1_u64 << 30;
        let second = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", &(4 * gigabyte).to_string()),
            ("sys/fs/cgroup/a/memory.current", &(3 * gigabyte).to_string()),
            ("sys/fs/cgroup/a/memory.stat", &format!("anon 1\ninactive_file {gigabyte}\n")),
        ]);
        let expected =
            Memory { total: Some(4 * gigabyte), available: Some(2 * gigabyte), limit: Some(4 * gigabyte) };
        assert_eq!(Memory::read(second.path()), expected);
        let first = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", &(4 * gigabyte).to_string()),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", &(2 * gigabyte).to_string()),
        ]);
        assert_eq!(Memory::read(first.path()), expected);
        // A limit above the machine's memory is none.
        let none = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        assert_eq!(Memory::read(none.path()).limit, None);
        let odd = machine(&[MEMINFO, ("proc/self/cgroup", "nonsense\n0\n0::/../../..\n\u{0}:::")]);
        assert_eq!(Memory::read(odd.path()).limit, None);
    }

    #[test]
    fn gpus_are_listed() {
        let root = machine(&[(
            "proc/driver/nvidia/gpus/0000:01:00.0/information",
            "Model: \t\t NVIDIA H200\nIRQ: 1\n",
        )]);
        assert_eq!(
            gpus(root.path()),
            [Gpu { name: "NVIDIA H200".to_owned(), total_memory: None, available_memory: None }]
        );
        assert!(gpus(Path::new("/no/such/folder")).is_empty());
        let listed = read_gpu_list("NVIDIA H200, 143771, 143000\nNo devices were found\nX, [N/A], 1\n");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].total_memory, Some(143_771 << 20));
    }

    #[test]
    fn this_machine_is_plausible() {
        let hardware = Hardware::detect();
        assert!(hardware.cores > 0);
        if cfg!(target_os = "linux") {
            assert!(hardware.available_memory.expect("told") <= hardware.total_memory.expect("told"));
        }
        let small = Hardware { cores: 1, available_memory: Some(64 << 20), ..hardware };
        assert!(measure(&small) > 1e6);
    }

    #[test]
    fn sums_are_right() {
        let values: Vec<u64> = (0..1000).collect();
        assert_eq!(sum_of(&values), 499_500);
    }
}
