// Product with a weight, `x Wᵀ` for `W [out, in]`, and its gradients: the base that needs no library. A block for each 64 by
// 64 outputs, 4 by 4 of them to a thread.
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

// The same of a matrix whose rows are the depth: `to[depth][side] = from[at + depth][first + side]`.
template <typename T>
__device__ inline void load_turned(float (&to)[DEPTH][SIDE + 1], const T *from, int first, int cols, int at, int rows) {
    for (int i = static_cast<int>(threadIdx.x); i < SIDE * DEPTH; i += static_cast<int>(blockDim.x)) {
        const int side = i % SIDE, depth = i / SIDE;
        const bool inside = first + side < cols && at + depth < rows;
        to[depth][side] = inside ? to_float(from[offset(at + depth, cols) + first + side]) : 0.0f;
    }
}

// Adds the products of two tiles. Neighbouring threads have neighbouring columns.
__device__ inline void add_products(float (&sums)[4][4], const float (&a)[DEPTH][SIDE + 1],
                                    const float (&b)[DEPTH][SIDE + 1]) {
    const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
    for (int depth = 0; depth < DEPTH; ++depth) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                sums[i][j] += a[depth][down + 16 * i] * b[depth][across + 16 * j];
            }
        }
    }
}

// Writes a thread's sums to `y [rows, cols]`.
template <typename T>
__device__ inline void store(const float (&sums)[4][4], T *y, int first_row, int rows, int first_column, int cols) {
    const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int row = first_row + down + 16 * i, column = first_column + across + 16 * j;
            if (row < rows && column < cols) {
                y[offset(row, cols) + column] = from_float<T>(sums[i][j]);
            }
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4) linear(const T *w, const T *x, T *y, int rows, int in, int out) {
    SHARED(float, xs, [DEPTH][SIDE + 1]);
    SHARED(float, ws, [DEPTH][SIDE + 1]);
    const int first_out = static_cast<int>(blockIdx.x) * SIDE, first_row = static_cast<int>(blockIdx.y) * SIDE;
    float sums[4][4] = {};
    for (int at = 0; at < in; at += DEPTH) {
        load_tile(xs, x, first_row, rows, at, in);
        load_tile(ws, w, first_out, out, at, in);
        __syncthreads();
        add_products(sums, xs, ws);
        __syncthreads();
    }
    store(sums, y, first_row, rows, first_out, out);
}

// The gradient of `x`, `dy W`.
template <typename T>
__global__ void __launch_bounds__(256, 4) linear_backward(const T *w, const T *dy, T *dx, int rows, int in, int out) {
    SHARED(float, ys, [DEPTH][SIDE + 1]);
    SHARED(float, ws, [DEPTH][SIDE + 1]);
    const int first_in = static_cast<int>(blockIdx.x) * SIDE, first_row = static_cast<int>(blockIdx.y) * SIDE;
    float sums[4][4] = {};
    for (int at = 0; at < out; at += DEPTH) {
        load_tile(ys, dy, first_row, rows, at, out);
        load_turned(ws, w, first_in, in, at, out);
        __syncthreads();
        add_products(sums, ys, ws);
        __syncthreads();
    }
    store(sums, dx, first_row, rows, first_in, in);
}

// The gradient of the weight, `dyᵀ x`, in f32.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    linear_backward_weights(const T *x, const T *dy, float *dw, int rows, int in, int out) {
    SHARED(float, ys, [DEPTH][SIDE + 1]);
    SHARED(float, xs, [DEPTH][SIDE + 1]);
    const int first_in = static_cast<int>(blockIdx.x) * SIDE, first_out = static_cast<int>(blockIdx.y) * SIDE;
    float sums[4][4] = {};
    for (int at = 0; at < rows; at += DEPTH) {
        load_turned(ys, dy, first_out, out, at, rows);
        load_turned(xs, x, first_in, in, at, rows);
        __syncthreads();
        add_products(sums, ys, xs);
        __syncthreads();
    }
    store(sums, dw, first_out, out, first_in, in);
}
