//! The operations on single elements, which share a kernel.

use super::kernel::{Access, Kernel, groups, params, wgsl};
use super::weight::{Matrix, Weight};
use super::{Act, Wgpu};

params! {
    /// As in `pointwise.wgsl`.
    Params {
        a: Matrix, b: Matrix, op: u32, elements: u32, cols: u32, a_row: u32, a_col: u32, b_row: u32, b_col: u32,
        cap: f32,
    }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>(
    "pointwise",
    wgsl!("weight.wgsl", "pointwise.wgsl"),
    &[Access::Read, Access::Read, Access::Read, Access::Write],
);

/// The numbers of the operations in `pointwise.wgsl`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Op {
    Mix,
    Scale,
    ScaleOne,
    AddScaled,
    AddScaledOne,
    GatedSkip,
    Skip,
    UpdateLane,
    Average,
    LeakyReluSquared,
    Softcap,
}

/// A weight, and the element of it or the row that is meant.
type At<'a> = (&'a Weight, usize, usize);

/// `weights[0] ⊙ x + weights[1] ⊙ x0`.
pub(super) fn mix(gpu: &mut Wgpu, weights: &Weight, x: &Act, x0: &Act) -> Act {
    run(gpu, Op::Mix, [Some((weights, 0, 0)), None], 0.0, x, x0)
}

/// `weights ⊙ x`, weights `[C]` or a single value.
pub(super) fn scale(gpu: &mut Wgpu, weights: &Weight, x: &Act) -> Act {
    let op = if is_single(weights) { Op::ScaleOne } else { Op::Scale };
    run(gpu, op, [Some((weights, 0, 0)), None], 0.0, x, x)
}

/// `x + weights ⊙ y`, weights `[C]` or a single value.
pub(super) fn add_scaled(gpu: &mut Wgpu, x: &Act, weights: &Weight, y: &Act) -> Act {
    let op = if is_single(weights) { Op::AddScaledOne } else { Op::AddScaled };
    run(gpu, op, [Some((weights, 0, 0)), None], 0.0, x, y)
}

/// With `s = weights[row] ⊙ skip` and `g = sigmoid(gates[row])`: `s + g ⊙ (x − s)`; without gates `x + s`.
pub(super) fn gated_skip(
    gpu: &mut Wgpu,
    weights: &Weight,
    gates: Option<&Weight>,
    row: usize,
    x: &Act,
    skip: &Act,
) -> Act {
    let op = if gates.is_some() { Op::GatedSkip } else { Op::Skip };
    run(gpu, op, [Some((weights, row, 0)), gates.map(|gates| (gates, row, 0))], 0.0, x, skip)
}

/// `keep · lane + post · y`, both elements by their flat index.
pub(super) fn update_lane(gpu: &mut Wgpu, keep: (&Weight, usize), post: (&Weight, usize), lane: &Act, y: &Act) -> Act {
    let at = |(w, index): (_, usize)| at(w, index);
    run(gpu, Op::UpdateLane, [Some(at(keep)), Some(at(post))], 0.0, lane, y)
}

/// `(a + b) / 2`.
pub(super) fn average(gpu: &mut Wgpu, a: &Act, b: &Act) -> Act {
    run(gpu, Op::Average, [None, None], 0.0, a, b)
}

/// `leaky_relu(x, 0.5)²`.
pub(super) fn leaky_relu_squared(gpu: &mut Wgpu, x: &Act) -> Act {
    run(gpu, Op::LeakyReluSquared, [None, None], 0.0, x, x)
}

/// `cap · tanh(x / cap)`.
pub(super) fn softcap(gpu: &mut Wgpu, x: &Act, cap: f32) -> Act {
    run(gpu, Op::Softcap, [None, None], cap, x, x)
}

fn is_single(w: &Weight) -> bool {
    w.rows * w.cols == 1
}

fn at(w: &Weight, index: usize) -> At<'_> {
    (w, index / w.cols, index % w.cols)
}

fn run(gpu: &mut Wgpu, op: Op, [a, b]: [Option<At<'_>>; 2], cap: f32, x: &Act, y: &Act) -> Act {
    assert_eq!(x.shape(), y.shape(), "{}", KERNEL.name);
    let out = gpu.like(x, x.cols);
    let matrix = |w: Option<At<'_>>| w.map_or(Matrix::default(), |(w, ..)| w.only().matrix);
    let chunks = [a, b].map(|w| w.map(|(w, ..)| w.only().chunk.clone()));
    if let [Some(a), Some(b)] = &chunks {
        assert_eq!(a, b, "small parameters are in one chunk");
    }
    let [a_row, a_col] = a.map_or([0; 2], |(_, row, col)| [row as u32, col as u32]);
    let [b_row, b_col] = b.map_or([0; 2], |(_, row, col)| [row as u32, col as u32]);
    let [chunk, _] = chunks;
    let chunk = chunk.unwrap_or_else(|| gpu.nothing());
    for (row, rows) in gpu.parts(x.rows(), x.cols) {
        let elements = rows * x.cols;
        let params = Params {
            a: matrix(a),
            b: matrix(b),
            op: op as u32,
            elements: elements as u32,
            cols: x.cols as u32,
            a_row,
            a_col,
            b_row,
            b_col,
            cap,
        };
        let slices = vec![chunk.clone(), x.part(row, rows), y.part(row, rows), out.part(row, rows)];
        gpu.queue.dispatch(&KERNEL, &params, slices, [groups(elements, 256), 1, 1]);
    }
    out
}
