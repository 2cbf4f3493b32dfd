// y = x Wᵀ for many rows: tiles of 64 rows by 64 outputs, 4 by 4 of them for each invocation, 16 inputs at a time.

struct Params {
    w: Matrix,
    rows: u32,
    cols: u32,
    // Outputs that are here; they are columns `first ..` of the `width` of y.
    outs: u32,
    first: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// [input][row or output]; the two more columns keep writes of neighbours in different banks.
const STRIDE: u32 = 66u;
var<workgroup> xs: array<f32, 1056>;
var<workgroup> ws: array<f32, 1056>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) t: u32, @builtin(workgroup_id) group: vec3<u32>) {
    let row0 = group.y * 64u;
    let out0 = group.x * 64u;
    // What this invocation loads: four inputs of one row, and of one output.
    let part = t & 3u;
    let line = t >> 2u;
    let x_row = row0 + line;
    let w_row = out0 + line;
    // What it computes: rows `ty + 16 i`, outputs `tx + 16 j`.
    let tx = t & 15u;
    let ty = t >> 4u;
    var acc: array<vec4<f32>, 4>;
    for (var k0 = 0u; k0 < p.cols; k0 += 16u) {
        let k = k0 + part * 4u;
        var xv = vec4<f32>();
        if x_row < p.rows {
            let at = x_row * p.cols + k;
            if k + 3u < p.cols {
                xv = vec4<f32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
            } else {
                for (var i = 0u; k + i < p.cols; i += 1u) {
                    xv[i] = x[at + i];
                }
            }
        }
        var wv = vec4<f32>();
        if w_row < p.outs && k < p.cols {
            wv = four(p.w, w_row, k >> 2u);
            if p.w.columns != NONE {
                let at = p.w.columns + k;
                wv *= vec4<f32>(scalar(at), scalar(at + 1u), scalar(at + 2u), scalar(at + 3u));
            }
        }
        let to = part * 4u * STRIDE + line;
        xs[to] = xv.x;
        xs[to + STRIDE] = xv.y;
        xs[to + 2u * STRIDE] = xv.z;
        xs[to + 3u * STRIDE] = xv.w;
        ws[to] = wv.x;
        ws[to + STRIDE] = wv.y;
        ws[to + 2u * STRIDE] = wv.z;
        ws[to + 3u * STRIDE] = wv.w;
        workgroupBarrier();
        for (var i = 0u; i < 16u; i += 1u) {
            let a = i * STRIDE + ty;
            let b = i * STRIDE + tx;
            let w = vec4<f32>(ws[b], ws[b + 16u], ws[b + 32u], ws[b + 48u]);
            acc[0] += xs[a] * w;
            acc[1] += xs[a + 16u] * w;
            acc[2] += xs[a + 32u] * w;
            acc[3] += xs[a + 48u] * w;
        }
        workgroupBarrier();
    }
    for (var j = 0u; j < 4u; j += 1u) {
        let o = out0 + tx + 16u * j;
        if o >= p.outs {
            break;
        }
        let scale = row_scale(p.w, o);
        for (var i = 0u; i < 4u; i += 1u) {
            let row = row0 + ty + 16u * i;
            if row < p.rows {
                y[row * p.width + p.first + o] = acc[i][j] * scale;
            }
        }
    }
}
