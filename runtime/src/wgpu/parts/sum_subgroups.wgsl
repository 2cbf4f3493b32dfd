// Sums over a workgroup of 256 invocations, as in sum.wgsl, by subgroups of any size: a sum of each, then the sum of
// these. Two barriers instead of ten.

// For naga alone: in a browser `enable subgroups;` would come first, which naga does not know, and no invocation can ask
// for its subgroup.

// Where an invocation is.
struct Place {
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

// Between sums it is the kernel's own. As many as there could be subgroups.
var<workgroup> sums: array<vec4<f32>, 256>;

// The sum of all invocations' values, in each of them.
fn sum_of_all(at: Place, mine: vec4<f32>) -> vec4<f32> {
    let own = subgroupAdd(mine);
    workgroupBarrier();
    if subgroupBroadcastFirst(at.t) == at.t {
        sums[at.subgroup] = own;
    }
    workgroupBarrier();
    var all = vec4<f32>();
    for (var i = 0u; i < at.subgroups; i += 1u) {
        all += sums[i];
    }
    return all;
}
