//! Rounding column by column, each code for itself.

use crate::product::{View, ViewMut, add_product};
use crate::round::code;

use super::BLOCK;
use super::price::Prices;

/// Codes `[rows, cols]` of `w [rows, cols]`, whose columns are in the order of `factor [cols, cols]`.
pub(super) fn quantize_columns(mut w: Vec<f32>, factor: &[f32], steps: &[f32], prices: &Prices, q_max: u8) -> Vec<i8> {
    let (rows, cols) = (steps.len(), w.len() / steps.len());
    let mut codes = vec![0i8; w.len()];
    let mut errors = vec![0.0f32; rows * BLOCK];
    for start in (0..cols).step_by(BLOCK) {
        let end = (start + BLOCK).min(cols);
        let width = end - start;
        // Rows do not see each other, so a block is done row by row, along memory.
        for (row, &step) in steps.iter().enumerate() {
            let span = row * cols + start..row * cols + end;
            let row_errors = &mut errors[row * width..(row + 1) * width];
            let prices = (prices.rows[row], &prices.columns[start..end]);
            let block = Block { factor, cols, start, step, prices, q_max: f32::from(q_max) };
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
    /// Of the row and of the block's columns.
    prices: (f32, &'a [f32]),
    q_max: f32,
}

impl Block<'_> {
    /// `w`, `codes` and `errors` are the row's entries in this block.
    fn quantize(&self, w: &mut [f32], codes: &mut [i8], errors: &mut [f32]) {
        for k in 0..w.len() {
            let column = self.start + k;
            let factor = &self.factor[column * self.cols + column..][..w.len() - k];
            let (row, columns) = self.prices;
            let q = code(w[k] / (1.0 + row * columns[k]), self.step, self.q_max);
            let error = (w[k] - q * self.step) / factor[0];
            codes[k] = q as i8;
            errors[k] = error;
            for (later, u) in w[k + 1..].iter_mut().zip(&factor[1..]) {
                *later -= error * u;
            }
        }
    }
}
