//! A Hessian made ready for GPTQ: damped, ordered, factored.

use crate::Matrix;
use crate::factor::inverse_upper;

/// Share of the Hessian's mean diagonal that is added to its diagonal.
const DAMPING: f64 = 0.01;

/// In which order columns are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By descending diagonal of the Hessian, equal ones in their own order: the reference's.
    Activation,
    /// As they stand in the matrix. It costs nothing where steps follow [`Prepared::noise`], as the product of all
    /// `d_j` is the same in every order, and a decoder needs no more to follow the trellis.
    Natural,
}

/// A Hessian damped, ordered and factored. It can be shared: by the query, key and value matrix, by all tries of a
/// solver, by threads.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `columns[k]` is the column that is rounded as the `k`th.
    columns: Vec<usize>,
    /// Whether column `j` has only zero inputs.
    dead: Vec<bool>,
    /// `U [cols, cols]`, upper triangular in the order of rounding, `UᵀU` the inverse of the damped Hessian.
    factor: Vec<f32>,
}

impl Prepared {
    /// Of `hessian [cols, cols]`, the sum or mean of `xᵀx` over the layer's inputs; `None` if it is not positive
    /// definite after damping.
    ///
    /// # Panics
    /// If the Hessian has another size.
    pub fn new(hessian: &[f32], cols: usize, order: Order) -> Option<Self> {
        assert_eq!(hessian.len(), cols * cols, "entries of a hessian of {cols} columns");
        let raw = hessian.iter().step_by(cols + 1);
        let dead: Vec<bool> = raw.clone().map(|&x| x == 0.0).collect();
        let living: Vec<f64> = raw.map(|&x| if x == 0.0 { 1.0 } else { f64::from(x) }).collect();
        let damping = DAMPING * living.iter().sum::<f64>() / cols as f64;
        let diagonal: Vec<f64> = living.iter().map(|x| x + damping).collect();
        let columns = match order {
            Order::Activation => {
                let mut columns: Vec<usize> = (0..cols).collect();
                columns.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
                columns
            }
            Order::Natural => (0..cols).collect(),
        };
        let entry = |i: usize, j: usize| if i == j { diagonal[i] } else { f64::from(hessian[i * cols + j]) };
        let rows = columns.iter().flat_map(|&i| columns.iter().map(move |&j| entry(i, j)));
        let factor = inverse_upper(&rows.collect::<Vec<_>>(), cols)?;
        Some(Self { columns, dead, factor })
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.columns.len()
    }

    /// Whether columns are rounded as they stand in the matrix.
    pub(super) fn is_natural(&self) -> bool {
        self.columns.is_sorted()
    }

    /// `d_j = U[j, j]` in the order of the matrix's columns, `[cols]`: when column `j` is rounded with the step `s`,
    /// and later columns make up for it as well as can be, `xᵀx` sees an error of `s² / (12 d_j²)`. Columns whose
    /// inputs are always 0, where errors cost nothing, get the largest of the others'.
    pub fn noise(&self) -> Vec<f32> {
        let diagonal = self.factor.iter().step_by(self.cols() + 1);
        let alive = || self.columns.iter().zip(diagonal.clone()).filter(|&(&j, _)| !self.dead[j]);
        let most = alive().map(|(_, &d)| d).fold(0.0, f32::max);
        let mut noise = vec![if most > 0.0 { most } else { 1.0 }; self.cols()];
        alive().for_each(|(&j, &d)| noise[j] = d);
        noise
    }

    /// The columns of `w` in the order of rounding, each divided by its factor (`[cols]`, or none); dead ones zero.
    pub(super) fn arrange(&self, w: &Matrix<'_>, factors: &[f32]) -> Vec<f32> {
        let entry = |row: &[f32], j: usize| match (self.dead[j], factors.get(j)) {
            (true, _) | (_, Some(0.0)) => 0.0,
            (false, None) => row[j],
            (false, Some(factor)) => row[j] / factor,
        };
        w.iter_rows().flat_map(|row| self.columns.iter().map(move |&j| entry(row, j))).collect()
    }

    /// `U` for columns divided by their factors: `U[j, k] / factors[k]`. Columns with the factor 0 take no errors.
    pub(super) fn factor(&self, factors: &[f32]) -> Vec<f32> {
        let mut scaled = self.factor.clone();
        if factors.is_empty() {
            return scaled;
        }
        for (k, row) in scaled.chunks_exact_mut(self.cols()).enumerate() {
            for (u, &j) in row[k..].iter_mut().zip(&self.columns[k..]) {
                *u = if factors[j] == 0.0 { 0.0 } else { *u / factors[j] };
            }
            if row[k] == 0.0 {
                row[k] = 1.0;
            }
        }
        scaled
    }

    /// Codes in the order of rounding put back into the order of the matrix.
    pub(super) fn restore(&self, codes: &[i8]) -> Vec<i8> {
        let mut restored = vec![0; codes.len()];
        for (from, to) in codes.chunks_exact(self.cols()).zip(restored.chunks_exact_mut(self.cols())) {
            for (&code, &column) in from.iter().zip(&self.columns) {
                to[column] = code;
            }
        }
        restored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_by_column_whatever_the_order() {
        // Uncorrelated inputs: d_j = 1 / sqrt(H[j, j]), up to the damping.
        let h = [4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 16.0];
        for order in [Order::Activation, Order::Natural] {
            let noise = Prepared::new(&h, 3, order).unwrap().noise();
            let expected = [0.5, 0.5, 0.25];
            assert!(noise.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 0.02), "{noise:?}");
        }
    }
}
