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
