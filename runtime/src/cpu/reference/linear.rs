//! Matrix product with a weight.

use crate::cpu::{Dense, Mat};

/// `x Wᵀ` for `W [out, in]`: `[B, T, out]`.
pub(super) fn linear(w: &Dense, x: &Mat) -> Mat {
    assert_eq!(x.cols, w.cols, "linear");
    let mut y = Vec::with_capacity(x.rows() * w.rows);
    for i in 0..x.rows() {
        for o in 0..w.rows {
            y.push(dot(x.row(i), w.row(o)) as f32);
        }
    }
    x.like(w.rows, y)
}

/// `Σ a b`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
