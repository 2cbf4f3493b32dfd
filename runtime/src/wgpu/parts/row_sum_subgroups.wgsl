// What the products of one row are summed with, as in row_sum.wgsl, by subgroups of any size. Two barriers instead of
// seven.

// For naga alone: in a browser `enable subgroups;` would come first, which naga does not know, and no invocation can ask
// for its subgroup.

// Where an invocation is.
struct Place {
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> squares: array<f32, 256>;
var<workgroup> partial: array<f32, 256>;
var<workgroup> totals: array<f32, 8>;
var<workgroup> largest: atomic<u32>;

// For each of the 8 outputs the sum of its invocations' `sum`, and the sum of all 256 invocations' `square`; valid in
// the first invocation of each output.
fn reduce(at: Place, sum: f32, square: f32) -> vec2<f32> {
    // Which of its subgroup an invocation is, and of how many: a subgroup need not be full, nor its invocations
    // neighbours.
    let lane = subgroupExclusiveAdd(1u);
    let lanes = subgroupAdd(1u);
    let own = subgroupAdd(square);
    partial[at.t] = sum;
    if lane == 0u {
        squares[at.subgroup] = own;
    }
    workgroupBarrier();
    for (var out = at.subgroup; out < OUTPUTS; out += at.subgroups) {
        var mine = 0.0;
        for (var i = lane; i < LANES; i += lanes) {
            mine += partial[out * LANES + i];
        }
        let total = subgroupAdd(mine);
        if lane == 0u {
            totals[out] = total;
        }
    }
    workgroupBarrier();
    var all = 0.0;
    for (var i = 0u; i < at.subgroups; i += 1u) {
        all += squares[i];
    }
    return vec2<f32>(totals[at.t / LANES], all);
}

// The largest of all invocations' values, in each of them. A barrier must come before the next one.
fn largest_of_all(at: Place, mine: u32) -> u32 {
    if at.t == 0u {
        atomicStore(&largest, 0u);
    }
    let own = subgroupMax(mine);
    workgroupBarrier();
    if subgroupBroadcastFirst(at.t) == at.t {
        atomicMax(&largest, own);
    }
    workgroupBarrier();
    return atomicLoad(&largest);
}
