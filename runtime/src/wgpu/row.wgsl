// One row times a matrix: what the kernels of a decoding step share. Set after weight.wgsl.
//
// A workgroup has 8 outputs, 32 invocations for each. Inputs go through shared memory 1024 at a time.

const OUTPUTS: u32 = 8u;
const LANES: u32 = 32u;
const TILE: u32 = 1024u;

var<workgroup> tile: array<vec4<f32>, 256>;
var<workgroup> squares: array<f32, 256>;
var<workgroup> partial: array<vec2<f32>, 256>;

// The columns' factors of the four inputs from `c` on.
fn factors(m: Matrix, c: u32) -> vec4<f32> {
    if m.columns == NONE {
        return vec4<f32>(1.0);
    }
    let at = m.columns + c;
    return vec4<f32>(scalar(at), scalar(at + 1u), scalar(at + 2u), scalar(at + 3u));
}

// Part of the product of the tile, which begins at input `k` and has `count` of them, with a row of the matrix.
fn dot_tile(m: Matrix, row: u32, lane: u32, k: u32, count: u32) -> f32 {
    let at = m.values + row * m.stride;
    var sum = 0.0;
    if m.scales == NONE {
        for (var i = lane; i * 4u < count; i += LANES) {
            sum += dot(bitcast<vec4<f32>>(weights[at + k / 4u + i]), tile[i]);
        }
    } else {
        for (var i = lane; i * 16u < count; i += LANES) {
            let w = weights[at + k / 16u + i];
            sum += dot(codes(w.x), tile[4u * i]) + dot(codes(w.y), tile[4u * i + 1u])
                + dot(codes(w.z), tile[4u * i + 2u]) + dot(codes(w.w), tile[4u * i + 3u]);
        }
    }
    return sum;
}

// For each of the 8 outputs the sum of its invocations' `sum`, and the sum of all 256 invocations' `square`; valid in
// the first invocation of each output.
fn reduce(t: u32, sum: f32, square: f32) -> vec2<f32> {
    let lane = t % LANES;
    squares[t] = square;
    workgroupBarrier();
    var mine = 0.0;
    for (var i = 0u; i < 8u; i += 1u) {
        mine += squares[lane * 8u + i];
    }
    partial[t] = vec2<f32>(sum, mine);
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[t] += partial[t + half];
        }
    }
    workgroupBarrier();
    return partial[t];
}
