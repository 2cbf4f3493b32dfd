// A decoding step back to the residual stream: the product of attention's or the MLP's output, scaled and added; or
// given to both lanes.

struct Params {
    w: Matrix,
    scale: Matrix,
    skip: Matrix,
    gates: Matrix,
    keep: Matrix,
    post: Matrix,
    outs: u32,
    cols: u32,
    flags: u32,
    skip_row: u32,
    // Rows of `keep` and of `post`, and the column of `keep`.
    keep_row: u32,
    keep_col: u32,
    post_row: u32,
    // Of attention: width and number of its heads, and the parts its keys were split into.
    dim: u32,
    heads: u32,
    splits: u32,
}

// The second lane is joined with the skip connection first, with a gate or without.
const SKIP: u32 = 1u;
const GATE: u32 = 2u;
// There are two lanes.
const LANES_TWO: u32 = 4u;
// The input is attention's, in parts.
const PARTS: u32 = 8u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> lane0: array<f32>;
@group(0) @binding(4) var<storage, read> lane1: array<f32>;
@group(0) @binding(5) var<storage, read> skip: array<f32>;
@group(0) @binding(6) var<storage, read_write> out0: array<f32>;
@group(0) @binding(7) var<storage, read_write> out1: array<f32>;

// Channel c of attention's output: parts are weighted by what they have of the sum of exponentials.
fn joined(c: u32) -> f32 {
    let width = p.heads * p.dim;
    let stats = p.splits * width + 2u * (c / p.dim);
    var high = x[stats];
    for (var s = 1u; s < p.splits; s += 1u) {
        high = max(high, x[stats + 2u * s * p.heads]);
    }
    var value = 0.0;
    var sum = 0.0;
    for (var s = 0u; s < p.splits; s += 1u) {
        let at = stats + 2u * s * p.heads;
        let share = exp(x[at] - high);
        value += share * x[s * width + c];
        sum += share * x[at + 1u];
    }
    return value / sum;
}

@compute @workgroup_size(256)
fn main(at: Place, @builtin(workgroup_id) group: vec3<u32>) {
    let t = at.t;
    let out = group.x * OUTPUTS + t / LANES;
    let row = min(out, p.outs - 1u);
    var sum = 0.0;
    for (var k = 0u; k < p.cols; k += TILE) {
        let count = min(TILE, p.cols - k);
        var v = vec4<f32>();
        for (var i = 0u; i < 4u; i += 1u) {
            let c = k + 4u * t + i;
            if c < p.cols {
                if (p.flags & PARTS) != 0u {
                    v[i] = joined(c);
                } else {
                    v[i] = x[c];
                }
            }
        }
        fill(at, p.w, k, count, v);
        sum += dot_tile(p.w, row, t % LANES, k, count);
        workgroupBarrier();
    }
    let total = reduce(at, sum, 0.0);
    if t % LANES == 0u && out < p.outs {
        let branch = total.x * row_scale(p.w, out) * element(p.scale, 0u, out);
        if (p.flags & LANES_TWO) == 0u {
            out0[out] = lane0[out] + branch;
        } else {
            var other = lane1[out];
            if (p.flags & SKIP) != 0u {
                other = join(p.skip, p.gates, (p.flags & GATE) != 0u, p.skip_row, out, other, skip[out]);
            }
            let keep = element(p.keep, p.keep_row, p.keep_col);
            out0[out] = keep * lane0[out] + element(p.post, p.post_row, 0u) * branch;
            out1[out] = keep * other + element(p.post, p.post_row, 1u) * branch;
        }
    }
}
