//! The one error type of this crate.

use std::fmt;
use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while a model is made smaller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight or a Hessian entry is not a number that can be quantised.
    #[error("tensor `{tensor}`: {what} [{row}, {col}] is {found}, expected a finite number")]
    NotFinite {
        /// The tensor's canonical name.
        tensor: String,
        /// "weight" or "hessian".
        what: &'static str,
        /// Row of the entry.
        row: usize,
        /// Column of the entry.
        col: usize,
        /// The value there.
        found: f32,
    },
    /// A weight is so large that its row's step does not fit f16.
    #[error("tensor `{tensor}`: row {row} has a clip of {clip}, whose step {step} is beyond f16")]
    StepTooLarge {
        /// The tensor's canonical name.
        tensor: String,
        /// The row.
        row: usize,
        /// Largest magnitude that the row's codes must reach.
        clip: f32,
        /// The step this takes.
        step: f32,
    },
    /// A value that f16 cannot hold, in a tensor that is kept in f16.
    #[error("tensor `{tensor}`: element {index} is {found}, expected a number that f16 can hold")]
    NotHalf {
        /// The tensor's canonical name.
        tensor: String,
        /// The element, row-major.
        index: usize,
        /// Its value.
        found: f32,
    },
    /// Two inputs whose sizes do not belong together.
    #[error("tensor `{tensor}`: expected {expected}, found {found}")]
    Shape {
        /// The tensor's canonical name.
        tensor: String,
        /// What the size must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A name that no compression scheme has.
    #[error("scheme: expected {expected}, found `{found}`")]
    UnknownScheme {
        /// The names there are.
        expected: String,
        /// The name given.
        found: String,
    },
    /// A matrix that says its codes are paths of the trellis, and is not.
    #[error("code {code} at [{row}, {col}] is not on the path of the trellis that its matrix claims to be")]
    NotAPath {
        /// Row of the code.
        row: usize,
        /// Column of the code.
        col: usize,
        /// The code.
        code: i8,
    },
    /// A name that no codec has.
    #[error("codec: expected one of {expected}, found `{found}`")]
    UnknownCodec {
        /// The names there are.
        expected: String,
        /// The name given.
        found: String,
    },
    /// A file without quantised matrices.
    #[error("{}: expected an artifact, or a safetensors file with codes `NAME.q` and scales `NAME.scale`", path.display())]
    NoCodes {
        /// The file.
        path: PathBuf,
    },
    /// A codec that does not give back what it was given.
    #[error("codec `{codec}`: stream {stream} was decoded to other codes than were encoded")]
    NotLossless {
        /// The codec's name.
        codec: String,
        /// The number of the stream.
        stream: usize,
    },
    /// A scheme that chooses steps for a whole model was asked for those of one matrix.
    #[error("scheme `{scheme}` chooses the steps of a whole model, not of one matrix")]
    WholeModel {
        /// Its name.
        scheme: &'static str,
    },
    /// A count of int6 matrices for a scheme that has no such choice.
    #[error("scheme `{scheme}` has no choice between int5 and int6: the number of int6 matrices is the reference's")]
    NoInt6 {
        /// Its name.
        scheme: &'static str,
    },
    /// Nothing is small enough for the target.
    #[error(
        "the artifact takes {bytes} bytes at the coarsest steps, over the target of {target}: train a smaller model"
    )]
    TooSmall {
        /// Most bytes it may have.
        target: u64,
        /// The fewest it takes.
        bytes: u64,
    },
    /// There is nothing to calibrate on.
    #[error(
        "calibration: expected {expected}, found {tokens} tokens for {batches} batches of {sequences} sequences of {seq_len}"
    )]
    Calibration {
        /// What is needed.
        expected: &'static str,
        /// Tokens given.
        tokens: usize,
        /// Length of a sequence.
        seq_len: usize,
        /// Batches wanted.
        batches: usize,
        /// Sequences of a batch.
        sequences: usize,
    },
    /// The artifact exceeds its target.
    #[error(
        "the artifact takes {bytes} bytes with {int6} of {matrices} matrices in int6, {} over the target of {target}: {remedy}",
        bytes.saturating_sub(*target)
    )]
    OverBudget {
        /// Most bytes it may have.
        target: u64,
        /// Bytes it has.
        bytes: u64,
        /// Matrices in int6; the others are in int5.
        int6: usize,
        /// Matrices in int5 or int6.
        matrices: usize,
        /// What would bring it under.
        remedy: Remedy,
    },
    /// The system gives no such number of threads.
    #[error("cannot run on {threads} threads{}", source.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// The system's message, if it was asked.
        source: Option<rayon::ThreadPoolBuildError>,
    },
    /// A file of measured points that cannot be read.
    #[error("{}: {reason}", path.display())]
    Points {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model could not be run.
    #[error(transparent)]
    Run(#[from] sixpack_runtime::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] sixpack_formats::Error),
}

/// What brings an artifact under its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Fewer matrices in int6 are enough.
    FewerInt6 {
        /// The most that fit.
        int6: usize,
        /// The size with these.
        bytes: u64,
    },
    /// It does not fit with all matrices in int5 either.
    SmallerWeights,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewerInt6 { int6, bytes } => write!(f, "it fits with {int6} in int6, at {bytes} bytes"),
            Self::SmallerWeights => f.write_str(
                "nothing coarser is left; train with more weight decay, as smaller weights take fewer bits, or train a \
                 smaller model",
            ),
        }
    }
}
