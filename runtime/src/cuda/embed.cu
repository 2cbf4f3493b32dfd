// Rows of `table [V, C]` by token id. The host has checked the ids.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) embed(const T *table, const int *ids, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const T *from = table + offset(ids[row], cols);
        T *to = y + offset(row, cols);
        for (int c = lane(); c < cols; c += WARP) {
            to[c] = from[c];
        }
    }
}
