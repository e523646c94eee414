//! A device, opened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use pippin_tensor::{Numerics, Result, TensorError};

use crate::NAME;
use crate::drawing::Drawer;
use crate::memory::{Block, Memory};

/// Why no device can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CudaProblem {
    /// NVIDIA's driver is not installed.
    NoDriver,
    /// The driver is older than CUDA 12.
    OldDriver {
        /// The CUDA version that it has, as `1000 major + 10 minor`.
        version: i32,
    },
    /// The driver finds no device, or not so many.
    NoDevice {
        /// The number that was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The device is older than compute capability 8.0.
    OldDevice {
        /// Its name.
        name: String,
        /// Its compute capability.
        capability: (i32, i32),
    },
    /// The kernels could not be compiled.
    Kernels(String),
    /// The driver failed.
    Driver(String),
}

impl fmt::Display for CudaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("NVIDIA's driver (libcuda) is not installed"),
            Self::OldDriver { version } => {
                write!(
                    f,
                    "NVIDIA's driver is too old: it has CUDA {}.{}, 12.0 is needed",
                    version / 1000,
                    version % 1000 / 10
                )
            }
            Self::NoDevice { count: 0, .. } => f.write_str("the driver finds no NVIDIA GPU"),
            Self::NoDevice { ordinal, count } => {
                write!(f, "there is no GPU {ordinal}: the first is 0, and there are {count}")
            }
            Self::OldDevice { name, capability: (major, minor) } => {
                write!(f, "{name} has compute capability {major}.{minor}, 8.0 is needed")
            }
            Self::Kernels(problem) => write!(f, "the kernels could not be compiled: {problem}"),
            Self::Driver(problem) => write!(f, "the driver failed: {problem}"),
        }
    }
}

impl std::error::Error for CudaProblem {}

impl From<DriverError> for CudaProblem {
    fn from(error: DriverError) -> Self {
        Self::Driver(error.to_string())
    }
}

impl From<CudaProblem> for TensorError {
    fn from(problem: CudaProblem) -> Self {
        Self::Device { device: NAME.to_owned(), message: problem.to_string() }
    }
}

/// What the driver says of a device, without its being opened: that takes time, and memory of the device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CudaDevice {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// The compute capability: major and minor version.
    pub capability: (i32, i32),
    /// Its memory in bytes.
    pub total_memory: u64,
    /// What it reads of its memory in a second, in bytes, as it was made; reached are nine tenths of it.
    pub bytes_per_second: Option<f64>,
}

impl CudaDevice {
    /// Looks at a device that kernels can run on.
    ///
    /// # Errors
    ///
    /// What is missing: the driver, the device, kernels and what could compile them.
    pub fn usable(ordinal: usize) -> Result<Self, CudaProblem> {
        let found = Self::find(ordinal)?;
        crate::compile::check(&architecture(found.capability)).map_err(CudaProblem::Kernels)?;
        Ok(found)
    }

    fn find(ordinal: usize) -> Result<Self, CudaProblem> {
        let count = CudaBackend::count()?;
        let number = i32::try_from(ordinal).ok().filter(|_| ordinal < count);
        let device = result::device::get(number.ok_or(CudaProblem::NoDevice { ordinal, count })?)?;
        // SAFETY: the device is one that the driver has given.
        let attribute = |of| unsafe { result::device::get_attribute(device, of) };
        let name = result::device::get_name(device)?;
        let capability = (
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability < LEAST_CAPABILITY {
            return Err(CudaProblem::OldDevice { name, capability });
        }
        // SAFETY: as above.
        let total_memory = unsafe { result::device::total_mem(device) }? as u64;
        let clock = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE).unwrap_or(0);
        let width =
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH).unwrap_or(0);
        let bytes_per_second = bandwidth(&name, clock, width);
        Ok(Self { ordinal, name, capability, total_memory, bytes_per_second })
    }

    /// The memory of a device that is free, and all of it, in bytes. The device is opened for it.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn memory(ordinal: usize) -> Result<(u64, u64), CudaProblem> {
        let count = CudaBackend::count()?;
        if ordinal >= count {
            return Err(CudaProblem::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal)?;
        let (free, total) = context.mem_get_info()?;
        // To open a device takes some tenths of a second, and most who ask for its memory open it next.
        *held() = Some(context);
        Ok((free as u64, total as u64))
    }

    /// What there is on this machine besides devices: the driver, the compiler, and where kernels are kept. Names and words.
    pub fn surroundings() -> Vec<(&'static str, String)> {
        let driver = match CudaBackend::count() {
            Ok(_) => driver_version().map_or_else(
                || "of an unknown version".to_owned(),
                |version| format!("CUDA {}.{}", version / 1000, version % 1000 / 10),
            ),
            Err(problem) => problem.to_string(),
        };
        [("driver", driver)].into_iter().chain(crate::compile::describe()).collect()
    }
}

/// The device that was opened last to look at its memory, until a model opens one. Not longer: a device that is lost is only opened anew
/// when nobody has it any more.
fn held() -> MutexGuard<'static, Option<Arc<CudaContext>>> {
    static HELD: Mutex<Option<Arc<CudaContext>>> = Mutex::new(None);
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of what nobody needs of a lost device.
pub(crate) fn let_go() {
    held().take();
}

/// The oldest compute capability that kernels are written for.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// As the compiler calls it; with all that only this architecture has, where kernels use that.
fn architecture((major, minor): (i32, i32)) -> String {
    let own = if (major, minor) == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{own}")
}

/// Bytes per second, from the clock in kHz and the width of the bus in bits, with two transfers in a cycle. Drivers that no longer tell
/// the clock say 0; then it is what is known of the name.
fn bandwidth(name: &str, clock: i32, width: i32) -> Option<f64> {
    /// Gigabytes per second; of names that begin alike, the longer ones first.
    const KNOWN: [(&str, f64); 24] = [
        ("GB200", 8000.0),
        ("B200", 8000.0),
        ("GH200", 4000.0),
        ("H200", 4800.0),
        ("H100 PCIe", 2039.0),
        ("H100 NVL", 3938.0),
        ("H100", 3352.0),
        ("A100-SXM4-80GB", 2039.0),
        ("A100 80GB", 1935.0),
        ("A100", 1555.0),
        ("L40", 864.0),
        ("L4", 300.0),
        ("A40", 696.0),
        ("A30", 933.0),
        ("A10", 600.0),
        ("RTX PRO 6000", 1792.0),
        ("RTX 6000 Ada", 960.0),
        ("RTX A6000", 768.0),
        ("RTX 5090", 1792.0),
        ("RTX 5080", 960.0),
        ("RTX 4090", 1008.0),
        ("RTX 4080", 717.0),
        ("RTX 3090", 936.0),
        ("RTX 3080", 760.0),
    ];
    let told = 2.0 * f64::from(clock) * 1e3 * f64::from(width) / 8.0;
    let known = || KNOWN.iter().find(|(known, _)| name.contains(known)).map(|(_, gigabytes)| gigabytes * 1e9);
    // None of today's is slower than that.
    if told >= 5e10 { Some(told) } else { known() }
}

fn driver_version() -> Option<i32> {
    let mut version = 0;
    // SAFETY: the pointer is valid; the driver is there, or the caller has not come so far.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    (status == sys::CUresult::CUDA_SUCCESS).then_some(version)
}

/// Whether an error means that nothing can be computed any more in this process's context of the device.
pub(crate) fn is_lost(error: DriverError) -> bool {
    use sys::CUresult::{
        CUDA_ERROR_ASSERT, CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_DEINITIALIZED,
        CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_EXTERNAL_DEVICE, CUDA_ERROR_HARDWARE_STACK_ERROR,
        CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_INSTRUCTION, CUDA_ERROR_INVALID_ADDRESS_SPACE,
        CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_PC,
        CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_MISALIGNED_ADDRESS,
        CUDA_ERROR_NO_DEVICE, CUDA_ERROR_NVLINK_UNCORRECTABLE, CUDA_ERROR_OPERATING_SYSTEM,
        CUDA_ERROR_SYSTEM_NOT_READY, CUDA_ERROR_UNKNOWN,
    };
    matches!(
        error.0,
        CUDA_ERROR_DEINITIALIZED
            | CUDA_ERROR_NO_DEVICE
            | CUDA_ERROR_INVALID_DEVICE
            | CUDA_ERROR_INVALID_CONTEXT
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_OPERATING_SYSTEM
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_SYSTEM_NOT_READY
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_UNKNOWN
    )
}

/// An NVIDIA GPU as a backend. Cloning is cheap. What it records are the steps of one model: another one needs a backend of its own.
#[derive(Clone)]
pub struct CudaBackend {
    inner: Rc<Inner>,
}

struct Inner {
    numerics: Numerics,
    name: String,
    capability: (i32, i32),
    total: usize,
    multiprocessors: usize,
    module: Arc<CudaModule>,
    functions: RefCell<HashMap<String, CudaFunction>>,
    stream: Arc<CudaStream>,
    memory: Rc<Memory>,
    /// Blocks that run at the same time count here how many of them are done; between kernels all counts are zero.
    arrivals: Block,
    /// The most bytes of shared memory that a block can ask for.
    shared: usize,
    drawer: RefCell<Drawer>,
}

/// Counts in [`CudaBackend::arrivals`].
pub(crate) const ARRIVALS: usize = 1 << 14;

impl fmt::Debug for CudaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaBackend").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl CudaBackend {
    /// How many devices the driver finds.
    ///
    /// # Errors
    ///
    /// There is no driver, or it is too old, or it fails.
    pub fn count() -> Result<usize, CudaProblem> {
        // SAFETY: loading the driver runs its initialisers, which its users must trust anyway.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaProblem::NoDriver);
        }
        let Some(version) = driver_version() else { return Err(CudaProblem::NoDriver) };
        if version < 12_000 {
            return Err(CudaProblem::OldDriver { version });
        }
        match CudaContext::device_count() {
            Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a device, and compiles the kernels for it unless that has been done before.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new(ordinal: usize, numerics: Numerics) -> Result<Self, CudaProblem> {
        let CudaDevice { name, capability, .. } = CudaDevice::find(ordinal)?;
        let context = CudaContext::new(ordinal)?;
        let_go();
        // SAFETY: everything runs on one stream, in order; nothing has to wait for anything else.
        unsafe { context.disable_event_tracking() };
        let binary = crate::compile::load(&architecture(capability)).map_err(CudaProblem::Kernels)?;
        let module = context.load_module(Ptx::from_binary(binary))?;
        let stream = context.new_stream()?;
        let memory = Memory::new(Arc::clone(&stream), context.new_stream()?, &name);
        let total = context.total_mem()?;
        let multiprocessors = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = usize::try_from(context.attribute(multiprocessors)?).unwrap_or(1);
        let shared = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared = usize::try_from(context.attribute(shared)?).unwrap_or(0);
        let problem = |error: TensorError| CudaProblem::Driver(error.to_string());
        let arrivals = memory.keep(4 * ARRIVALS, "counts").map_err(problem)?;
        arrivals.clear(0, 4 * ARRIVALS).map_err(problem)?;
        let (functions, drawer) = (RefCell::default(), RefCell::default());
        let inner = Inner {
            numerics,
            name,
            capability,
            total,
            multiprocessors,
            shared,
            module,
            functions,
            stream,
            memory,
            arrivals,
            drawer,
        };
        Ok(Self { inner: Rc::new(inner) })
    }

    /// What may be approximated.
    pub fn numerics(&self) -> Numerics {
        self.inner.numerics
    }

    /// The device's name.
    pub fn device_name(&self) -> &str {
        &self.inner.name
    }

    /// The device's memory in bytes.
    pub fn total_memory(&self) -> usize {
        self.inner.total
    }

    /// The compute capability: major and minor version.
    pub fn capability(&self) -> (i32, i32) {
        self.inner.capability
    }

    pub(crate) fn multiprocessors(&self) -> usize {
        self.inner.multiprocessors
    }

    pub(crate) fn memory(&self) -> &Rc<Memory> {
        &self.inner.memory
    }

    pub(crate) fn drawer(&self) -> &RefCell<Drawer> {
        &self.inner.drawer
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.inner.stream
    }

    pub(crate) fn function(&self, name: &str) -> Result<CudaFunction> {
        if let Some(function) = self.inner.functions.borrow().get(name) {
            return Ok(function.clone());
        }
        let function = self.inner.module.load_function(name).map_err(|error| self.failed(error))?;
        self.inner.functions.borrow_mut().insert(name.to_owned(), function.clone());
        Ok(function)
    }

    /// Adds a module's kernels, unless they are there.
    pub(crate) fn add_module(
        &self,
        names: &[String],
        load: impl FnOnce(&str) -> std::result::Result<Vec<u8>, String>,
    ) -> Result<()> {
        if names.iter().all(|name| self.inner.functions.borrow().contains_key(name)) {
            return Ok(());
        }
        let (major, minor) = self.inner.capability;
        let binary = load(&format!("sm_{major}{minor}"))
            .map_err(|problem| TensorError::from(CudaProblem::Kernels(problem)))?;
        let context = self.inner.stream.context();
        let module = context.load_module(Ptx::from_binary(binary)).map_err(|error| self.failed(error))?;
        for name in names {
            let function = module.load_function(name).map_err(|error| self.failed(error))?;
            self.inner.functions.borrow_mut().insert(name.clone(), function);
        }
        Ok(())
    }

    /// Lets blocks of a kernel have all shared memory of a multiprocessor, so that several run at a time.
    pub(crate) fn prefer_shared(&self, name: &str) -> Result<()> {
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        self.function(name)?.set_attribute(attribute, 100).map_err(|error| self.failed(error))
    }

    /// The most bytes of shared memory that a block can have.
    pub(crate) fn shared_memory(&self) -> usize {
        self.inner.shared
    }

    /// [`ARRIVALS`] counts, all zero for a kernel that makes them zero again.
    pub(crate) fn arrivals(&self) -> sys::CUdeviceptr {
        self.inner.arrivals.at()
    }

    pub(crate) fn failed(&self, error: DriverError) -> TensorError {
        self.inner.memory.failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_are_told_or_known() {
        // An H100 SXM: 2,619 MHz and 5,120 bits.
        let told = bandwidth("NVIDIA H100 80GB HBM3", 2_619_000, 5120).expect("told");
        assert!((3.35e12..3.36e12).contains(&told), "{told}");
        for (name, gigabytes) in [
            ("NVIDIA H200", Some(4800.0)),
            ("NVIDIA GH200 480GB", Some(4000.0)),
            ("NVIDIA H100 PCIe", Some(2039.0)),
            ("NVIDIA A100-SXM4-40GB", Some(1555.0)),
            ("NVIDIA L40S", Some(864.0)),
            ("NVIDIA L4", Some(300.0)),
            ("NVIDIA GeForce RTX 4090", Some(1008.0)),
            ("NVIDIA Something", None),
        ] {
            assert_eq!(bandwidth(name, 0, 5120), gigabytes.map(|gigabytes| gigabytes * 1e9), "{name}");
        }
    }

    #[test]
    fn errors_of_a_lost_device_are_told_from_others() {
        use sys::CUresult;
        for (error, expected) in [
            (CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, true),
            (CUresult::CUDA_ERROR_LAUNCH_FAILED, true),
            (CUresult::CUDA_ERROR_ECC_UNCORRECTABLE, true),
            (CUresult::CUDA_ERROR_OUT_OF_MEMORY, false),
            (CUresult::CUDA_ERROR_INVALID_VALUE, false),
            (CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, false),
            (CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, false),
        ] {
            assert_eq!(is_lost(DriverError(error)), expected, "{error:?}");
        }
    }
}
