//! The one error type of this crate.

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong when a model runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A token id the model has no embedding for.
    #[error("token {index}: expected an id below the vocabulary's size {vocab}, found {id}")]
    Token {
        /// Index among the tokens given.
        index: usize,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A session has no room for more tokens.
    #[error("the context is full: it holds {limit} tokens, {past} are in it and {more} more were given")]
    ContextFull {
        /// Tokens the session can hold.
        limit: usize,
        /// Tokens it holds.
        past: usize,
        /// Tokens that were to be added.
        more: usize,
    },
    /// Fewer tokens than one window, or none.
    #[error("too few tokens to evaluate: expected at least {expected}, found {found}")]
    TooFewTokens {
        /// Tokens needed.
        expected: usize,
        /// Tokens given.
        found: usize,
    },
    /// The model's weights or its tokens give no number.
    #[error(
        "target {target} has a negative log-likelihood of {found}, expected a finite number: weights that are none?"
    )]
    NotFinite {
        /// The first such target.
        target: usize,
        /// What it has.
        found: f32,
    },
    /// Tokens that stand for no text, so that there are no bits per byte.
    #[error("no text to evaluate: {tokens} tokens stand for 0 bytes")]
    NoText {
        /// Tokens scored.
        tokens: usize,
    },
    /// The system gave no more threads.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's message.
        reason: String,
    },
    /// Logits nothing can be sampled from.
    #[error("cannot sample: expected finite logits, found {found}")]
    Logits {
        /// What was given.
        found: String,
    },
    /// A GPU that cannot do what it should.
    #[error("the GPU `{adapter}` failed: {reason}")]
    Gpu {
        /// Its name.
        adapter: String,
        /// What its driver says.
        reason: String,
    },
    /// A GPU whose memory is taken, for now.
    #[error("the GPU `{adapter}` has no room: {reason}")]
    GpuFull {
        /// Its name.
        adapter: String,
        /// What its driver says.
        reason: String,
    },
    /// A machine that computes something else than it should.
    #[error("the self-check failed: it gives {found}")]
    SelfCheck {
        /// What differs.
        found: String,
    },
    /// A device that is not there.
    #[error("no device `{wanted}`: {reason}")]
    NoDevice {
        /// As it was asked for.
        wanted: String,
        /// Why not.
        reason: String,
    },
    /// A GPU that is gone: unplugged, reset, or taken by the system.
    #[error("the GPU `{adapter}` was lost: {reason}")]
    DeviceLost {
        /// Its name.
        adapter: String,
        /// What its driver says.
        reason: String,
    },
    /// A library of CUDA, or a kernel that one of them refuses.
    #[error("{what}: {reason}")]
    Cuda {
        /// Which.
        what: String,
        /// Its message.
        reason: String,
    },
    /// An option with a value that means nothing.
    #[error("option `{field}`: expected {expected}, found {found}")]
    Option {
        /// Which option.
        field: &'static str,
        /// What it must satisfy.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl Error {
    /// Whether a GPU has failed, which it does not recover from while the program runs.
    pub fn is_of_gpu(&self) -> bool {
        matches!(self, Self::DeviceLost { .. } | Self::Gpu { .. })
    }
}
