// A scaled branch added to the residual stream, `x + weights ⊙ y`, and its norm. `step` is 1 where each channel has a
// weight and 0 where one holds for all. A warp for each row.
#include "rms_norm.cuh"

template <typename T>
__device__ inline void add_row(const T *x, const float *weights, int step, const T *y, T *sum, int cols) {
    for (int c = lane(); c < cols; c += WARP) {
        sum[c] = from_float<T>(to_float(x[c]) + weights[step * c] * to_float(y[c]));
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4)
    add_scaled(const T *x, const float *weights, int step, const T *y, T *sum, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        add_row(x + at, weights, step, y + at, sum + at, cols);
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4) add_scaled_norm(const T *x, const float *weights, int step, const T *y,
                                                       float scale, T *sum, T *normed, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        add_row(x + at, weights, step, y + at, sum + at, cols);
        norm_row(sum + at, scale, normed + at, cols);
    }
}
