// The inputs of a tile as they are.

var<workgroup> tile: array<vec4<f32>, 256>;

// Takes four inputs from each invocation: the tile begins at input `k` and has `count` of them.
fn fill(at: Place, m: Matrix, k: u32, count: u32, inputs: vec4<f32>) {
    var v = inputs;
    if 4u * at.t < count {
        v *= factors(m, k + 4u * at.t);
    }
    tile[at.t] = v;
    workgroupBarrier();
}

// Part of the product of the tile with a row of the matrix.
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
