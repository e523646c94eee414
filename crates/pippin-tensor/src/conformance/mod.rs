//! Checks that a backend computes what the contract says.
//!
//! Every operation is compared with a plain `f64` reference on random shapes and values, and with itself: each row must be
//! the same bits whatever rows it is computed with, and each sequence however it is cut into steps. Both comparisons are
//! one (`check::Check`), so that no operation has the first without the second. Among the neighbours are rows of NaN, and
//! what no row may see of a cache is NaN too.
//!
//! Operands that do not fit must be refused with [`TensorError::Shape`](crate::TensorError::Shape), and indices beyond
//! their limits must do no harm. What the contract lets a backend lack is passed over where it answers with
//! [`TensorError::Unsupported`](crate::TensorError::Unsupported); see [`nothing_is_unsupported`].
//!
//! A backend runs the whole suite with one line:
//!
//! ```text
//! pippin_tensor::conformance_suite!(avx2, CpuBackend::with(Numerics::Exact, InstructionSet::Avx2, 2), 1e-5);
//! ```
//!
//! The checks are functions of a backend that panic on a deviation, so a backend with needs of its own can call them one
//! by one.

mod array;
mod attention;
mod cache;
mod check;
mod convolutions;
mod drawing;
mod elementwise;
mod experts;
mod hadamard;
mod heads;
mod linears;
mod matrices;
mod nan;
mod norms;
mod paged;
mod positions;
mod recurrence;
mod schedule;
mod shapes;
mod state;
mod steps;
mod weights;

pub use attention::{
    attention, attention_among, attention_beside, attention_over, cache_groups, extreme_scores,
    long_attention, spans_are_checked, unseen_values,
};
pub use cache::{
    duplicated_kv_rows, eight_bit_kv, kept_pages, kv_bounds, kv_shapes_are_checked, non_finite_kv,
};
pub use convolutions::{convolutions_are_checked, convolve, convolve_image, convolve_transposed};
pub use drawing::{
    any_draws, draws_are_independent, draws_are_read_late, fed_tokens, large_vocabularies,
    logits_without_maximum, sample,
};
pub use elementwise::{ACTIVATIONS, activate, add_and_mul, gated, gates, scale};
pub use experts::{route, routers_are_checked, ties};
pub use hadamard::{hadamard, rotated_linears, rotations_are_checked};
pub use heads::{heads_are_checked, write_heads};
pub use linears::{fused_products, linears_are_checked, mixed_linears};
pub use matrices::{data_is_checked, embedding, gathered_products, large_products, matmul};
pub use nan::{nan_elements, nan_scores};
pub use norms::{norm, reduce, round_blocks, sinkhorn, softmax, weighted_sum};
pub use positions::{position_scale, rope, rope_angles};
pub use recurrence::{causal_convolution, recurrences_are_checked, scan};
pub use shapes::{columns, join, reshape, select_rows};
pub use state::state;
pub use steps::{indices, lend, nothing_is_unsupported, step_inputs, transfers};

/// Instantiates the conformance suite as a module of tests.
///
/// `$make` is an expression of type `Option<impl Backend>`; `None` means that this machine cannot run the backend, and
/// its tests say so and pass. `$tolerance` bounds the relative deviation from the `f64` reference.
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $make:expr, $tolerance:expr) => {
        $crate::conformance_suite!(@ $name, $make, $tolerance,
            transfers lend indices step_inputs
            add_and_mul scale activate gated nan_elements
            norm reduce softmax sinkhorn round_blocks weighted_sum
            reshape columns join select_rows
            matmul large_products gathered_products embedding data_is_checked
            fused_products mixed_linears linears_are_checked
            hadamard rotated_linears rotations_are_checked
            rope_angles position_scale rope
            attention long_attention unseen_values cache_groups extreme_scores attention_over attention_among attention_beside spans_are_checked nan_scores
            eight_bit_kv non_finite_kv kv_bounds duplicated_kv_rows kv_shapes_are_checked kept_pages
            write_heads heads_are_checked
            route ties routers_are_checked
            causal_convolution scan recurrences_are_checked state
            convolve convolve_image convolve_transposed convolutions_are_checked
            sample any_draws large_vocabularies logits_without_maximum draws_are_independent draws_are_read_late fed_tokens);
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
