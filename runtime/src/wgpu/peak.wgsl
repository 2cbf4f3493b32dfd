// As many multiplications and additions as a GPU can do: what others are compared with.

struct Params {
    rounds: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Four independent sums of four, so that none waits for another.
    var a = vec4<f32>(f32(id.x & 255u)) * vec4<f32>(0.001, 0.002, 0.003, 0.004);
    var b = a + 0.1;
    var c = a + 0.2;
    var d = a + 0.3;
    let m = vec4<f32>(0.999);
    for (var i = 0u; i < p.rounds; i += 1u) {
        a = a * m + b;
        b = b * m - c;
        c = c * m + d;
        d = d * m - a;
        a = a * m + b;
        b = b * m - c;
        c = c * m + d;
        d = d * m - a;
    }
    y[id.x] = dot(a + b, c + d);
}
