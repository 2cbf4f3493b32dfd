//! GPTQ of one matrix on a grid of steps. Method: Frantar et al., arXiv 2210.17323; [`quantize`] with
//! [`Scheme::Reference`] is as openai/parameter-golf pull request 1285 runs it.
//!
//! The columns (inputs) are rounded one after another. What rounding a column changes in the layer's output is made up
//! for, as well as can be, by the columns that are still free.

mod prepared;
mod price;
mod scalar;
mod trellis;

use half::f16;
use sixpack_formats::QuantizedMatrix;

pub use prepared::{Order, Prepared};
use price::Prices;

use crate::round::{least_error, to_nearest};
use crate::{Matrix, Result, Scheme};

/// Columns after which the errors of a block are passed on to all later columns in one matrix product.
const BLOCK: usize = 128;

/// How codes were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Column by column with errors passed on.
    Gptq,
    /// Plain rounding, because the damped Hessian is not positive definite.
    Nearest,
}

/// What a matrix is rounded to: multiples within ±`q_max` of the steps `scales[i] · columns[j]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Largest magnitude of a code.
    pub q_max: u8,
    /// Steps of the rows, `[rows]`.
    pub scales: Vec<f16>,
    /// Factors of the columns, `[cols]`, or none where all are 1.
    pub columns: Vec<f16>,
    /// Whether the codes of each row are to be a path of the trellis: nearly the error of steps half as wide, for the
    /// bits of steps twice as wide.
    pub trellis: bool,
    /// How much a bit is to weigh against error when a code is chosen, in units of what it weighs where steps follow
    /// [`Prepared::noise`]: 0 takes the code of least error, 1 treats both choices alike; 0.75 was found best.
    pub rate: f32,
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
    let Some(prepared) = Prepared::new(hessian, w.cols(), Order::Activation) else {
        return Ok((to_nearest(w, scheme, q_max)?, Method::Nearest));
    };
    let candidates = scheme.matrix_steps(w, q_max)?.into_iter().map(|scales| {
        quantize_to(w, &prepared, &Grid { q_max, scales, columns: Vec::new(), trellis: false, rate: 0.0 })
    });
    Ok((least_error(w, candidates), Method::Gptq))
}

/// Quantises `w [rows, cols]` to `grid` under a Hessian made ready before.
///
/// Inputs that are always 0 get the code 0, as do rows and columns whose step is 0.
///
/// # Panics
/// If the columns of Hessian and matrix or the lengths of the grid's steps differ, or for a trellis if the order is not
/// [`Order::Natural`] or `q_max` below 2.
pub fn quantize_to(w: &Matrix<'_>, hessian: &Prepared, grid: &Grid) -> QuantizedMatrix {
    assert_eq!(hessian.cols(), w.cols(), "columns of a hessian and of `{}`", w.name());
    assert_eq!(grid.scales.len(), w.rows(), "steps of the rows of `{}`", w.name());
    assert!([0, w.cols()].contains(&grid.columns.len()), "factors of the columns of `{}`", w.name());
    let factors: Vec<f32> = grid.columns.iter().map(|f| f.to_f32()).collect();
    let mut steps: Vec<f32> = grid.scales.iter().map(|s| s.to_f32()).collect();
    let mut arranged = hessian.arrange(w, &factors);
    for (step, row) in steps.iter_mut().zip(arranged.chunks_exact_mut(w.cols())).filter(|(step, _)| **step == 0.0) {
        *step = 1.0;
        row.fill(0.0);
    }
    let factor = hessian.factor(&factors);
    let prices = Prices::new(&arranged, &steps, grid.trellis, grid.rate);
    let codes = if grid.trellis {
        assert!(
            hessian.is_natural() && grid.q_max >= 2,
            "a trellis takes columns as they stand, and codes of at least ±2"
        );
        for (step, row) in steps.iter().zip(arranged.chunks_exact_mut(w.cols())) {
            row.iter_mut().for_each(|x| *x /= step);
        }
        trellis::quantize_columns(arranged, &factor, &prices, grid.q_max)
    } else {
        scalar::quantize_columns(arranged, &factor, &steps, &prices, grid.q_max)
    };
    QuantizedMatrix {
        rows: w.rows(),
        cols: w.cols(),
        q_max: grid.q_max,
        codes: hessian.restore(&codes),
        scales: grid.scales.clone(),
        columns: grid.columns.clone(),
        trellis: grid.trellis,
    }
}
