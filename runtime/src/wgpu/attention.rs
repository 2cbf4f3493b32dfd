//! Causal grouped-query attention.

use super::kernel::{Access, Kernel, params, wgsl};
use super::queue::Slice;
use super::special::Specialisations;
use super::{Act, Wgpu};
use crate::ops::Heads;

params! {
    /// As in `attention.wgsl`.
    Params { q_len: u32, k_len: u32, heads: u32, group: u32, dim: u32, queries: u32, keys: u32, scale: f32 }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>(
    "attention",
    wgsl!("parts/kept.wgsl", "attention.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Write],
);

/// It over keys and values that a session remembers as f16.
pub(super) static OVER_F16: Kernel = Kernel::new::<Params>(
    "attention_over_f16",
    wgsl!("parts/kept_f16.wgsl", "attention.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Write],
)
.only_with(Specialisations { f16: true, ..Specialisations::NONE });

/// Widest head the kernel has room for.
pub(super) const WIDEST: usize = 1024;

/// Over all keys and values a session remembers.
pub(super) fn remembered(gpu: &mut Wgpu, heads: Heads, q: &Act, k: &Act, v: &Act) -> Act {
    let kernel = if gpu.machine.on.f16 { &OVER_F16 } else { &KERNEL };
    let y = gpu.like(q, q.cols);
    attend(gpu, kernel, heads, 1, [q.len, k.len], [q.all(), k.all(), v.all(), y.all()]);
    y
}

/// `q [B, Tq, H·D]`, keys and values `[B, Tk, K·D]` of the same sequences; query `i` is position `Tk − Tq + i`.
pub(super) fn attention(gpu: &mut Wgpu, heads: Heads, q: &Act, k: &Act, v: &Act) -> Act {
    let y = gpu.like(q, q.cols);
    let longest = k.len.max(q.len);
    for (row, rows) in gpu.sequences(q.sequences, longest, q.cols.max(k.cols)) {
        let (first, sequences) = (row / longest, rows / longest);
        let of = |x: &Act| x.part(first * x.len, sequences * x.len);
        attend(gpu, &KERNEL, heads, sequences, [q.len, k.len], [of(q), of(k), of(v), of(&y)]);
    }
    y
}

/// As [`attention`] of `sequences` sequences of so many queries and keys each.
fn attend(
    gpu: &mut Wgpu,
    kernel: &'static Kernel,
    heads: Heads,
    sequences: usize,
    [q, k]: [usize; 2],
    slices: [Slice; 4],
) {
    assert!(heads.dim <= WIDEST, "a head of {} channels", heads.dim);
    let queries = (WIDEST / heads.dim).min(16);
    let params = Params {
        q_len: q as u32,
        k_len: k as u32,
        heads: heads.query as u32,
        group: (heads.query / heads.kv) as u32,
        dim: heads.dim as u32,
        queries: queries as u32,
        keys: (2112 / (heads.dim + 1)).min(32) as u32,
        scale: 1.0 / (heads.dim as f32).sqrt(),
    };
    let grid = [q.div_ceil(queries) as u32, heads.query as u32, sequences as u32];
    gpu.queue.dispatch(kernel, &params, slices.to_vec(), grid);
}
