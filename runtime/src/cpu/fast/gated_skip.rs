//! A U-Net skip connection.

use super::Weight;
use super::pool::Pool;
use super::simd::{exp, wide};
use crate::cpu::Mat;

/// With `s = weights[row] ⊙ skip` and `g = sigmoid(gates[row])`: `s + g ⊙ (x − s)`; without gates `x + s`.
pub(super) fn gated_skip(
    pool: &Pool,
    weights: &Weight,
    gates: Option<&Weight>,
    row: usize,
    x: &Mat,
    skip: &Mat,
) -> Mat {
    assert_eq!(x.shape(), skip.shape(), "gated_skip");
    let read = |w: &Weight| w.to_f32()[row * x.cols..(row + 1) * x.cols].to_vec();
    let (mut f, mut w) = (vec![1.0; x.cols], read(weights));
    if let Some(gates) = gates {
        f = read(gates);
        wide(
            #[inline(always)]
            || {
                // Both are x · f + skip · w: the gate is a part of the factors.
                for (f, w) in f.iter_mut().zip(&mut w) {
                    *f = 1.0 / (1.0 + exp(-*f));
                    *w *= 1.0 - *f;
                }
            },
        );
    }
    let mut y = x.clone();
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), x.cols), |first, y| {
        wide(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_exact_mut(x.cols).enumerate() {
                    for (((y, s), f), w) in y.iter_mut().zip(skip.row(first + i)).zip(&f).zip(&w) {
                        *y = *y * f + s * w;
                    }
                }
            },
        );
    });
    y
}
