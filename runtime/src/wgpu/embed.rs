//! Token ids to rows of a table.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::weight::{Matrix, Weight};
use super::{Act, Wgpu};
use crate::ops::Batch;
use crate::{Error, Result};

params! {
    /// As in `embed.wgsl`.
    Params { table: Matrix, elements: u32, cols: u32, ids: u32, first: u32, rows: u32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("embed", wgsl!("weight.wgsl", "embed.wgsl"), &[Access::Read, Access::Read, Access::Write]);

/// Rows of `table [V, C]` by id: `[B, T, C]` from position `start` on.
pub(super) fn embed(gpu: &mut Wgpu, table: &Weight, batch: &Batch<'_>, start: usize) -> Result<Act> {
    let vocab = table.rows;
    if let Some(index) = batch.ids.iter().position(|&id| id as usize >= vocab) {
        return Err(Error::Token { index, id: batch.ids[index], vocab });
    }
    let mut y = gpu.act(batch.sequences, batch.len(), table.cols);
    y.start = start;
    for (row, rows) in gpu.parts(y.rows(), y.cols) {
        let (uploads, ids) = gpu.queue.upload(&batch.ids[row..row + rows], table.parts.len());
        for part in &table.parts {
            let elements = rows * y.cols;
            let params = Params {
                table: part.matrix,
                elements: elements as u32,
                cols: y.cols as u32,
                ids,
                first: part.first as u32,
                rows: part.rows as u32,
            };
            let slices = vec![part.chunk.clone(), uploads.clone(), y.part(row, rows)];
            gpu.queue.dispatch(&KERNEL, &params, slices, [groups(elements, 256), 1, 1]);
        }
    }
    Ok(y)
}
