// Root mean square norm: `scale · x / sqrt(mean(x²) + eps)` over channels. A warp for each row.
#include "rms_norm.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) rms_norm(const T *x, float scale, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        norm_row(x + offset(row, cols), scale, y + offset(row, cols), cols);
    }
}
