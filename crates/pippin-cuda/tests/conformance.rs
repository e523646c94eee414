//! The contract's checks, on the first device of this machine if it has one.

use pippin_cuda::CudaBackend;
use pippin_tensor::Numerics;

/// The first device. Its absence is only accepted where nobody has said that there is one.
fn device(numerics: Numerics) -> Option<CudaBackend> {
    match CudaBackend::new(0, numerics) {
        Ok(backend) => Some(backend),
        Err(problem) if std::env::var_os("PIPPIN_TEST_CUDA").is_some() => panic!("{problem}"),
        Err(problem) => {
            eprintln!("skipped: {problem}");
            None
        }
    }
}

pippin_tensor::conformance_suite!(exact, device(Numerics::Exact), 1e-5);
// Activations of 16 bits.
pippin_tensor::conformance_suite!(fast, device(Numerics::Fast), 2e-4);

#[test]
fn nothing_is_unsupported() {
    if let Some(backend) = device(Numerics::Exact) {
        pippin_tensor::conformance::nothing_is_unsupported(&backend);
    }
}
