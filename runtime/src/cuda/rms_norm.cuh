// The factor of a root mean square norm, for the kernels that have one in them.
#pragma once

#include "storage.cuh"
#include "threads.cuh"

// The machine epsilon of f32.
constexpr float NORM_EPSILON = 1.1920929e-7f;

// `1 / sqrt(mean(x²) + eps)` of a row, by a warp: each lane must see what it wrote itself at `lane + 32 i`.
template <typename T>
__device__ inline float inverse_rms(const T *x, int cols) {
    float sum = 0.0f;
    for (int c = lane(); c < cols; c += WARP) {
        const float v = to_float(x[c]);
        sum += v * v;
    }
    return 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(cols) + NORM_EPSILON);
}

// `scale · x · inverse_rms(x)`, by a warp.
template <typename T>
__device__ inline void norm_row(const T *x, float scale, T *y, int cols) {
    const float factor = scale * inverse_rms(x, cols);
    for (int c = lane(); c < cols; c += WARP) {
        y[c] = from_float<T>(factor * to_float(x[c]));
    }
}
