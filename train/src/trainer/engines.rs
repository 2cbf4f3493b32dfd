//! What computes: a GPU, which is given steps ahead of what it has done, or the CPU, which takes them at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixpack_runtime::cuda::{Gpu, Kind};

use crate::cuda::{IN_FLIGHT, Learner, Outcome, Ranks, Rules};
use crate::engine::{CpuEngine, Sequences};
use crate::optim::{self, Now};
use crate::recipe::Recipe;
use crate::resume::State;
use crate::{Collective, Error, Result};

/// What computes: a GPU if there is one, else the CPU.
pub(super) struct Engines<'a> {
    pub(super) cpu: &'a CpuEngine,
    pub(super) gpu: Option<(&'a mut Learner, &'a Ranks<'a>)>,
}

impl Engines<'_> {
    /// One optimizer step: gradients, clip, update, average. Returns what a step has found that is done now: this one, or one
    /// of those that were begun before, in their order.
    pub(super) fn step(
        &mut self,
        recipe: &Recipe,
        state: &mut State<'_>,
        batch: &Sequences,
        (recurrence, now): (bool, Now),
        all: &dyn Collective,
    ) -> Result<Option<Outcome>> {
        let done = if let Some((learner, ranks)) = &mut self.gpu {
            let done = if learner.in_flight() == IN_FLIGHT { learner.finish()? } else { None };
            learner.queue(batch, recurrence, now, ranks)?;
            done
        } else {
            let mut gradients = self.cpu.gradients_of_all(&state.weights, batch, recurrence, all)?;
            let grad_norm = optim::clip(&mut gradients.of, recipe.optimizer.grad_clip);
            is_a_number(state.step, gradients.loss, grad_norm)?;
            self.cpu.pool().install(|| state.optimizer.step_of_all(&mut state.weights, &gradients.of, now, all))?;
            optim::average(&mut state.average, &state.weights, recipe.optimizer.ema_decay);
            // All ranks have the mean of all: it is the first one's part.
            let loss = if all.rank().rank == 0 { gradients.loss } else { 0.0 };
            Some(Outcome { loss, grad_norm })
        };
        state.step += 1;
        state.tokens += recipe.batch.tokens_per_step as u64;
        Ok(done)
    }
}

/// Refuses what a step after so many others has found, if training has come to nothing.
pub(super) fn is_a_number(step: u64, loss: f64, grad_norm: f64) -> Result<()> {
    match loss.is_finite() && grad_norm.is_finite() {
        true => Ok(()),
        false => Err(Error::Diverged { step, loss, grad_norm }),
    }
}

/// What all steps in flight find, once they are done.
pub(super) fn drain(learner: Option<&mut Learner>) -> Result<Vec<Outcome>> {
    let Some(learner) = learner else { return Ok(Vec::new()) };
    std::iter::from_fn(|| learner.finish().transpose()).collect()
}

/// A learner with the state of a run.
pub(super) fn learner(gpu: &Arc<Gpu>, recipe: &Recipe, state: &State<'_>) -> Result<Learner> {
    let rules = Rules {
        micro_batch: recipe.batch.on_gpu(),
        grad_clip: recipe.optimizer.grad_clip,
        ema_decay: recipe.optimizer.ema_decay,
    };
    let weights = [&state.weights, &state.average];
    let mut learner = Learner::new(gpu, Kind::Bf16, &recipe.model, recipe.optimizer.groups(), rules, weights)?;
    put(&mut learner, state)?;
    Ok(learner)
}

/// Gives a learner the state of a run.
pub(super) fn put(learner: &mut Learner, state: &State<'_>) -> Result<()> {
    let buffers: BTreeMap<String, &[f32]> = state.optimizer.buffers().collect();
    let take = |name: &str| buffers.get(name).map(|buffer| buffer.to_vec());
    learner.restore([&state.weights, &state.average], state.optimizer.steps(), take)
}
