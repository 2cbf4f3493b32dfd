//! Rounding each weight to its nearest code, without looking at inputs: what GPTQ is measured against, and how the
//! embedding tables are kept.

use half::f16;
use sixpack_formats::QuantizedMatrix;

use crate::distortion::mean_squared_error;
use crate::gptq::Grid;
use crate::{Matrix, Result, Scheme};

/// Codes within ±`q_max` by plain rounding (half to even) with the steps of least mean squared error among the
/// scheme's candidates. Also the fallback of [`crate::gptq::quantize`] where there is no usable Hessian.
///
/// # Errors
/// Those of [`Scheme::matrix_steps`].
pub fn to_nearest(w: &Matrix<'_>, scheme: Scheme, q_max: u8) -> Result<QuantizedMatrix> {
    let candidates = scheme.matrix_steps(w, q_max)?.into_iter().map(|steps| {
        let codes = codes(w, q_max, |row| steps[row].to_f32(), |_, x| x);
        quantized(w, q_max, codes, steps)
    });
    Ok(least_error(w, candidates))
}

/// An embedding table in int8, one step per row: values beyond the row's clip are cut.
///
/// The reference divides by the step in f32 and only then stores it as f16.
///
/// # Errors
/// [`crate::Error::StepTooLarge`] if a step does not fit f16.
pub fn table(w: &Matrix<'_>, scheme: Scheme) -> Result<QuantizedMatrix> {
    const Q_MAX: u8 = 127;
    let rows = scheme.table_steps(w, Q_MAX)?;
    let codes = codes(w, Q_MAX, |row| rows[row].1, |row, x| x.clamp(-rows[row].0, rows[row].0));
    Ok(quantized(w, Q_MAX, codes, rows.iter().map(|&(_, step)| f16::from_f32(step)).collect()))
}

/// Codes `[rows, cols]` of `w` on `grid` by plain rounding; 0 where a step is 0.
///
/// # Panics
/// If the lengths of the grid's steps are not those of `w`.
pub fn to_grid(w: &Matrix<'_>, grid: &Grid) -> Vec<i8> {
    assert_eq!(grid.scales.len(), w.rows(), "steps of the rows of `{}`", w.name());
    assert!([0, w.cols()].contains(&grid.columns.len()), "factors of the columns of `{}`", w.name());
    let columns: Vec<f32> = grid.columns.iter().map(|c| c.to_f32()).collect();
    let q_max = f32::from(grid.q_max);
    let row = |(row, scale): (&[f32], &f16)| {
        let scale = scale.to_f32();
        let step = |j: usize| scale * columns.get(j).copied().unwrap_or(1.0);
        let code = |(j, &x): (usize, &f32)| if step(j) == 0.0 { 0 } else { code(x, step(j), q_max) as i8 };
        row.iter().enumerate().map(code).collect::<Vec<_>>()
    };
    w.iter_rows().zip(&grid.scales).flat_map(row).collect()
}

/// `round(w / step)` within ±`q_max`, half to even.
pub(crate) fn code(w: f32, step: f32, q_max: f32) -> f32 {
    (w / step).clamp(-q_max, q_max).round_ties_even()
}

/// The first of the candidates whose dequantised form is nearest to `w`.
pub(crate) fn least_error(w: &Matrix<'_>, candidates: impl Iterator<Item = QuantizedMatrix>) -> QuantizedMatrix {
    let scored = candidates.map(|q| (mean_squared_error(w, &q), q));
    let best = scored.reduce(|best, next| if next.0 < best.0 { next } else { best });
    best.expect("a scheme has at least one candidate").1
}

/// The parts are correct by construction: codes are clamped and steps were checked.
pub(crate) fn quantized(w: &Matrix<'_>, q_max: u8, codes: Vec<i8>, scales: Vec<f16>) -> QuantizedMatrix {
    QuantizedMatrix { rows: w.rows(), cols: w.cols(), q_max, codes, scales, columns: Vec::new(), trellis: false }
}

fn codes(w: &Matrix<'_>, q_max: u8, step: impl Fn(usize) -> f32, clip: impl Fn(usize, f32) -> f32) -> Vec<i8> {
    let mut codes = Vec::with_capacity(w.values().len());
    for (row, values) in w.iter_rows().enumerate() {
        let step = step(row);
        codes.extend(values.iter().map(|&x| code(clip(row, x), step, f32::from(q_max)) as i8));
    }
    codes
}
