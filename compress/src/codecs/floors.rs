//! Entropies of codes: what a coder could reach that knew the shares of all symbols for nothing.
//!
//! None of them pays for its model, so a real coder with that model stays above; and the more contexts there are for the
//! weights at hand, the more a floor is below what anyone can reach: with as many contexts as weights it is 0. A coder
//! with a better model goes below a floor of a worse one. Of a matrix whose codes are paths of the trellis the indices are
//! counted, apart for states that allow even and odd codes.

use std::collections::HashMap;
use std::hash::Hash;

use sixpack_formats::QuantizedMatrix;

use super::symbols;
use crate::Result;

/// What the symbols are counted apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Nothing: all weights of all matrices together.
    Pooled,
    /// Their matrix.
    Matrix,
    /// Their matrix and the code on their left, or that there is none.
    Left,
    /// Their matrix and row.
    Row,
    /// 32 buckets of the scale to expect, over all matrices: root mean square of the codes of their row × that of their
    /// column ÷ that of their matrix. Each bucket has as many weights as any other.
    Scale,
}

impl Floor {
    /// Every floor.
    pub const ALL: [Self; 5] = [Self::Pooled, Self::Matrix, Self::Left, Self::Row, Self::Scale];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pooled => "order 0, pooled",
            Self::Matrix => "order 0, within tensors",
            Self::Left => "given the left neighbour",
            Self::Row => "given the row",
            Self::Scale => "given 32 buckets of row × column size",
        }
    }

    /// Entropy of the codes in bits a weight; 0 where there are none.
    ///
    /// # Errors
    /// [`crate::Error::NotAPath`] for a matrix that says it is a path of the trellis and is not.
    pub fn bits_per_weight(self, matrices: &[&QuantizedMatrix]) -> Result<f64> {
        let mut counts = Counts::default();
        let mut scaled = Vec::new();
        for (number, matrix) in matrices.iter().enumerate() {
            let symbols = symbols::of(matrix)?;
            let parities = symbols::parities(matrix, &symbols);
            let scales = if self == Self::Scale { expected_scales(matrix) } else { Vec::new() };
            for (i, (&symbol, &parity)) in symbols.iter().zip(&parities).enumerate() {
                let (row, col) = (i / matrix.cols, i % matrix.cols);
                let matrix_and = |rest: i32| (number, rest, parity);
                match self {
                    Self::Pooled => counts.add((0, 0, parity), symbol),
                    Self::Matrix => counts.add(matrix_and(0), symbol),
                    Self::Left if col == 0 => counts.add(matrix_and(i32::MIN), symbol),
                    Self::Left => counts.add(matrix_and(symbols[i - 1].into()), symbol),
                    Self::Row => counts.add(matrix_and(row as i32), symbol),
                    Self::Scale => scaled.push((scales[i], symbol, parity)),
                }
            }
        }
        scaled.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = scaled.len();
        for (rank, (_, symbol, parity)) in scaled.into_iter().enumerate() {
            counts.add((rank * BUCKETS / total, 0, parity), symbol);
        }
        Ok(counts.bits_per_symbol())
    }
}

/// Buckets of [`Floor::Scale`].
const BUCKETS: usize = 32;

/// For each weight: root mean square of the codes of its row × that of its column ÷ that of the matrix.
fn expected_scales(matrix: &QuantizedMatrix) -> Vec<f32> {
    let (mut rows, mut cols) = (vec![0.0f64; matrix.rows], vec![0.0f64; matrix.cols]);
    for (i, &code) in matrix.codes.iter().enumerate() {
        let square = f64::from(code).powi(2);
        rows[i / matrix.cols] += square;
        cols[i % matrix.cols] += square;
    }
    let all: f64 = rows.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let scale = |row: &f64, col: &f64| (row * col / all).sqrt() as f32;
    rows.iter().flat_map(|row| cols.iter().map(move |col| scale(row, col))).collect()
}

/// How often each symbol stands in each context.
#[derive(Default)]
struct Counts<C> {
    of: HashMap<C, Box<[u32; 256]>>,
}

impl<C: Hash + Eq> Counts<C> {
    fn add(&mut self, context: C, symbol: i8) {
        self.of.entry(context).or_insert_with(|| Box::new([0; 256]))[usize::from(symbol as u8)] += 1;
    }

    /// Entropy given the context.
    fn bits_per_symbol(&self) -> f64 {
        let total: f64 = self.of.values().flat_map(|counts| counts.iter()).map(|&n| f64::from(n)).sum();
        let mut bits: Vec<f64> = self.of.values().map(|counts| entropy(&counts[..])).collect();
        // A sum does not depend on the order that a hash map happens to have.
        bits.sort_by(f64::total_cmp);
        bits.iter().sum::<f64>() / total.max(1.0)
    }
}

/// Bits of all symbols with these counts: `Σ n log₂(N / n)`.
fn entropy(counts: &[u32]) -> f64 {
    let total: f64 = counts.iter().map(|&n| f64::from(n)).sum();
    let bits = |&n: &u32| if n == 0 { 0.0 } else { f64::from(n) * (total / f64::from(n)).log2() };
    counts.iter().map(bits).sum()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn matrix(rows: usize, codes: &[i8]) -> QuantizedMatrix {
        let shape = [rows, codes.len() / rows];
        QuantizedMatrix::new("m", shape, 31, codes.to_vec(), vec![f16::ONE; rows]).unwrap()
    }

    fn bits(floor: Floor, matrices: &[&QuantizedMatrix]) -> f64 {
        floor.bits_per_weight(matrices).unwrap()
    }

    #[test]
    fn by_hand() {
        // Two symbols, three to one: 2 − ¾ log₂ 3 bits. The other matrix has one symbol only.
        let (a, b) = (matrix(2, &[1, 1, 1, 0]), matrix(1, &[5, 5, 5, 5]));
        let quarter = 2.0 - 0.75 * 3f64.log2();
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
        close(bits(Floor::Matrix, &[&a]), quarter);
        close(bits(Floor::Matrix, &[&a, &b]), quarter / 2.0);
        // 3, 1 and 4 of 8.
        close(bits(Floor::Pooled, &[&a, &b]), (3.0 * (8f64 / 3.0).log2() + 3.0 + 4.0) / 8.0);
        // The first row is certain, the second one bit a weight.
        close(bits(Floor::Row, &[&a]), 0.5);
        // Both firsts of the rows are 1; after a 1 there is a 1 or a 0.
        close(bits(Floor::Left, &[&a]), 0.5);
        close(bits(Floor::Pooled, &[]), 0.0);
        close(bits(Floor::Scale, &[&matrix(1, &[0, 0])]), 0.0);
    }

    #[test]
    fn sizes_of_rows_and_columns_tell_what_to_expect() {
        // 64 rows whose codes are ±1 or ±16: within the buckets of the small ones and of the large ones one bit a weight,
        // all together two.
        let mut state = 1u64;
        let mut coin = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 63 == 1
        };
        let codes: Vec<i8> = (0..64 * 256)
            .map(|i| {
                let size = if i / 256 % 2 == 0 { 1 } else { 16 };
                if coin() { size } else { -size }
            })
            .collect();
        let m = matrix(64, &codes);
        assert!((bits(Floor::Pooled, &[&m]) - 2.0).abs() < 0.01);
        assert!((bits(Floor::Scale, &[&m]) - 1.0).abs() < 0.01, "{}", bits(Floor::Scale, &[&m]));
    }
}
