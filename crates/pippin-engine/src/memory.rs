//! What the operating system says about memory and processor time. Where it says nothing, the answer is `None`.

use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The memory that is assumed to be available where the system does not tell.
pub(crate) const ASSUMED: u64 = 8 << 30;

/// The share of what is available that models may take where nobody says otherwise, in percent.
pub(crate) const SHARE: u8 = 80;

/// Where Linux mounts its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Linux counts processor time in these units for programs, whatever the kernel's own clock.
const TICKS_PER_SECOND: u64 = 100;
/// Limits of version 1 are never absent, but absurdly large.
const NO_LIMIT: u64 = 1 << 60;

/// The most memory this process has used so far, in bytes, where the system tells (Linux).
pub(crate) fn peak() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Memory of this process that is in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// What the process has written: heap, stacks, KV cache.
    pub(crate) anonymous: u64,
    /// Pages of mapped files: weights, and the program itself.
    pub(crate) file: u64,
}

/// What of this process is in RAM now, where the system tells (Linux).
pub(crate) fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { anonymous: field(&status, "RssAnon:")?, file: field(&status, "RssFile:")? })
}

/// The processor time that all threads of this process have used, where the system tells (Linux).
pub(crate) fn processor_time() -> Option<Duration> {
    processor_ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)
        .map(|ticks| Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
}

/// `utime + stime` of `/proc/self/stat`. The second field, the program's name, may hold anything, even parentheses.
fn processor_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Memory that can be used, and all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) available: u64,
    pub(crate) total: u64,
}

/// The memory that can be used without swapping, in bytes, where the system tells (Linux and macOS).
pub(crate) fn available() -> Option<u64> {
    Some(system()?.available)
}

/// What models may take where nobody says otherwise.
pub(crate) fn budget() -> u64 {
    available().unwrap_or(ASSUMED) / 100 * u64::from(SHARE)
}

/// The memory of the machine, or of the narrowest control group around this process (Linux); of the machine (macOS).
pub(crate) fn system() -> Option<Memory> {
    if cfg!(target_os = "macos") {
        let names = ["-n", "hw.memsize", "kern.memorystatus_level"];
        let output = Command::new("/usr/sbin/sysctl").args(names).stdin(Stdio::null()).output().ok()?;
        return apple(&String::from_utf8_lossy(&output.stdout));
    }
    let machine = {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        Memory { available: field(&text, "MemAvailable:")?, total: field(&text, "MemTotal:")? }
    };
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(narrowest(machine, &groups, Path::new(CGROUPS)))
}

/// What macOS says: all bytes, and how many percent of them are free or can be given up.
fn apple(text: &str) -> Option<Memory> {
    let mut lines = text.lines().map(|line| line.trim().parse::<u64>().ok());
    let (total, percent) = (lines.next()??, lines.next()??);
    Some(Memory { available: total / 100 * percent.min(100), total })
}

/// What control groups leave of the machine's memory. `groups` is `/proc/self/cgroup`.
fn narrowest(machine: Memory, groups: &str, mount: &Path) -> Memory {
    limits(groups, mount).into_iter().fold(machine, |least, group| Memory {
        available: least.available.min(group.available),
        total: least.total.min(group.total),
    })
}

/// The limits of all control groups around the process.
fn limits(groups: &str, mount: &Path) -> Vec<Memory> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if id == "0" && controllers.is_empty() {
            let read = |folder: &Path| limit(folder, "memory.max", "memory.current", "");
            found.extend(upwards(mount, path).iter().filter_map(|folder| read(folder)));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let read =
                |folder: &Path| limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_");
            found.extend(upwards(&mount.join("memory"), path).iter().filter_map(|folder| read(folder)));
        }
    }
    found
}

/// The folders of a group and of those around it. In a container the path may be that of the host, and only the root
/// of the mount exists.
fn upwards(mount: &Path, path: &str) -> Vec<PathBuf> {
    let inside: PathBuf =
        Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    inside.ancestors().map(|folder| mount.join(folder)).collect()
}

fn limit(folder: &Path, limit: &str, usage: &str, prefix: &str) -> Option<Memory> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    // "max" is no number, and no limit.
    let total: u64 = read(limit)?.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)?;
    let used: u64 = read(usage)?.trim().parse().ok()?;
    let statistics = read("memory.stat").unwrap_or_default();
    let file = |kind: &str| -> u64 {
        let name = format!("{prefix}{kind}_file ");
        let value = statistics.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    // Pages of files count as used, but are given up when memory is wanted.
    let needed = used.saturating_sub(file("active").saturating_add(file("inactive")));
    Some(Memory { available: total.saturating_sub(needed), total })
}

/// How much of the last ten seconds was lost by waiting for memory, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stall {
    /// For at least one task.
    pub(crate) some: f64,
    /// For all of them at once.
    pub(crate) full: f64,
}

/// The pressure on memory, where the system tells (Linux with PSI).
pub(crate) fn stall() -> Option<Stall> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // The group's own number says more in a container; on other systems the file is not there.
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).and_then(|path| {
        let folder = upwards(Path::new(CGROUPS), path).into_iter().next()?;
        std::fs::read_to_string(folder.join("memory.pressure")).ok()
    });
    let text = own.or_else(|| std::fs::read_to_string("/proc/pressure/memory").ok())?;
    Some(Stall { some: average(&text, "some")?, full: average(&text, "full").unwrap_or(0.0) })
}

/// `avg10` of a line of a pressure file: `some avg10=1.23 avg60=…`.
fn average(text: &str, kind: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
    let value = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A field of a `/proc` file, given there in kB.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn fields_are_found_and_scaled() {
        let text = "Name:\tpippin\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(field(text, "VmHWM:"), Some(2048 * 1024));
        assert_eq!(field(text, "VmSwap:"), None);
        assert_eq!(field("VmHWM: many kB", "VmHWM:"), None);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "42 (a) b) ) S 1 42 42 0 -1 4194304 100 0 0 0 70 30 0 0 20 0 3 0 100 1000 10";
        assert_eq!(processor_ticks(stat), Some(100));
        assert_eq!(processor_ticks("42 (a) S 1"), None);
        assert_eq!(processor_ticks(""), None);
    }

    #[test]
    fn apple_tells_bytes_and_percent() {
        let memory = Memory { available: 17_179_869_100 / 100 * 62, total: 17_179_869_184 };
        assert_eq!(apple("17179869184\n62\n"), Some(memory));
        for text in ["", "17179869184", "x\n1", "1\n-1"] {
            assert_eq!(apple(text), None, "{text:?}");
        }
    }

    #[test]
    fn stalls_are_read() {
        let text =
            "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1";
        assert_eq!((average(text, "some"), average(text, "full")), (Some(12.5), Some(0.25)));
        assert_eq!(average("", "some"), None);
        assert_eq!(average("some avg60=1", "some"), None);
    }

    #[test]
    fn the_narrowest_control_group_counts() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, text).expect("written");
        };
        let machine = Memory { available: 10_000, total: 20_000 };
        let memory = |groups: &str| narrowest(machine, groups, root.path());
        assert_eq!(memory(""), machine);
        assert_eq!(memory("0::/none"), machine);
        assert_eq!(memory("nonsense"), machine);

        write("a/memory.max", "5000\n");
        write("a/memory.current", "3000\n");
        write("a/memory.stat", "anon 1000\nactive_file 500\ninactive_file 1500\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "2000\n");
        assert_eq!(memory("0::/a/b"), Memory { available: 4000, total: 5000 });
        assert_eq!(memory("0::/../a/b"), Memory { available: 4000, total: 5000 });

        write("memory/c/memory.limit_in_bytes", "9223372036854771712");
        write("memory/c/memory.usage_in_bytes", "1");
        write("memory/memory.limit_in_bytes", "6000");
        write("memory/memory.usage_in_bytes", "7000");
        assert_eq!(memory("4:cpu,memory:/c"), Memory { available: 0, total: 6000 });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        assert!(peak().is_some_and(|bytes| bytes > 0));
        assert!(available().is_some_and(|bytes| bytes > 0));
        assert!(resident().is_some_and(|resident| resident.anonymous > 0 && resident.file > 0));
        assert!(processor_time().is_some());
    }
}
