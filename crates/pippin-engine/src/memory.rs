//! What the operating system says about memory.

/// The most memory this process has used so far, in bytes, where the system tells (Linux).
pub(crate) fn peak() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The memory that can be used without swapping, in bytes, where the system tells (Linux).
pub(crate) fn available() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// A field of a `/proc` file, given there in kB.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_scaled() {
        let text = "Name:\tpippin\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(field(text, "VmHWM:"), Some(2048 * 1024));
        assert_eq!(field(text, "VmSwap:"), None);
        assert_eq!(field("VmHWM: many kB", "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        assert!(peak().is_some_and(|bytes| bytes > 0));
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
