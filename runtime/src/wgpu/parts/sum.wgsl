// Sums over a workgroup of 256 invocations, by halves.

// Where an invocation is.
struct Place {
    @builtin(local_invocation_index) t: u32,
}

// Between sums it is the kernel's own.
var<workgroup> sums: array<vec4<f32>, 256>;

// The sum of all invocations' values, in each of them.
fn sum_of_all(at: Place, mine: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    sums[at.t] = mine;
    for (var half = 128u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if at.t < half {
            sums[at.t] += sums[at.t + half];
        }
    }
    workgroupBarrier();
    return sums[0];
}
