// The factor of a root mean square norm, for the kernels that have one in them.
#pragma once

#include "storage.cuh"
#include "threads.cuh"

// The machine epsilon of f32.
constexpr float NORM_EPSILON = 1.1920929e-7f;

// `1 / sqrt(mean(x²) + eps)` of a row with this sum of squares.
__device__ inline float inverse_root(float squares, int cols) {
    return 1.0f / sqrtf(squares / static_cast<float>(cols) + NORM_EPSILON);
}

// The same of a row, by a warp.
template <typename T>
__device__ inline float inverse_rms(const T *x, int cols) {
    float sum = 0.0f;
    for (int c = lane(); c < cols; c += WARP) {
        const float v = to_float(x[c]);
        sum += v * v;
    }
    return inverse_root(warp_sum(sum), cols);
}
