// Threads that work together: where one is, sums over a warp and over a block, what a block shares.
#pragma once

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Memory of the block: `SHARED(float, tile, [32][65])`. On the host it has guard zones and starts as no numbers.
#ifndef SHARED
#define SHARED(type, name, extent) __shared__ type name extent
#endif

__device__ inline int lane() {
    return static_cast<int>(threadIdx.x) % WARP;
}

__device__ inline int warp() {
    return static_cast<int>(threadIdx.x) / WARP;
}

// Number of this thread among those of the whole grid, and how many there are. Rows and elements are counted in 32 bits,
// whose divisions are cheap on a GPU: with one more step of the whole grid they stay below 2³¹.
__device__ inline int thread_of_grid() {
    return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

__device__ inline int threads_of_grid() {
    return static_cast<int>(gridDim.x * blockDim.x);
}

// The same for warps.
__device__ inline int warp_of_grid() {
    return thread_of_grid() / WARP;
}

__device__ inline int warps_of_grid() {
    return threads_of_grid() / WARP;
}

// Where a row begins, in elements: of these there may be more.
__device__ inline size_t offset(int row, int cols) {
    return static_cast<size_t>(row) * cols;
}

// All lanes get the sum, in an order that depends on nothing.
__device__ inline float warp_sum(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, apart);
    }
    return x;
}

__device__ inline float warp_max(float x) {
    for (int apart = WARP / 2; apart > 0; apart /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, apart));
    }
    return x;
}
