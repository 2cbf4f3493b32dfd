//! GPTQ of one matrix, as openai/parameter-golf pull request 1285 runs it. Method: Frantar et al., arXiv 2210.17323.
//!
//! The columns (inputs) are rounded one after another, the strongest first. What rounding a column changes in the
//! layer's output is made up for, as well as can be, by the columns that are still free.

use half::f16;
use sixpack_formats::QuantizedMatrix;

use crate::factor::inverse_upper;
use crate::product::{View, ViewMut, add_product};
use crate::round::{code, least_error, quantized, to_nearest};
use crate::{Matrix, Result, Scheme};

/// Columns after which the errors of a block are passed on to all later columns in one matrix product.
const BLOCK: usize = 128;
/// Share of the Hessian's mean diagonal that is added to its diagonal.
const DAMPING: f64 = 0.01;

/// How codes were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Column by column with errors passed on.
    Gptq,
    /// Plain rounding, because the damped Hessian is not positive definite.
    Nearest,
}

/// Quantises `w [rows, cols]` to codes within ±`q_max` (31 for int6, 15 for int5) under `hessian [cols, cols]`, the
/// sum of `xᵀx` over the layer's inputs, scaled as one likes.
///
/// Inputs that are always 0 (a zero on the Hessian's diagonal) get the code 0. Columns of equal strength are taken in
/// their own order. Rounding is half to even.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::NotFinite`] if the Hessian does not belong to `w`, and those of
/// [`Scheme::matrix_steps`].
pub fn quantize(w: &Matrix<'_>, hessian: &[f32], scheme: Scheme, q_max: u8) -> Result<(QuantizedMatrix, Method)> {
    w.check_hessian(hessian)?;
    let order = ActivationOrder::new(hessian, w.cols());
    let Some(factor) = order.factor(hessian) else {
        return Ok((to_nearest(w, scheme, q_max)?, Method::Nearest));
    };
    let permuted = order.permute(w);
    let candidates = scheme.matrix_steps(w, q_max)?.into_iter().map(|steps| {
        let codes = order.restore(&quantize_columns(permuted.clone(), &factor, &steps, q_max));
        quantized(w, q_max, codes, steps)
    });
    Ok((least_error(w, candidates), Method::Gptq))
}

/// The columns by descending strength.
struct ActivationOrder {
    /// `columns[k]` is the column that is quantised as the `k`th.
    columns: Vec<usize>,
    /// Whether column `j` has only zero inputs.
    dead: Vec<bool>,
    /// The damped diagonal of the Hessian.
    diagonal: Vec<f64>,
}

impl ActivationOrder {
    fn new(hessian: &[f32], n: usize) -> Self {
        let raw = hessian.iter().step_by(n + 1);
        let dead: Vec<bool> = raw.clone().map(|&x| x == 0.0).collect();
        let living: Vec<f64> = raw.map(|&x| if x == 0.0 { 1.0 } else { f64::from(x) }).collect();
        let damping = DAMPING * living.iter().sum::<f64>() / n as f64;
        let diagonal: Vec<f64> = living.iter().map(|x| x + damping).collect();
        let mut columns: Vec<usize> = (0..n).collect();
        columns.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        Self { columns, dead, diagonal }
    }

    /// The factor of the damped Hessian in this order, `None` if that is not positive definite.
    fn factor(&self, hessian: &[f32]) -> Option<Vec<f32>> {
        let n = self.columns.len();
        let entry = |i: usize, j: usize| if i == j { self.diagonal[i] } else { f64::from(hessian[i * n + j]) };
        let rows = self.columns.iter().flat_map(|&i| self.columns.iter().map(move |&j| entry(i, j)));
        inverse_upper(&rows.collect::<Vec<_>>(), n)
    }

    /// The columns of `w` in this order, dead ones zero.
    fn permute(&self, w: &Matrix<'_>) -> Vec<f32> {
        let row = |values: &'_ [f32]| -> Vec<f32> {
            self.columns.iter().map(|&j| if self.dead[j] { 0.0 } else { values[j] }).collect()
        };
        w.iter_rows().flat_map(row).collect()
    }

    /// Codes in this order put back into the order of the matrix.
    fn restore(&self, codes: &[i8]) -> Vec<i8> {
        let mut restored = vec![0; codes.len()];
        for (from, to) in codes.chunks_exact(self.columns.len()).zip(restored.chunks_exact_mut(self.columns.len())) {
            for (&code, &column) in from.iter().zip(&self.columns) {
                to[column] = code;
            }
        }
        restored
    }
}

/// Codes `[rows, cols]` of `w [rows, cols]`, whose columns are in the order of `factor [cols, cols]`.
fn quantize_columns(mut w: Vec<f32>, factor: &[f32], steps: &[f16], q_max: u8) -> Vec<i8> {
    let (rows, cols) = (steps.len(), w.len() / steps.len());
    let mut codes = vec![0i8; w.len()];
    let mut errors = vec![0.0f32; rows * BLOCK];
    for start in (0..cols).step_by(BLOCK) {
        let end = (start + BLOCK).min(cols);
        let width = end - start;
        // Rows do not see each other, so a block is done row by row, along memory.
        for (row, step) in steps.iter().enumerate() {
            let span = row * cols + start..row * cols + end;
            let row_errors = &mut errors[row * width..(row + 1) * width];
            let block = Block { factor, cols, start, step: step.to_f32(), q_max: f32::from(q_max) };
            block.quantize(&mut w[span.clone()], &mut codes[span], row_errors);
        }
        if end < cols {
            let mut rest = ViewMut::with_stride(&mut w[end..], rows, cols - end, cols);
            let errors = View::row_major(&errors[..rows * width], rows, width);
            let spread = View::with_stride(&factor[start * cols + end..], width, cols - end, cols);
            add_product(&mut rest, -1.0, errors, spread);
        }
    }
    codes
}

/// One row's part of one block of columns.
struct Block<'a> {
    factor: &'a [f32],
    cols: usize,
    start: usize,
    step: f32,
    q_max: f32,
}

impl Block<'_> {
    /// `w`, `codes` and `errors` are the row's entries in this block.
    fn quantize(&self, w: &mut [f32], codes: &mut [i8], errors: &mut [f32]) {
        for k in 0..w.len() {
            let column = self.start + k;
            let factor = &self.factor[column * self.cols + column..][..w.len() - k];
            let q = code(w[k], self.step, self.q_max);
            let error = (w[k] - q * self.step) / factor[0];
            codes[k] = q as i8;
            errors[k] = error;
            for (later, u) in w[k + 1..].iter_mut().zip(&factor[1..]) {
                *later -= error * u;
            }
        }
    }
}
