// Powers as a GPU has them in one instruction.
#pragma once

constexpr float LOG2_E = 1.44269504f;
constexpr float LN_2 = 0.693147181f;

// `2^x`, of less than 2^-126 zero.
__device__ inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return exp2f(x);
#endif
}

// `1 / x`, off by a bit.
__device__ inline float inverse_of(float x) {
#ifdef __CUDA_ARCH__
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
#else
    return 1.0f / x;
#endif
}
