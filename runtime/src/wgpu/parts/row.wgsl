// One row times a matrix: what the kernels of a decoding step share. Set after weight.wgsl.
//
// A workgroup has 8 outputs, 32 invocations for each. Inputs go through shared memory 1024 at a time.

const OUTPUTS: u32 = 8u;
const LANES: u32 = 32u;
const TILE: u32 = 1024u;

// The columns' factors of the four inputs from `c` on.
fn factors(m: Matrix, c: u32) -> vec4<f32> {
    if m.columns == NONE {
        return vec4<f32>(1.0);
    }
    let at = m.columns + c;
    return vec4<f32>(scalar(at), scalar(at + 1u), scalar(at + 2u), scalar(at + 3u));
}

// Channel `c` of the stream, which is `v`, joined with that of a skip connection: with a gate or without.
fn join(weights: Matrix, gates: Matrix, gated: bool, row: u32, c: u32, v: f32, skipped: f32) -> f32 {
    let s = element(weights, row, c) * skipped;
    if gated {
        return s + (v - s) / (1.0 + exp(-element(gates, row, c)));
    }
    return v + s;
}
