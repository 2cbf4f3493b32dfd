//! A decoding step back to the residual stream.

use super::front::{OUTPUTS, Skip};
use super::kernel::{Access, Kernel, params, wgsl};
use super::queue::Slice;
use super::special::Specialisations;
use super::weight::{Matrix, Part};
use super::{Act, Wgpu};
use crate::ops::Heads;

params! {
    /// As in `back.wgsl`.
    Params {
        w: Matrix, scale: Matrix, skip: Matrix, gates: Matrix, keep: Matrix, post: Matrix, outs: u32, cols: u32,
        flags: u32, skip_row: u32, keep_row: u32, keep_col: u32, post_row: u32, dim: u32, heads: u32, splits: u32,
    }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>(
    "back",
    wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum.wgsl", "parts/tile.wgsl", "back.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
)
.special(&[
    (
        Specialisations { subgroups: true, ..Specialisations::NONE },
        wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum_subgroups.wgsl", "parts/tile.wgsl", "back.wgsl"),
    ),
    (
        Specialisations { packed_dots: true, ..Specialisations::NONE },
        wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum.wgsl", "parts/tile_packed.wgsl", "back.wgsl"),
    ),
    (
        Specialisations { subgroups: true, packed_dots: true, ..Specialisations::NONE },
        wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum_subgroups.wgsl", "parts/tile_packed.wgsl", "back.wgsl"),
    ),
]);

const SKIP: u32 = 1;
const GATE: u32 = 2;
const LANES: u32 = 4;
const PARTS: u32 = 8;

/// The two lanes' second: it, joined with a skip connection first, and where the weights of both lanes are.
pub(super) struct Other<'a> {
    pub(super) lane: &'a Act,
    pub(super) skip: Option<Skip<'a>>,
    pub(super) keep: &'a Part,
    pub(super) post: &'a Part,
    pub(super) layer: usize,
    /// 0 after attention, 1 after the MLP.
    pub(super) half: usize,
}

/// What the kernel is to do with one row.
pub(super) struct Back<'a> {
    pub(super) w: &'a Part,
    pub(super) scale: &'a Part,
    /// The heads of attention and the parts its keys were split into, if it is attention's output.
    pub(super) parts: Option<(Heads, usize)>,
    /// The stream, or its first lane.
    pub(super) lane: &'a Act,
    pub(super) other: Option<Other<'a>>,
}

/// Runs it on the row `x`; the stream, or both lanes.
pub(super) fn back(gpu: &mut Wgpu, what: &Back<'_>, x: &Act) -> (Act, Option<Act>) {
    let out = gpu.like(what.lane, what.w.rows);
    let second = what.other.as_ref().map(|_| gpu.like(what.lane, what.w.rows));
    let other = what.other.as_ref();
    let skip = other.and_then(|other| other.skip);
    let matrix = |part: Option<&Part>| part.map_or(Matrix::default(), |part| part.matrix);
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let (layer, half) = other.map_or((0, 0), |other| (other.layer as u32, other.half as u32));
    let params = Params {
        w: what.w.matrix,
        scale: what.scale.matrix,
        skip: matrix(skip.map(|skip| skip.weights)),
        gates: matrix(skip.and_then(|skip| skip.gates)),
        keep: matrix(other.map(|other| other.keep)),
        post: matrix(other.map(|other| other.post)),
        outs: what.w.rows as u32,
        cols: what.parts.map_or(x.cols, |(heads, _)| heads.query * heads.dim) as u32,
        flags: flag(skip.is_some(), SKIP)
            | flag(skip.is_some_and(|skip| skip.gates.is_some()), GATE)
            | flag(other.is_some(), LANES)
            | flag(what.parts.is_some(), PARTS),
        skip_row: skip.map_or(0, |skip| skip.row as u32),
        keep_row: layer,
        keep_col: half,
        post_row: 2 * layer + half,
        dim: what.parts.map_or(1, |(heads, _)| heads.dim as u32),
        heads: what.parts.map_or(1, |(heads, _)| heads.query as u32),
        splits: what.parts.map_or(1, |(_, splits)| splits as u32),
    };
    let or_nothing = |act: Option<&Act>| act.map_or_else(|| gpu.nothing(), Act::all);
    let slices = vec![
        what.w.chunk.clone(),
        x.all(),
        what.lane.all(),
        or_nothing(other.map(|other| other.lane)),
        or_nothing(skip.map(|skip| skip.act)),
        out.all(),
        second.as_ref().map_or_else(|| Slice::whole(&gpu.scratch), Act::all),
    ];
    gpu.queue.dispatch(&KERNEL, &params, slices, [what.w.rows.div_ceil(OUTPUTS) as u32, 1, 1]);
    (out, second)
}
