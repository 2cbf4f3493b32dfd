// Channels times weights; `step` as in `add_scaled.cu`. A warp for each row.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) scale(const float *weights, int step, const T *x, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        for (int c = lane(); c < cols; c += WARP) {
            y[at + c] = from_float<T>(weights[step * c] * to_float(x[at + c]));
        }
    }
}

// The gradient of weights, `Σ dy ⊙ x` over rows: each row of blocks its part, `parts [gridDim.y, C]` for `add_parts`. The
// gradient of `x` is `scale` of `dy`. Also that of `add_scaled`, and of each row of `mix`.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    scale_backward_weights(const T *x, const T *dy, float *parts, int rows, int cols) {
    const int c = thread_of_grid();
    if (c >= cols) {
        return;
    }
    float sum = 0.0f;
    for (int row = static_cast<int>(blockIdx.y); row < rows; row += static_cast<int>(gridDim.y)) {
        sum += to_float(x[offset(row, cols) + c]) * to_float(dy[offset(row, cols) + c]);
    }
    parts[offset(blockIdx.y, cols) + c] = sum;
}

// Adds the sums of `parts [count, C]` to `y`, in an order that depends on nothing.
__global__ void __launch_bounds__(256, 4) add_parts(const float *parts, float *y, int count, int cols) {
    for (int c = thread_of_grid(); c < cols; c += threads_of_grid()) {
        float sum = 0.0f;
        for (int i = 0; i < count; ++i) {
            sum += parts[offset(i, cols) + c];
        }
        y[c] += sum;
    }
}
