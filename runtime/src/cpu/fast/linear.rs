//! Matrix product with a weight.

use super::Weight;
use super::matmul::{View, multiply};
use super::pool::Pool;
use super::simd::{dot, dot_codes, wide};
use crate::cpu::Mat;

/// Up to so many rows each weight is read once and multiplied as it is; beyond, `gemm` is faster.
const FEW: usize = 4;

/// `x Wᵀ` for `W [out, in]`: `[B, T, out]`.
pub(super) fn linear(pool: &Pool, w: &Weight, x: &Mat) -> Mat {
    assert_eq!(x.cols, w.cols(), "linear");
    if x.rows() <= FEW {
        return few_rows(pool, w, x);
    }
    let values = w.to_f32();
    let mut y = x.like(w.rows(), vec![0.0; x.rows() * w.rows()]);
    pool.rows(&mut y.data, w.rows(), pool.share(x.rows(), w.rows() * w.cols()), |first, y| {
        let rows = y.len() / w.rows();
        let x = View::rows(&x.data[first * x.cols..], rows, x.cols, x.cols);
        multiply(x, View::rows(&values, w.rows(), w.cols(), w.cols()).t(), y, w.rows());
    });
    y
}

/// Each output is a dot product of a row of the weight: what a step of a session waits for is reading them.
fn few_rows(pool: &Pool, w: &Weight, x: &Mat) -> Mat {
    let rows = x.rows();
    // Output by output, so that each thread has a part of the weight.
    let mut by_output = vec![0.0; w.rows() * rows];
    pool.rows(&mut by_output, rows, pool.share(w.rows(), rows * w.cols()), |first, out| {
        wide(
            #[inline(always)]
            || {
                for (o, out) in out.chunks_exact_mut(rows).enumerate() {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = match w {
                            Weight::Dense(w) => dot(x.row(i), w.row(first + o)),
                            Weight::Int8(w) => dot_codes(x.row(i), w.row(first + o)) * w.scales[first + o],
                        };
                    }
                }
            },
        );
    });
    if rows == 1 {
        return x.like(w.rows(), by_output);
    }
    let transposed = (0..rows).flat_map(|i| by_output.iter().skip(i).step_by(rows).copied());
    x.like(w.rows(), transposed.collect())
}
