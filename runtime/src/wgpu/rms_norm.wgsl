// scale · x / sqrt(mean(x²) + eps): a workgroup for each row.

struct Params {
    rows: u32,
    cols: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(
    at: Place,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let t = at.t;
    for (var row = group.x; row < p.rows; row += groups.x) {
        var sum = 0.0;
        for (var c = t; c < p.cols; c += 256u) {
            let v = x[row * p.cols + c];
            sum += v * v;
        }
        let squares = sum_of_all(at, vec4<f32>(sum, 0.0, 0.0, 0.0)).x;
        let factor = p.scale * inverseSqrt(squares / f32(p.cols) + 1.1920929e-7);
        for (var c = t; c < p.cols; c += 256u) {
            y[row * p.cols + c] = x[row * p.cols + c] * factor;
        }
    }
}
