// A token from its logits, as the host's sampler chooses it: the first in the order of likelihood (of equals, in that
// of their ids) at which the sum of probabilities exceeds a share of all, among those that the filters leave.
//
// Nothing is sorted. A place in that order is a key and an id; the first place at which a sum is reached is found bit
// by bit, each time with a sum over all tokens.

struct Params {
    vocab: u32,
    // 0 takes the likeliest.
    temperature: f32,
    // 0 keeps all.
    top_k: u32,
    top_p: f32,
    min_p: f32,
    // From 0 to 1, drawn by the host.
    share: f32,
}

const NOTHING: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> token: array<u32>;

var<workgroup> sums: array<f32, 256>;
var<workgroup> total: f32;
var<workgroup> best_keys: array<u32, 256>;
var<workgroup> best_ids: array<u32, 256>;
var<workgroup> wrong: atomic<u32>;
var<workgroup> failed: u32;

// The last place that is kept, and the least probability; the same in every invocation.
var<private> last_key: u32;
var<private> last_id: u32;
var<private> least: f32;
var<private> high: f32;

// Greater for greater logits.
fn key_of(x: f32) -> u32 {
    // Both zeros are one.
    let bits = select(bitcast<u32>(x), 0u, x == 0.0);
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn all_of(t: u32, mine: f32) -> f32 {
    workgroupBarrier();
    sums[t] = mine;
    for (var half = 128u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if t < half {
            sums[t] += sums[t + half];
        }
    }
    workgroupBarrier();
    if t == 0u {
        total = sums[0];
    }
    return workgroupUniformLoad(&total);
}

// Probability of a kept token, relative to the likeliest, or 1 where they are counted; 0 of another.
fn weight(x: f32, key: u32, id: u32, counted: bool) -> f32 {
    if key < last_key || (key == last_key && id > last_id) {
        return 0.0;
    }
    let probability = exp((x - high) / p.temperature);
    return select(select(0.0, probability, probability >= least), 1.0, counted);
}

// Over the kept tokens with a key of at least `key`.
fn sum_from(t: u32, key: u32, counted: bool) -> f32 {
    var mine = 0.0;
    for (var id = t; id < p.vocab; id += 256u) {
        let x = logits[id];
        let own = key_of(x);
        if own >= key {
            mine += weight(x, own, id, counted);
        }
    }
    return all_of(t, mine);
}

// Over the kept tokens with this key and an id below `id`.
fn sum_of_equals(t: u32, key: u32, below: u32, counted: bool) -> f32 {
    var mine = 0.0;
    for (var id = t; id < min(p.vocab, below); id += 256u) {
        let x = logits[id];
        if key_of(x) == key {
            mine += weight(x, key, id, counted);
        }
    }
    return all_of(t, mine);
}

fn reached(sum: f32, goal: f32, beyond: bool) -> bool {
    return select(sum >= goal, sum > goal, beyond);
}

// The first place at which the sum is the goal, or beyond it; the last place if it never is.
fn place(t: u32, goal: f32, beyond: bool, counted: bool) -> vec2<u32> {
    if !reached(sum_from(t, 0u, counted), goal, beyond) {
        return vec2<u32>(last_key, last_id);
    }
    var key = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        if reached(sum_from(t, key | bit, counted), goal, beyond) {
            key |= bit;
        }
    }
    var above = 0.0;
    if key < NOTHING {
        above = sum_from(t, key + 1u, counted);
    }
    var id = 0u;
    for (var bit = 0x10000u; bit > 0u; bit >>= 1u) {
        if !reached(above + sum_of_equals(t, key, id + bit, counted), goal, beyond) {
            id += bit;
        }
    }
    return vec2<u32>(key, id);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) t: u32) {
    // The likeliest, of equals the first; and whether there is one.
    if t == 0u {
        atomicStore(&wrong, 0u);
    }
    workgroupBarrier();
    var key = 0u;
    var best = NOTHING;
    for (var id = t; id < p.vocab; id += 256u) {
        let x = logits[id];
        let magnitude = bitcast<u32>(x) & 0x7fffffffu;
        // Not a number, or positive infinity.
        if magnitude > 0x7f800000u || bitcast<u32>(x) == 0x7f800000u {
            atomicStore(&wrong, 1u);
        }
        if magnitude < 0x7f800000u && (best == NOTHING || key_of(x) > key) {
            key = key_of(x);
            best = id;
        }
    }
    best_keys[t] = key;
    best_ids[t] = best;
    for (var half = 128u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if t < half {
            let other = best_ids[t + half];
            let better = best_keys[t + half] > best_keys[t] || (best_keys[t + half] == best_keys[t] && other < best_ids[t]);
            if other != NOTHING && (best_ids[t] == NOTHING || better) {
                best_keys[t] = best_keys[t + half];
                best_ids[t] = other;
            }
        }
    }
    workgroupBarrier();
    if t == 0u {
        failed = select(best_ids[0], NOTHING, atomicLoad(&wrong) != 0u);
    }
    let greedy = workgroupUniformLoad(&failed);
    if p.temperature == 0.0 || greedy == NOTHING {
        if t == 0u {
            token[0] = greedy;
        }
        return;
    }
    high = logits[greedy];
    last_key = 0u;
    last_id = NOTHING;
    least = 0.0;
    if p.top_k > 0u {
        let last = place(t, f32(p.top_k), false, true);
        last_key = last.x;
        last_id = last.y;
    }
    if p.top_p < 1.0 {
        // One at least is kept.
        let last = place(t, max(p.top_p * sum_from(t, 0u, false), 1.0e-30), false, false);
        last_key = last.x;
        last_id = last.y;
    }
    least = p.min_p;
    let chosen = place(t, p.share * sum_from(t, 0u, false), true, false);
    if t == 0u {
        // Rounding may leave a little beyond the last, which is then a place and no token.
        token[0] = select(chosen.y, greedy, chosen.y >= p.vocab);
    }
}
