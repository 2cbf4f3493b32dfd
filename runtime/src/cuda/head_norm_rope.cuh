// A head normalised, rotated and scaled, by a warp; `turn [half, 2]` holds cosines and sines of its position.
#pragma once

#include "rms_norm.cuh"

template <typename T>
__device__ inline void turn_head(const T *head, float gain, const float *turn, int half, T *out, int dim) {
    const float factor = inverse_rms(head, dim) * gain;
    for (int c = lane(); c < half; c += WARP) {
        const float a = factor * to_float(head[c]);
        const float b = factor * to_float(head[c + half]);
        const float cosine = turn[2 * c], sine = turn[2 * c + 1];
        out[c] = from_float<T>(a * cosine + b * sine);
        out[c + half] = from_float<T>(b * cosine - a * sine);
    }
    for (int c = 2 * half + lane(); c < dim; c += WARP) {
        out[c] = from_float<T>(factor * to_float(head[c]));
    }
}

// Its gradient; returns that of the gain. Turned back, `grad` is the gradient of `gain · head · r`, from which both follow.
template <typename T>
__device__ inline float turn_head_back(const T *head, const T *grad, float gain, const float *turn, int half, T *out,
                                       int dim) {
    const float r = inverse_rms(head, dim);
    // `Σ head ⊙ (grad turned back)`.
    float along = 0.0f;
    for (int c = lane(); c < half; c += WARP) {
        const float a = to_float(grad[c]), b = to_float(grad[c + half]);
        const float cosine = turn[2 * c], sine = turn[2 * c + 1];
        along += to_float(head[c]) * (a * cosine - b * sine) + to_float(head[c + half]) * (b * cosine + a * sine);
    }
#pragma unroll 2
    for (int c = 2 * half + lane(); c < dim; c += WARP) {
        along += to_float(head[c]) * to_float(grad[c]);
    }
    along = warp_sum(along) * r;
    const float factor = r * gain, pull = along * r / static_cast<float>(dim);
    for (int c = lane(); c < half; c += WARP) {
        const float a = to_float(grad[c]), b = to_float(grad[c + half]);
        const float cosine = turn[2 * c], sine = turn[2 * c + 1];
        out[c] = from_float<T>(factor * (a * cosine - b * sine - pull * to_float(head[c])));
        out[c + half] = from_float<T>(factor * (b * cosine + a * sine - pull * to_float(head[c + half])));
    }
#pragma unroll 2
    for (int c = 2 * half + lane(); c < dim; c += WARP) {
        out[c] = from_float<T>(factor * (to_float(grad[c]) - pull * to_float(head[c])));
    }
    return along;
}
