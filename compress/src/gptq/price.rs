//! What codes cost in bits, as a weight's own variance has it.
//!
//! The bits of a code `q` of a Gaussian of variance σ², in units of its step, grow by `q² / (2 σ² ln 2)`, and where a bit
//! is worth as much as elsewhere it is worth `2 ln 2 · D` of squared error, with `D` the mean square of rounding. So
//! rounding takes the least of `(w − q)² + price · q²` with the price `D / σ²`: it rounds `w / (1 + price)`.

use sixpack_formats::trellis::STATES;

/// Mean square of rounding to whole numbers.
const SCALAR: f32 = 1.0 / 12.0;
/// The same on the trellis, where codes are 2 apart: found on a uniform source.
const TRELLIS: f32 = 0.263;
const _: () = assert!(STATES == 8, "the mean square is that of eight states");
/// Price above which only 0 is rounded to anyway.
const MOST: f32 = 16.0;

/// Prices of squared codes: that of a weight is the product of those of its row and its column.
pub(super) struct Prices {
    pub(super) rows: Vec<f32>,
    pub(super) columns: Vec<f32>,
}

impl Prices {
    /// Of `w [rows, cols]` with the steps `[rows]`, `rate` times what theory has.
    pub(super) fn new(w: &[f32], steps: &[f32], trellis: bool, rate: f32) -> Self {
        let (rows, cols) = (steps.len(), w.len() / steps.len());
        let mut prices = Self { rows: vec![0.0; rows], columns: vec![0.0; cols] };
        if rate == 0.0 {
            return prices;
        }
        for ((sum, row), step) in prices.rows.iter_mut().zip(w.chunks_exact(cols)).zip(steps) {
            for (column, x) in prices.columns.iter_mut().zip(row) {
                let square = (x / step) * (x / step);
                *sum += square;
                *column += square;
            }
        }
        // σ² of a weight is the mean of its row times the mean of its column over the mean of all.
        let mean = prices.rows.iter().sum::<f32>() / w.len() as f32;
        let distortion = rate * if trellis { TRELLIS } else { SCALAR };
        let price = |sum: f32, n: usize, scale: f32| if sum > 0.0 { (scale * n as f32 / sum).min(MOST) } else { MOST };
        prices.rows.iter_mut().for_each(|sum| *sum = price(*sum, cols, mean));
        prices.columns.iter_mut().for_each(|sum| *sum = price(*sum, rows, distortion));
        prices
    }
}
