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
