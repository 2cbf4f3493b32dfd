//! The residual stream mixed with the embedding.

use super::Weight;
use super::pool::Pool;
use super::rms_norm::norm_row;
use super::simd::wide;
use crate::cpu::Mat;

/// `weights[0] ⊙ x + weights[1] ⊙ x0`, weights `[2, C]`.
pub(super) fn mix(pool: &Pool, weights: &Weight, x: &Mat, x0: &Mat) -> Mat {
    assert_eq!(x.shape(), x0.shape(), "mix");
    let weights = weights.to_f32();
    let mut y = x.like(x.cols, vec![0.0; x.data.len()]);
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), x.cols), |first, y| {
        wide(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_exact_mut(x.cols).enumerate() {
                    mix_row(&weights, x.row(first + i), x0.row(first + i), y);
                }
            },
        );
    });
    y
}

/// [`mix`], and its norm while a row is in the cache.
pub(super) fn mix_norm(pool: &Pool, weights: &Weight, x: &Mat, x0: &Mat, scale: f32) -> (Mat, Mat) {
    assert_eq!(x.shape(), x0.shape(), "mix");
    let weights = weights.to_f32();
    let mut y = x.like(x.cols, vec![0.0; x.data.len()]);
    let mut normed = y.clone();
    let tile = pool.share(x.rows(), 2 * x.cols);
    pool.rows_of_two((&mut y.data, &mut normed.data), x.cols, tile, |first, y, normed| {
        wide(
            #[inline(always)]
            || {
                let rows = y.chunks_exact_mut(x.cols).zip(normed.chunks_exact_mut(x.cols));
                for (i, (y, normed)) in rows.enumerate() {
                    mix_row(&weights, x.row(first + i), x0.row(first + i), y);
                    norm_row(y, scale, normed);
                }
            },
        );
    });
    (y, normed)
}

#[inline(always)]
fn mix_row(weights: &[f32], x: &[f32], x0: &[f32], y: &mut [f32]) {
    let (w, w0) = weights.split_at(x.len());
    for ((((y, x), x0), w), w0) in y.iter_mut().zip(x).zip(x0).zip(w).zip(w0) {
        *y = w * x + w0 * x0;
    }
}
