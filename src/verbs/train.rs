//! `train`: a model from token shards.

mod packing;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use sixpack_compress::predict;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_formats::{Digest, Model, checkpoint};
use sixpack_runtime::cuda::{self, Gpu, Recompute, Settings};
use sixpack_runtime::device::{self, Device};
use sixpack_train::collective::{Launch, Limits};
use sixpack_train::event::{Event, Progress};
use sixpack_train::loader::{Rank, Source};
use sixpack_train::trainer::{Sizing, Validation};
use sixpack_train::{Collective, Recipe, Setup, Trainer};

use crate::args::{self, On};
use crate::data;
use crate::misuse::{message, misuse};
use crate::say::say;
use crate::stop::{self, Busy};
use crate::table::thousands;
use crate::verbs::recipe;
use packing::Packing;

/// The log beside the checkpoint.
pub(crate) const LOG: &str = "train.jsonl";

/// Tokens of the validation split that a look during training takes.
const VALIDATION_TOKENS: usize = 65_536;

pub(crate) fn run(args: &args::Train) -> Result<()> {
    let launch = Launch::from_env().map_err(misuse)?;
    let recipe = recipe::load(&args.recipe, &args.set)?;
    sixpack_train::check_world(&recipe, launch.rank.world).map_err(misuse)?;
    let packing = Packing::wanted(args, &recipe)?;
    let recompute = args.recompute.unwrap_or(recipe.run.recompute);
    let gpu = gpu(args.device, recompute, launch.local)?;
    let seed = recipe.seed;
    let threads = args.threads.map_or_else(|| launch.threads(), usize::from);
    let all = launch.join(Limits::of(Duration::from_secs(args.rank_timeout)))?;
    let tokenizer = data::tokenizer_for(&args.data, args.tokenizer.as_deref());
    let trained = tokenizer.and_then(|tokenizer| {
        let run = Run {
            recipe,
            data: &args.data,
            tokenizer,
            out: &args.out,
            resume: args.resume,
            measure_size_every: args.measure_size_every,
            validate_every: args.validate_every,
            threads,
            json: args.json,
            lines_to_stderr: false,
            gpu,
            all: &*all,
        };
        run.train()
    });
    if let Err(error) = &trained {
        // Those that it did not come from find no other reason.
        all.leave(&message(error));
    }
    if trained? {
        say!("stopped; to go on: the same command with --resume");
        return Ok(());
    }
    match packing {
        Some(packing) if launch.rank.rank == 0 => packing.run(args, seed, On { device: args.device, threads }),
        _ => Ok(()),
    }
}

/// The GPU that trains, if one was asked for: that number, or for each process of a machine another one. `auto` is the CPU,
/// whose results do not depend on the machine.
fn gpu(device: Device, recompute: Recompute, local: Rank) -> Result<Option<Arc<Gpu>>> {
    let no_device = |reason| sixpack_runtime::Error::NoDevice { wanted: device.to_string(), reason };
    let wanted = match device {
        Device::Auto | Device::Cpu => return Ok(None),
        Device::Wgpu(_) => return Err(no_device("WebGPU does not train: expected cpu or cuda[:N]".into()).into()),
        Device::Cuda(wanted) => wanted,
    };
    let ordinal = match wanted {
        Some(ordinal) => ordinal,
        // A launcher may show each process its own GPU only.
        None => match cuda::gpus().map_or(1, |gpus| gpus.len()) {
            0 | 1 => 0,
            count if local.world <= count => local.rank,
            count => return Err(no_device(format!("{} processes on this machine share {count}", local.world)).into()),
        },
    };
    sixpack_runtime::now(device::present(Device::Cuda(Some(ordinal))))?;
    let gpu = Gpu::open(ordinal, Settings { recompute, ..Settings::default() })?;
    if !gpu.has_library() {
        eprintln!("cuBLASLt is not used (`sixpack devices` says what was found): products are slower without it");
    }
    Ok(Some(gpu))
}

/// A training run as the verbs ask for it.
pub(crate) struct Run<'a> {
    pub(crate) recipe: Recipe,
    pub(crate) data: &'a Path,
    pub(crate) tokenizer: Option<Vec<u8>>,
    pub(crate) out: &'a Path,
    pub(crate) resume: bool,
    /// Steps; `None` for a tenth of the budget, 0 for never.
    pub(crate) measure_size_every: Option<u64>,
    pub(crate) validate_every: u64,
    pub(crate) threads: usize,
    pub(crate) json: bool,
    /// For a verb whose standard output is something else.
    pub(crate) lines_to_stderr: bool,
    /// The GPU that trains; without one the CPU does.
    pub(crate) gpu: Option<Arc<Gpu>>,
    /// The processes of the run; the first has the folder and the log.
    pub(crate) all: &'a dyn Collective,
}

impl Run<'_> {
    /// Trains to the end of the budget, or until Ctrl-C; whether it was stopped, for who has the log.
    pub(crate) fn train(self) -> Result<bool> {
        let leads = self.all.rank().rank == 0;
        if leads && !self.resume && self.out.join(checkpoint::WEIGHTS).exists() {
            let out = self.out.display();
            return Err(misuse(format!(
                "{out} holds a checkpoint: go on from it with --resume, or choose another --out"
            )));
        }
        let vocab_size = self.recipe.model.vocab_size;
        let dataset = data::open_verified(self.data, vocab_size, self.tokenizer.as_deref().map(Digest::of))?;
        let tokenizer = self.tokenizer.as_deref().map(Tokenizer::from_model).transpose()?;
        if let Some(found) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|&v| v != vocab_size) {
            return Err(misuse(format!("vocab_size: the recipe has {vocab_size}, the tokenizer has {found} pieces")));
        }
        let shards = dataset.train_shards()?;
        let held_out = dataset.val_shards().first().map_or(&[][..], |s| &s.tokens()[..s.len().min(VALIDATION_TOKENS)]);
        let validation = (self.validate_every > 0 && held_out.len() > self.recipe.model.train_seq_len)
            .then_some(Validation { tokens: held_out, every_steps: self.validate_every });
        let names: Vec<(String, String)> = shards
            .iter()
            .map(|s| (s.path().file_name().unwrap_or_default().to_string_lossy().into_owned(), s.digest().to_string()))
            .collect();
        let sources = shards.iter().zip(&names);
        let sources = sources.map(|(s, (name, content))| Source { name, content, tokens: s.tokens() }).collect();
        let stop = stop::on_signal("stopping after this step, with a checkpoint")?;
        let threads = self.threads;
        let calibration = shards.first().map_or(&[][..], |s| s.tokens());
        // A model that cannot be quantised yet has no size, which is no reason to end its training.
        let measure = |model: &Model| predict::sizes(model, calibration, threads).ok();
        let sizing = (self.measure_size_every != Some(0))
            .then_some(Sizing { every_steps: self.measure_size_every, measure: &measure });
        let setup = Setup {
            folder: Some(self.out.into()),
            tokenizer: self.tokenizer,
            byte_tables: tokenizer.as_ref().map(Tokenizer::byte_tables),
            sizing,
            validation,
            stop: Some(&stop),
            all: self.all,
            gpu: self.gpu.as_ref(),
            ..Setup::new(sources, threads)
        };
        let mut trainer =
            if self.resume { Trainer::resume(self.recipe, setup)? } else { Trainer::new(self.recipe, setup)? };
        let mut log = leads.then(|| Log::create(self.out, self.resume, self.json)).transpose()?;
        if let Some(log) = &mut log {
            log.lines_to_stderr = self.lines_to_stderr;
        }
        let mut failed = None;
        let busy = Busy::begin();
        let done = trainer.run(&mut |event| {
            let written = log.as_mut().map_or(Ok(()), |log| log.write(event));
            if let Err(error) = written {
                failed.get_or_insert(error);
                stop.store(true, Ordering::Relaxed);
            }
        });
        drop(busy);
        done.map_err(|error| with_the_way_on(error, trainer.saved()))?;
        match failed {
            Some(error) => Err(error),
            None => Ok(log.is_some_and(|log| log.stopped)),
        }
    }
}

/// What to do about the loss of a process.
fn with_the_way_on(error: sixpack_train::Error, saved: Option<u64>) -> anyhow::Error {
    match (error, saved) {
        (error @ sixpack_train::Error::Lost { .. }, Some(step)) => {
            anyhow!("{error}; to go on from step {step}: the same command with --resume, on any number of processes")
        }
        (error @ sixpack_train::Error::Lost { .. }, None) => anyhow!("{error}; there is no checkpoint yet"),
        (error, _) => error.into(),
    }
}

/// Where events go: lines or a bar for people, JSON lines in a file, or on standard output if asked for.
struct Log {
    file: std::fs::File,
    json: bool,
    lines_to_stderr: bool,
    bar: ProgressBar,
    stopped: bool,
}

impl Log {
    fn create(folder: &Path, append: bool, json: bool) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(LOG);
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(append).write(true).truncate(!append);
        let file = options.open(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let style = ProgressStyle::with_template("{bar:32} {percent:>3}%  {msg}").expect("the template is a constant");
        // Hidden where there is no terminal.
        let bar = ProgressBar::new(1000).with_style(style);
        Ok(Self { file, json, lines_to_stderr: false, bar, stopped: false })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        if let Event::End { stopped, .. } = event {
            self.stopped = *stopped;
        }
        let line = serde_json::to_string(event)?;
        writeln!(self.file, "{line}").context("cannot write the log")?;
        if self.json {
            say!("{line}");
        } else {
            self.show(event);
        }
        Ok(())
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Start { parameters, step, threads, gpu, gpu_bytes, ranks, way, .. } => {
                let from = if *step > 0 { format!(" from step {step}") } else { String::new() };
                let on = if *ranks > 1 { format!("{ranks} processes of ") } else { String::new() };
                let memory = |bytes: u64| format!(", {:.2} GB of its memory", bytes as f64 / 1e9);
                let memory = gpu_bytes.map(memory).unwrap_or_default();
                let machine = gpu.as_ref().map_or_else(|| format!("{threads} threads"), |gpu| format!("{gpu}{memory}"));
                self.line(&format!("training {} parameters on {on}{machine}{from}", thousands(*parameters)));
                way.iter().for_each(|way| self.line(way));
            }
            Event::Step(progress) => {
                self.line(&step_line(progress));
                self.bar.set_position((progress.fraction * 1000.0) as u64);
                self.bar.set_message(format!(
                    "{:.0} tokens/s, {:.0} s left",
                    progress.tokens_per_second, progress.remaining
                ));
            }
            Event::Validation { step, loss, bits_per_byte } => {
                self.line(&format!("step {step:>6}  validation loss {loss:.4}{}", bpb(*bits_per_byte)));
            }
            Event::Checkpoint { step, folder } => {
                self.line(&format!("step {step:>6}  checkpoint in {}", folder.display()));
            }
            Event::End { step, tokens, elapsed, .. } => {
                self.bar.finish_and_clear();
                self.line(&format!("{step} steps, {} tokens in {elapsed:.0} s", thousands(*tokens)));
            }
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| if self.lines_to_stderr { eprintln!("{text}") } else { say!("{text}") });
    }
}

/// One line of the log: accuracy and size together.
fn step_line(p: &Progress) -> String {
    format!(
        "step {:>6}  loss {:.4}{}  {:>6.0} tokens/s  {:>5.0} ms  lr ×{:.3}{}  {}{} bytes",
        p.step,
        p.loss,
        bpb(p.bits_per_byte),
        p.tokens_per_second,
        p.ms_per_step,
        p.lr_scale,
        if p.recurrence { "  recurrent" } else { "" },
        if p.measured { "" } else { "~" },
        thousands(p.projected_bytes),
    )
}

fn bpb(bits: Option<f64>) -> String {
    bits.map_or(String::new(), |b| format!("  {b:.4} bpb"))
}
