//! How kernels are called.

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
        use cudarc::driver::PushKernelArg;
        let backend: &$crate::CudaBackend = $backend;
        let grid: (u32, u32) = $grid;
        // A step that is repeated has its launches in a graph.
        if grid.0 == 0 || grid.1 == 0 || backend.memory().recorder.repeats() {
            Ok(())
        } else {
            let function = backend.function($name)?;
            let config = cudarc::driver::LaunchConfig {
                grid_dim: (grid.0, grid.1, 1),
                block_dim: ($threads, 1, 1),
                shared_mem_bytes: $shared,
            };
            let mut launch = backend.stream().launch_builder(&function);
            $( let argument = $argument; launch.arg(&argument); )*
            // SAFETY: the arguments are those of the kernel, which stays inside what it is given by the shapes that were checked.
            unsafe { launch.launch(config) }.map(|_| ()).map_err(|error| backend.failed(error))
        }
    }};
}

pub(crate) use launch;
