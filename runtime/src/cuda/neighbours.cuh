// Neighbouring channels of a head, of which each lane of a warp has as many: all lanes together read and write a head at once.
#pragma once

#include "storage.cuh"

template <typename T, int N>
struct alignas(sizeof(T) * N) Neighbours {
    T of[N];
};

template <int N, typename T>
__device__ inline Neighbours<T, N> fetch_neighbours(const T *from) {
#ifndef __CUDA_ARCH__
    host::check_alignment(from, sizeof(Neighbours<T, N>), __FILE__, __LINE__);
#endif
    return *reinterpret_cast<const Neighbours<T, N> *>(from);
}

template <int N, typename T>
__device__ inline void put_neighbours(T *to, const float (&values)[N]) {
    Neighbours<T, N> own;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        own.of[i] = from_float<T>(values[i]);
    }
#ifndef __CUDA_ARCH__
    host::check_alignment(to, sizeof own, __FILE__, __LINE__);
#endif
    *reinterpret_cast<Neighbours<T, N> *>(to) = own;
}
