// What the kernels of attention on tensor cores share: tiles of rows in the memory of a block, and products with them.
//
// A warp has `16 M` rows of its own. Row `16 m + 8 half + lane / 4` of them is in registers `[m][..][2 half]` and the next.
#pragma once

#include "attention.cuh"
#include "powers.cuh"
#include "tensor_core.cuh"

__device__ inline float infinity() {
    return __uint_as_float(0x7f800000u);
}

// The lanes that have parts of the same rows.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// Where this lane finds a chunk, of `row`, a multiple of 8, and `column`, an even one, both the same for all lanes, and what
// it adds to them. Chunk `c` of row `r` lies at `c ^ r % 8`, so that those of eight rows are in different banks. What depends
// on the lane is apart from what does not, which leaves few addresses to be kept.
template <int COLUMNS>
__device__ inline const Chunk *find(const Chunk (*tile)[COLUMNS], int row, int row_of_lane, int column, int column_of_lane) {
    const int within = column % 8 ^ (column_of_lane ^ lane() % 8);
    return &tile[row_of_lane][within] + (row * COLUMNS + column / 8 * 8);
}

// Copies rows of `dim` numbers, `cols` apart; rows beyond those that there are, and what is beyond `dim`, are zeros.
template <int ROWS, int COLUMNS>
__device__ inline void copy_rows(Chunk (&to)[ROWS][COLUMNS], const bf16 *from, int rows, int dim, int cols) {
    // A thread's rows are a multiple of 8 apart.
    constexpr int APART = WARPS * WARP / COLUMNS;
    static_assert(APART % 8 == 0 && ROWS % APART == 0, "whole passes of the block");
    const int own = static_cast<int>(threadIdx.x) / COLUMNS, column = static_cast<int>(threadIdx.x) % COLUMNS;
    Chunk *at = &to[own][column ^ own % 8];
#pragma unroll
    for (int row = 0; row < ROWS; row += APART) {
        const bool there = row + own < rows && column * CHUNK < dim;
        copy_later(at + row * COLUMNS, there ? from + offset(row + own, cols) + column * CHUNK : from, there);
    }
}

// `c += A Bᵀ` for `16 M` rows of A and `N` of B. Of its steps along the rows so many are unrolled, which takes registers.
template <int M, int N, int UNROLLED, int COLUMNS>
__device__ inline void multiply_rows(float (&c)[M][N / 8][4], const Chunk (*a)[COLUMNS],
                                     const Chunk (*b)[COLUMNS]) {
#pragma unroll UNROLLED
    for (int k = 0; k < COLUMNS; k += 2) {
        unsigned left[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            load_matrices(left[m], find(a, 16 * m, lane() % 16, k, lane() / 16));
        }
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            unsigned right[4];
            load_matrices(right, find(b, n, lane() / 16 * 8 + lane() % 8, k, lane() / 8 % 2));
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply(c[m][n / 8], left[m], right[0], right[1]);
                multiply(c[m][n / 8 + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// `c += W B` for `N` rows of B; weights are in the lanes as products leave them, and rounded.
template <int M, int N, int COLUMNS>
__device__ inline void multiply_weights(float (&c)[M][COLUMNS][4], const float (&weights)[M][N / 8][4],
                                        const Chunk (*b)[COLUMNS]) {
#pragma unroll
    for (int k = 0; k < N; k += 16) {
        unsigned left[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&w)[4] = weights[m][k / 8 + i / 2];
                left[m][i] = pack(w[i % 2 * 2], w[i % 2 * 2 + 1]);
            }
        }
#pragma unroll
        for (int n = 0; n < COLUMNS; n += 2) {
            unsigned right[4];
            load_matrices_transposed(right, find(b, k, lane() % 16, n, lane() / 16));
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply(c[m][n], left[m], right[0], right[1]);
                multiply(c[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

// Takes all columns but `first` to `last` from the row of scores that is in one half.
template <int N>
__device__ inline void hide(float (&scores)[N / 8][4], int half, int first, int last) {
#pragma unroll
    for (int i = 0; i < N / 4; ++i) {
        const int column = i / 2 * 8 + lane() % 4 * 2 + i % 2;
        if (column < first || column > last) {
            scores[i / 2][2 * half + i % 2] = -infinity();
        }
    }
}

// Writes two numbers beside each other.
__device__ inline void write_pair(bf16 *to, float first, float second) {
    *reinterpret_cast<unsigned *>(to) = pack(first, second);
}
