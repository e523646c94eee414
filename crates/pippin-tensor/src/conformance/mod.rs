//! Checks that a backend computes what the contract says.
//!
//! Every operation is compared with a plain `f64` reference on random shapes and values; fused operations also with
//! their definitions; and every operation on several rows with itself on each row alone, bit for bit. A backend runs the
//! whole suite with one line:
//!
//! ```text
//! pippin_tensor::conformance_suite!(avx2, CpuBackend::with(Numerics::Exact, InstructionSet::Avx2, 2), 1e-5);
//! ```
//!
//! The checks are functions of a backend that panic on a deviation, so a backend with needs of its own can call them one
//! by one.

mod attention;
mod matrices;
mod reference;
mod rows;

pub use attention::{attention, attention_is_independent_of_batching, eight_bit_kv, kv_bounds};
pub use matrices::{
    embedding, fused_products, gathered_matmul, matmul, products_are_independent_of_batching,
    shapes_are_checked,
};
pub use rows::{add, gated, rms_norm, rope, rope_angles, select_rows};

/// Instantiates the conformance suite as a module of tests.
///
/// `$make` is an expression of type `Option<impl Backend>`; `None` means that this machine cannot run the backend, and
/// its tests say so and pass. `$tolerance` bounds the relative deviation from the `f64` reference.
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $make:expr, $tolerance:expr) => {
        $crate::conformance_suite!(@ $name, $make, $tolerance,
            embedding matmul gathered_matmul products_are_independent_of_batching fused_products shapes_are_checked
            attention attention_is_independent_of_batching eight_bit_kv kv_bounds
            add gated rms_norm rope rope_angles select_rows);
    };
    (@ $name:ident, $make:expr, $tolerance:expr, $($check:ident)*) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $check() {
                    match $make {
                        Some(backend) => $crate::conformance::$check(&backend, $tolerance),
                        None => eprintln!("skipped: this machine cannot run {}", stringify!($name)),
                    }
                }
            )*
        }
    };
}
