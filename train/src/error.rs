//! The one error type of this crate.

use std::path::PathBuf;

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
    /// The runtime's machine.
    #[error(transparent)]
    Machine(#[from] sixpack_runtime::Error),
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
    /// A key of a recipe has a value it cannot have.
    #[error("recipe key `{key}`: expected {expected}, found {found}")]
    Recipe {
        /// The dotted key.
        key: String,
        /// What it must satisfy.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A recipe's text is not TOML, or has a key that no recipe has.
    #[error("recipe: {0}")]
    RecipeSyntax(String),
    /// A recipe's file cannot be read.
    #[error("{}: cannot read: {source} (nor is it a built-in recipe: {})", path.display(), known.join(", "))]
    RecipeFile {
        /// What was asked for.
        path: PathBuf,
        /// Names of the built-in recipes.
        known: [&'static str; 2],
        /// The system's message.
        source: std::io::Error,
    },
    /// The plan or the results of an experiment are not what they should be.
    #[error("{place}: {reason}")]
    Plan {
        /// The file, with the line where there is one.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing to train on.
    #[error("expected at least one shard of training tokens, found none")]
    NoShards,
    /// A shard without room for one sequence.
    #[error("shard `{name}`: expected at least {expected} tokens, found {found}")]
    ShortShard {
        /// The file.
        name: String,
        /// A sequence and its last target.
        expected: usize,
        /// Its tokens.
        found: usize,
    },
    /// The loss or the gradients are no longer numbers.
    #[error(
        "training diverged at step {step}: loss {loss}, gradient norm {grad_norm} (a lower learning rate may help)"
    )]
    Diverged {
        /// Steps taken before.
        step: u64,
        /// Mean loss of the batch.
        loss: f64,
        /// Global norm of the gradients.
        grad_norm: f64,
    },
    /// A checkpoint folder without the state of a run.
    #[error("{}: expected the state of a training run, found no resume.safetensors", .0.display())]
    NothingToResume(PathBuf),
    /// A run cannot go on with another recipe or other data.
    #[error("{what} differs from the run's: expected {saved}, found {now}")]
    ResumeDiffers {
        /// The recipe's key or the shard.
        what: String,
        /// What the checkpoint was made with.
        saved: String,
        /// What there is now.
        now: String,
    },
    /// The variables of a launcher are not all there, or contradict each other.
    #[error("environment variable {variable}: expected {expected}, found {found}")]
    Environment {
        /// The first that is wrong.
        variable: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The ranks of a run did not find each other.
    #[error("cannot meet the other ranks at {meeting}: {reason}")]
    Join {
        /// Where rank 0 waits.
        meeting: String,
        /// What went wrong.
        reason: String,
    },
    /// A rank ended, or can no longer be reached.
    #[error("rank {rank} was lost: {reason}")]
    Lost {
        /// Which one.
        rank: usize,
        /// How that was found out.
        reason: String,
    },
    /// A rank is not of the same run, or has left it.
    #[error("rank {rank} differs from rank 0 in {what}: expected {expected}, found {found}")]
    RanksDiffer {
        /// The first that differs.
        rank: usize,
        /// In what.
        what: String,
        /// Rank 0's.
        expected: String,
        /// The other's.
        found: String,
    },
    /// The saved position of a loader is not one of these shards.
    #[error("position of the loader: expected {expected}, found {found}")]
    Cursors {
        /// What these shards allow.
        expected: String,
        /// What was saved.
        found: String,
    },
}

impl Error {
    pub(crate) fn recipe(key: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Recipe { key: key.into(), expected: expected.into(), found: found.into() }
    }
}
