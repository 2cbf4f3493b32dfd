// Products of matrices, of a weight's in the first place: the base that needs no library. `y = factor · A B + keep · C`, with
// `A [m, k]`, `B [k, n]`, `C` and `y [m, n]`; `C` may be `y`, and null where nothing is added. `TURNED` says which one lies transposed: 1 for `A`,
// which then is `[k, m]`, 2 for `B`. `gridDim.z` products at once, whose matrices lie one after the other.
//
// A block for each 64 by 64 results, 4 by 4 of them to a thread.
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

template <typename T, typename U, int TURNED>
__global__ void __launch_bounds__(256, 4)
    product(const T *a, const T *b, float factor, const U *c, float keep, U *y, int m, int n, int k) {
    SHARED(float, as, [DEPTH][SIDE + 1]);
    SHARED(float, bs, [DEPTH][SIDE + 1]);
    const int first_column = static_cast<int>(blockIdx.x) * SIDE, first_row = static_cast<int>(blockIdx.y) * SIDE;
    a += offset(blockIdx.z, m) * k;
    b += offset(blockIdx.z, k) * n;
    const size_t own = offset(blockIdx.z, m) * n;
    // Neighbouring threads have neighbouring columns.
    const int across = static_cast<int>(threadIdx.x) % 16, down = static_cast<int>(threadIdx.x) / 16;
    float sums[4][4] = {};
    for (int at = 0; at < k; at += DEPTH) {
        if (TURNED == 1) {
            load_turned(as, a, first_row, m, at, k);
        } else {
            load_tile(as, a, first_row, m, at, k);
        }
        if (TURNED == 2) {
            load_tile(bs, b, first_column, n, at, k);
        } else {
            load_turned(bs, b, first_column, n, at, k);
        }
        __syncthreads();
        for (int depth = 0; depth < DEPTH; ++depth) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sums[i][j] += as[depth][down + 16 * i] * bs[depth][across + 16 * j];
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int row = first_row + down + 16 * i, column = first_column + across + 16 * j;
            if (row < m && column < n) {
                const size_t at = own + offset(row, n) + column;
                y[at] = from_float<U>(factor * sums[i][j] + (c ? keep * to_float(c[at]) : 0.0f));
            }
        }
    }
}
