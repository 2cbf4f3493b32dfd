//! NorMuon (arXiv 2510.05491) as karpathy/nanochat and autoresearch run it: Muon whose orthogonalised update is evened
//! out between its rows or columns by a running second moment, its norm kept.

use serde::Serialize;

use super::muon::{descend, height};
use super::{Coefficients, Now};

/// Settings of NorMuon:
///
/// ```text
/// M ← M + (1−μ)(G − M);  U = G + μ(M − G);  X = U orthogonalised
/// v = mean of X² within each row if rows ≥ cols, else within each column, of n numbers
/// V ← V + (1−β2)(v − V);  s = 1/sqrt(max(V, 1e-10))
/// X ← X · s · sqrt(Σ v·n) / sqrt(Σ v·n·s²)
/// lr' = lr · sqrt(max(1, rows/cols));  W ← W (1 − lr'·wd) − lr' · X
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NorMuon {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decoupled weight decay before the schedule, times `lr'`.
    pub weight_decay: f64,
    /// Newton–Schulz iterations.
    pub newton_schulz_steps: usize,
    /// Their coefficients.
    pub coefficients: Coefficients,
    /// Decay rate of the second moment.
    pub beta2: f64,
    /// Whether a weight decays only where the update also takes it towards zero.
    pub cautious: bool,
}

impl Default for NorMuon {
    /// autoresearch's.
    fn default() -> Self {
        Self {
            lr: 0.04,
            weight_decay: 0.2,
            newton_schulz_steps: 5,
            coefficients: Coefficients::PolarExpress,
            beta2: 0.95,
            cautious: true,
        }
    }
}

impl NorMuon {
    /// Numbers of the second moment of a matrix: one for each vector along its longer side.
    pub(super) fn moments([rows, cols]: [usize; 2]) -> usize {
        rows.max(cols)
    }

    /// What is to be orthogonalised: `update ← U`.
    pub(super) fn direction(update: &mut [f32], gradient: &[f32], momentum: &mut [f32], mu: f32) {
        for ((u, m), g) in update.iter_mut().zip(momentum).zip(gradient) {
            *m += (1.0 - mu) * (g - *m);
            *u = g + mu * (*m - g);
        }
    }

    /// Evens out the orthogonalised update, then moves `w [rows, cols]` against it.
    pub(super) fn apply(&self, w: &mut [f32], update: &mut [f32], moment: &mut [f32], shape: [usize; 2], now: Now) {
        self.even_out(update, moment, shape);
        let lr = self.lr * f64::from(now.lr_scale) * height(shape);
        let decay = lr * self.weight_decay * f64::from(now.decay_scale);
        descend(w, update, lr, decay, self.cautious);
    }

    fn even_out(&self, update: &mut [f32], moment: &mut [f32], [rows, cols]: [usize; 2]) {
        let by_row = rows >= cols;
        let n = rows.min(cols) as f64;
        let mut sums = vec![0.0f64; moment.len()];
        for (i, row) in update.chunks_exact(cols).enumerate() {
            if by_row {
                sums[i] = crate::vector::sum_of_squares(row);
            } else {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            }
        }
        let (mut before, mut after) = (0.0, 0.0);
        let mut factors = Vec::with_capacity(moment.len());
        for (&sum, moment) in sums.iter().zip(moment) {
            let v = f64::from(*moment);
            *moment = (v + (1.0 - self.beta2) * (sum / n - v)) as f32;
            let factor = 1.0 / f64::from(*moment).max(1e-10).sqrt();
            before += sum;
            after += sum * factor * factor;
            factors.push(factor);
        }
        // An update of zeros stays one.
        let norm = (before / after.max(1e-30)).sqrt();
        let factors: Vec<f32> = factors.into_iter().map(|factor| (factor * norm) as f32).collect();
        for (i, row) in update.chunks_exact_mut(cols).enumerate() {
            if by_row {
                row.iter_mut().for_each(|x| *x *= factors[i]);
            } else {
                row.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_tall_update_and_columns_of_a_wide_one_become_equal_and_the_norm_stays() {
        let normuon = NorMuon { beta2: 0.0, ..NorMuon::default() };
        let x = [3.0, 4.0, 0.6, 0.8, 0.0, 5.0];
        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        let (mut tall, mut moment) = (x, [0.0; 3]);
        normuon.even_out(&mut tall, &mut moment, [3, 2]);
        assert_eq!(moment, [12.5, 0.5, 12.5]);
        assert!((norm(&tall) / norm(&x) - 1.0).abs() < 1e-6);
        tall.chunks(2).for_each(|row| assert!((norm(row) * 3f32.sqrt() / norm(&x) - 1.0).abs() < 1e-6));
        let (mut wide, mut moment) = (x, [0.0; 3]);
        normuon.even_out(&mut wide, &mut moment, [2, 3]);
        let column = |j: usize| (wide[j] * wide[j] + wide[j + 3] * wide[j + 3]).sqrt();
        (0..3).for_each(|j| assert!((column(j) * 3f32.sqrt() / norm(&x) - 1.0).abs() < 1e-6));
        let mut zeros = [0.0; 6];
        normuon.even_out(&mut zeros, &mut [0.0; 3], [3, 2]);
        assert_eq!(zeros, [0.0; 6]);
    }
}
