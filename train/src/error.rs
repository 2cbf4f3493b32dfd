//! The one error type of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a configuration or a tensor that is not what it should be.
    #[error(transparent)]
    Format(#[from] sixpack_formats::Error),
    /// The tensor library refused an operation.
    #[error("engine: {0}")]
    Engine(#[from] candle_core::Error),
    /// The system gave no threads.
    #[error("cannot start threads: {0}")]
    Threads(rayon::ThreadPoolBuildError),
    /// There is nothing to compute a loss of.
    #[error("expected a batch of at least one sequence, found none")]
    EmptyBatch,
    /// Weights without a tensor the configuration has.
    #[error("expected a tensor `{0}`, found none")]
    MissingTensor(String),
    /// A buffer of another length than the configuration's.
    #[error("tensor `{name}`: expected {expected} elements, found {found}")]
    TensorLength {
        /// The buffer's name.
        name: String,
        /// Elements of the configuration.
        expected: usize,
        /// Elements found.
        found: usize,
    },
}
