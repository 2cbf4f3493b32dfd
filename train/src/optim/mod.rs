//! The optimizers, on plain slices: MuonEq-R for matrices, AdamW for the rest, the clip and the moving average.

pub mod adamw;
pub mod muon;
pub mod newton_schulz;

use std::collections::BTreeMap;

use rayon::prelude::*;
use sixpack_formats::{ModelConfig, OptimizerGroup, TensorId, TensorSpec};

pub use adamw::AdamW;
pub use muon::Muon;

use crate::params::Params;
use crate::vector::sum_of_squares;
use crate::{Error, Result};

/// Settings of the three groups; [`TensorSpec::group`] says which tensor is in which.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Matrices of the blocks.
    pub matrix: Muon,
    /// Embedding tables.
    pub token: AdamW,
    /// Control tensors.
    pub scalar: AdamW,
}

/// What one tensor's optimizer remembers.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Muon { momentum: Vec<f32> },
    AdamW { mean: Vec<f32>, square: Vec<f32> },
}

/// All tensors' optimizers. One step updates every tensor exactly once.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    groups: Groups,
    table: Vec<TensorSpec>,
    states: BTreeMap<TensorId, State>,
    steps: u64,
}

/// The factors that change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// Factor on every learning rate.
    pub lr_scale: f32,
    /// Muon's momentum.
    pub momentum: f32,
}

impl Optimizer {
    /// Optimizers for the tensors of `config`, at step 0.
    pub fn new(config: &ModelConfig, groups: Groups) -> Self {
        let table = config.tensors();
        let states = table.iter().map(|spec| (spec.id, State::new(spec))).collect();
        Self { groups, table, states, steps: 0 }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates every tensor of the table by its gradient. Tensors are shared out over the current rayon pool; each is
    /// updated by one thread, so the result does not depend on their number.
    ///
    /// # Panics
    /// If `params` or `gradients` are not those of the configuration.
    pub fn step(&mut self, params: &mut Params, gradients: &Params, now: Now) {
        self.steps += 1;
        let (groups, steps) = (&self.groups, self.steps);
        assert!(params.keys().eq(self.states.keys()), "parameters of another configuration");
        let specs: BTreeMap<_, _> = self.table.iter().map(|spec| (spec.id, spec)).collect();
        let tensors = params.iter_mut().zip(self.states.values_mut());
        let mut work: Vec<_> = tensors.map(|((id, w), state)| (specs[id], w, &gradients[id], state)).collect();
        // Large tensors first, so that no thread is left with one at the end.
        work.sort_by_key(|(spec, ..)| std::cmp::Reverse(spec.elements()));
        work.into_par_iter().for_each(|(spec, w, g, state)| match (spec.group, state) {
            (OptimizerGroup::Matrix, State::Muon { momentum }) => {
                groups.matrix.step(w, g, momentum, [spec.shape[0], spec.shape[1]], now);
            }
            (OptimizerGroup::Token, State::AdamW { mean, square }) => {
                groups.token.step(w, g, mean, square, steps, now.lr_scale);
            }
            (OptimizerGroup::Scalar, State::AdamW { mean, square }) => {
                groups.scalar.step(w, g, mean, square, steps, now.lr_scale);
            }
            _ => unreachable!("the state was made for the group"),
        });
    }

    /// What a resumed run needs: a name for each buffer, `momentum.NAME`, `mean.NAME` or `square.NAME`.
    pub fn buffers(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.states.iter().flat_map(|(id, state)| match state {
            State::Muon { momentum } => vec![(format!("momentum.{id}"), momentum.as_slice())],
            State::AdamW { mean, square } => {
                vec![(format!("mean.{id}"), mean.as_slice()), (format!("square.{id}"), square.as_slice())]
            }
        })
    }

    /// Takes back the state after `steps` steps: `take` gives the buffer of a name, as [`Optimizer::buffers`] named it.
    ///
    /// # Errors
    /// If a buffer is missing or has another length.
    pub fn restore(&mut self, steps: u64, mut take: impl FnMut(&str) -> Option<Vec<f32>>) -> Result<()> {
        let mut fill = |name: String, buffer: &mut Vec<f32>| {
            let found = take(&name).ok_or_else(|| Error::MissingTensor(name.clone()))?;
            if found.len() != buffer.len() {
                return Err(Error::TensorLength { name, expected: buffer.len(), found: found.len() });
            }
            *buffer = found;
            Ok(())
        };
        for (id, state) in &mut self.states {
            match state {
                State::Muon { momentum } => fill(format!("momentum.{id}"), momentum)?,
                State::AdamW { mean, square } => {
                    fill(format!("mean.{id}"), mean)?;
                    fill(format!("square.{id}"), square)?;
                }
            }
        }
        self.steps = steps;
        Ok(())
    }
}

impl State {
    fn new(spec: &TensorSpec) -> Self {
        let zeros = || vec![0.0; spec.elements()];
        match spec.group {
            OptimizerGroup::Matrix => Self::Muon { momentum: zeros() },
            OptimizerGroup::Token | OptimizerGroup::Scalar => Self::AdamW { mean: zeros(), square: zeros() },
        }
    }
}

/// Scales all gradients down to a global norm of at most `limit`; returns the norm before.
pub fn clip(gradients: &mut Params, limit: f64) -> f64 {
    let norm = gradients.values().map(|g| sum_of_squares(g)).sum::<f64>().sqrt();
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        gradients.values_mut().flatten().for_each(|g| *g *= factor as f32);
    }
    norm
}

/// Moves the average towards the weights: `average ← decay · average + (1 − decay) · w`, in f32.
pub fn average(average: &mut Params, params: &Params, decay: f64) {
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    for (average, w) in average.values_mut().zip(params.values()) {
        average.iter_mut().zip(w).for_each(|(a, w)| *a = keep * *a + take * w);
    }
}
