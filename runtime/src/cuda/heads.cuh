// Heads in packs of 16 bytes: `L` lanes of a warp have one, side by side, so that a warp has several.
#pragma once

#include "packs.cuh"

// Numbers of a lane.
template <typename T>
__device__ constexpr int numbers_of_lane() {
    return 16 / static_cast<int>(sizeof(T));
}

// The lanes of a head get their sum.
template <int L>
__device__ inline float head_sum(float x) {
#pragma unroll
    for (int apart = L / 2; apart > 0; apart /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, apart);
    }
    return x;
}
