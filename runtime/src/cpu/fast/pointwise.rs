//! Operations that look at one element at a time: scale, two-lane update, average, softcap.

use super::Weight;
use super::add_scaled::per_channel;
use super::pool::Pool;
use super::simd::{tanh, wide};
use crate::cpu::Mat;

/// `weights ⊙ x`, weights `[C]` or a single value.
pub(super) fn scale(pool: &Pool, weights: &Weight, x: &Mat) -> Mat {
    let weights = per_channel(weights, x.cols);
    let mut y = x.clone();
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), x.cols), |_, y| {
        wide(
            #[inline(always)]
            || {
                for y in y.chunks_exact_mut(x.cols) {
                    y.iter_mut().zip(&*weights).for_each(|(y, w)| *y *= w);
                }
            },
        );
    });
    y
}

/// `f · a + g · b`.
pub(super) fn combine(pool: &Pool, (f, a): (f32, &Mat), (g, b): (f32, &Mat)) -> Mat {
    assert_eq!(a.shape(), b.shape(), "combine");
    let mut y = a.clone();
    pool.rows(&mut y.data, a.cols, pool.share(a.rows(), a.cols), |first, y| {
        let b = &b.data[first * a.cols..][..y.len()];
        wide(
            #[inline(always)]
            || y.iter_mut().zip(b).for_each(|(y, b)| *y = f * *y + g * b),
        );
    });
    y
}

/// `cap · tanh(x / cap)`.
pub(super) fn softcap(pool: &Pool, x: &Mat, cap: f32) -> Mat {
    let mut y = x.clone();
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), 20 * x.cols), |_, y| {
        wide(
            #[inline(always)]
            || softcap_row(y, cap),
        );
    });
    y
}

/// [`softcap`] in place.
#[inline(always)]
pub(super) fn softcap_row(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    x.iter_mut().for_each(|x| *x = cap * tanh(*x * inverse));
}
