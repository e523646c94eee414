//! The conformance suite, on every instruction set this machine has.

use pippin_cpu::{CpuBackend, InstructionSet};
use pippin_tensor::{Numerics, conformance_suite};

fn with(set: InstructionSet) -> Option<CpuBackend> {
    CpuBackend::with(Numerics::Exact, set, 2)
}

conformance_suite!(portable, with(InstructionSet::Portable), 1e-5);
conformance_suite!(avx2, with(InstructionSet::Avx2), 1e-5);
conformance_suite!(avx512, with(InstructionSet::Avx512), 1e-5);
conformance_suite!(neon, with(InstructionSet::Neon), 1e-5);
conformance_suite!(one_thread, CpuBackend::with(Numerics::Exact, InstructionSet::available()[0], 1), 1e-5);
