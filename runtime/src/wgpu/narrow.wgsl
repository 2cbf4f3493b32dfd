// New keys or values to those a session remembers.

struct Params {
    elements: u32,
    // Where they begin.
    first: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> kept: array<Kept>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < p.elements; i += 256u * groups.x) {
        kept[p.first + i] = Kept(x[i]);
    }
}
