//! Attention of a decoding step, from queries, keys and values as they were multiplied.

use super::kernel::{Access, Kernel, params, wgsl};
use super::queue::Slice;
use super::special::Specialisations;
use super::weight::{Matrix, Part};
use super::{Act, Wgpu, cache};
use crate::ops::{Heads, Rope};

params! {
    /// As in `attend.wgsl`.
    Params {
        gain: Matrix, value_scale: Matrix, heads: u32, group: u32, dim: u32, half: u32, past: u32, part: u32,
        splits: u32, flags: u32, scale: f32,
    }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>(
    "attend",
    wgsl!("parts/kept.wgsl", "parts/sum.wgsl", "weight.wgsl", "attend.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write, Access::Write, Access::Write],
)
.special(&[
    (
        Specialisations { subgroups: true, ..Specialisations::NONE },
        wgsl!("parts/kept.wgsl", "parts/sum_subgroups.wgsl", "weight.wgsl", "attend.wgsl"),
    ),
    (
        Specialisations { f16: true, ..Specialisations::NONE },
        wgsl!("parts/kept_f16.wgsl", "parts/sum.wgsl", "weight.wgsl", "attend.wgsl"),
    ),
    (
        Specialisations { subgroups: true, f16: true, ..Specialisations::NONE },
        wgsl!("parts/kept_f16.wgsl", "parts/sum_subgroups.wgsl", "weight.wgsl", "attend.wgsl"),
    ),
]);

/// Widest head the kernel has room for.
pub(super) const WIDEST: usize = 256;

/// Parts the keys are split into, at most: enough to occupy a GPU, few enough for `back` to put together.
const SPLITS: usize = 8;

/// Keys of a part, at least.
const FEWEST: usize = 64;

const VALUE_EMBEDDING: u32 = 1;
const EXCLUDE_SELF: u32 = 2;

/// What the kernel is to do.
pub(super) struct Attend<'a> {
    pub(super) pass: usize,
    pub(super) heads: Heads,
    pub(super) rope: Rope,
    pub(super) gain: &'a Part,
    /// The value embedding and its scale.
    pub(super) value_embedding: Option<(&'a Part, &'a Act)>,
    pub(super) exclude_self: bool,
}

/// Runs it on `qkv`, which has queries, keys and values of one token after another; attention's output in parts, and
/// how many.
pub(super) fn attend(gpu: &mut Wgpu, what: &Attend<'_>, qkv: &Act) -> (Act, usize) {
    let Heads { query, kv, dim } = what.heads;
    let past = gpu.cache.past();
    let [keys, values] = cache::room(gpu, what.pass, 1, kv * dim);
    let part = (past + 1).div_ceil(SPLITS).next_multiple_of(FEWEST);
    let splits = (past + 1).div_ceil(part);
    // Always room for all parts, so that a growing sequence uses the same buffers.
    let y = gpu.act(1, 1, SPLITS * query * (dim + 2));
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let params = Params {
        gain: what.gain.matrix,
        value_scale: what.value_embedding.map_or(Matrix::default(), |(part, _)| part.matrix),
        heads: query as u32,
        group: (query / kv) as u32,
        dim: dim as u32,
        half: (what.rope.dims / 2) as u32,
        past: past as u32,
        part: part as u32,
        splits: splits as u32,
        flags: flag(what.value_embedding.is_some(), VALUE_EMBEDDING) | flag(what.exclude_self, EXCLUDE_SELF),
        scale: 1.0 / (dim as f32).sqrt(),
    };
    let angles = gpu.angles(what.rope, past + 1);
    let slices = vec![
        what.gain.chunk.clone(),
        qkv.all(),
        what.value_embedding.map_or_else(|| gpu.nothing(), |(_, act)| act.all()),
        angles,
        Slice::whole(keys.buffer()),
        Slice::whole(values.buffer()),
        y.all(),
    ];
    gpu.queue.dispatch(&KERNEL, &params, slices, [query as u32, splits as u32, 1]);
    (y, splits)
}
