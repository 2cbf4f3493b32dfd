//! AdamW with decoupled weight decay (arXiv 1711.05101), bias correction as PyTorch has it.

use serde::{Deserialize, Serialize};

use super::Now;

/// Settings of a group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Decay rates of the averages of the gradient and of its square.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Added to the root of the square average.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Decoupled weight decay before the schedule, times the learning rate.
    pub weight_decay: f64,
}

pub(crate) fn betas() -> [f64; 2] {
    [0.9, 0.95]
}

pub(crate) fn eps() -> f64 {
    1e-8
}

impl AdamW {
    /// Step number `step` (from 1) of a tensor: `W ← W (1 − lr·wd)`, then `W ← W − lr · m̂ / (sqrt(v̂) + eps)`.
    pub fn step(&self, w: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], step: u64, now: Now) {
        let lr = self.lr * f64::from(now.lr_scale);
        let [b1, b2] = self.betas;
        // As a power of two f64s: step numbers are far below 2^53.
        let correct = |beta: f64| 1.0 - beta.powf(step as f64);
        let size = (lr / correct(b1)) as f32;
        let root = (1.0 / correct(b2).sqrt()) as f32;
        let keep = (1.0 - lr * self.weight_decay * f64::from(now.decay_scale)) as f32;
        let (m_keep, m_take) = (b1 as f32, (1.0 - b1) as f32);
        let (v_keep, v_take) = (b2 as f32, (1.0 - b2) as f32);
        let eps = self.eps as f32;
        for (((w, g), m), v) in w.iter_mut().zip(gradient).zip(mean).zip(square) {
            *m = m_keep * *m + m_take * g;
            *v = v_keep * *v + v_take * g * g;
            *w = *w * keep - size * *m / (v.sqrt() * root + eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_the_learning_rate_and_decay_is_decoupled() {
        let adamw = AdamW { lr: 0.1, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.5 };
        let now = Now { lr_scale: 0.5, ..Now::default() };
        let (mut w, mut m, mut v) = ([2.0, -3.0], [0.0; 2], [0.0; 2]);
        adamw.step(&mut w, &[1e-3, -7.0], &mut m, &mut v, 1, now);
        // m̂/sqrt(v̂) is the sign of the gradient at the first step.
        assert!((w[0] - (2.0 * 0.975 - 0.05)).abs() < 1e-5 && (w[1] - (-3.0 * 0.975 + 0.05)).abs() < 1e-5, "{w:?}");
    }
}
