// y − (y·v̂) v̂ per query head: a workgroup for each.

struct Params {
    rows: u32,
    // Query heads, query heads to a key/value head, width of a head.
    heads: u32,
    group: u32,
    dim: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// (y·v, v·v)
var<workgroup> sums: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) t: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    for (var i = group.x; i < p.rows * p.heads; i += groups.x) {
        let row = i / p.heads;
        let at = i * p.dim;
        let v_at = (row * (p.heads / p.group) + (i % p.heads) / p.group) * p.dim;
        var sum = vec2<f32>();
        for (var c = t; c < p.dim; c += 64u) {
            let own = v[v_at + c];
            sum += vec2<f32>(y[at + c], own) * own;
        }
        sums[t] = sum;
        for (var half = 32u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if t < half {
                sums[t] += sums[t + half];
            }
        }
        workgroupBarrier();
        // The square of max(‖v‖, 1e-12), which f32 can hold.
        let along = sums[0].x / max(sums[0].y, 1e-24);
        for (var c = t; c < p.dim; c += 64u) {
            out[at + c] = y[at + c] - along * v[v_at + c];
        }
        workgroupBarrier();
    }
}
