//! A scaled branch added to the residual stream.

use std::borrow::Cow;

use super::Weight;
use super::pool::Pool;
use super::rms_norm::norm_row;
use super::simd::wide;
use crate::cpu::Mat;

/// `x + weights ⊙ y`, weights `[C]` or a single value.
pub(super) fn add_scaled(pool: &Pool, x: &Mat, weights: &Weight, y: &Mat) -> Mat {
    assert_eq!(x.shape(), y.shape(), "add_scaled");
    let weights = per_channel(weights, x.cols);
    let mut sum = x.like(x.cols, vec![0.0; x.data.len()]);
    pool.rows(&mut sum.data, x.cols, pool.share(x.rows(), x.cols), |first, sum| {
        wide(
            #[inline(always)]
            || {
                for (i, sum) in sum.chunks_exact_mut(x.cols).enumerate() {
                    add_row(&weights, x.row(first + i), y.row(first + i), sum);
                }
            },
        );
    });
    sum
}

/// [`add_scaled`], and its norm while a row is in the cache.
pub(super) fn add_scaled_norm(pool: &Pool, x: &Mat, weights: &Weight, y: &Mat, scale: f32) -> (Mat, Mat) {
    assert_eq!(x.shape(), y.shape(), "add_scaled");
    let weights = per_channel(weights, x.cols);
    let mut sum = x.like(x.cols, vec![0.0; x.data.len()]);
    let mut normed = sum.clone();
    let tile = pool.share(x.rows(), 2 * x.cols);
    pool.rows_of_two((&mut sum.data, &mut normed.data), x.cols, tile, |first, sum, normed| {
        wide(
            #[inline(always)]
            || {
                let rows = sum.chunks_exact_mut(x.cols).zip(normed.chunks_exact_mut(x.cols));
                for (i, (sum, normed)) in rows.enumerate() {
                    add_row(&weights, x.row(first + i), y.row(first + i), sum);
                    norm_row(sum, scale, normed);
                }
            },
        );
    });
    (sum, normed)
}

/// A weight for each of `cols` channels: its own, or the only one.
pub(super) fn per_channel(weights: &Weight, cols: usize) -> Cow<'_, [f32]> {
    let weights = weights.to_f32();
    if weights.len() == 1 { Cow::Owned(vec![weights[0]; cols]) } else { weights }
}

#[inline(always)]
fn add_row(weights: &[f32], x: &[f32], y: &[f32], sum: &mut [f32]) {
    for (((sum, x), y), w) in sum.iter_mut().zip(x).zip(y).zip(weights) {
        *sum = x + w * y;
    }
}
