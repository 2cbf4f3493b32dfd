// The residual stream mixed with the embedding, `weights[0] ⊙ x + weights[1] ⊙ x0`, and its norm. A warp for each row.
#include "rms_norm.cuh"

template <typename T>
__device__ inline void mix_row(const float *weights, const T *x, const T *x0, T *y, int cols) {
    for (int c = lane(); c < cols; c += WARP) {
        y[c] = from_float<T>(weights[c] * to_float(x[c]) + weights[cols + c] * to_float(x0[c]));
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4) mix(const float *weights, const T *x, const T *x0, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        mix_row(weights, x + at, x0 + at, y + at, cols);
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4)
    mix_norm(const float *weights, const T *x, const T *x0, float scale, T *mixed, T *normed, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        mix_row(weights, x + at, x0 + at, mixed + at, cols);
        norm_row(mixed + at, scale, normed + at, cols);
    }
}
