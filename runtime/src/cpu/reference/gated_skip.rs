//! A U-Net skip connection.

use crate::cpu::{Dense, Mat};

/// With `s = weights[row] ⊙ skip` and `g = sigmoid(gates[row])`: `s + g ⊙ (x − s)`; without gates `x + s`.
pub(super) fn gated_skip(weights: &Dense, gates: Option<&Dense>, row: usize, x: &Mat, skip: &Mat) -> Mat {
    assert_eq!(x.shape(), skip.shape(), "gated_skip");
    let mut y = x.clone();
    for (i, y) in y.data.iter_mut().enumerate() {
        let s = weights.row(row)[i % x.cols] * skip.data[i];
        *y = match gates {
            Some(gates) => s + sigmoid(gates.row(row)[i % x.cols]) * (*y - s),
            None => *y + s,
        };
    }
    y
}

fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + f64::from(-x).exp())) as f32
}
