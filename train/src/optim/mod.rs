//! The optimizers, on plain slices: Muon, NorMuon or AdamW for matrices, AdamW for the rest, the clip and the moving
//! average.

pub mod adamw;
pub mod coefficients;
pub mod fit;
pub mod matrix;
pub mod muon;
pub mod newton_schulz;
pub mod normuon;
pub mod shard;
mod state;

use std::collections::BTreeMap;

use rayon::prelude::*;
use sixpack_formats::{ModelConfig, OptimizerGroup, TensorId, TensorSpec};

pub use adamw::AdamW;
pub use coefficients::Coefficients;
pub use matrix::Matrix;
pub use muon::Muon;
pub(crate) use muon::height;
pub use newton_schulz::NewtonSchulz;
pub use normuon::NorMuon;

use crate::params::Params;
use crate::vector::sum_of_squares;
use crate::{Error, Result};
use matrix::Member;
use state::State;

/// Settings of the three groups; [`TensorSpec::group`] says which tensor is in which.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Matrices of the blocks.
    pub matrix: Matrix,
    /// Embedding tables.
    pub token: AdamW,
    /// Control tensors.
    pub scalar: AdamW,
}

/// All tensors' optimizers. One step updates every tensor exactly once.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    groups: Groups,
    newton_schulz: Option<NewtonSchulz>,
    table: Vec<TensorSpec>,
    states: BTreeMap<TensorId, State>,
    steps: u64,
}

/// The factors that change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// Factor on every learning rate.
    pub lr_scale: f32,
    /// Muon's and NorMuon's momentum.
    pub momentum: f32,
    /// Factor on every weight decay, beside the learning rate's.
    pub decay_scale: f32,
}

impl Default for Now {
    /// Rates and decay as they are set, and a momentum of 0.95.
    fn default() -> Self {
        Self { lr_scale: 1.0, momentum: 0.95, decay_scale: 1.0 }
    }
}

/// What one task of a step updates.
enum Work<'a> {
    Tensor(&'a AdamW, &'a mut [f32], &'a [f32], &'a mut State),
    Stack([usize; 2], Vec<Member<'a>>),
}

impl Optimizer {
    /// Optimizers for the tensors of `config`, at step 0.
    ///
    /// # Errors
    /// If the matrix group's coefficients are not for as many iterations as it has.
    pub fn new(config: &ModelConfig, groups: Groups) -> Result<Self> {
        Self::of_table(config.tensors(), groups)
    }

    /// Optimizers for the tensors of a table, at step 0.
    ///
    /// # Errors
    /// As [`Optimizer::new`].
    pub fn of_table(table: Vec<TensorSpec>, groups: Groups) -> Result<Self> {
        let states = table.iter().map(|spec| (spec.id, State::new(spec, &groups.matrix))).collect();
        let newton_schulz = groups.matrix.newton_schulz()?;
        Ok(Self { groups, newton_schulz, table, states, steps: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates every tensor of the table by its gradient. Tensors, and the matrices of stacks of one shape, are shared
    /// out over the current rayon pool; each is updated by one thread, so the result does not depend on their number.
    ///
    /// # Panics
    /// If `params` or `gradients` are not those of the configuration.
    pub fn step(&mut self, params: &mut Params, gradients: &Params, now: Now) {
        self.steps += 1;
        self.update(params, gradients, now, |_| true);
    }

    /// Updates the tensors that are to be.
    fn update(&mut self, params: &mut Params, gradients: &Params, now: Now, is_due: impl Fn(TensorId) -> bool) {
        let Self { groups, newton_schulz, table, states, steps } = self;
        assert!(params.keys().eq(states.keys()), "parameters of another configuration");
        let specs: BTreeMap<_, _> = table.iter().map(|spec| (spec.id, spec)).collect();
        let mut work = Vec::new();
        let mut stacks: BTreeMap<[usize; 2], Vec<Member<'_>>> = BTreeMap::new();
        for ((id, w), state) in params.iter_mut().zip(states.values_mut()).filter(|((id, _), _)| is_due(**id)) {
            let (spec, gradient) = (specs[id], gradients[id].as_slice());
            let rule = match (spec.group, &groups.matrix) {
                (OptimizerGroup::Token, _) => &groups.token,
                (OptimizerGroup::Scalar, _) => &groups.scalar,
                (OptimizerGroup::Matrix, Matrix::AdamW(rule)) => rule,
                (OptimizerGroup::Matrix, Matrix::Muon(_) | Matrix::NorMuon(_)) => {
                    let (momentum, moment) = state.moments();
                    let member = Member { w, gradient, momentum, moment };
                    stacks.entry([spec.shape[0], spec.shape[1]]).or_default().push(member);
                    continue;
                }
            };
            work.push(Work::Tensor(rule, w, gradient, state));
        }
        work.extend(stacks.into_iter().map(|(shape, members)| Work::Stack(shape, members)));
        // The largest first, so that no thread is left with one at the end.
        work.sort_by_key(|work| std::cmp::Reverse(work.elements()));
        work.into_par_iter().for_each(|work| match work {
            Work::Tensor(rule, w, gradient, state) => {
                let (mean, square) = state.moments();
                rule.step(w, gradient, mean, square, *steps, now);
            }
            Work::Stack(shape, members) => {
                let by = newton_schulz.as_ref().expect("made for a rule that orthogonalises");
                groups.matrix.step(by, members, shape, now);
            }
        });
    }

    /// What a resumed run needs: a name for each buffer, such as `momentum.NAME`, `moment.NAME`, `mean.NAME` or
    /// `square.NAME`.
    pub fn buffers(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.states.iter().flat_map(|(id, state)| state.buffers().map(move |(kind, b)| (format!("{kind}.{id}"), b)))
    }

    /// Takes back the state after `steps` steps: `take` gives the buffer of a name, as [`Optimizer::buffers`] named it.
    ///
    /// # Errors
    /// If a buffer is missing or has another length.
    pub fn restore(&mut self, steps: u64, mut take: impl FnMut(&str) -> Option<Vec<f32>>) -> Result<()> {
        for (id, state) in &mut self.states {
            for (kind, buffer) in state.buffers_mut() {
                let name = format!("{kind}.{id}");
                let found = take(&name).ok_or_else(|| Error::MissingTensor(name.clone()))?;
                if found.len() != buffer.len() {
                    return Err(Error::TensorLength { name, expected: buffer.len(), found: found.len() });
                }
                *buffer = found;
            }
        }
        self.steps = steps;
        Ok(())
    }
}

impl Work<'_> {
    fn elements(&self) -> usize {
        match self {
            Self::Tensor(_, w, ..) => w.len(),
            Self::Stack([rows, cols], members) => rows * cols * members.len(),
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
