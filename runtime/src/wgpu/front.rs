//! A decoding step from the residual stream to products with weights.

use super::kernel::{Access, Kernel, params, wgsl};
use super::queue::Slice;
use super::special::Specialisations;
use super::weight::{Matrix, Part};
use super::{Act, Wgpu};

params! {
    /// As in `front.wgsl`.
    Params {
        w0: Matrix, w1: Matrix, w2: Matrix, mix: Matrix, skip: Matrix, gates: Matrix, outs0: u32, outs1: u32,
        outs2: u32, cols: u32, flags: u32, skip_row: u32, first: u32, norm: f32, cap: f32,
    }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>(
    "front",
    wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum.wgsl", "parts/tile.wgsl", "front.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
)
.special(&[
    (
        Specialisations { subgroups: true, ..Specialisations::NONE },
        wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum_subgroups.wgsl", "parts/tile.wgsl", "front.wgsl"),
    ),
    (
        Specialisations { packed_dots: true, ..Specialisations::NONE },
        wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum.wgsl", "parts/tile_packed.wgsl", "front.wgsl"),
    ),
    (
        Specialisations { subgroups: true, packed_dots: true, ..Specialisations::NONE },
        wgsl!("weight.wgsl", "parts/row.wgsl", "parts/row_sum_subgroups.wgsl", "parts/tile_packed.wgsl", "front.wgsl"),
    ),
]);

/// Outputs of a workgroup.
pub(super) const OUTPUTS: usize = 8;

const SKIP: u32 = 1;
const GATE: u32 = 2;
const MIX: u32 = 4;
const NORM: u32 = 8;
const KEEP_JOINED: u32 = 16;
const KEEP_MIXED: u32 = 32;
const LEAKY_RELU_SQUARED: u32 = 64;
const SOFTCAP: u32 = 128;

/// A skip connection: what is joined, its weights and gates, and their row.
#[derive(Clone, Copy)]
pub(super) struct Skip<'a> {
    pub(super) act: &'a Act,
    pub(super) weights: &'a Part,
    pub(super) gates: Option<&'a Part>,
    pub(super) row: usize,
}

/// What is kept of the stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    /// It, joined with the skip connection.
    Joined,
    /// It, mixed with the embedding.
    Mixed,
}

/// What happens to the products.
#[derive(Clone, Copy)]
pub(super) enum Activation {
    None,
    LeakyReluSquared,
    Softcap(f32),
}

/// What the kernel is to do with one row.
pub(super) struct Front<'a> {
    /// The products, whose outputs follow each other, from `first` of the output on.
    pub(super) products: &'a [&'a Part],
    pub(super) first: usize,
    pub(super) skip: Option<Skip<'a>>,
    /// The weights of the mix with the embedding, and that.
    pub(super) mix: Option<(&'a Part, &'a Act)>,
    /// Factor on the norm.
    pub(super) norm: Option<f32>,
    pub(super) keep: Keep,
    pub(super) activation: Activation,
}

/// Runs it on the row `x`: products to `y`, what is kept to `kept`.
pub(super) fn front(gpu: &mut Wgpu, what: &Front<'_>, x: &Act, kept: Option<&Act>, y: &Act) {
    let matrix = |part: Option<&Part>| part.map_or(Matrix::default(), |part| part.matrix);
    let product = |i: usize| what.products.get(i).copied();
    let outs = |i: usize| product(i).map_or(0, |part| part.rows as u32);
    let (activation, cap) = match what.activation {
        Activation::None => (0, 0.0),
        Activation::LeakyReluSquared => (LEAKY_RELU_SQUARED, 0.0),
        Activation::Softcap(cap) => (SOFTCAP, cap),
    };
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let params = Params {
        w0: matrix(product(0)),
        w1: matrix(product(1)),
        w2: matrix(product(2)),
        mix: matrix(what.mix.map(|(part, _)| part)),
        skip: matrix(what.skip.map(|skip| skip.weights)),
        gates: matrix(what.skip.and_then(|skip| skip.gates)),
        outs0: outs(0),
        outs1: outs(1),
        outs2: outs(2),
        cols: x.cols as u32,
        flags: activation
            | flag(what.skip.is_some(), SKIP)
            | flag(what.skip.is_some_and(|skip| skip.gates.is_some()), GATE)
            | flag(what.mix.is_some(), MIX)
            | flag(what.norm.is_some(), NORM)
            | flag(what.keep == Keep::Joined, KEEP_JOINED)
            | flag(what.keep == Keep::Mixed, KEEP_MIXED),
        skip_row: what.skip.map_or(0, |skip| skip.row as u32),
        first: what.first as u32,
        norm: what.norm.unwrap_or(1.0),
        cap,
    };
    let or_nothing = |act: Option<&Act>| act.map_or_else(|| gpu.nothing(), Act::all);
    // Each written buffer is bound once.
    let kept = kept.map_or_else(|| Slice::whole(&gpu.scratch), Act::all);
    let slices = vec![
        what.products[0].chunk.clone(),
        x.all(),
        or_nothing(what.mix.map(|(_, x0)| x0)),
        or_nothing(what.skip.map(|skip| skip.act)),
        kept,
        y.all(),
    ];
    let groups = what.products.iter().map(|part| part.rows.div_ceil(OUTPUTS) as u32).sum();
    gpu.queue.dispatch(&KERNEL, &params, slices, [groups, 1, 1]);
}
