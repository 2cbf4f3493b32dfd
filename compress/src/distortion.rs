//! How far a quantised matrix is from its original.

use sixpack_formats::QuantizedMatrix;

use crate::product::{View, ViewMut, add_product};
use crate::{Matrix, Result};

/// Mean of `(w − ŵ)²` over all entries, summed in f64.
///
/// # Panics
/// If the shapes differ.
pub fn mean_squared_error(w: &Matrix<'_>, q: &QuantizedMatrix) -> f64 {
    let sum: f64 = difference(w, q).map(|e| f64::from(e) * f64::from(e)).sum();
    sum / w.values().len() as f64
}

/// `trace(E H Eᵀ)` with `E = W − Ŵ [rows, cols]` and `hessian [cols, cols]`: the squared error of the layer's output,
/// summed over the inputs that `hessian` was accumulated from.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::NotFinite`] if the Hessian does not belong to `w`.
///
/// # Panics
/// If the shapes of `w` and `q` differ.
pub fn hessian_error(w: &Matrix<'_>, q: &QuantizedMatrix, hessian: &[f32]) -> Result<f64> {
    w.check_hessian(hessian)?;
    Ok(row_errors(w, q, hessian).into_iter().sum())
}

/// The diagonal of `E H Eᵀ`, `[rows]`, of a Hessian that belongs to `w`.
pub(crate) fn row_errors(w: &Matrix<'_>, q: &QuantizedMatrix, hessian: &[f32]) -> Vec<f64> {
    let (rows, cols) = (w.rows(), w.cols());
    let e: Vec<f32> = difference(w, q).collect();
    let mut eh = vec![0.0f32; rows * cols];
    let h = View::row_major(hessian, cols, cols);
    add_product(&mut ViewMut::row_major(&mut eh, rows, cols), 1.0, View::row_major(&e, rows, cols), h);
    let row = |(e, eh): (&[f32], &[f32])| e.iter().zip(eh).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    e.chunks_exact(cols).zip(eh.chunks_exact(cols)).map(row).collect()
}

/// `trace` of a square matrix: a layer's sensitivity is that of its Hessian.
pub fn trace(hessian: &[f32], cols: usize) -> f64 {
    hessian.iter().step_by(cols + 1).map(|&x| f64::from(x)).sum()
}

fn difference<'a>(w: &Matrix<'a>, q: &QuantizedMatrix) -> impl Iterator<Item = f32> + use<'a> {
    assert_eq!([w.rows(), w.cols()], [q.rows, q.cols], "shapes of `{}` and its quantised form", w.name());
    w.values().iter().zip(q.dequantize()).map(|(&x, y)| x - y)
}
