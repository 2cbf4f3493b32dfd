//! The residual stream mixed with the embedding.

use crate::cpu::{Dense, Mat};

/// `weights[0] ⊙ x + weights[1] ⊙ x0`, weights `[2, C]`.
pub(super) fn mix(weights: &Dense, x: &Mat, x0: &Mat) -> Mat {
    assert_eq!(x.shape(), x0.shape(), "mix");
    let mut y = x.clone();
    for (y, x0) in y.data.chunks_exact_mut(x.cols).zip(x0.data.chunks_exact(x.cols)) {
        for c in 0..x.cols {
            y[c] = weights.row(0)[c] * y[c] + weights.row(1)[c] * x0[c];
        }
    }
    y
}
