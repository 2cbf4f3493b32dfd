//! The memory that a run takes on a GPU, before it is on one.

use sixpack_formats::ModelConfig;
use sixpack_runtime::cuda::{Gpu, Kind, Recompute, Settings};

use super::{Learner, Rules};
use crate::optim::{Groups, Now};
use crate::{Params, Recipe, Result, Sequences};

/// Bytes that the steps of a recipe take on the GPU of each of `world` ranks: as [`steps`] takes them.
///
/// # Errors
/// A recipe whose optimizer has no coefficients.
pub fn recipe(recipe: &Recipe, world: usize, recompute: Recompute) -> Result<u64> {
    let rules = Rules {
        micro_batch: recipe.batch.on_gpu(),
        grad_clip: recipe.optimizer.grad_clip,
        ema_decay: recipe.optimizer.ema_decay,
    };
    steps(&recipe.model, recipe.optimizer.groups(), rules, (recipe.sequences_per_step() / world).max(1), recompute)
}

/// Bytes that steps on so many sequences take: weights, gradients, optimizers' state, activations. The engine itself is run
/// for it, on a GPU that is not there. The driver's own memory, kernels' code and cuBLASLt's workspace come on top; so does
/// what a look at validation tokens takes, which has no backward.
///
/// # Errors
/// Coefficients for another number of iterations.
pub fn steps(model: &ModelConfig, groups: Groups, rules: Rules, sequences: usize, recompute: Recompute) -> Result<u64> {
    let gpu = Gpu::imagined(Settings { recompute, ..Settings::default() });
    let weights: Params = model.tensors().into_iter().map(|spec| (spec.id, vec![0.0; spec.elements()])).collect();
    let mut learner = Learner::new(&gpu, Kind::Bf16, model, groups, rules, [&weights, &weights])?;
    drop(weights);
    let batch = Sequences::from_windows(&vec![0; sequences * (model.train_seq_len + 1)], model.train_seq_len);
    let all: &[bool] = if model.recur_layers.is_empty() { &[false] } else { &[false, true] };
    // The first time takes memory, the second is recorded.
    for &recurrence in all.iter().flat_map(|recurrence| [recurrence; 2]) {
        learner.pass(&batch, recurrence, 1)?;
        learner.update(Now::default())?;
    }
    Ok(gpu.taken()? as u64)
}

/// As [`recipe`] of the ranks' GPU, which must have as much.
///
/// # Errors
/// As [`recipe`]; a GPU without room.
pub(crate) fn room(gpu: &Gpu, recipe: &Recipe, world: usize) -> Result<u64> {
    let expected = self::recipe(recipe, world, gpu.settings().recompute)?;
    let found = gpu.facts().memory.saturating_sub(gpu.taken()?) as u64;
    if expected <= found {
        return Ok(expected);
    }
    let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let reason = format!(
        "expected {} for steps with {} sequences at once, found {} free; fewer at once (batch.gpu_micro_batch) take less, \
         and with all that can be computed again (recompute) it is {}",
        gigabytes(expected),
        recipe.batch.on_gpu(),
        gigabytes(found),
        gigabytes(self::recipe(recipe, world, Recompute::ALL)?)
    );
    Err(sixpack_runtime::Error::GpuFull { adapter: gpu.facts().name.clone(), reason }.into())
}
