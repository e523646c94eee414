use pippin_weights::WeightsError;

/// What can go wrong in a tensor operation.
///
/// Shape errors mean that a model asked for something inconsistent; since models are built from untrusted files,
/// backends report them instead of asserting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Operand shapes do not fit together.
    #[error("{operation}: expected {expected}, found {found}")]
    Shape {
        /// The operation that refused its operands.
        operation: &'static str,
        /// What it needs, in words or as a shape.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// An index (token id, row, slot, page) is outside the tensor it addresses.
    #[error("{operation}: index {index} is out of range, the limit is {limit}")]
    Index {
        /// The operation that refused the index.
        operation: &'static str,
        /// The index itself.
        index: u64,
        /// The first value that is too large.
        limit: u64,
    },
    /// Two sequences of a step have the same slot, or write to the same page.
    #[error("batch: two sequences of one step have {what} {index}")]
    Conflict {
        /// What they share.
        what: &'static str,
        /// Its number.
        index: u64,
    },
    /// The backend has no kernel for this kind of matrix, dtype or option.
    #[error("the {backend} backend does not support {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// What it lacks.
        what: String,
    },
    /// The device has no room for an allocation.
    #[error("out of memory on {device}: could not allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Size of the allocation that failed.
        bytes: u64,
        /// What it was for.
        what: &'static str,
    },
    /// The device itself failed.
    #[error("{device} failed: {message}")]
    Device {
        /// The device's name.
        device: String,
        /// The driver's or runtime's own message.
        message: String,
    },
    /// The device has failed for good: nothing that is on it can be used, and nothing can be computed with it.
    #[error("{device} is lost: {message}")]
    DeviceLost {
        /// The device's name.
        device: String,
        /// The driver's or runtime's own message.
        message: String,
    },
    /// A weight tensor could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl TensorError {
    /// A [`TensorError::Shape`] from displayable parts.
    pub fn shape(operation: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Shape { operation, expected: expected.to_string(), found: found.to_string() }
    }
}
