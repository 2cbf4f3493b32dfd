//! Exclusive self-attention.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::{Act, Wgpu};
use crate::ops::Heads;

params! {
    /// As in `exclude_self.wgsl`.
    Params { rows: u32, heads: u32, group: u32, dim: u32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("exclude_self", wgsl!("exclude_self.wgsl"), &[Access::Read, Access::Read, Access::Write]);

/// `y − (y·v̂) v̂` per head, `v̂ = v / max(‖v‖, 1e-12)` the key/value head's own value at that position.
pub(super) fn exclude_self(gpu: &mut Wgpu, heads: Heads, y: &Act, v: &Act) -> Act {
    assert_eq!(y.rows(), v.rows(), "exclude_self");
    let out = gpu.like(y, y.cols);
    for (row, rows) in gpu.parts(y.rows(), y.cols) {
        let params = Params {
            rows: rows as u32,
            heads: heads.query as u32,
            group: (heads.query / heads.kv) as u32,
            dim: heads.dim as u32,
        };
        let slices = vec![y.part(row, rows), v.part(row, rows), out.part(row, rows)];
        gpu.queue.dispatch(&KERNEL, &params, slices, [groups(rows * heads.query, 1), 1, 1]);
    }
    out
}
