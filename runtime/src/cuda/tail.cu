// The last `n` of the `len` positions of each sequence. A warp for each row.
#include "packs.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) tail(const T *x, int n, T *y, int sequences, int len, int cols) {
    for (int row = warp_of_grid(); row < sequences * n; row += warps_of_grid()) {
        copy_row<N>(x + offset(row / n * len + (len - n) + row % n, cols), y + offset(row, cols), cols);
    }
}

// The gradient of `x`: that of the tail, and zeros before it.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) tail_backward(const T *dy, int n, T *dx, int sequences, int len, int cols) {
    for (int row = warp_of_grid(); row < sequences * len; row += warps_of_grid()) {
        const int before = len - n, position = row % len;
        T *to = dx + offset(row, cols);
        if (position >= before) {
            copy_row<N>(dy + offset(row / len * n + position - before, cols), to, cols);
            continue;
        }
        for (int c = lane() * N; c < cols; c += WARP * N) {
            put(to + c, packed<T, N>([](int) { return 0.0f; }));
        }
    }
}
