//! `pippin serve` as a process of its own, whose memory and threads are the server's alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Result;

pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Serves pippin-nano.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "pippin-nano", "--port", "0", "--only"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut shown = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let address = shown.find_map(|line| {
            line.ok()?.strip_prefix("serving at http://")?.strip_suffix("/v1")?.parse().ok()
        });
        // Its log is long, and read by nobody; but it has to go somewhere.
        std::thread::spawn(move || shown.for_each(drop));
        match address {
            Some(address) => Ok(Self { child, address }),
            None => {
                child.kill()?;
                Err(format!("{} does not say where it serves", program.display()).into())
            }
        }
    }

    /// Bytes of memory that it occupies.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()).map(str::parse::<u64>);
        match kibibytes {
            Some(Ok(kibibytes)) => Ok(kibibytes << 10),
            _ => Err(format!("{path} has no VmRSS").into()),
        }
    }

    /// How many threads of each name it has.
    pub(crate) fn threads(&self) -> Result<BTreeMap<String, usize>> {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // One may have ended in the meantime.
            if let Ok(name) = std::fs::read_to_string(task?.path().join("comm")) {
                *threads.entry(name.trim_end().to_owned()).or_default() += 1;
            }
        }
        Ok(threads)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is this program's child, and holds nothing that is to be kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
