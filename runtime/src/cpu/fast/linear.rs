//! Matrix product with a weight.

use super::Weight;
use super::dot::{Isa, Kernel, with_isa};
use super::matmul::{View, multiply};
use super::pool::Pool;
use super::product::product;
use super::simd::{dots, wide};
use super::weight::{Int8, Panel};
use crate::cpu::{Dense, Mat};

/// Up to so many rows each weight is read once and multiplied as it is; beyond, `gemm` is faster.
const FEW: usize = 4;

/// `x Wᵀ` for `W [out, in]`: `[B, T, out]`.
pub(super) fn linear(pool: &Pool, kernel: Kernel, panel: &mut Panel, w: &Weight, x: &Mat) -> Mat {
    assert_eq!(x.cols, w.cols(), "linear");
    match w {
        Weight::Int8(w) if kernel.takes(x.rows()) => x.like(w.rows, with_codes(pool, kernel, w, x)),
        Weight::Dense(w) if x.rows() <= FEW => few_rows(pool, w, x),
        _ => many_rows(pool, w.unpack(pool, panel), w.rows(), x),
    }
}

fn with_codes(pool: &Pool, kernel: Kernel, w: &Int8, x: &Mat) -> Vec<f32> {
    with_isa!(kernel, |isa| product(isa, pool, w, &isa.inputs(pool, x, &w.columns)))
}

fn many_rows(pool: &Pool, w: &[f32], outputs: usize, x: &Mat) -> Mat {
    let mut y = x.like(outputs, vec![0.0; x.rows() * outputs]);
    pool.rows(&mut y.data, outputs, pool.share(x.rows(), w.len()), |first, y| {
        let rows = y.len() / outputs;
        let left = View::rows(&x.data[first * x.cols..], rows, x.cols, x.cols);
        multiply(left, View::rows(w, outputs, x.cols, x.cols).t(), y, outputs);
    });
    y
}

/// Each output is a dot product with a row of the weight: what a step of a session waits for is reading them.
fn few_rows(pool: &Pool, w: &Dense, x: &Mat) -> Mat {
    let rows = x.rows();
    // Output by output, so that each thread has a part of the weight.
    let mut by_output = vec![0.0; w.rows * rows];
    pool.rows(&mut by_output, rows, pool.share(w.rows, rows * w.cols), |first, out| {
        wide(
            #[inline(always)]
            || dot_with_rows(x, &w.data[first * w.cols..], out),
        );
    });
    if rows == 1 {
        return x.like(w.rows, by_output);
    }
    let transposed = (0..rows).flat_map(|i| by_output.iter().skip(i).step_by(rows).copied());
    x.like(w.rows, transposed.collect())
}

/// `out[o, i] = Σ x[i] w[o]` for the first rows of `w`, as many as fill `out`.
#[inline(always)]
fn dot_with_rows(x: &Mat, w: &[f32], out: &mut [f32]) {
    const AT_ONCE: usize = 4;
    let rows = x.rows();
    for (w, out) in w.chunks(AT_ONCE * x.cols).zip(out.chunks_mut(AT_ONCE * rows)) {
        let row = |o: usize| &w[o * x.cols..(o + 1) * x.cols];
        for i in 0..rows {
            if out.len() == AT_ONCE * rows {
                let sums = dots(x.row(i), [row(0), row(1), row(2), row(3)]);
                sums.into_iter().enumerate().for_each(|(o, sum)| out[o * rows + i] = sum);
            } else {
                (0..out.len() / rows).for_each(|o| [out[o * rows + i]] = dots(x.row(i), [row(o)]));
            }
        }
    }
}
