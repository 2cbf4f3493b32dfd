// scale · x / sqrt(mean(x²) + eps): a workgroup for each row.

struct Params {
    rows: u32,
    cols: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) t: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    for (var row = group.x; row < p.rows; row += groups.x) {
        var sum = 0.0;
        for (var c = t; c < p.cols; c += 256u) {
            let v = x[row * p.cols + c];
            sum += v * v;
        }
        sums[t] = sum;
        for (var half = 128u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if t < half {
                sums[t] += sums[t + half];
            }
        }
        workgroupBarrier();
        let factor = p.scale * inverseSqrt(sums[0] / f32(p.cols) + 1.1920929e-7);
        for (var c = t; c < p.cols; c += 256u) {
            y[row * p.cols + c] = x[row * p.cols + c] * factor;
        }
        workgroupBarrier();
    }
}
