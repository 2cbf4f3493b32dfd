// Attention of a decoding step: norm, rotation and gain of the new query and key, the new value, both remembered;
// attention over a part of the keys with an online softmax; without the token's own value. A workgroup for each query
// head and part; `back` puts the parts together.

struct Params {
    gain: Matrix,
    value_scale: Matrix,
    heads: u32,
    // Query heads to a key/value head.
    group: u32,
    // Width of a head, at most 256.
    dim: u32,
    // Half of the rotated dimensions.
    half: u32,
    // Keys remembered: the position of the new one.
    past: u32,
    // Keys of a part.
    part: u32,
    splits: u32,
    flags: u32,
    scale: f32,
}

// The value embedding is added to the value.
const VALUE_EMBEDDING: u32 = 1u;
// The own value is excluded.
const EXCLUDE_SELF: u32 = 2u;

const LOWEST: f32 = -3.0e38;
const KEYS: u32 = 64u;

@group(0) @binding(0) var<uniform> p: Params;
// Queries, keys and values of the token.
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> value_embedding: array<f32>;
@group(0) @binding(4) var<storage, read> angles: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> keys: array<Kept>;
@group(0) @binding(6) var<storage, read_write> values: array<Kept>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;

var<workgroup> query: array<f32, 256>;
var<workgroup> key: array<f32, 256>;
var<workgroup> value: array<f32, 256>;
var<workgroup> result: array<f32, 256>;
var<workgroup> scores: array<f32, 64>;
var<workgroup> shares: array<f32, 64>;

// Channel c of a head that was read as `v`, whose partner in the rotation is `other`.
fn rotated(c: u32, v: f32, other: f32) -> f32 {
    if c >= 2u * p.half {
        return v;
    }
    let angle = angles[p.past * p.half + c % p.half];
    return select(v * angle.x - other * angle.y, v * angle.x + other * angle.y, c < p.half);
}

@compute @workgroup_size(256)
fn main(place: Place, @builtin(workgroup_id) group: vec3<u32>) {
    let t = place.t;
    let head = group.x;
    let kv_head = head / p.group;
    let kv_width = p.heads / p.group * p.dim;
    let width = p.heads * p.dim;
    let at = kv_head * p.dim;
    var q = 0.0;
    var k = 0.0;
    var v = 0.0;
    if t < p.dim {
        q = qkv[head * p.dim + t];
        k = qkv[width + at + t];
        v = qkv[width + kv_width + at + t];
        if (p.flags & VALUE_EMBEDDING) != 0u {
            v += element(p.value_scale, 0u, 0u) * value_embedding[at + t];
        }
    }
    query[t] = q;
    key[t] = k;
    value[t] = v;
    let norms = sum_of_all(place, vec4<f32>(q * q, k * k, v * v, 0.0));
    if t < p.dim {
        let width = f32(p.dim);
        let partner = select(t - p.half, t + p.half, t < p.half);
        var q_other = 0.0;
        var k_other = 0.0;
        if t < 2u * p.half {
            q_other = query[partner];
            k_other = key[partner];
        }
        let gain = element(p.gain, 0u, head) * p.scale;
        q = rotated(t, q, q_other) * inverseSqrt(norms.x / width + 1.1920929e-7) * gain;
        k = rotated(t, k, k_other) * inverseSqrt(norms.y / width + 1.1920929e-7);
    }
    workgroupBarrier();
    query[t] = q;
    key[t] = k;
    if t < p.dim && group.y == 0u && head % p.group == 0u {
        keys[p.past * kv_width + at + t] = Kept(k);
        values[p.past * kv_width + at + t] = Kept(v);
    }
    let first = group.y * p.part;
    let end = min(first + p.part, p.past + 1u);
    var high = LOWEST;
    var sum = 0.0;
    // Channel `t % 64 + 64 j` of every fourth key.
    var acc: vec4<f32>;
    for (var k0 = first; k0 < end; k0 += KEYS) {
        workgroupBarrier();
        // Four invocations to a key.
        let position = k0 + t / 4u;
        var dot = 0.0;
        if position < p.past && position < end {
            for (var c = t % 4u; c < p.dim; c += 4u) {
                dot += query[c] * f32(keys[position * kv_width + at + c]);
            }
        } else if position == p.past && position < end {
            for (var c = t % 4u; c < p.dim; c += 4u) {
                dot += query[c] * key[c];
            }
        }
        sums[t].x = dot;
        workgroupBarrier();
        if t < KEYS {
            let whole = sums[4u * t].x + sums[4u * t + 1u].x + sums[4u * t + 2u].x + sums[4u * t + 3u].x;
            scores[t] = select(LOWEST, whole, k0 + t < end);
        }
        workgroupBarrier();
        var now_high = high;
        for (var i = 0u; i < KEYS; i += 1u) {
            now_high = max(now_high, scores[i]);
        }
        if t < KEYS {
            shares[t] = select(0.0, exp(scores[t] - now_high), k0 + t < end);
        }
        workgroupBarrier();
        let correction = exp(high - now_high);
        high = now_high;
        sum *= correction;
        for (var i = 0u; i < KEYS; i += 1u) {
            sum += shares[i];
        }
        acc *= correction;
        for (var i = t / 64u; i < KEYS && k0 + i < end; i += 4u) {
            let row = (k0 + i) * kv_width + at;
            for (var j = 0u; j < 4u; j += 1u) {
                let c = t % 64u + 64u * j;
                if c < p.dim {
                    if k0 + i == p.past {
                        acc[j] += shares[i] * value[c];
                    } else {
                        acc[j] += shares[i] * f32(values[row + c]);
                    }
                }
            }
        }
    }
    workgroupBarrier();
    sums[t] = acc;
    workgroupBarrier();
    if t < 64u {
        let whole = sums[t] + sums[t + 64u] + sums[t + 128u] + sums[t + 192u];
        for (var j = 0u; j < 4u; j += 1u) {
            result[t + 64u * j] = whole[j];
        }
    }
    workgroupBarrier();
    var out = 0.0;
    if t < p.dim {
        out = result[t];
    }
    if (p.flags & EXCLUDE_SELF) != 0u {
        let along = sum_of_all(place, vec4<f32>(out * v, 0.0, 0.0, 0.0)).x;
        out -= along / max(norms.z, 1e-24) * v;
    }
    let index = group.y * p.heads + head;
    if t < p.dim {
        y[index * p.dim + t] = out;
    }
    if t == 0u {
        y[p.splits * width + 2u * index] = high;
        y[p.splits * width + 2u * index + 1u] = sum;
    }
}
