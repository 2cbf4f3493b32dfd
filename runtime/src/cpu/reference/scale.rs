//! Channels times weights.

use crate::cpu::{Dense, Mat};

/// `weights ⊙ x`, weights `[C]` or a single value.
pub(super) fn scale(weights: &Dense, x: &Mat) -> Mat {
    x.like(x.cols, x.data.iter().enumerate().map(|(i, v)| weights.channel(i % x.cols) * v).collect())
}
