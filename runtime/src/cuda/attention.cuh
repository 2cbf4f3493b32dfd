// What the kernels of attention share.
#pragma once

#include "storage.cuh"
#include "threads.cuh"

constexpr int WARPS = 4;
constexpr int KEYS = WARP;
// Below all scores, and no infinity: differences of it are numbers.
constexpr float LOWEST = -3.0e38f;

// Whether a key is none before the document of query `own`, of the `count` that `starts` has (null for no documents).
__device__ inline bool is_since(const int *starts, int own, int count, int key) {
    return !starts || own >= count || key >= starts[own];
}

// Of the queries from `low` to `high` one more than the last whose document begins by `key`, or `high` without documents.
__device__ inline int end_of_readers(const int *starts, int low, int high, int key) {
    while (starts && low < high) {
        const int middle = (low + high) / 2;
        if (starts[middle] <= key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return high;
}

// `to[row][c] = from[row · cols + c]` for the `rows` and `dim` that there are; rows that are not there are zeros.
template <typename T, int ROWS, int COLUMNS>
__device__ inline void load_rows(float (&to)[ROWS][COLUMNS], const T *from, int rows, int dim, int cols,
                                 float factor) {
    for (int i = static_cast<int>(threadIdx.x); i < ROWS * dim; i += static_cast<int>(blockDim.x)) {
        const int row = i / dim, c = i % dim;
        to[row][c] = row < rows ? factor * to_float(from[offset(row, cols) + c]) : 0.0f;
    }
}
