// Root mean square norm: `scale · x / sqrt(mean(x²) + eps)` over channels. A warp for each row.
#include "rms_norm.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) rms_norm(const T *x, float scale, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        norm_row(x + offset(row, cols), scale, y + offset(row, cols), cols);
    }
}

// `scale · r · (dy − x · r² · mean(x · dy))` with `r` the inverse root mean square.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    rms_norm_backward(const T *x, float scale, const T *dy, T *dx, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        const float r = inverse_rms(x + at, cols);
        float along = 0.0f;
        for (int c = lane(); c < cols; c += WARP) {
            along += to_float(x[at + c]) * to_float(dy[at + c]);
        }
        const float pull = warp_sum(along) * r * r / static_cast<float>(cols);
        for (int c = lane(); c < cols; c += WARP) {
            dx[at + c] = from_float<T>(scale * r * (to_float(dy[at + c]) - pull * to_float(x[at + c])));
        }
    }
}
