//! Root mean square norm.

use super::pool::Pool;
use super::simd::{inverse_rms, wide};
use crate::cpu::Mat;

/// `scale · x / sqrt(mean(x²) + eps)` over channels.
pub(super) fn rms_norm(pool: &Pool, x: &Mat, scale: f32) -> Mat {
    let mut y = x.like(x.cols, vec![0.0; x.data.len()]);
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), x.cols), |first, y| {
        wide(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_exact_mut(x.cols).enumerate() {
                    norm_row(x.row(first + i), scale, y);
                }
            },
        );
    });
    y
}

/// One row of [`rms_norm`].
#[inline(always)]
pub(super) fn norm_row(x: &[f32], scale: f32, y: &mut [f32]) {
    let factor = scale * inverse_rms(x);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor);
}
