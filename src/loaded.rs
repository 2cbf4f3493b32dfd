//! MODEL on the command line: an artifact or a checkpoint folder, read into one form.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use sixpack_formats::artifact::{Artifact, Job, Ledger, Provenance};
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_formats::{Digest, Model, Score, checkpoint};
use sixpack_runtime::{Engine, now};

use crate::args::On;

/// A model from disk.
pub(crate) struct Loaded {
    /// Its numbers.
    pub(crate) model: Model,
    /// Its tokenizer, if it has one.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// What only an artifact has.
    pub(crate) packed: Option<Packed>,
}

/// What an artifact says beside its numbers.
pub(crate) struct Packed {
    /// What it was made from.
    pub(crate) provenance: Provenance,
    /// What was measured on it.
    pub(crate) score: Option<Score>,
    /// What its bytes are for.
    pub(crate) ledger: Ledger,
}

/// Reads the model at `path`.
pub(crate) fn open(path: &Path) -> Result<Loaded> {
    let (model, packed) = if path.is_dir() {
        (read_checkpoint(path)?, None)
    } else {
        let Artifact { model, provenance, score, ledger } = Artifact::open_with(path, &at_once)?;
        (model, Some(Packed { provenance, score, ledger }))
    };
    let tokenizer = model.tokenizer.as_deref().map(Tokenizer::from_model).transpose();
    let tokenizer = tokenizer.with_context(|| format!("{}: its tokenizer", path.display()))?;
    if let Some(found) = tokenizer.as_ref().map(Tokenizer::vocab_size)
        && found != model.config.vocab_size
    {
        bail!("{}: expected a tokenizer of {} pieces, found {found}", path.display(), model.config.vocab_size);
    }
    Ok(Loaded { model, tokenizer, packed })
}

/// A model where it is to run. A GPU that `auto` passed over for another reason than its speed is told in one line.
pub(crate) fn engine(model: &Model, on: On) -> Result<Engine> {
    let engine = now(Engine::open(model, on.device, on.threads))?;
    if let Some(choice) = engine.choice().filter(|choice| !choice.passed_over.is_empty()) {
        eprintln!("sixpack: on the {}: {choice}", choice.device);
    }
    Ok(engine)
}

/// Runs independent jobs on all cores.
pub(crate) fn at_once(jobs: Vec<Job<'_>>) {
    jobs.into_par_iter().for_each(|job| job());
}

/// Reads a checkpoint folder, whose weights may be a PyTorch file.
pub(crate) fn read_checkpoint(dir: &Path) -> Result<Model> {
    match pytorch_file(dir) {
        Some(weights) => Ok(sixpack_train::pytorch::read_checkpoint(dir, &weights)?),
        None => Ok(checkpoint::read(dir)?),
    }
}

/// The hash of a checkpoint folder's weights, whichever file they are in.
pub(crate) fn hash(dir: &Path) -> Result<Digest> {
    match pytorch_file(dir) {
        Some(weights) => Ok(Digest::of_file(weights)?),
        None => Ok(checkpoint::hash(dir)?),
    }
}

/// The `.pt` file of a folder that has no safetensors weights.
fn pytorch_file(dir: &Path) -> Option<std::path::PathBuf> {
    if checkpoint::weights_file(dir).is_ok() {
        return None;
    }
    let mut files: Vec<_> = std::fs::read_dir(dir).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "pt" || e == "pth"));
    if files.len() == 1 { files.pop() } else { None }
}
