// Parameters. Set before each kernel that has some.

// A matrix as it lies in a chunk of the weights.
struct Matrix {
    // First vec4 of the values.
    values: u32,
    // vec4s of a row: 16 int8 codes in each, or 4 f32; what is left over is zero.
    stride: u32,
    // First f32 of the rows' scales; NONE where values are f32.
    scales: u32,
    // First f32 of the columns' factors; NONE where they are all 1.
    columns: u32,
}

const NONE: u32 = 0xffffffffu;

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>;

// The f32 at `i`.
fn scalar(i: u32) -> f32 {
    return bitcast<f32>(weights[i >> 2u][i & 3u]);
}

// Four int8 codes, the first in the lowest byte.
fn codes(word: u32) -> vec4<f32> {
    let shifted = vec4<u32>(word << 24u, word << 16u, word << 8u, word);
    return vec4<f32>(bitcast<vec4<i32>>(shifted) >> vec4<u32>(24u));
}

// Columns `4 · quad ..` of a row, without its scale and the columns' factors.
fn four(m: Matrix, row: u32, quad: u32) -> vec4<f32> {
    let at = m.values + row * m.stride;
    if m.scales == NONE {
        return bitcast<vec4<f32>>(weights[at + quad]);
    }
    return codes(weights[at + (quad >> 2u)][quad & 3u]);
}

fn row_scale(m: Matrix, row: u32) -> f32 {
    if m.scales == NONE {
        return 1.0;
    }
    return scalar(m.scales + row);
}

fn column_factor(m: Matrix, col: u32) -> f32 {
    if m.columns == NONE {
        return 1.0;
    }
    return scalar(m.columns + col);
}

fn element(m: Matrix, row: u32, col: u32) -> f32 {
    return four(m, row, col >> 2u)[col & 3u] * row_scale(m, row) * column_factor(m, col);
}
