// The operations on single elements: mix, scale, add_scaled, gated_skip, update_lane, average, leaky_relu_squared,
// softcap.

struct Params {
    // Parameters; of size 1 where a single value holds for all channels.
    a: Matrix,
    b: Matrix,
    op: u32,
    elements: u32,
    cols: u32,
    // Row and column of `a` and of `b` where one element or one row is meant.
    a_row: u32,
    a_col: u32,
    b_row: u32,
    b_col: u32,
    cap: f32,
}

const MIX: u32 = 0u;
const SCALE: u32 = 1u;
const SCALE_ONE: u32 = 2u;
const ADD_SCALED: u32 = 3u;
const ADD_SCALED_ONE: u32 = 4u;
const GATED_SKIP: u32 = 5u;
const SKIP: u32 = 6u;
const UPDATE_LANE: u32 = 7u;
const AVERAGE: u32 = 8u;
const LEAKY_RELU_SQUARED: u32 = 9u;
const SOFTCAP: u32 = 10u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;
// The second input, or `x` again.
@group(0) @binding(3) var<storage, read> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// tanh that does not overflow, as that of some drivers does, and keeps what is no number.
fn bounded(x: f32) -> f32 {
    if (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u {
        return x;
    }
    let e = exp(2.0 * min(abs(x), 20.0));
    return sign(x) * (1.0 - 2.0 / (e + 1.0));
}

fn value(i: u32) -> f32 {
    let c = i % p.cols;
    switch p.op {
        case MIX: {
            return element(p.a, 0u, c) * x[i] + element(p.a, 1u, c) * y[i];
        }
        case SCALE: {
            return element(p.a, 0u, c) * x[i];
        }
        case SCALE_ONE: {
            return element(p.a, 0u, 0u) * x[i];
        }
        case ADD_SCALED: {
            return x[i] + element(p.a, 0u, c) * y[i];
        }
        case ADD_SCALED_ONE: {
            return x[i] + element(p.a, 0u, 0u) * y[i];
        }
        case GATED_SKIP: {
            let s = element(p.a, p.a_row, c) * y[i];
            let g = 1.0 / (1.0 + exp(-element(p.b, p.b_row, c)));
            return s + g * (x[i] - s);
        }
        case SKIP: {
            return x[i] + element(p.a, p.a_row, c) * y[i];
        }
        case UPDATE_LANE: {
            return element(p.a, p.a_row, p.a_col) * x[i] + element(p.b, p.b_row, p.b_col) * y[i];
        }
        case AVERAGE: {
            return 0.5 * (x[i] + y[i]);
        }
        case LEAKY_RELU_SQUARED: {
            let v = x[i];
            let leaky = select(0.5 * v, v, v > 0.0);
            return leaky * leaky;
        }
        case SOFTCAP: {
            return p.cap * bounded(x[i] / p.cap);
        }
        default: {
            return 0.0;
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < p.elements; i += groups.x * 256u) {
        out[i] = value(i);
    }
}
