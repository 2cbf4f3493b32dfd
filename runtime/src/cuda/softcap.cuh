// The bound on logits, for the kernels that have it in them.
#pragma once

// `cap · tanh(x / cap)`.
__device__ inline float capped(float x, float cap) {
    return cap * tanhf(x / cap);
}
