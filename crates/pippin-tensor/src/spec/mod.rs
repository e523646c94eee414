//! The values that operations take: what to compute, apart from the tensors it is computed on.

mod attention;
mod elementwise;
mod norm;
mod recurrence;
mod rope;
mod router;

pub use attention::{AttentionSpec, Beside, KeyChoice, KvCacheSpec, KvFormat, Reach, ValueStore};
pub use elementwise::{Activation, BlockFloat, Gate, Reduction};
pub use norm::{Norm, NormKind};
pub use recurrence::{ScanInputs, ScanSpec, ScanUpdate, StateSpec};
pub use rope::{PositionScale, RopeFrequencies, RopeSpec};
pub use router::{RouterSpec, ScoreFunction};
