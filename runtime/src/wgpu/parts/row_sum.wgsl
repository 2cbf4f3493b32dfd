// What the products of one row are summed with, by halves: 8 outputs, 32 invocations for each.

// Where an invocation is.
struct Place {
    @builtin(local_invocation_index) t: u32,
}

var<workgroup> squares: array<f32, 256>;
var<workgroup> partial: array<vec2<f32>, 256>;
var<workgroup> largest: atomic<u32>;

// For each of the 8 outputs the sum of its invocations' `sum`, and the sum of all 256 invocations' `square`; valid in
// the first invocation of each output.
fn reduce(at: Place, sum: f32, square: f32) -> vec2<f32> {
    let lane = at.t % LANES;
    squares[at.t] = square;
    workgroupBarrier();
    var mine = 0.0;
    for (var i = 0u; i < 8u; i += 1u) {
        mine += squares[lane * 8u + i];
    }
    partial[at.t] = vec2<f32>(sum, mine);
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[at.t] += partial[at.t + half];
        }
    }
    workgroupBarrier();
    return partial[at.t];
}

// The largest of all invocations' values, in each of them. A barrier must come before the next one.
fn largest_of_all(at: Place, mine: u32) -> u32 {
    if at.t == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    atomicMax(&largest, mine);
    workgroupBarrier();
    return atomicLoad(&largest);
}
