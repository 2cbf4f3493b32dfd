//! Orthogonalisation by Newton–Schulz iterations of a quintic.

use rayon::prelude::*;

use super::Coefficients;
use crate::Result;
use crate::matrix::{Mat, MatMut, Write, multiply};
use crate::vector::sum_of_squares;

/// A number of iterations with their coefficients.
#[derive(Clone, Debug, PartialEq)]
pub struct NewtonSchulz {
    /// The norm that is divided by is `factor · ‖U‖_F + epsilon`.
    scale: (f64, f64),
    triples: Vec<[f32; 3]>,
}

impl NewtonSchulz {
    /// So many iterations.
    ///
    /// # Errors
    /// If the coefficients are not for so many.
    pub fn new(coefficients: Coefficients, steps: usize) -> Result<Self> {
        let triples = coefficients.triples(steps)?.into_iter().map(|t| t.map(|x| x as f32)).collect();
        Ok(Self { scale: coefficients.scale(), triples })
    }

    /// What the norm is multiplied by before it divides, and what is added to it.
    pub(crate) fn scale(&self) -> (f64, f64) {
        self.scale
    }

    /// The coefficients of each iteration.
    pub(crate) fn triples(&self) -> &[[f32; 3]] {
        &self.triples
    }

    /// Brings the singular values of each matrix of a stack `[n, rows, cols]` close to 1. Matrices are shared out over
    /// the current rayon pool; each is one thread's, so the numbers are those of one by one.
    ///
    /// # Panics
    /// If the stack is no multiple of `rows · cols` long.
    pub fn orthogonalize(&self, stack: &mut [f32], [rows, cols]: [usize; 2]) {
        assert!(stack.len().is_multiple_of(rows * cols), "a stack of {rows}×{cols} matrices");
        let scratch = || Scratch::new(rows, cols);
        stack.par_chunks_exact_mut(rows * cols).for_each_init(scratch, |scratch, x| self.one(x, [rows, cols], scratch));
    }

    fn one(&self, x: &mut [f32], [rows, cols]: [usize; 2], scratch: &mut Scratch) {
        let (factor, epsilon) = self.scale;
        let scale = (1.0 / (factor * sum_of_squares(x).sqrt() + epsilon)) as f32;
        x.iter_mut().for_each(|x| *x *= scale);
        // A tall X is iterated as X(aI + bA + cA²) with A = XᵀX: the same numbers as transposing it first.
        let (side, tall) = (rows.min(cols), rows > cols);
        let Scratch { gram, polynomial, next } = scratch;
        for &[a, b, c] in &self.triples {
            let view = Mat::new(x, rows, cols);
            let (left, right) = if tall { (view.t(), view) } else { (view, view.t()) };
            multiply(MatMut::new(gram, side), Write::Set, 1.0, left, right);
            polynomial.iter_mut().zip(gram.iter()).for_each(|(p, g)| *p = b * g);
            polynomial.iter_mut().step_by(side + 1).for_each(|diagonal| *diagonal += a);
            let square = Mat::new(gram, side, side);
            multiply(MatMut::new(polynomial, side), Write::Add, c, square, square);
            let polynomial = Mat::new(polynomial, side, side);
            let (left, right) = if tall { (view, polynomial) } else { (polynomial, view) };
            multiply(MatMut::new(next, cols), Write::Set, 1.0, left, right);
            x.copy_from_slice(next);
        }
    }
}

/// Room of one thread for one matrix at a time.
struct Scratch {
    gram: Vec<f32>,
    polynomial: Vec<f32>,
    next: Vec<f32>,
}

impl Scratch {
    fn new(rows: usize, cols: usize) -> Self {
        let square = rows.min(cols).pow(2);
        Self { gram: vec![0.0; square], polynomial: vec![0.0; square], next: vec![0.0; rows * cols] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_of_a_diagonal_come_close_to_one() {
        let choices = [
            (Coefficients::Constant, 5, 0.65..1.25),
            (Coefficients::PolarExpress, 5, 0.85..1.15),
            (Coefficients::Fitted, 3, 0.7..1.3),
        ];
        for (coefficients, steps, band) in choices {
            let mut x = vec![0.0; 4 * 7];
            for (i, value) in [3.0, -1.0, 0.5, 2.0].into_iter().enumerate() {
                x[i * 7 + i] = value;
            }
            NewtonSchulz::new(coefficients, steps).unwrap().orthogonalize(&mut x, [4, 7]);
            for (i, y) in x.iter().enumerate() {
                let size = if i % 8 == 0 { band.clone() } else { -1e-6..1e-6 };
                assert!(size.contains(&y.abs()), "{y} at {i}, {coefficients:?}");
            }
            assert!(x[8] < 0.0, "signs are kept");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let mut zeros = [0.0; 6];
        NewtonSchulz::new(Coefficients::Constant, 5).unwrap().orthogonalize(&mut zeros, [2, 3]);
        assert_eq!(zeros, [0.0; 6]);
    }

    #[test]
    fn a_stack_is_its_matrices_one_by_one() {
        for shape in [[5, 5], [9, 4], [3, 8]] {
            let size = shape[0] * shape[1];
            let stack: Vec<f32> = (0..6 * size).map(|i| ((i * 7919 % 101) as f32 - 50.0) * (i / size) as f32).collect();
            let by = NewtonSchulz::new(Coefficients::PolarExpress, 5).unwrap();
            let (mut one_by_one, mut together) = (stack.clone(), stack);
            one_by_one.chunks_exact_mut(size).for_each(|x| by.orthogonalize(x, shape));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            pool.install(|| by.orthogonalize(&mut together, shape));
            assert_eq!(one_by_one, together);
        }
    }
}
