// The words of CUDA that the kernels use, for a C++ compiler: included before a kernel's source, which then is host code
// that `fibers.hpp` runs as blocks of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "copies.hpp"
#include "fibers.hpp"
#include "shared.hpp"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define SHARED(type, name, extent) auto &name = host::shared<type extent>([] {})

#define threadIdx (host::thread->number)
#define blockIdx (host::grid.block)
#define blockDim (host::grid.threads)
#define gridDim (host::grid.blocks)

#define __syncthreads() host::sync_block(__FILE__, __LINE__)
#define __syncwarp() host::sync_warp(__FILE__, __LINE__)
#define __shfl_sync(mask, x, lane) host::shuffle(mask, x, lane, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, x, apart) host::shuffle(mask, x, host::thread->lane() ^ (apart), __FILE__, __LINE__)

using std::max;
using std::min;

inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// Threads take turns only where they wait, so that a plain addition is atomic; the order of threads is the scheduler's.
inline float atomicAdd(float *to, float x) {
    const float before = *to;
    *to += x;
    return before;
}

namespace host {

// The value of another lane of the warp. All lanes take part.
template <typename V>
V shuffle(unsigned mask, V x, int lane, const char *file, int line) {
    static_assert(sizeof(V) == sizeof(unsigned), "a shuffle of 4 bytes");
    if (mask != 0xffffffffu) {
        fail(file, line, "a shuffle of some lanes only, which this host does not play");
    }
    if (lane < 0 || lane >= Fiber::WARP) {
        fail(file, line, "a shuffle from lane " + std::to_string(lane));
    }
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = exchange(bits, lane, file, line);
    std::memcpy(&x, &bits, sizeof bits);
    return x;
}

} // namespace host
