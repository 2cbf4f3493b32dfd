//! MuonEq-R: momentum, row equalisation, orthogonalisation (openai/parameter-golf pull request 1285; Muon is by
//! Keller Jordan, <https://kellerjordan.github.io/posts/muon>).

use serde::{Deserialize, Serialize};

use super::Now;
use super::newton_schulz::orthogonalize;
use crate::vector::sum_of_squares;

/// Settings of the matrix group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Muon {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decoupled weight decay, times the learning rate.
    pub weight_decay: f64,
    /// Newton–Schulz iterations.
    #[serde(default = "newton_schulz_steps")]
    pub newton_schulz_steps: usize,
    /// Whether rows are equalised before the orthogonalisation (the "Eq-R"); plain Muon without.
    #[serde(default = "row_equalisation")]
    pub row_equalisation: bool,
}

fn newton_schulz_steps() -> usize {
    5
}

fn row_equalisation() -> bool {
    true
}

impl Muon {
    /// A step of `w [rows, cols]`: `M ← μM + G`, `U = G + μM`, rows of `U` to norm 1, orthogonalised, times
    /// `sqrt(max(1, rows/cols))`; `W ← W (1 − lr·wd) − lr · U`.
    pub fn step(&self, w: &mut [f32], gradient: &[f32], momentum: &mut [f32], shape: [usize; 2], now: Now) {
        let [rows, cols] = shape;
        let mu = now.momentum;
        let mut update = Vec::with_capacity(gradient.len());
        for (m, g) in momentum.iter_mut().zip(gradient) {
            *m = mu * *m + g;
            update.push(g + mu * *m);
        }
        if self.row_equalisation {
            for row in update.chunks_exact_mut(cols) {
                let factor = (1.0 / sum_of_squares(row).sqrt().max(1e-7)) as f32;
                row.iter_mut().for_each(|u| *u *= factor);
            }
        }
        let update = orthogonalize(update, rows, cols, self.newton_schulz_steps);
        let lr = self.lr * f64::from(now.lr_scale);
        let keep = (1.0 - lr * self.weight_decay) as f32;
        let size = (lr * (rows as f64 / cols as f64).max(1.0).sqrt()) as f32;
        for (w, u) in w.iter_mut().zip(update) {
            *w = *w * keep - size * u;
        }
    }
}
