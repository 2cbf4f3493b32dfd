// Negative log-likelihood of each target: a workgroup for each row of logits.

struct Params {
    rows: u32,
    cols: u32,
    // Where the targets begin.
    targets: u32,
    // Bound on the logits, which are not bounded yet; 0 for none.
    cap: f32,
}

const LOWEST: f32 = -3.0e38;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> uploads: array<u32>;
@group(0) @binding(3) var<storage, read_write> nll: array<f32>;

// Maximum and sum of exp(logit − maximum).
var<workgroup> parts: array<vec2<f32>, 256>;

fn logit(i: u32) -> f32 {
    let x = logits[i];
    // No bound, or no number.
    if p.cap == 0.0 || (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u {
        return x;
    }
    let e = exp(2.0 * min(abs(x / p.cap), 20.0));
    return p.cap * sign(x) * (1.0 - 2.0 / (e + 1.0));
}

fn merge(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let high = max(a.x, b.x);
    return vec2<f32>(high, a.y * exp(a.x - high) + b.y * exp(b.x - high));
}

@compute @workgroup_size(256)
fn main(
    @builtin(local_invocation_index) t: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    for (var row = group.x; row < p.rows; row += groups.x) {
        var part = vec2<f32>(LOWEST, 0.0);
        for (var c = t; c < p.cols; c += 256u) {
            part = merge(part, vec2<f32>(logit(row * p.cols + c), 1.0));
        }
        parts[t] = part;
        for (var half = 128u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if t < half {
                parts[t] = merge(parts[t], parts[t + half]);
            }
        }
        workgroupBarrier();
        if t == 0u {
            let target_logit = logit(row * p.cols + uploads[p.targets + row]);
            nll[row] = log(parts[0].y) + (parts[0].x - target_logit);
        }
        workgroupBarrier();
    }
}
