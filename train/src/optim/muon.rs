//! Muon and MuonEq-R: momentum, row equalisation, orthogonalisation (openai/parameter-golf pull request 1285; Muon is
//! by Keller Jordan, <https://kellerjordan.github.io/posts/muon>).

use serde::Serialize;

use super::{Coefficients, Now};
use crate::vector::sum_of_squares;

/// Settings of Muon: `M ← μM + G`, `U = G + μM`, rows of `U` to norm 1 if they are equalised, orthogonalised, times
/// `sqrt(max(1, rows/cols))`; `W ← W (1 − lr·wd) − lr · U`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Muon {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decoupled weight decay before the schedule, times the learning rate.
    pub weight_decay: f64,
    /// Newton–Schulz iterations.
    pub newton_schulz_steps: usize,
    /// Their coefficients.
    pub coefficients: Coefficients,
    /// Whether rows are equalised before the orthogonalisation (the "Eq-R"); plain Muon without.
    pub row_equalisation: bool,
    /// Whether a weight decays only where the update also takes it towards zero.
    pub cautious: bool,
}

impl Default for Muon {
    /// The record's.
    fn default() -> Self {
        Self {
            lr: 0.02,
            weight_decay: 0.09,
            newton_schulz_steps: 5,
            coefficients: Coefficients::Constant,
            row_equalisation: true,
            cautious: false,
        }
    }
}

impl Muon {
    /// What is to be orthogonalised: `update ← U`, of rows of `cols`.
    pub(super) fn direction(&self, update: &mut [f32], gradient: &[f32], momentum: &mut [f32], cols: usize, mu: f32) {
        for ((u, m), g) in update.iter_mut().zip(momentum).zip(gradient) {
            *m = mu * *m + g;
            *u = g + mu * *m;
        }
        if self.row_equalisation {
            for row in update.chunks_exact_mut(cols) {
                let factor = (1.0 / sum_of_squares(row).sqrt().max(1e-7)) as f32;
                row.iter_mut().for_each(|u| *u *= factor);
            }
        }
    }

    /// Moves `w [rows, cols]` against the orthogonalised update.
    pub(super) fn apply(&self, w: &mut [f32], update: &[f32], shape: [usize; 2], now: Now) {
        let lr = self.lr * f64::from(now.lr_scale);
        let decay = lr * self.weight_decay * f64::from(now.decay_scale);
        descend(w, update, lr * height(shape), decay, self.cautious);
    }
}

/// `sqrt(max(1, rows/cols))`: a tall matrix, whose outputs are more than its inputs, moves further.
pub(crate) fn height([rows, cols]: [usize; 2]) -> f64 {
    (rows as f64 / cols as f64).max(1.0).sqrt()
}

/// `W ← W (1 − decay) − size · U`; cautious, a weight decays only where `U ⊙ W ≥ 0`.
pub(super) fn descend(w: &mut [f32], update: &[f32], size: f64, decay: f64, cautious: bool) {
    let (size, keep) = (size as f32, (1.0 - decay) as f32);
    if cautious {
        for (w, u) in w.iter_mut().zip(update) {
            let keep = if u * *w >= 0.0 { keep } else { 1.0 };
            *w = *w * keep - size * u;
        }
    } else {
        for (w, u) in w.iter_mut().zip(update) {
            *w = *w * keep - size * u;
        }
    }
}
