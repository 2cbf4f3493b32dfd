// Product with a weight, `x Wᵀ` for `W [out, in]`: the base that needs no library. A block for each 64 by 64 outputs,
// 4 by 4 of them to a thread.
#include "storage.cuh"
#include "threads.cuh"

constexpr int SIDE = 64;
constexpr int DEPTH = 16;

// `to[depth][side] = from[first + side][at + depth]`, zeros outside.
template <typename T>
__device__ inline void load_tile(float (&to)[DEPTH][SIDE + 1], const T *from, int first, int rows, int at, int cols) {
    for (int i = static_cast<int>(threadIdx.x); i < SIDE * DEPTH; i += static_cast<int>(blockDim.x)) {
        const int side = i / DEPTH, depth = i % DEPTH;
        const bool inside = first + side < rows && at + depth < cols;
        to[depth][side] = inside ? to_float(from[offset(first + side, cols) + at + depth]) : 0.0f;
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4) linear(const T *w, const T *x, T *y, int rows, int in, int out) {
    SHARED(float, xs, [DEPTH][SIDE + 1]);
    SHARED(float, ws, [DEPTH][SIDE + 1]);
    const int first_out = static_cast<int>(blockIdx.x) * SIDE, first_row = static_cast<int>(blockIdx.y) * SIDE;
    // Neighbouring threads have neighbouring outputs.
    const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
    float sums[4][4] = {};
    for (int at = 0; at < in; at += DEPTH) {
        load_tile(xs, x, first_row, rows, at, in);
        load_tile(ws, w, first_out, out, at, in);
        __syncthreads();
        for (int depth = 0; depth < DEPTH; ++depth) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sums[i][j] += xs[depth][down + 16 * i] * ws[depth][across + 16 * j];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int row = first_row + down + 16 * i, column = first_out + across + 16 * j;
            if (row < rows && column < out) {
                y[offset(row, out) + column] = from_float<T>(sums[i][j]);
            }
        }
    }
}
