//! What was typed for `train`.

use std::path::PathBuf;

use clap::Args;
use sixpack_runtime::Device;
use sixpack_runtime::cuda::Recompute;

/// `train`.
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// A recipe's file, or the name of a built-in one (record, small)
    #[arg(long, value_name = "FILE|NAME", default_value = "small")]
    pub(crate) recipe: String,
    /// Change one value of the recipe, e.g. --set optimizer.matrix.lr=0.03
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Folder of token shards
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Tokenizer, copied into the checkpoint (default: the one beside the shards)
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Checkpoint folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Go on from the checkpoint in --out
    #[arg(long)]
    pub(crate) resume: bool,
    /// Every N steps quantise and code the averaged weights, which the size in all lines follows (default: every tenth of
    /// the budget; 0: never); the clock stands still meanwhile
    #[arg(long, value_name = "N")]
    pub(crate) measure_size_every: Option<u64>,
    /// Every N steps run the averaged weights on validation tokens (0: never); the clock stands still meanwhile
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) validate_every: u64,
    /// When the budget is spent pack the model into this file as `compress` does, score it on the validation split, and
    /// print the seed's table; a recipe with [pack] does so without, into model.6pk in the checkpoint's folder
    #[arg(long, value_name = "FILE")]
    pub(crate) pack: Option<PathBuf>,
    /// Do not, whatever the recipe says
    #[arg(long, conflicts_with = "pack")]
    pub(crate) no_pack: bool,
    /// Print the log as JSON lines (they are always in train.jsonl beside the checkpoint)
    #[arg(long)]
    pub(crate) json: bool,
    /// Several processes (torchrun, mpirun, srun): seconds to wait for a process to come, and for a sign of life of one
    /// that is there
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) rank_timeout: u64,
    /// What trains: cpu (and auto), or cuda[:N]; without a number each process of a machine takes the GPU of its own
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// On a GPU compute results again in backward instead of keeping them, for less memory and more time (default: what the
    /// recipe says; alone: all): all, none, or names between commas (mix, rms_norm, head_norm_rope, exclude_self, leaky_relu_squared, gated_skip)
    #[arg(long, value_name = "OPS", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) recompute: Option<Recompute>,
    /// Threads (default: one a core, shared by the processes of a machine)
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}
