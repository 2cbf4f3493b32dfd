//! The bound on logits.

use crate::cpu::Mat;

/// `cap · tanh(x / cap)`.
pub(super) fn softcap(x: &Mat, cap: f32) -> Mat {
    let cap = f64::from(cap);
    x.like(x.cols, x.data.iter().map(|&x| (cap * (f64::from(x) / cap).tanh()) as f32).collect())
}
