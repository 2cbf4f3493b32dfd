//! Matrix product with a weight, for many rows.

use super::kernel::{Access, Kernel, params, wgsl};
use super::weight::{Matrix, Weight};
use super::{Act, Wgpu};

params! {
    /// As in `linear.wgsl`.
    Params { w: Matrix, rows: u32, cols: u32, outs: u32, first: u32, width: u32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("linear", wgsl!("weight.wgsl", "linear.wgsl"), &[Access::Read, Access::Read, Access::Write]);

/// Rows and outputs of a workgroup.
const TILE: usize = 64;

/// `x Wᵀ` for `W [out, in]`: `[B, T, out]`.
pub(super) fn linear(gpu: &mut Wgpu, w: &Weight, x: &Act) -> Act {
    let y = gpu.like(x, w.rows);
    for (row, rows) in gpu.parts(x.rows(), w.cols.max(w.rows)) {
        linear_rows(gpu, w, x, &y, [row, row], rows);
    }
    y
}

/// As [`linear`] for `rows` rows from `first[0]` of `x` and `first[1]` of `y` on.
pub(super) fn linear_rows(gpu: &mut Wgpu, w: &Weight, x: &Act, y: &Act, first: [usize; 2], rows: usize) {
    assert_eq!((x.cols, y.cols), (w.cols, w.rows), "linear");
    for part in &w.parts {
        let params = Params {
            w: part.matrix,
            rows: rows as u32,
            cols: w.cols as u32,
            outs: part.rows as u32,
            first: part.first as u32,
            width: w.rows as u32,
        };
        let slices = vec![part.chunk.clone(), x.part(first[0], rows), y.part(first[1], rows)];
        let grid = [part.rows.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, 1];
        gpu.queue.dispatch(&KERNEL, &params, slices, grid);
    }
}
