//! A scaled branch added to the residual stream.

use super::scale::scale;
use crate::cpu::{Dense, Mat};

/// `x + weights ⊙ y`, weights `[C]` or a single value.
pub(super) fn add_scaled(x: &Mat, weights: &Dense, y: &Mat) -> Mat {
    assert_eq!(x.shape(), y.shape(), "add_scaled");
    let scaled = scale(weights, y);
    x.like(x.cols, x.data.iter().zip(&scaled.data).map(|(x, y)| x + y).collect())
}
