//! A device, opened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, sys};
use cudarc::nvrtc::Ptx;
use pippin_tensor::{Numerics, Result, TensorError};

use crate::NAME;
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

/// An NVIDIA GPU as a backend. Cloning is cheap.
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
        let mut version = 0;
        // SAFETY: the pointer is valid.
        if unsafe { sys::cuDriverGetVersion(&mut version) } != sys::CUresult::CUDA_SUCCESS {
            return Err(CudaProblem::NoDriver);
        }
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
        let count = Self::count()?;
        if ordinal >= count {
            return Err(CudaProblem::NoDevice { ordinal, count });
        }
        let context = CudaContext::new(ordinal)?;
        // SAFETY: everything runs on one stream, in order; nothing has to wait for anything else.
        unsafe { context.disable_event_tracking() };
        let (name, capability) = (context.name()?, context.compute_capability()?);
        if capability < (8, 0) {
            return Err(CudaProblem::OldDevice { name, capability });
        }
        let (major, minor) = capability;
        let binary = crate::compile::load(&format!("sm_{major}{minor}")).map_err(CudaProblem::Kernels)?;
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
        let functions = RefCell::default();
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
