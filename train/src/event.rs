//! What a run says while it goes on. The program turns events into log lines, a progress bar and JSON lines.

use std::path::PathBuf;

use serde::Serialize;
use sixpack_formats::estimate::Sizes;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins, or goes on from a checkpoint: the log starts with the recipe.
    Start {
        /// The resolved recipe, as TOML.
        recipe: String,
        /// Parameters of the model.
        parameters: u64,
        /// Steps already taken.
        step: u64,
        /// Threads at work in each process.
        threads: usize,
        /// Name of the GPU that trains, if one does.
        gpu: Option<String>,
        /// Bytes of its memory that steps take, as [`memory`](crate::cuda::memory) finds them.
        gpu_bytes: Option<u64>,
        /// Processes at work.
        ranks: usize,
        /// How those that have GPUs give each other gradients, and why so.
        way: Option<String>,
    },
    /// Optimizer steps were taken.
    Step(Progress),
    /// The average weights were run on validation tokens; the clock stood still.
    Validation {
        /// Steps taken.
        step: u64,
        /// Nats per token.
        loss: f64,
        /// Bits per byte, if the byte tables are known.
        bits_per_byte: Option<f64>,
    },
    /// A checkpoint is on the disk.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// Its folder.
        folder: PathBuf,
    },
    /// The run is over.
    End {
        /// Steps taken.
        step: u64,
        /// Tokens seen.
        tokens: u64,
        /// Seconds of training.
        elapsed: f64,
        /// Whether it was asked to stop before the budget was used.
        stopped: bool,
    },
}

/// How a run stands. Means are over the steps since the event before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Share of the budget used, from 0 to 1.
    pub fraction: f64,
    /// Mean training loss in nats per token.
    pub loss: f64,
    /// The same in bits per byte of text, if the byte tables are known.
    pub bits_per_byte: Option<f64>,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Milliseconds of a step.
    pub ms_per_step: f64,
    /// Factor on the learning rates at the last step.
    pub lr_scale: f64,
    /// Muon's momentum at the last step.
    pub momentum: f64,
    /// Global norm of the last gradients before the clip.
    pub grad_norm: f64,
    /// Whether recurrent layers ran twice at the last step.
    pub recurrence: bool,
    /// Bytes of an artifact of the average weights in scheme `reference`, without its tokenizer.
    pub projected_bytes: u64,
    /// The same by class of tensor.
    pub projected: Sizes,
    /// Whether they were quantised and coded for it; else their entropy was estimated, and corrected by what the estimate
    /// was wrong by when they last were.
    pub measured: bool,
    /// Seconds of training.
    pub elapsed: f64,
    /// Seconds of training still to come.
    pub remaining: f64,
}
