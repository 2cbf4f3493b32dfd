//! One run: train, score, compress, each by the verb of that name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use sixpack_train::experiment::{Artifact, Log, Measured, Outcome, Plan, Record, Run, Trained};

use super::child::{Child, Ended};
use super::folder::{self, RECIPE};
use crate::verbs::train;

/// The trained model, within the run's folder.
const CHECKPOINT: &str = "checkpoint";
/// Where it is compressed.
const ARTIFACTS: &str = "artifacts";

/// What all runs share.
pub(super) struct Job<'a> {
    pub(super) plan: &'a Plan,
    pub(super) data: &'a Path,
    pub(super) device: String,
    pub(super) threads: usize,
    pub(super) keep_checkpoints: bool,
    pub(super) stop: &'a AtomicBool,
}

/// A step of a run that did not end well.
enum Broken {
    Crash(String),
    Stopped,
}

/// What a step gives, or why there is nothing to go on with; failures of this program apart.
type Step<T> = Result<Result<T, Broken>>;

/// The value of a step, or the end of the run.
macro_rules! step {
    ($value:expr) => {
        match $value? {
            Ok(value) => value,
            Err(broken) => return Ok(Err(broken)),
        }
    };
}

impl Job<'_> {
    /// Does a run in a folder; `None` if it was stopped.
    pub(super) fn run(&self, run: Run, folder: &Path, gpu: Option<&str>) -> Result<Option<Record>> {
        let outcome = match self.outcome(folder, gpu)? {
            Ok(trained) => Outcome::Trained(Box::new(trained)),
            Err(Broken::Crash(reason)) => Outcome::Crash(reason),
            Err(Broken::Stopped) => return Ok(None),
        };
        // The log is what is left of a training, also of one that crashed.
        let log = folder.join(CHECKPOINT).join(train::LOG);
        if log.exists() {
            std::fs::rename(&log, folder.join(train::LOG)).with_context(|| format!("cannot move {}", log.display()))?;
        }
        if !self.keep_checkpoints {
            folder::clear(&folder.join(CHECKPOINT))?;
        }
        folder::clear(&folder.join(ARTIFACTS))?;
        Ok(Some(Record { id: self.plan.arm(run).id.clone(), seed: run.seed, outcome }))
    }

    fn outcome(&self, folder: &Path, gpu: Option<&str>) -> Step<Trained> {
        let start = Instant::now();
        let deadline = start + Duration::from_secs_f64(self.plan.time_limit);
        let child = |arguments| Child { arguments, gpu, folder, deadline, stop: self.stop };
        let checkpoint = folder.join(CHECKPOINT);
        let arguments = train_arguments(&folder.join(RECIPE), self.data, &checkpoint, &self.device, self.threads);
        let training = child(arguments);
        let (_, peak_memory) = step!(ended(training.run()));
        let text = std::fs::read_to_string(checkpoint.join(train::LOG)).unwrap_or_default();
        let Some(log) = Log::read(&text) else {
            // A training that is asked to stop ends well, but not by itself.
            if training.stopped() {
                return Ok(Err(Broken::Stopped));
            }
            return crash("train: the log has no end");
        };
        let arguments = eval_arguments(self.plan, &checkpoint, self.data, &self.device, self.threads);
        let score = step!(json(child(arguments).run()));
        let number = |key: &str| score[key].as_f64().filter(|x| x.is_finite());
        let (Some(bits_per_byte), Some(nats_per_token)) = (number("bits_per_byte"), number("loss_nats")) else {
            return crash("eval: the model has no finite score");
        };
        let artifacts = match &self.plan.compress {
            None => Vec::new(),
            Some(_) => {
                let out = folder.join(ARTIFACTS);
                let arguments = compress_arguments(self.plan, &checkpoint, self.data, &out, &self.device, self.threads);
                artifacts(&step!(json(child(arguments).run())))
            }
        };
        let measured = Measured {
            tokens_per_second: log.tokens as f64 / log.seconds.max(1e-9),
            training_seconds: log.seconds,
            seconds: start.elapsed().as_secs_f64(),
            peak_memory,
        };
        Ok(Ok(Trained {
            bits_per_byte,
            nats_per_token,
            bytes: log.bytes,
            steps: log.steps,
            tokens: log.tokens,
            artifacts,
            measured,
            curve: log.curve,
        }))
    }
}

/// The arguments of a training. What scores the models trains them where it can: WebGPU does not, and `auto` would train
/// runs of one plan on different machines.
pub(super) fn train_arguments(recipe: &Path, data: &Path, out: &Path, device: &str, threads: usize) -> Vec<OsString> {
    let device = if device.starts_with("cuda") { device } else { "cpu" };
    let mut arguments = words(&["train", "--recipe"]);
    arguments.extend([recipe.into(), "--data".into(), data.into(), "--out".into(), out.into()]);
    arguments.extend(words(&[
        "--json",
        "--measure-size-every",
        "0",
        "--device",
        device,
        "--threads",
        &threads.to_string(),
    ]));
    arguments
}

/// The arguments of scoring a trained model.
pub(super) fn eval_arguments(plan: &Plan, model: &Path, data: &Path, device: &str, threads: usize) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["eval".into(), model.into(), "--data".into(), data.into()];
    arguments.extend(words(&["--json", "--device", device, "--threads", &threads.to_string()]));
    arguments.extend(words(&plan.eval));
    arguments
}

/// The arguments of compressing it in all the plan's ways: a sweep, which shares what they have in common.
pub(super) fn compress_arguments(
    plan: &Plan,
    model: &Path,
    data: &Path,
    out: &Path,
    device: &str,
    threads: usize,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["sweep".into(), "--checkpoints".into(), model.into()];
    arguments.extend(["--data".into(), data.into(), "--out".into(), out.into()]);
    arguments.extend(words(&["--json", "--device", device, "--threads", &threads.to_string()]));
    arguments.extend(words(&plan.eval));
    arguments.extend(plan.compress.iter().flat_map(|(compress, _)| words(compress)));
    arguments
}

fn words(words: &[impl AsRef<str>]) -> Vec<OsString> {
    words.iter().map(|w| w.as_ref().into()).collect()
}

fn crash<T>(reason: &str) -> Step<T> {
    Ok(Err(Broken::Crash(reason.into())))
}

/// Standard output of a process that ended well, and its memory.
fn ended(ended: Result<Ended>) -> Step<(PathBuf, Option<u64>)> {
    Ok(match ended? {
        Ended::Well { stdout, peak_memory } => Ok((stdout, peak_memory)),
        Ended::Badly(reason) => Err(Broken::Crash(reason)),
        Ended::Stopped => Err(Broken::Stopped),
    })
}

/// The JSON object that a process printed.
fn json(process: Result<Ended>) -> Step<Value> {
    let (path, _) = step!(ended(process));
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).map(Ok).or_else(|e| crash(&format!("{}: {e}", path.display())))
}

/// The points of a sweep.
fn artifacts(sweep: &Value) -> Vec<Artifact> {
    let all = |key: &str| sweep[key].as_array().cloned().unwrap_or_default();
    let made = all("points").into_iter().map(|p| Artifact {
        id: artifact_id(&p["settings"]),
        score: p
            .pointer("/packed/bytes")
            .and_then(Value::as_u64)
            .zip(p.pointer("/packed/bits_per_byte").and_then(Value::as_f64)),
        refused: None,
    });
    let refused = all("refused").into_iter().map(|r| Artifact {
        id: artifact_id(&r["settings"]),
        score: None,
        refused: r["reason"].as_str().map(str::to_owned),
    });
    let mut artifacts: Vec<Artifact> = made.chain(refused).collect();
    artifacts.sort_by(|a, b| a.id.cmp(&b.id));
    artifacts
}

/// The settings of an artifact as part of an id; numbers so that they sort.
fn artifact_id(settings: &Value) -> String {
    let text = |key: &str| settings[key].as_str().unwrap_or("?").to_owned();
    let size = match (settings["int6_layers"].as_u64(), settings["target_bytes"].as_u64()) {
        (Some(n), _) => format!("-int6x{n:03}"),
        (None, Some(bytes)) => format!("-{bytes:09}B"),
        (None, None) => String::new(),
    };
    format!("{}-{}{size}", text("scheme"), text("codec"))
}
