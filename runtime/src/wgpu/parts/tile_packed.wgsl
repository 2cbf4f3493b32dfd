// The inputs of a tile in fixed point, as in cpu/fast/fixed.rs: 24 bits to the largest of the tile, cut into three int8
// digits. Four inputs times four codes are an instruction for each digit, and its sums are exact.

// Four inputs each: their lowest digits, the next, the highest; or f32 where those of the matrix are.
var<workgroup> tile: array<vec4<u32>, 256>;
// What a unit of the tile is worth; the same in every invocation.
var<private> step: f32;

// The largest input in steps, which three digits hold.
const LIMIT: f32 = 8355000.0;
// A tile with nothing above it is zeros: its step would be denormal.
const TINY: f32 = 1.0e-30;
const INFINITE: u32 = 0x7f800000u;

// Takes four inputs from each invocation: the tile begins at input `k` and has `count` of them.
fn fill(at: Place, m: Matrix, k: u32, count: u32, inputs: vec4<f32>) {
    var v = inputs;
    if 4u * at.t < count {
        v *= factors(m, k + 4u * at.t);
    }
    // As integers, since what is no number is then larger than any.
    let sizes = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
    let high = largest_of_all(at, max(max(sizes.x, sizes.y), max(sizes.z, sizes.w)));
    if m.scales == NONE {
        tile[at.t] = bitcast<vec4<u32>>(v);
    } else if high >= INFINITE || bitcast<f32>(high) < TINY {
        tile[at.t] = vec4<u32>();
        step = select(0.0, bitcast<f32>(high | 0x7fc00000u), high >= INFINITE);
    } else {
        // A digit is what is nearest to 0 and leaves a multiple of the next one: its byte is the lowest.
        let lowest = vec4<i32>(round(v * (LIMIT / bitcast<f32>(high))));
        let next = (lowest + 128) >> vec4<u32>(8u);
        let highest = (next + 128) >> vec4<u32>(8u);
        tile[at.t] = vec4<u32>(pack4xI8(lowest), pack4xI8(next), pack4xI8(highest), 0u);
        step = bitcast<f32>(high) / LIMIT;
    }
    workgroupBarrier();
}

// Part of the product of the tile with a row of the matrix.
fn dot_tile(m: Matrix, row: u32, lane: u32, k: u32, count: u32) -> f32 {
    let at = m.values + row * m.stride;
    if m.scales == NONE {
        var sum = 0.0;
        for (var i = lane; i * 4u < count; i += LANES) {
            sum += dot(bitcast<vec4<f32>>(weights[at + k / 4u + i]), bitcast<vec4<f32>>(tile[i]));
        }
        return sum;
    }
    var sums = vec3<i32>();
    for (var i = lane; i * 16u < count; i += LANES) {
        let w = weights[at + k / 16u + i];
        for (var j = 0u; j < 4u; j += 1u) {
            let x = tile[4u * i + j];
            sums += vec3<i32>(dot4I8Packed(w[j], x.x), dot4I8Packed(w[j], x.y), dot4I8Packed(w[j], x.z));
        }
    }
    let whole = vec3<f32>(sums);
    return step * (whole.x + 256.0 * (whole.y + 256.0 * whole.z));
}
