//! Products with a weight kept as codes.

use super::dot::{Isa, ROWS};
use super::fixed::Fixed;
use super::pool::Pool;
use super::tiles::OUTPUTS;
use super::weight::Int8;

/// Up to so many rows threads share the outputs, beyond they share the rows.
const FEW: usize = 16;

/// Rows that are multiplied with 16 outputs before the next 16 are read: their digits stay in the second-level cache.
const TILE: usize = 64;

/// What a code costs in elementary operations when it is read once for few rows: it is waited for.
const READ: usize = 4;

/// `x Wᵀ`, columns' factors being in `x`: row-major `[rows, out]`.
pub(super) fn product<I: Isa>(isa: I, pool: &Pool, w: &Int8, x: &Fixed<I::Digit>) -> Vec<f32> {
    let (rows, outputs) = (x.rows(), w.rows);
    let mut y = vec![0.0; rows * outputs];
    if rows > FEW {
        let tile = pool.share(rows, outputs * w.cols).next_multiple_of(ROWS).min(TILE);
        pool.rows(&mut y, outputs, tile, |first, y| part(isa, w, 0..outputs, x, first, y));
        return y;
    }
    let tile = pool.share(outputs, rows.max(READ) * w.cols).next_multiple_of(OUTPUTS);
    pool.rows(&mut y, rows, tile, |first, y| part(isa, w, first..first + y.len() / rows, x, 0, y));
    if rows == 1 || tile >= outputs {
        return y;
    }
    // Each thread had its outputs of all rows in one place.
    let mut joined = vec![0.0; y.len()];
    for (i, y) in y.chunks(tile * rows).enumerate() {
        let wide = y.len() / rows;
        for (joined, y) in joined.chunks_exact_mut(outputs).zip(y.chunks_exact(wide)) {
            joined[i * tile..][..wide].copy_from_slice(y);
        }
    }
    joined
}

/// `outputs`, which begin with a tile, of the rows of `x` from `first` on, as many as fill `y`; a block of `x` begins with
/// `first`.
pub(super) fn part<I: Isa>(
    isa: I,
    w: &Int8,
    outputs: std::ops::Range<usize>,
    x: &Fixed<I::Digit>,
    first: usize,
    y: &mut [f32],
) {
    let stride = outputs.len();
    let rows = y.len() / stride;
    let mut sums = [[0.0; OUTPUTS]; ROWS];
    for output in outputs.clone().step_by(OUTPUTS) {
        let tiles = w.codes.group(output / OUTPUTS);
        let scales = &w.scales[output..outputs.end.min(output + OUTPUTS)];
        let mut row = 0;
        while row < rows {
            let x = x.block(first + row);
            let beside = x.steps.len();
            isa.dots(tiles, &x, &mut sums[..beside]);
            // Of a last block that is filled up only what there is.
            let y = y[row * stride + (output - outputs.start)..].chunks_mut(stride);
            for ((y, sums), step) in y.zip(&sums[..beside]).zip(x.steps) {
                for ((y, sum), scale) in y.iter_mut().zip(sums).zip(scales) {
                    *y = sum * step * scale;
                }
            }
            row += beside;
        }
    }
}
