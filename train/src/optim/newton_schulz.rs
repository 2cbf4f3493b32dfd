//! Orthogonalisation by Newton–Schulz iterations of a quintic.

use crate::matrix::{Mat, MatMut, Write, multiply, product};
use crate::vector::sum_of_squares;

/// Coefficients of `X ← aX + (bA + cA²)X`, `A = XXᵀ`: they drive every singular value into about [0.7, 1.2] in five
/// iterations, for speed rather than convergence to 1.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];

/// The matrix `[rows, cols]` with its singular values brought close to 1, by so many iterations.
///
/// # Panics
/// If `x` is not `rows · cols` long.
pub fn orthogonalize(mut x: Vec<f32>, rows: usize, cols: usize, iterations: usize) -> Vec<f32> {
    assert_eq!(x.len(), rows * cols, "a {rows}×{cols} matrix");
    let factor = (1.0 / (sum_of_squares(&x).sqrt() + 1e-7)) as f32;
    x.iter_mut().for_each(|x| *x *= factor);
    // A tall X is iterated as X(aI + bA + cA²) with A = XᵀX: the same numbers as transposing it first.
    let side = rows.min(cols);
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..iterations {
        let view = Mat::new(&x, rows, cols);
        let gram = if rows > cols { product(view.t(), view) } else { product(view, view.t()) };
        let mut polynomial: Vec<f32> = gram.iter().map(|g| b * g).collect();
        polynomial.iter_mut().step_by(side + 1).for_each(|diagonal| *diagonal += a);
        let gram = Mat::new(&gram, side, side);
        multiply(MatMut::new(&mut polynomial, side), Write::Add, c, gram, gram);
        let polynomial = Mat::new(&polynomial, side, side);
        x = if rows > cols { product(view, polynomial) } else { product(polynomial, view) };
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_of_a_diagonal_come_close_to_one() {
        let mut x = vec![0.0; 4 * 7];
        for (i, value) in [3.0, -1.0, 0.5, 2.0].into_iter().enumerate() {
            x[i * 7 + i] = value;
        }
        let y = orthogonalize(x, 4, 7, 5);
        for (i, y) in y.iter().enumerate() {
            let size = if i % 8 == 0 { 0.65..1.25 } else { -1e-6..1e-6 };
            assert!(size.contains(&y.abs()), "{y} at {i}");
        }
        assert!(y[8] < 0.0, "signs are kept");
    }

    #[test]
    fn zeros_stay_zeros() {
        assert_eq!(orthogonalize(vec![0.0; 6], 2, 3, 5), [0.0; 6]);
    }
}
