//! Keys and values that a session is to remember as f16.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::queue::Slice;
use super::special::Specialisations;
use super::{Act, Wgpu};

params! {
    /// As in `narrow.wgsl`.
    Params { elements: u32, first: u32 }
}

pub(super) static KERNEL: Kernel =
    Kernel::new::<Params>("narrow", wgsl!("parts/kept_f16.wgsl", "narrow.wgsl"), &[Access::Read, Access::Write])
        .only_with(Specialisations { f16: true, ..Specialisations::NONE });

/// Puts `x` into `kept` from element `first` on.
pub(super) fn narrow(gpu: &mut Wgpu, x: &Act, kept: &wgpu::Buffer, first: usize) {
    let params = Params { elements: x.elements() as u32, first: first as u32 };
    let grid = [groups(x.elements(), 256), 1, 1];
    gpu.queue.dispatch(&KERNEL, &params, vec![x.all(), Slice::whole(kept)], grid);
}
