// Sums of each channel over rows, for the kernels that go through packs of channels.
#pragma once

#include "packs.cuh"

// Warps of a block.
constexpr int ADDERS = 8;

// `f(i, sum)` for each channel `i` of those that the lanes of a warp have: the sum of what the block's warps have for it. All
// threads take part.
template <int N, typename F>
__device__ inline void add_warps(const float (&own)[N], F f) {
    // Four more, so that neighbours are in different banks both ways.
    SHARED(float, all, [ADDERS][N][WARP + 4]);
    // Who still reads earlier sums has done so.
    __syncthreads();
#pragma unroll
    for (int k = 0; k < N; ++k) {
        all[warp()][k][lane()] = own[k];
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < WARP * N; i += ADDERS * WARP) {
        float sum = 0.0f;
#pragma unroll
        for (int from = 0; from < ADDERS; ++from) {
            sum += all[from][i % N][i / N];
        }
        f(i, sum);
    }
}

// The sums of a block, of the threads' own, zeros where there is no channel: to `part [C]`, or with `step` 0, where one weight
// holds for all channels, to `part [gridDim.x, ADDERS]`. All threads take part.
template <int N>
__device__ inline void put_channel_sums(const float (&own)[N], float *part, int step, int cols) {
    const int first = static_cast<int>(blockIdx.x) * WARP * N;
    float one = 0.0f;
    add_warps(own, [&](int i, float sum) {
        one += sum;
        if (step != 0 && first + i < cols) {
            part[first + i] = sum;
        }
    });
    if (step == 0) {
        one = warp_sum(one);
        if (lane() == 0) {
            part[static_cast<int>(blockIdx.x) * ADDERS + warp()] = one;
        }
    }
}

// `sums += a ⊙ b`.
template <typename T, int N>
__device__ inline void add_products(float (&sums)[N], const Pack<T, N> &a, const Pack<T, N> &b) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
        sums[k] += a[k] * b[k];
    }
}

// `weights ⊙ dy`, with `keep` added to what was there before.
template <typename T, int N>
__device__ inline Pack<T, N> weighed_pack(const float (&w)[N], const Pack<T, N> &dy, int keep, const Pack<T, N> &before) {
    return packed<T, N>([&](int k) { return keep != 0 ? before[k] + w[k] * dy[k] : w[k] * dy[k]; });
}
