// Each head normalised by its root mean square, rotated by its position, times its gain: a workgroup for each.

struct Params {
    gain: Matrix,
    // Whether there is a gain.
    gains: u32,
    rows: u32,
    heads: u32,
    dim: u32,
    // Half of the rotated dimensions.
    half: u32,
    // Rows of a sequence, and the position of the first of them.
    len: u32,
    start: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
// Cosine and sine by position and pair.
@group(0) @binding(3) var<storage, read> angles: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) t: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    for (var i = group.x; i < p.rows * p.heads; i += groups.x) {
        let at = i * p.dim;
        var sum = 0.0;
        for (var c = t; c < p.dim; c += 64u) {
            sum += x[at + c] * x[at + c];
        }
        sums[t] = sum;
        for (var half = 32u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if t < half {
                sums[t] += sums[t + half];
            }
        }
        workgroupBarrier();
        var factor = inverseSqrt(sums[0] / f32(p.dim) + 1.1920929e-7);
        if p.gains != 0u {
            factor *= element(p.gain, 0u, i % p.heads);
        }
        let position = p.start + (i / p.heads) % p.len;
        for (var c = t; c < p.dim; c += 64u) {
            if c < p.half {
                let angle = angles[position * p.half + c];
                let a = x[at + c];
                let b = x[at + c + p.half];
                y[at + c] = (a * angle.x + b * angle.y) * factor;
                y[at + c + p.half] = (b * angle.x - a * angle.y) * factor;
            } else if c >= 2u * p.half {
                y[at + c] = x[at + c] * factor;
            }
        }
        workgroupBarrier();
    }
}
