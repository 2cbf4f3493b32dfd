// Rows of a table by token id.

struct Params {
    table: Matrix,
    // Elements of the output.
    elements: u32,
    cols: u32,
    // Where the ids begin.
    ids: u32,
    // Ids of the rows that are here: `first .. first + rows`; the others are written by other dispatches.
    first: u32,
    rows: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> uploads: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < p.elements; i += groups.x * 256u) {
        let row = uploads[p.ids + i / p.cols] - p.first;
        if row < p.rows {
            y[i] = element(p.table, row, i % p.cols);
        }
    }
}
