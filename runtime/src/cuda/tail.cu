// The last `n` of the `len` positions of each sequence. A warp for each row.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) tail(const T *x, int n, T *y, int sequences, int len, int cols) {
    for (int row = warp_of_grid(); row < sequences * n; row += warps_of_grid()) {
        const T *from = x + offset(row / n * len + (len - n) + row % n, cols);
        T *to = y + offset(row, cols);
        for (int c = lane(); c < cols; c += WARP) {
            to[c] = from[c];
        }
    }
}

// The gradient of `x`: that of the tail, and zeros before it.
template <typename T>
__global__ void __launch_bounds__(256, 4) tail_backward(const T *dy, int n, T *dx, int sequences, int len, int cols) {
    for (int row = warp_of_grid(); row < sequences * len; row += warps_of_grid()) {
        const int before = len - n, position = row % len;
        const T *from = dy + offset(row / len * n + max(position - before, 0), cols);
        T *to = dx + offset(row, cols);
        for (int c = lane(); c < cols; c += WARP) {
            to[c] = position < before ? from_float<T>(0.0f) : from[c];
        }
    }
}
