// A decoding step from the residual stream to what is multiplied by weights: skip, mix, norm, and up to three
// products of it; the activation of the MLP, or the bound on logits.

struct Params {
    // The products, whose outputs follow each other.
    w0: Matrix,
    w1: Matrix,
    w2: Matrix,
    mix: Matrix,
    skip: Matrix,
    gates: Matrix,
    outs0: u32,
    outs1: u32,
    outs2: u32,
    cols: u32,
    flags: u32,
    skip_row: u32,
    // Where the outputs begin.
    first: u32,
    norm: f32,
    cap: f32,
}

// x is joined with the skip connection, with a gate or without.
const SKIP: u32 = 1u;
const GATE: u32 = 2u;
// x is mixed with x0.
const MIX: u32 = 4u;
// The products are of the norm of x.
const NORM: u32 = 8u;
// What became of x is written: before it was mixed, or after.
const KEEP_JOINED: u32 = 16u;
const KEEP_MIXED: u32 = 32u;
// What becomes of the products.
const LEAKY_RELU_SQUARED: u32 = 64u;
const SOFTCAP: u32 = 128u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> x0: array<f32>;
@group(0) @binding(4) var<storage, read> skip: array<f32>;
@group(0) @binding(5) var<storage, read_write> kept: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

// The value of channel c; the first workgroup keeps it.
fn channel(c: u32, first: bool) -> f32 {
    var v = x[c];
    if (p.flags & SKIP) != 0u {
        v = join(p.skip, p.gates, (p.flags & GATE) != 0u, p.skip_row, c, v, skip[c]);
    }
    if first && (p.flags & KEEP_JOINED) != 0u {
        kept[c] = v;
    }
    if (p.flags & MIX) != 0u {
        v = element(p.mix, 0u, c) * v + element(p.mix, 1u, c) * x0[c];
    }
    if first && (p.flags & KEEP_MIXED) != 0u {
        kept[c] = v;
    }
    return v;
}

fn activate(v: f32) -> f32 {
    if (p.flags & LEAKY_RELU_SQUARED) != 0u {
        let leaky = select(0.5 * v, v, v > 0.0);
        return leaky * leaky;
    }
    // No number stays none.
    if (p.flags & SOFTCAP) != 0u && (bitcast<u32>(v) & 0x7fffffffu) <= 0x7f800000u {
        let e = exp(2.0 * min(abs(v / p.cap), 20.0));
        return p.cap * sign(v) * (1.0 - 2.0 / (e + 1.0));
    }
    return v;
}

@compute @workgroup_size(256)
fn main(at: Place, @builtin(workgroup_id) group: vec3<u32>) {
    let t = at.t;
    // Which product this workgroup is part of, and which of its outputs.
    var m = p.w0;
    var outs = p.outs0;
    var first = p.first;
    var g = group.x;
    if g >= (outs + OUTPUTS - 1u) / OUTPUTS {
        g -= (outs + OUTPUTS - 1u) / OUTPUTS;
        first += outs;
        m = p.w1;
        outs = p.outs1;
        if g >= (outs + OUTPUTS - 1u) / OUTPUTS {
            g -= (outs + OUTPUTS - 1u) / OUTPUTS;
            first += outs;
            m = p.w2;
            outs = p.outs2;
        }
    }
    let out = g * OUTPUTS + t / LANES;
    // Those beyond the last output compute it once more and do not write it.
    let row = min(out, outs - 1u);
    var sum = 0.0;
    var square = 0.0;
    for (var k = 0u; k < p.cols; k += TILE) {
        let count = min(TILE, p.cols - k);
        var v = vec4<f32>();
        for (var i = 0u; i < 4u; i += 1u) {
            let c = k + 4u * t + i;
            if c < p.cols {
                v[i] = channel(c, group.x == 0u);
            }
        }
        square += dot(v, v);
        fill(at, m, k, count, v);
        sum += dot_tile(m, row, t % LANES, k, count);
        workgroupBarrier();
    }
    let total = reduce(at, sum, square);
    if t % LANES == 0u && out < outs {
        var v = total.x * row_scale(m, out);
        if (p.flags & NORM) != 0u {
            v *= p.norm * inverseSqrt(total.y / f32(p.cols) + 1.1920929e-7);
        }
        y[first + out] = activate(v);
    }
}
