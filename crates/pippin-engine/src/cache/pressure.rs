use serde::Serialize;

use crate::{Device, DeviceMemory, memory};

/// Tasks that wait for memory this share of the time, in percent, mean pressure.
const SOME: f64 = 20.0;
/// The same where nothing else runs meanwhile.
const FULL: f64 = 5.0;
/// Less of the memory than this many percent being available means pressure.
const AVAILABLE: u64 = 5;

/// What the system says about memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryReading {
    /// Bytes that can be used without swapping: of the machine, or of the control group where that has fewer.
    pub available: Option<u64>,
    /// Bytes that there are.
    pub total: Option<u64>,
    /// The share of the last ten seconds in which at least one task waited for memory, in percent (Linux PSI).
    pub stalled_some: Option<f64>,
    /// The share in which all tasks waited for memory at once, in percent (Linux PSI).
    pub stalled_full: Option<f64>,
}

impl MemoryReading {
    /// A reading of available and total bytes.
    pub fn new(available: u64, total: u64) -> Self {
        Self { available: Some(available), total: Some(total), ..Self::default() }
    }

    /// The same with the shares of time, in percent, in which at least one task or all tasks waited for memory.
    #[must_use]
    pub fn with_stalls(mut self, some: f64, full: f64) -> Self {
        (self.stalled_some, self.stalled_full) = (Some(some), Some(full));
        self
    }

    /// Whether tasks wait for memory so much that idle models should go.
    ///
    /// Mapped weights count as available, because the system may drop their pages; that it does so again and again
    /// shows only here.
    pub fn is_stalling(&self) -> bool {
        self.stalled_some.is_some_and(|share| share >= SOME)
            || self.stalled_full.is_some_and(|share| share >= FULL)
    }

    /// Whether so little memory is available that idle models should go.
    pub fn is_short(&self) -> bool {
        match (self.available, self.total) {
            (Some(available), Some(total)) => available < total / 100 * AVAILABLE,
            _ => false,
        }
    }
}

/// Asks the system about memory.
pub trait MemoryProbe: Send + Sync {
    /// What it says now.
    fn read(&self) -> MemoryReading;

    /// The memory of a device that has its own: what its driver says.
    fn device(&self, device: Device) -> Option<DeviceMemory> {
        device.memory()
    }
}

/// The probe of this machine: on Linux `/proc/meminfo`, the control groups around the process, and pressure stall
/// information where the kernel has it; on macOS the share of memory that is free; elsewhere nothing yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemProbe;

impl MemoryProbe for SystemProbe {
    fn read(&self) -> MemoryReading {
        let (system, stall) = (memory::system(), memory::stall());
        MemoryReading {
            available: system.map(|memory| memory.available),
            total: system.map(|memory| memory.total),
            stalled_some: stall.map(|stall| stall.some),
            stalled_full: stall.map(|stall| stall.full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_and_shortage_are_pressure() {
        let calm = MemoryReading::new(60, 1000);
        assert!(!calm.is_short() && !calm.is_stalling());
        assert!(MemoryReading::new(49, 1000).is_short());
        assert!(calm.with_stalls(20.0, 0.0).is_stalling());
        assert!(calm.with_stalls(0.0, 5.0).is_stalling());
        assert!(!calm.with_stalls(19.9, 4.9).is_stalling());
        // A system that tells nothing is not under pressure.
        let silent = MemoryReading::default();
        assert!(!silent.is_short() && !silent.is_stalling());
    }
}
