//! The loss of each target, and of each target without ever holding all logits.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::linear::linear_rows;
use super::weight::Weight;
use super::{Act, Wgpu};
use crate::{Error, Result};

params! {
    /// As in `cross_entropy.wgsl`.
    Params { rows: u32, cols: u32, targets: u32, cap: f32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("cross_entropy", wgsl!("cross_entropy.wgsl"), &[Access::Read, Access::Read, Access::Write]);

/// Bytes of logits at once: large enough to fill a GPU, small enough to stay near it.
const LOGITS: u64 = 32 << 20;

/// Negative log-likelihood in nats of each target under `logits [B, T, V]`: `[B, T, 1]`.
pub(super) fn cross_entropy(gpu: &mut Wgpu, logits: &Act, targets: &[u32]) -> Result<Act> {
    assert_eq!(logits.rows(), targets.len(), "cross_entropy");
    refuse_foreign(targets, logits.cols)?;
    let nll = gpu.like(logits, 1);
    for (row, rows) in gpu.parts(logits.rows(), logits.cols) {
        score(gpu, logits, row, (&nll, row), 0.0, &targets[row..row + rows]);
    }
    Ok(nll)
}

/// Negative log-likelihood in nats of each target under `cap · tanh((h · tableᵀ) / cap)`: `[B, T, 1]`.
pub(super) fn nll(gpu: &mut Wgpu, table: &Weight, h: &Act, cap: f32, targets: &[u32]) -> Result<Act> {
    assert_eq!((h.rows(), h.cols), (targets.len(), table.cols), "nll");
    refuse_foreign(targets, table.rows)?;
    let nll = gpu.like(h, 1);
    let limit = LOGITS.min(gpu.limit());
    let parts: Vec<_> = super::act::parts(h.rows(), table.rows.max(h.cols), limit).collect();
    let most = parts.first().map_or(0, |(_, rows)| *rows);
    let logits = gpu.act(1, most, table.rows);
    for (row, rows) in parts {
        let logits = Act { len: rows, ..logits.clone() };
        linear_rows(gpu, table, h, &logits, [row, 0], rows);
        score(gpu, &logits, 0, (&nll, row), cap, &targets[row..row + rows]);
    }
    Ok(nll)
}

fn score(gpu: &mut Wgpu, logits: &Act, row: usize, (nll, first): (&Act, usize), cap: f32, targets: &[u32]) {
    let rows = targets.len();
    let (uploads, targets) = gpu.queue.upload(targets, 1);
    let params = Params { rows: rows as u32, cols: logits.cols as u32, targets, cap };
    let slices = vec![logits.part(row, rows), uploads, nll.part(first, rows)];
    gpu.queue.dispatch(&KERNEL, &params, slices, [groups(rows, 1), 1, 1]);
}

fn refuse_foreign(targets: &[u32], vocab: usize) -> Result<()> {
    match targets.iter().position(|&id| id as usize >= vocab) {
        Some(index) => Err(Error::Token { index, id: targets[index], vocab }),
        None => Ok(()),
    }
}
