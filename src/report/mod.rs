//! `compress --report`: one page about a compressed model, with nothing from elsewhere and nothing to run.

pub(crate) mod html;
mod page;
mod pictures;

use std::path::Path;

use anyhow::Result;
use sixpack_compress::sweep::Points;
use sixpack_formats::atomic;
use sixpack_runtime::cpu::Fast;
use sixpack_runtime::divergence::{self, Divergence};
use sixpack_runtime::{metric, now};

use self::page::Page;
use crate::data::Tokens;
use crate::loaded::{self, Loaded};
use crate::misuse::misuse;
use crate::progress::Progress;
use crate::verbs::compress::{Job, Outcome};
use crate::verbs::eval;

/// Most positions at which predictions are compared: enough for the second digit of their divergence.
const POSITIONS: usize = 65_536;

/// Where a sweep keeps its points, to be shown with the new one if it is beside the artifact.
const POINTS: &str = "points.json";

/// Refuses a place that cannot be written to before the work is done.
pub(crate) fn check(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() || path.is_dir() {
        return Err(misuse(format!("--report: expected a file in a folder that is there, found {}", path.display())));
    }
    Ok(())
}

/// Writes the page, atomically.
pub(crate) fn write(path: &Path, job: &Job<'_>, outcome: &Outcome, float: &Loaded, scored: &Tokens) -> Result<()> {
    let packed = loaded::open(job.out)?;
    let (divergence, seq_len) = compare(job, float, &packed, scored)?;
    let name = job.out.file_name().unwrap_or_default().to_string_lossy();
    let beside = job.out.parent().unwrap_or(Path::new("")).join(POINTS);
    let points = Points::read(beside)?.points;
    let page = Page { name: &name, outcome, packed: &packed, divergence: &divergence, seq_len, points: &points };
    Ok(atomic::write(path, page.html().as_bytes())?)
}

/// How far the packed model's predictions are from the float model's, over consecutive windows of what was scored; and
/// the length of these.
fn compare(job: &Job<'_>, float: &Loaded, packed: &Loaded, scored: &Tokens) -> Result<(Divergence, usize)> {
    let config = &float.model.config;
    let options = eval::options(&job.windows, config.eval_seq_len)?;
    let most = options.max_tokens.unwrap_or(POSITIONS).min(POSITIONS);
    // Plain windows need one that is whole.
    let seq_len = options.seq_len.min(scored.tokens.len().saturating_sub(1)).min(most).max(1);
    let options = metric::Options { seq_len, stride: None, max_tokens: Some(most), ..options };
    let mut ops = Fast::new(job.on.threads)?;
    let weights = [ops.load(&float.model), ops.load(&packed.model)];
    let p = divergence::Loaded { config, weights: &weights[0] };
    let q = divergence::Loaded { config: &packed.model.config, weights: &weights[1] };
    let mut bar = None;
    let mut show = |done, of| bar.get_or_insert_with(|| Progress::new("comparing", "positions", of)).set(done);
    let found = now(divergence::divergence(&p, &q, &mut ops, &scored.tokens, &options, &mut show))?;
    Ok((found, seq_len))
}
