//! How kernels are called.

use std::ffi::c_void;

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::Result;

use crate::CudaBackend;

/// Threads of a block where each has an element of its own.
pub(crate) const THREADS: u32 = 256;
/// Threads of a block that works on one row, as in `kernels/common.cu`.
pub(crate) const ROW_THREADS: u32 = 128;

/// Blocks for so many elements.
pub(crate) fn blocks(count: usize) -> u32 {
    u32::try_from(count.div_ceil(THREADS as usize)).unwrap_or(u32::MAX)
}

/// Launches a kernel: its name, `(grid, threads, bytes of shared memory)`, and its arguments in the types that the kernel has.
macro_rules! launch {
    ($backend:expr, $name:expr, ($grid:expr, $threads:expr, $shared:expr), $($argument:expr),* $(,)?) => {{
        let backend: &$crate::CudaBackend = $backend;
        // SAFETY: the arguments are those of the kernel, which stays inside what it is given by the shapes that were checked.
        unsafe { backend.launch($name, $grid, $threads, $shared, &mut [$($crate::launch::pointer(&$argument)),*]) }
    }};
}

pub(crate) use launch;

/// Where an argument is.
pub(crate) fn pointer<T: DeviceRepr>(argument: &T) -> *mut c_void {
    std::ptr::from_ref(argument).cast_mut().cast()
}

/// Bytes of shared memory that a block has without asking for more.
const SHARED: u32 = 48 << 10;

impl CudaBackend {
    /// Launches a kernel, unless the step is repeated: then its graph has it. On devices that can, the kernel begins while the one before it
    /// ends, and waits itself for what that one writes (`wait_for_inputs` in `kernels/common.cu`).
    ///
    /// # Safety
    ///
    /// The arguments are those that the kernel has, and it stays inside what they point to.
    pub(crate) unsafe fn launch(
        &self,
        name: &str,
        grid: (u32, u32),
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { self.launch_in_clusters(name, grid, 1, threads, shared, arguments) }
    }

    /// The same where so many blocks, one above the other, are a cluster: they read each other's shared memory.
    ///
    /// # Safety
    ///
    /// As for [`Self::launch`].
    pub(crate) unsafe fn launch_in_clusters(
        &self,
        name: &str,
        grid: (u32, u32),
        cluster: u32,
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        if grid.0 == 0 || grid.1 == 0 || self.memory().recorder.repeats() {
            return Ok(());
        }
        let function = self.function(name)?;
        if shared > SHARED {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32).map_err(|error| self.failed(error))?;
        }
        self.stream().context().bind_to_thread().map_err(|error| self.failed(error))?;
        let overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let shape = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: 1, y: cluster, z: 1 };
        let clusters = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { clusterDim: shape },
        };
        let mut attributes = [overlap, clusters];
        let count = match self.capability() >= OVERLAPS {
            true if cluster > 1 => 2,
            true => 1,
            false => 0,
        };
        let config = sys::CUlaunchConfig {
            gridDimX: grid.0,
            gridDimY: grid.1,
            gridDimZ: 1,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared,
            hStream: self.stream().cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: count,
        };
        // SAFETY: configuration and arguments outlive the call; the rest is the caller's word.
        let launched = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                function.cu_function(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        launched.result().map_err(|error| self.failed(error))
    }
}

/// The first compute capability whose kernels may begin early, and whose blocks may be clusters.
pub(crate) const OVERLAPS: (i32, i32) = (9, 0);
