// Causal grouped-query attention with an online softmax: a workgroup for each query head and tile of queries, which
// goes through the keys a tile at a time.

struct Params {
    q_len: u32,
    k_len: u32,
    heads: u32,
    // Query heads to a key/value head.
    group: u32,
    dim: u32,
    // Queries and keys of a tile: `queries · dim ≤ 1024`, `keys · (dim + 1) ≤ 2112`, `queries · keys ≤ 512`.
    queries: u32,
    keys: u32,
    scale: f32,
}

const LOWEST: f32 = -3.0e38;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<Kept>;
@group(0) @binding(3) var<storage, read> v: array<Kept>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> qs: array<f32, 1024>;
// A tile of keys, then of values; rows of dim + 1, so that neighbours are in different banks.
var<workgroup> tile: array<f32, 2112>;
var<workgroup> scores: array<f32, 512>;
var<workgroup> maxima: array<f32, 16>;
var<workgroup> sums: array<f32, 16>;
var<workgroup> corrections: array<f32, 16>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) t: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let first = group.x * p.queries;
    let head = group.y;
    let kv_width = p.heads / p.group * p.dim;
    let q_at = (group.z * p.q_len + first) * p.heads * p.dim + head * p.dim;
    let kv_at = group.z * p.k_len * kv_width + head / p.group * p.dim;
    let queries = min(p.queries, p.q_len - first);
    // The position of the first query, and one more than that of the last.
    let position = p.k_len - p.q_len + first;
    let end = position + queries;
    for (var i = t; i < queries * p.dim; i += 256u) {
        qs[i] = q[q_at + i / p.dim * p.heads * p.dim + i % p.dim] * p.scale;
    }
    if t < 16u {
        maxima[t] = LOWEST;
        sums[t] = 0.0;
    }
    var acc: vec4<f32>;
    for (var k0 = 0u; k0 < end; k0 += p.keys) {
        let keys = min(p.keys, end - k0);
        workgroupBarrier();
        for (var i = t; i < keys * p.dim; i += 256u) {
            tile[i / p.dim * (p.dim + 1u) + i % p.dim] = f32(k[kv_at + (k0 + i / p.dim) * kv_width + i % p.dim]);
        }
        workgroupBarrier();
        for (var i = t; i < queries * keys; i += 256u) {
            let qi = i / keys;
            let ki = i % keys;
            var score = LOWEST;
            if k0 + ki <= position + qi {
                score = 0.0;
                for (var c = 0u; c < p.dim; c += 1u) {
                    score += qs[qi * p.dim + c] * tile[ki * (p.dim + 1u) + c];
                }
            }
            scores[i] = score;
        }
        workgroupBarrier();
        if t < queries {
            var high = maxima[t];
            for (var i = 0u; i < keys; i += 1u) {
                high = max(high, scores[t * keys + i]);
            }
            corrections[t] = exp(maxima[t] - high);
            maxima[t] = high;
        }
        for (var i = t; i < keys * p.dim; i += 256u) {
            tile[i / p.dim * (p.dim + 1u) + i % p.dim] = f32(v[kv_at + (k0 + i / p.dim) * kv_width + i % p.dim]);
        }
        workgroupBarrier();
        for (var i = t; i < queries * keys; i += 256u) {
            scores[i] = exp(scores[i] - maxima[i / keys]);
        }
        workgroupBarrier();
        if t < queries {
            var sum = 0.0;
            for (var i = 0u; i < keys; i += 1u) {
                sum += scores[t * keys + i];
            }
            sums[t] = sums[t] * corrections[t] + sum;
        }
        for (var j = 0u; j < 4u; j += 1u) {
            let i = t + 256u * j;
            if i < queries * p.dim {
                let qi = i / p.dim;
                var sum = acc[j] * corrections[qi];
                for (var ki = 0u; ki < keys; ki += 1u) {
                    sum += scores[qi * keys + ki] * tile[ki * (p.dim + 1u) + i % p.dim];
                }
                acc[j] = sum;
            }
        }
    }
    workgroupBarrier();
    for (var j = 0u; j < 4u; j += 1u) {
        let i = t + 256u * j;
        if i < queries * p.dim {
            y[q_at + i / p.dim * p.heads * p.dim + i % p.dim] = acc[j] / sums[i / p.dim];
        }
    }
}
