//! Root mean square norm.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::special::Specialisations;
use super::{Act, Wgpu};

params! {
    /// As in `rms_norm.wgsl`.
    Params { rows: u32, cols: u32, scale: f32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("rms_norm", wgsl!("parts/sum.wgsl", "rms_norm.wgsl"), &[Access::Read, Access::Write])
        .special(&[(
            Specialisations { subgroups: true, ..Specialisations::NONE },
            wgsl!("parts/sum_subgroups.wgsl", "rms_norm.wgsl"),
        )]);

/// `scale · x / sqrt(mean(x²) + eps)` over channels.
pub(super) fn rms_norm(gpu: &mut Wgpu, x: &Act, scale: f32) -> Act {
    let y = gpu.like(x, x.cols);
    for (row, rows) in gpu.parts(x.rows(), x.cols) {
        let params = Params { rows: rows as u32, cols: x.cols as u32, scale };
        let slices = vec![x.part(row, rows), y.part(row, rows)];
        gpu.queue.dispatch(&KERNEL, &params, slices, [groups(rows, 1), 1, 1]);
    }
    y
}
