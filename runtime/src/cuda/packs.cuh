// Numbers side by side that are read and written at once, and how kernels go through rows, channels and elements by them.
//
// There are `N`: as many as 16 bytes have, where sizes and addresses allow it, and otherwise one. The functions that start
// kernels choose the instance.
#pragma once

#include "storage.cuh"
#include "threads.cuh"

// As they are kept: two numbers in bf16 to a word, the first below.
template <typename T, int N>
struct alignas(16) Pack {
    static_assert(N * sizeof(T) == 16, "one number, or 16 bytes of them");
    unsigned words[4];

    __device__ float operator[](int i) const {
        if (sizeof(T) == sizeof(float)) {
            return __uint_as_float(words[i % 4]);
        }
        return i % 2 == 0 ? first_of(words[i / 2]) : second_of(words[i / 2]);
    }
};

template <typename T>
struct Pack<T, 1> {
    T own;

    __device__ float operator[](int) const {
        return to_float(own);
    }
};

template <int N, typename T>
__device__ inline Pack<T, N> fetch(const T *from) {
#ifdef __CUDA_ARCH__
    return *reinterpret_cast<const Pack<T, N> *>(from);
#else
    Pack<T, N> pack;
    host::check_alignment(from, sizeof pack, __FILE__, __LINE__);
    std::memcpy(&pack, from, sizeof pack);
    return pack;
#endif
}

template <typename T, int N>
__device__ inline void put(T *to, const Pack<T, N> &pack) {
#ifdef __CUDA_ARCH__
    *reinterpret_cast<Pack<T, N> *>(to) = pack;
#else
    host::check_alignment(to, sizeof pack, __FILE__, __LINE__);
    std::memcpy(to, &pack, sizeof pack);
#endif
}

// As many control values as a pack has numbers.
template <int N>
__device__ inline void fetch_floats(float (&to)[N], const float *from) {
    constexpr int M = N == 1 ? 1 : 4;
#pragma unroll
    for (int i = 0; i < N; i += M) {
        const Pack<float, M> pack = fetch<M>(from + i);
#pragma unroll
        for (int k = 0; k < M; ++k) {
            to[i + k] = pack[k];
        }
    }
}

// The same of weights of which there is one for each channel (`step` 1), or one for all (0).
template <int N>
__device__ inline void fetch_weights(float (&to)[N], const float *weights, int step, int c) {
    if (step != 0) {
        fetch_floats(to, weights + c);
        return;
    }
    const float one = *weights;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to[k] = one;
    }
}

// `f(k)` for each number `k` of a pack, as it is kept.
template <typename T, int N, typename F>
__device__ inline Pack<T, N> packed(F f) {
    Pack<T, N> all;
    if constexpr (N == 1) {
        all.own = from_float<T>(f(0));
    } else if constexpr (sizeof(T) == sizeof(float)) {
#pragma unroll
        for (int k = 0; k < N; ++k) {
            all.words[k] = __float_as_uint(f(k));
        }
    } else {
#pragma unroll
        for (int k = 0; k < N; k += 2) {
            all.words[k / 2] = pack(f(k), f(k + 1));
        }
    }
    return all;
}

template <int N>
__device__ inline void put_floats(float *to, const float (&from)[N]) {
    constexpr int M = N == 1 ? 1 : 4;
#pragma unroll
    for (int i = 0; i < N; i += M) {
        put(to + i, packed<float, M>([&](int k) { return from[i + k]; }));
    }
}

template <typename T, int N>
__device__ inline float sum_of_products(const Pack<T, N> &a, const Pack<T, N> &b) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        sum += a[k] * b[k];
    }
    return sum;
}

template <typename T, int N>
__device__ inline Pack<T, N> scaled_pack(float factor, const Pack<T, N> &x) {
    return packed<T, N>([&](int k) { return factor * x[k]; });
}

// Writes `f(k)` for each number, with `keep` added to what is there.
template <int N, typename T, typename F>
__device__ inline void put_sum(T *to, int keep, F f) {
    if (keep == 0) {
        put(to, packed<T, N>(f));
        return;
    }
    const Pack<T, N> before = fetch<N>(to);
    put(to, packed<T, N>([&](int k) { return before[k] + f(k); }));
}

// Elements: a thread for each pack, and what is left one by one. `f(count, i)` does those from `i` on.
template <int N>
struct Count {
    static constexpr int of = N;
};

template <int N, typename F>
__device__ inline void each_element(int elements, F f) {
    const int whole = elements / N * N;
    for (int i = thread_of_grid() * N; i < whole; i += threads_of_grid() * N) {
        f(Count<N>{}, i);
    }
    if (N > 1) {
#pragma unroll 1
        for (int i = whole + thread_of_grid(); i < elements; i += threads_of_grid()) {
            f(Count<1>{}, i);
        }
    }
}

// Rows, a warp for each: packs that a lane holds in registers, so that what is read twice comes from memory once.
constexpr int HELD = 4;

// `f(j, c)` for those of them that there are, with their first channel.
template <int N, typename F>
__device__ inline void each_held(int cols, F f) {
#pragma unroll
    for (int j = 0; j < HELD; ++j) {
        const int c = (j * WARP + lane()) * N;
        if (c < cols) {
            f(j, c);
        }
    }
}

// `f(c)` for the packs beyond; not unrolled, which would take registers from those.
template <int N, typename F>
__device__ inline void each_beyond(int cols, F f) {
#pragma unroll 1
    for (int c = (HELD * WARP + lane()) * N; c < cols; c += WARP * N) {
        f(c);
    }
}

// A copy, by a warp.
template <int N, typename T>
__device__ inline void copy_row(const T *from, T *to, int cols) {
    Pack<T, N> own[HELD];
    each_held<N>(cols, [&](int j, int c) { own[j] = fetch<N>(from + c); });
    each_held<N>(cols, [&](int j, int c) { put(to + c, own[j]); });
    each_beyond<N>(cols, [&](int c) { put(to + c, fetch<N>(from + c)); });
}

// Channels, a lane for each pack of them and a warp for each of the rows, whose weights then are read once. The first of
// this thread; there may be none of it.
template <int N>
__device__ inline int channel() {
    return (static_cast<int>(blockIdx.x) * WARP + lane()) * N;
}

// Rows that most kernels read before they use the first of them.
constexpr int ROWS = 2;

// `read(i, row)` for the next `AT_ONCE` rows, then `use(i, row)` for them.
template <int AT_ONCE, typename Read, typename Use>
__device__ inline void each_row(int rows, Read read, Use use) {
    const int warps = static_cast<int>(blockDim.x) / WARP, apart = static_cast<int>(gridDim.y) * warps;
    for (int first = static_cast<int>(blockIdx.y) * warps + warp(); first < rows; first += AT_ONCE * apart) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            if (first + i * apart < rows) {
                read(i, first + i * apart);
            }
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            if (first + i * apart < rows) {
                use(i, first + i * apart);
            }
        }
    }
}
