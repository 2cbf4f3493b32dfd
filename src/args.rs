//! What was typed. What it means is worked out by each verb, once, before it does anything.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sixpack_runtime::Device;

mod experiment;
mod serve;
mod train;

pub(crate) use experiment::{Experiment, ExperimentReport, ExperimentRun, ReportFormat};
pub(crate) use serve::{Limits, Serve};
pub(crate) use train::Train;

/// Trains language models, compresses them under a byte budget and runs them anywhere.
#[derive(Debug, Parser)]
#[command(name = "sixpack", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Text to a trained, packed, scored and speaking model in a few minutes
    Quickstart(Quickstart),
    /// Train a tokenizer
    #[command(subcommand)]
    Tokenizer(Tokenizer),
    /// Text to token shards with a manifest
    Tokenize(Tokenize),
    /// Train a model from token shards
    Train(Train),
    /// Quantise and pack a checkpoint, then score what was packed
    ///
    /// What was packed is scored on --device. Calibration runs there if that is cuda, and then gives sums in another order;
    /// otherwise it runs on the CPU, as sensitivity does.
    Compress(Compress),
    /// Bytes against bits per byte over checkpoints, schemes, codecs and sizes: CSV, JSON and a picture
    Sweep(Sweep),
    /// Measure how much the loss minds an error in each output of each layer, for `compress`
    Sensitivity(Sensitivity),
    /// Bits per byte of a model on text or token shards
    Eval(Eval),
    /// Generate text
    Run(Run),
    /// What there is to run a model on: each device checked against the CPU and timed
    Devices(Devices),
    /// A web page and an OpenAI-compatible API for a model
    Serve(Serve),
    /// Configuration, tensors, bytes, provenance and score of a model
    Inspect(Inspect),
    /// Sizes and speeds of codecs on a model's quantised weights
    Codecs(Codecs),
    /// Changes to a recipe compared over several seeds: run a plan, report what is signal and what is noise
    #[command(subcommand)]
    Experiment(Experiment),
    /// Training recipes
    #[command(subcommand)]
    Recipe(Recipe),
}

/// `quickstart`.
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Text to learn: a file or a folder (default: the sources of this program's dependencies, as Cargo unpacked them)
    #[arg(long, value_name = "PATH")]
    pub(crate) corpus: Option<PathBuf>,
    /// Minutes of training
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    pub(crate) minutes: f64,
    /// Where everything is written
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    pub(crate) out: PathBuf,
    /// Seed of the whole run
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `tokenizer …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Tokenizer {
    /// Learn a BPE vocabulary and write it as a SentencePiece model
    Train {
        /// Text: files or folders (.txt, .md, .rs, .jsonl, .jsonl.zst)
        #[arg(required = true, value_name = "TEXT")]
        text: Vec<PathBuf>,
        /// Pieces of the vocabulary
        #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        vocab_size: u32,
        /// Where the model is written
        #[arg(long, value_name = "FILE", default_value = "tokenizer.model")]
        out: PathBuf,
        /// Learn from at most this many bytes of text
        #[arg(long, value_name = "BYTES", default_value_t = 64_000_000)]
        max_bytes: u64,
    },
}

/// `tokenize`.
#[derive(Debug, Args)]
pub(crate) struct Tokenize {
    /// Training text: files or folders (.txt, .md, .rs, .jsonl, .jsonl.zst)
    #[arg(required = true, value_name = "TEXT")]
    pub(crate) text: Vec<PathBuf>,
    /// Validation text; without it every --val-every'th document of the training text is held out, at least the last
    #[arg(long, value_name = "PATH")]
    pub(crate) val: Vec<PathBuf>,
    /// Hold out every N'th document for validation
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "val")]
    pub(crate) val_every: u64,
    /// SentencePiece model
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: PathBuf,
    /// Folder for the shards and their manifest
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// `compress`.
#[derive(Debug, Args)]
pub(crate) struct Compress {
    /// Checkpoint folder
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: PathBuf,
    /// Token shards: calibration takes training tokens, never validation tokens
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) data: PathBuf,
    /// What the packed model is scored on (default: the validation split beside --data)
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) eval_data: Option<PathBuf>,
    /// The artifact
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Quantisation scheme
    #[arg(long, value_enum, default_value_t = SchemeName::Rd)]
    pub(crate) scheme: SchemeName,
    /// The file must not be larger; rd and sdclip fill it to within 0.2%
    #[arg(long, value_name = "B")]
    pub(crate) target_bytes: Option<u64>,
    /// rd without a target: rise of the loss to aim for, in nats per token
    #[arg(long, value_name = "NATS", value_parser = positive, conflicts_with = "target_bytes")]
    pub(crate) loss: Option<f64>,
    /// rd: do without sensitivity.safetensors, which is measured where it is missing
    #[arg(long)]
    pub(crate) no_sensitivity: bool,
    /// sdclip: clip of attention matrices in standard deviations; a target keeps only the ratios of the three
    #[arg(long, value_name = "K", default_value_t = 12.85, value_parser = positive)]
    pub(crate) clip_attention: f64,
    /// sdclip: clip of MLP matrices
    #[arg(long, value_name = "K", default_value_t = 12.85, value_parser = positive)]
    pub(crate) clip_mlp: f64,
    /// sdclip: clip of the embedding tables
    #[arg(long, value_name = "K", default_value_t = 20.0, value_parser = positive)]
    pub(crate) clip_tables: f64,
    /// reference: how many matrices get int6, by trace of the Hessian; the rest int5 (default: all, or what fits)
    #[arg(long, value_name = "N")]
    pub(crate) int6_layers: Option<usize>,
    /// Codec of the streams
    #[arg(long, value_enum, default_value_t = CodecName::Context)]
    pub(crate) codec: CodecName,
    /// Calibrate on at most this many tokens
    #[arg(long, value_name = "N", default_value_t = 393_216, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calibration_tokens: u64,
    /// Write a page about the result: bytes, errors, predictions, provenance
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// What to calibrate on; text of the model's own is written token by token, which takes its time
    #[arg(long, value_enum, default_value_t = CalibrateOn::Data)]
    pub(crate) calibrate_on: CalibrateOn,
    /// Seed of the text that the model writes
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) windows: Windows,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `sweep`.
#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// Checkpoint folders to compress
    #[arg(long, value_name = "DIR", num_args = 1.., required_unless_present = "weight_decays")]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// Train a checkpoint for each of these weight decays of the matrices, in the folder of --out
    #[arg(long, value_name = "X,…", value_delimiter = ',', conflicts_with = "checkpoints", value_parser = not_negative)]
    pub(crate) weight_decays: Vec<f64>,
    /// Recipe of those trainings: a file, or the name of a built-in one (record, small)
    #[arg(long, value_name = "FILE|NAME", default_value = "small")]
    pub(crate) recipe: String,
    /// Change one value of the recipe, e.g. --set budget.minutes=20
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Token shards: training and calibration take training tokens, never validation tokens
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) data: PathBuf,
    /// What is scored (default: the validation split beside --data)
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) eval_data: Option<PathBuf>,
    /// Folder for points.json, points.csv, tradeoff.svg and the checkpoints that are trained
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Quantisation schemes (default: all)
    #[arg(long, value_enum, value_name = "S,…", value_delimiter = ',')]
    pub(crate) schemes: Vec<SchemeName>,
    /// Codecs of the streams
    #[arg(long, value_enum, value_name = "C,…", value_delimiter = ',', default_value = "brotli")]
    pub(crate) codecs: Vec<CodecName>,
    /// Numbers of matrices in int6, for the scheme that has int5 and int6 (default: none, half, all)
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) int6_layers: Vec<usize>,
    /// Sizes as bits for each parameter, all of the file counted
    #[arg(long, value_name = "X,…", value_delimiter = ',', value_parser = positive)]
    pub(crate) bits: Vec<f64>,
    /// Sizes in bytes
    #[arg(long, value_name = "B,…", value_delimiter = ',')]
    pub(crate) target_bytes: Vec<u64>,
    /// Calibrate on at most this many tokens
    #[arg(long, value_name = "N", default_value_t = 393_216, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calibration_tokens: u64,
    /// Draw a line at this many bytes
    #[arg(long, value_name = "B")]
    pub(crate) budget: Option<u64>,
    /// Draw a point of others, as BYTES,BPB,LABEL
    #[arg(long = "reference", value_name = "BYTES,BPB,LABEL")]
    pub(crate) references: Vec<Reference>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) windows: Windows,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// A point that others measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reference {
    pub(crate) bytes: u64,
    pub(crate) bits_per_byte: f64,
    pub(crate) label: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("expected BYTES,BPB,LABEL, found {text:?}");
        let mut parts = text.splitn(3, ',');
        let mut next = || parts.next().map(str::trim).ok_or_else(fail);
        let (bytes, bpb, label) = (next()?, next()?, next()?.to_owned());
        let bits_per_byte = bpb.parse().ok().filter(|b: &f64| b.is_finite()).ok_or_else(fail)?;
        Ok(Self { bytes: bytes.parse().map_err(|_| fail())?, bits_per_byte, label })
    }
}

/// `sensitivity`.
#[derive(Debug, Args)]
pub(crate) struct Sensitivity {
    /// Checkpoint folder, which gets sensitivity.safetensors
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: PathBuf,
    /// Token shards: training tokens, never validation tokens
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) data: PathBuf,
    /// Run at most this many tokens
    #[arg(long, value_name = "N", default_value_t = crate::verbs::sensitivity::TOKENS as u64, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) tokens: u64,
    /// Tokens of a sequence (default: the model's train_seq_len)
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seq_len: Option<u32>,
    /// Seed of the targets, which are drawn from the model
    #[arg(long, default_value_t = crate::verbs::sensitivity::SEED)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// What runs the model and takes gradients through it, which only the CPU does: auto or cpu
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// `eval`.
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// Artifact or checkpoint folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// A shard, a folder of shards (its validation split), or text to tokenise on the fly
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) data: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) windows: Windows,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Artifact or checkpoint folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Text to go on from
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_tokens: usize,
    /// 0 takes the likeliest token always
    #[arg(long, default_value_t = 0.8, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Only the K likeliest tokens
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Only the likeliest tokens that together have this probability
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Only tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Seed of the sampler
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Print one JSON object at the end instead of streaming
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `devices`.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// Artifact or checkpoint folder whose shape is timed (default: the record's, 34 M parameters)
    #[arg(value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Artifact or checkpoint folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `codecs`.
#[derive(Debug, Args)]
pub(crate) struct Codecs {
    /// Artifact, checkpoint folder (rounded to nearest), or safetensors file of codes `NAME.q` and scales `NAME.scale`
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// Which tensors
    #[arg(long, value_enum, default_value_t = ClassName::Matrices)]
    pub(crate) class: ClassName,
    /// Codecs or families of them, e.g. brotli-11,zstd (default: all)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) codec: Vec<String>,
    /// How codes stand in bytes for codecs of bytes (default: all for brotli-11 and zstd-22, plain for the others)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) layout: Vec<LayoutName>,
    /// Which tensors share a stream
    #[arg(long, value_enum, default_value_t = StreamsName::Class)]
    pub(crate) streams: StreamsName,
    /// Measure each codec for at least so many seconds each way; the best run counts
    #[arg(long, value_name = "S", default_value_t = 0.3, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tensors of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClassName {
    /// Matrices of attention and MLP
    Matrices,
    /// Matrices of attention
    Attention,
    /// Matrices of the MLPs
    Mlp,
    /// Embeddings and the rest
    Tables,
    /// Everything that is quantised
    All,
}

/// How codes stand in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutName {
    /// A byte a code, row by row
    Plain,
    /// A byte a code, column by column
    Transposed,
    /// Codes at even places before those at odd places
    Shuffled,
    /// Bit planes: signs, then magnitudes from the highest bit on
    Planes,
    /// As many bits a code as it needs
    Packed,
    /// Two small codes in a byte
    Pairs,
    /// Every one of these
    All,
}

/// Which tensors share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamsName {
    /// All of them, as the reference has it
    One,
    /// Those of a class, as an artifact has it: attention, MLP up, MLP down, tables
    Class,
    /// None
    Tensor,
}

/// `recipe …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Recipe {
    /// Print a recipe and what it means
    Show {
        /// A recipe's file, or the name of a built-in one (record, small)
        #[arg(value_name = "FILE|NAME", default_value = "record")]
        recipe: String,
        /// Change one value, e.g. --set model.num_layers=6
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

/// How a text is cut into windows.
#[derive(Clone, Debug, Args)]
pub(crate) struct Windows {
    /// Tokens of a window (default: the model's eval_seq_len)
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seq_len: Option<u32>,
    /// New targets a window scores (default: 64)
    #[arg(long, value_name = "S", conflicts_with = "plain", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) stride: Option<u32>,
    /// Consecutive windows instead of sliding ones
    #[arg(long)]
    pub(crate) plain: bool,
    /// Score at most the first N tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    pub(crate) max_tokens: Option<u64>,
}

/// What to run on.
#[derive(Clone, Debug, Args)]
pub(crate) struct Machine {
    /// Threads (default: one a core)
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
}

impl Machine {
    /// The number of threads to use.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

/// What a model runs on.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// What runs the model: auto, cpu, wgpu[:N] or cuda[:N]; `sixpack devices` lists them
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    pub(crate) device: Device,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

impl Place {
    /// What it means.
    pub(crate) fn on(&self) -> On {
        On { device: self.device, threads: self.machine.threads() }
    }

    /// As [`Place::on`], for a verb that uses the device only at its end: one that cannot be had is an error now.
    pub(crate) fn checked(&self) -> anyhow::Result<On> {
        sixpack_runtime::now(sixpack_runtime::device::present(self.device))?;
        Ok(self.on())
    }
}

/// What a model runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct On {
    /// As it was asked for.
    pub(crate) device: Device,
    /// Of the CPU.
    pub(crate) threads: usize,
}

/// Quantisation schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemeName {
    /// GPTQ int6/int5 with the reference's fixed floor of the step
    Reference,
    /// GPTQ with steps in proportion to the deviation of each row
    Sdclip,
    /// GPTQ with steps by what errors cost, one rate-distortion slope for the whole model
    Rd,
}

/// Where calibration text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CalibrateOn {
    /// Training tokens of --data
    Data,
    /// Text that the model itself writes, seeded, at temperature 1
    #[value(name = "self")]
    Itself,
}

/// Codecs of an artifact's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    /// our own: an adaptive model of the codes' scales
    Context,
    /// brotli quality 11
    Brotli,
    /// zstd level 22
    Zstd,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err("expected a number above 0".into()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x >= 0.0 && x.is_finite() => Ok(x),
        _ => Err("expected a number of at least 0".into()),
    }
}
