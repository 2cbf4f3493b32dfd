//! Queries and keys before attention: norm per head, rotation, gain.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::weight::{Matrix, Weight};
use super::{Act, Wgpu};
use crate::ops::Rope;

params! {
    /// As in `head_norm_rope.wgsl`.
    Params { gain: Matrix, gains: u32, rows: u32, heads: u32, dim: u32, half: u32, len: u32, start: u32 }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>(
    "head_norm_rope",
    wgsl!("weight.wgsl", "head_norm_rope.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Write],
);

/// Each head of `x [B, T, heads·D]` normalised by its root mean square, rotated by its position, times its gain.
pub(super) fn head_norm_rope(gpu: &mut Wgpu, x: &Act, heads: usize, rope: Rope, gain: Option<&Weight>) -> Act {
    let y = gpu.like(x, x.cols);
    let angles = gpu.angles(rope, x.start + x.len);
    let part = gain.map(Weight::only);
    let chunk = part.map_or_else(|| gpu.nothing(), |part| part.chunk.clone());
    // Positions count from the start of a sequence: parts are whole ones, or of one.
    let one = x.sequences == 1;
    let parts: Vec<_> =
        if one { gpu.parts(x.len, x.cols).collect() } else { gpu.sequences(x.sequences, x.len, x.cols) };
    for (row, rows) in parts {
        let params = Params {
            gain: part.map_or(Matrix::default(), |part| part.matrix),
            gains: gain.is_some().into(),
            rows: rows as u32,
            heads: heads as u32,
            dim: (x.cols / heads) as u32,
            half: (rope.dims / 2) as u32,
            len: if one { rows } else { x.len } as u32,
            start: (x.start + if one { row } else { 0 }) as u32,
        };
        let slices = vec![chunk.clone(), x.part(row, rows), angles.clone(), y.part(row, rows)];
        gpu.queue.dispatch(&KERNEL, &params, slices, [groups(rows * heads, 1), 1, 1]);
    }
    y
}
