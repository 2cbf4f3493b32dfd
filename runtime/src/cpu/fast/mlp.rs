//! The MLP, a tile of rows at a time, so that there is never more than a tile of its hidden values.

use super::Weight;
use super::dot::Kernel;
use super::linear::linear;
use super::matmul::{View, multiply};
use super::pool::Pool;
use super::simd::wide;
use super::weight::Panel;
use crate::cpu::Mat;

/// Rows of a tile: each makes `gemm` pack both matrices again, so fewer rows are slower than no tiles at all.
const TILE: usize = 512;

/// `leaky_relu(x, 0.5)²`.
pub(super) fn leaky_relu_squared(pool: &Pool, x: &Mat) -> Mat {
    let mut y = x.clone();
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), x.cols), |_, y| activate(y));
    y
}

/// `x upᵀ`, [`leaky_relu_squared`], `· downᵀ`.
pub(super) fn mlp(pool: &Pool, kernel: Kernel, panels: &mut [Panel; 2], up: &Weight, down: &Weight, x: &Mat) -> Mat {
    let [up_panel, down_panel] = panels;
    let hidden = up.rows();
    let codes = |w: &Weight| matches!(w, Weight::Int8(_)) && kernel.takes(x.rows());
    if x.rows() < 16 || codes(up) || codes(down) {
        let mut u = linear(pool, kernel, up_panel, up, x);
        pool.rows(&mut u.data, hidden, pool.share(x.rows(), hidden), |_, u| activate(u));
        return linear(pool, kernel, down_panel, down, &u);
    }
    let (dim, cols) = (x.cols, down.rows());
    let (up, down) = (up.unpack(pool, up_panel), down.unpack(pool, down_panel));
    let mut y = x.like(cols, vec![0.0; x.rows() * cols]);
    let share = pool.share(x.rows(), hidden * (x.cols + cols));
    pool.rows(&mut y.data, cols, share, |first, y| {
        let mut u = vec![0.0; share.min(TILE) * hidden];
        for (tile, y) in y.chunks_mut(TILE * cols).enumerate() {
            let rows = y.len() / cols;
            let x = View::rows(&x.data[(first + tile * TILE) * x.cols..], rows, x.cols, x.cols);
            let u = &mut u[..rows * hidden];
            multiply(x, View::rows(up, hidden, dim, dim).t(), u, hidden);
            activate(u);
            let u = View::rows(u, rows, hidden, hidden);
            multiply(u, View::rows(down, cols, hidden, hidden).t(), y, cols);
        }
    });
    y
}

fn activate(u: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for u in u.iter_mut() {
                let leaky = if *u > 0.0 { *u } else { 0.5 * *u };
                *u = leaky * leaky;
            }
        },
    );
}
