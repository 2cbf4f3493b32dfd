//! Matrix product with a weight.

use super::Weight;
use super::matmul::{View, multiply};
use super::pool::Pool;
use super::simd::{dots, wide};
use super::weight::Panel;
use crate::cpu::Mat;

/// Up to so many rows each weight is read once and multiplied as it is; beyond, `gemm` is faster.
const FEW: usize = 4;

/// `x Wᵀ` for `W [out, in]`: `[B, T, out]`.
pub(super) fn linear(pool: &Pool, panel: &mut Panel, w: &Weight, x: &Mat) -> Mat {
    assert_eq!(x.cols, w.cols(), "linear");
    if x.rows() <= FEW {
        return few_rows(pool, w, x);
    }
    let values = w.unpack(pool, panel);
    let mut y = x.like(w.rows(), vec![0.0; x.rows() * w.rows()]);
    pool.rows(&mut y.data, w.rows(), pool.share(x.rows(), w.rows() * w.cols()), |first, y| {
        let rows = y.len() / w.rows();
        let x = View::rows(&x.data[first * x.cols..], rows, x.cols, x.cols);
        multiply(x, View::rows(values, w.rows(), w.cols(), w.cols()).t(), y, w.rows());
    });
    y
}

/// Each output is a dot product with a row of the weight: what a step of a session waits for is reading them.
fn few_rows(pool: &Pool, w: &Weight, x: &Mat) -> Mat {
    let rows = x.rows();
    // Factors of the columns go to the inputs: one product an input instead of one a weight.
    let scaled = match w {
        Weight::Int8(w) if !w.columns.is_empty() => {
            let scaled = x.data.chunks_exact(x.cols).flat_map(|row| row.iter().zip(&w.columns).map(|(x, c)| x * c));
            Some(x.like(x.cols, scaled.collect()))
        }
        _ => None,
    };
    let x = scaled.as_ref().unwrap_or(x);
    // Output by output, so that each thread has a part of the weight.
    let mut by_output = vec![0.0; w.rows() * rows];
    pool.rows(&mut by_output, rows, pool.share(w.rows(), rows * w.cols()), |first, out| {
        wide(
            #[inline(always)]
            || match w {
                Weight::Dense(w) => dot_with_rows(x, &w.data[first * w.cols..], out),
                Weight::Int8(w) => {
                    dot_with_rows(x, &w.codes[first * w.cols..], out);
                    for (out, scale) in out.chunks_exact_mut(rows).zip(&w.scales[first..]) {
                        out.iter_mut().for_each(|out| *out *= scale);
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

/// `out[o, i] = Σ x[i] w[o]` for the first rows of `w`, as many as fill `out`.
#[inline(always)]
fn dot_with_rows<T: Copy>(x: &Mat, w: &[T], out: &mut [f32])
where
    f32: From<T>,
{
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
