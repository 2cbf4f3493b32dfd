// Numbers as they are kept in memory: f32, or bf16 with arithmetic in f32.
#pragma once

// The upper half of an f32. No header of the toolkit is needed for it.
struct bf16 {
    unsigned short bits;
};

__device__ inline float to_float(float x) {
    return x;
}

__device__ inline float to_float(bf16 x) {
    return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

// To the nearest, and of two to the even one.
__device__ inline unsigned short upper_half(float x) {
#ifdef __CUDA_ARCH__
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = __float_as_uint(x);
    // What is no number stays none, also where its last bits would round to infinity.
    return (x != x) ? 0x7fff : static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

template <typename T>
__device__ inline T from_float(float x);

template <>
__device__ inline float from_float<float>(float x) {
    return x;
}

template <>
__device__ inline bf16 from_float<bf16>(float x) {
    return bf16{upper_half(x)};
}

// Two numbers as bf16, the first in the lower half.
__device__ inline unsigned pack(float first, float second) {
#ifdef __CUDA_ARCH__
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
#else
    return upper_half(first) | static_cast<unsigned>(upper_half(second)) << 16;
#endif
}

__device__ inline float first_of(unsigned both) {
    return __uint_as_float(both << 16);
}

__device__ inline float second_of(unsigned both) {
    return __uint_as_float(both & 0xffff0000u);
}
