// A U-Net skip connection: with `s = weights ⊙ skip` and `g = sigmoid(gates)`, `s + g ⊙ (x − s)`; without gates `x + s`.
// Weights and gates are those of one row, `[C]`. A warp for each row.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4)
    gated_skip(const float *weights, const float *gates, const T *x, const T *skip, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        for (int c = lane(); c < cols; c += WARP) {
            const float s = weights[c] * to_float(skip[at + c]);
            const float v = to_float(x[at + c]);
            const float out = gates ? s + (v - s) / (1.0f + expf(-gates[c])) : v + s;
            y[at + c] = from_float<T>(out);
        }
    }
}

// Gradients of the inputs, and of weights and gates this block row's part, `parts [2, gridDim.y, C]` for `add_parts` (without
// gates those of weights only). A thread for each channel of each row of blocks, which share the rows.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    gated_skip_backward(const float *weights, const float *gates, const T *x, const T *skip, const T *dy, T *dx, T *dskip,
                        float *parts, int rows, int cols) {
    const int c = thread_of_grid();
    if (c >= cols) {
        return;
    }
    const float w = weights[c], open = gates ? 1.0f / (1.0f + expf(-gates[c])) : 1.0f;
    // What of the output is `s`: all of it beside `x` without gates.
    const float closed = gates ? 1.0f - open : 1.0f;
    float of_weight = 0.0f, of_gate = 0.0f;
    for (int row = static_cast<int>(blockIdx.y); row < rows; row += static_cast<int>(gridDim.y)) {
        const size_t at = offset(row, cols) + c;
        const float d = to_float(dy[at]), s = to_float(skip[at]);
        dx[at] = from_float<T>(d * open);
        dskip[at] = from_float<T>(d * closed * w);
        of_weight += d * closed * s;
        of_gate += d * (to_float(x[at]) - w * s);
    }
    parts[offset(blockIdx.y, cols) + c] = of_weight;
    if (gates) {
        parts[offset(gridDim.y + blockIdx.y, cols) + c] = of_gate * open * closed;
    }
}
