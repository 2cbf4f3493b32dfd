//! `sensitivity`: how much the loss minds an error in each output of each layer, kept beside the checkpoint.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use sixpack_formats::sensitivity::{self, Sensitivity};
use sixpack_formats::{Digest, TensorId};
use sixpack_runtime::{Device, Error};
use sixpack_train::sensitivity::{Text, measure};

use crate::args;
use crate::data::{self, Tokens};
use crate::loaded::{self, Loaded};
use crate::misuse::misuse;
use crate::progress::Progress;
use crate::say::say;
use crate::table::{render, thousands};

/// Tokens that are run unless told otherwise: three times as many leave the compressed model as it is (LOG.md).
pub(crate) const TOKENS: usize = 32_768;
/// Seed of the targets unless told otherwise.
pub(crate) const SEED: u64 = 42;

pub(crate) fn run(args: &args::Sensitivity) -> Result<()> {
    if !args.checkpoint.is_dir() {
        let found = args.checkpoint.display();
        return Err(misuse(format!("CKPT: expected a checkpoint folder, found {found}")));
    }
    // Nobody who asks for a GPU waits for a CPU unawares.
    if !matches!(args.device, Device::Auto | Device::Cpu) {
        let reason = "gradients are taken on the CPU only".into();
        return Err(Error::NoDevice { wanted: args.device.to_string(), reason }.into());
    }
    let loaded = loaded::open(&args.checkpoint)?;
    let tokens = data::for_calibration(&args.data, &loaded, usize::MAX)?;
    let job = Job {
        tokens: args.tokens as usize,
        seq_len: args.seq_len.map(|len| len as usize),
        seed: args.seed,
        threads: args.machine.threads(),
    };
    let clock = Instant::now();
    let measured = job.run(&args.checkpoint, &loaded, &tokens)?;
    let path = sensitivity::path(&args.checkpoint);
    if args.json {
        let json = Json {
            file: path.display().to_string(),
            tokens: measured.tokens,
            checkpoint: measured.checkpoint.to_string(),
            seconds: clock.elapsed().as_secs_f64(),
            outputs: measured.outputs.iter().map(|(id, g)| Mean { name: id.to_string(), mean: mean(g) }).collect(),
        };
        say!("{}", serde_json::to_string(&json)?);
    } else {
        crate::say::write(format_args!("{}", summary(&measured)));
        say!("{}: {} tokens", path.display(), thousands(measured.tokens));
    }
    Ok(())
}

/// The sensitivity of a checkpoint: read from its folder, or measured on `tokens` and written there where the file is
/// missing or of other weights.
///
/// Measuring costs a forward and a backward pass over [`TOKENS`] tokens: 13 seconds of one core for 5 M parameters, about
/// 90 for 34 M. `tokens` are training tokens, from
/// [`data::for_calibration`]: all there are, for the shares of the tokens.
pub(crate) fn ensure(checkpoint: &Path, loaded: &Loaded, tokens: &Tokens, threads: usize) -> Result<Sensitivity> {
    let path = sensitivity::path(checkpoint);
    if path.is_file() {
        let read = sensitivity::read(&path, &loaded.model.config);
        match check(read?, loaded::hash(checkpoint)?, &path) {
            Ok(fresh) => return Ok(fresh),
            Err(stale) => eprintln!("{stale:#}: measuring again"),
        }
    }
    Job { tokens: TOKENS, seq_len: None, seed: SEED, threads }.run(checkpoint, loaded, tokens)
}

/// Refuses statistics of other weights.
#[allow(dead_code, reason = "see above")]
fn check(read: Sensitivity, weights: Digest, path: &Path) -> Result<Sensitivity> {
    if read.checkpoint != weights {
        bail!("{}: expected the sensitivity of weights {weights}, found that of {}", path.display(), read.checkpoint);
    }
    Ok(read)
}

/// A measurement as the verbs ask for it.
struct Job {
    tokens: usize,
    seq_len: Option<usize>,
    seed: u64,
    threads: usize,
}

impl Job {
    /// Measures and writes the file.
    fn run(&self, checkpoint: &Path, loaded: &Loaded, tokens: &Tokens) -> Result<Sensitivity> {
        let seq_len = self.seq_len.unwrap_or(loaded.model.config.train_seq_len);
        let text = Text { tokens: &tokens.tokens, seq_len, sequences: self.tokens.div_ceil(seq_len), seed: self.seed };
        let bar = Progress::new("sensitivity", "sequences", text.count() as u64);
        let bar = Mutex::new(bar);
        let show = |done: usize, _| bar.lock().unwrap_or_else(|e| e.into_inner()).set(done as u64);
        let measured = measure(&loaded.model, loaded::hash(checkpoint)?, &text, self.threads, &show)?;
        sensitivity::write(sensitivity::path(checkpoint), &measured)?;
        Ok(measured)
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len().max(1) as f64
}

/// By matrix: the mean over outputs, and how far apart outputs are.
fn summary(measured: &Sensitivity) -> String {
    let row = |(id, g): (&TensorId, &Vec<f32>)| {
        let roots: Vec<f32> = g.iter().map(|x| x.sqrt()).collect();
        let spread = (mean(g) / mean(&roots).powi(2).max(f64::MIN_POSITIVE) - 1.0).max(0.0).sqrt();
        vec![id.to_string(), g.len().to_string(), format!("{:.3e}", mean(g)), format!("{spread:.2}")]
    };
    let rows: Vec<_> = measured.outputs.iter().map(row).collect();
    render(&["matrix", "outputs", "mean squared gradient", "spread of its root"], &rows)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json {
    file: String,
    tokens: u64,
    checkpoint: String,
    seconds: f64,
    outputs: Vec<Mean>,
}

#[derive(Serialize)]
struct Mean {
    name: String,
    mean: f64,
}
