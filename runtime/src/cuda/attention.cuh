// What the kernels of attention share.
#pragma once

#include "storage.cuh"
#include "threads.cuh"

constexpr int WARPS = 4;
constexpr int KEYS = WARP;
// Below all scores, and no infinity: differences of it are numbers.
constexpr float LOWEST = -3.0e38f;

// `to[row][c] = from[row · cols + c]` for the `rows` and `dim` that there are; rows that are not there are zeros.
template <typename T, int ROWS, int COLUMNS>
__device__ inline void load_rows(float (&to)[ROWS][COLUMNS], const T *from, int rows, int dim, int cols,
                                 float factor) {
    for (int i = static_cast<int>(threadIdx.x); i < ROWS * dim; i += static_cast<int>(blockDim.x)) {
        const int row = i / dim, c = i % dim;
        to[row][c] = row < rows ? factor * to_float(from[offset(row, cols) + c]) : 0.0f;
    }
}
