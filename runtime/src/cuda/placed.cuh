// Matrices that lie one after the other here and in another order elsewhere.
#pragma once

#include "threads.cuh"

// Where row `row` of a stack of matrices of `rows` begins in memory where matrix `i` begins at `places[i]`; null where that has
// them as the stack does.
__device__ inline size_t placed(const int *places, int row, int rows, int cols) {
    return places ? static_cast<size_t>(places[row / rows]) + offset(row % rows, cols) : offset(row, cols);
}
