// The bound on logits, for the kernels that have it in them.
#pragma once

#include "powers.cuh"

// `cap · tanh(x / cap)`, or with `cap` 0 `x`. From a power and an inverse, which is several times cheaper than `tanhf`: off by
// some 2^-23 of `cap`.
struct Cap {
    float cap, inverse, rate;

    __device__ explicit Cap(float cap)
        : cap(cap), inverse(cap > 0.0f ? 1.0f / cap : 0.0f), rate(2.0f * LOG2_E * inverse) {
    }

    __device__ float capped(float x) const {
        return cap > 0.0f ? cap - 2.0f * cap * inverse_of(power_of_two(rate * x) + 1.0f) : x;
    }

    // By how much a bounded value changes with `x`.
    __device__ float slope(float capped) const {
        const float share = capped * inverse;
        return 1.0f - share * share;
    }
};
