// Sums over all of something, in an order that depends on nothing.
#include "packs.cuh"

// All threads of a block of 256 get the sum of theirs.
__device__ inline float block_sum(float x) {
    SHARED(float, parts, [8]);
    x = warp_sum(x);
    // Who still reads an earlier sum has done so.
    __syncthreads();
    if (lane() == 0) {
        parts[warp()] = x;
    }
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < 8; ++i) {
        sum += parts[i];
    }
    return sum;
}

// Adds to `y [C]` the sums of the columns of `x [rows, C]`. A block for each column.
__global__ void __launch_bounds__(256, 4) add_columns(const float *x, float *y, int rows, int cols) {
    const int c = static_cast<int>(blockIdx.x);
    float sum = 0.0f;
#pragma unroll 8
    for (int row = static_cast<int>(threadIdx.x); row < rows; row += static_cast<int>(blockDim.x)) {
        sum += x[offset(row, cols) + c];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        y[c] += sum;
    }
}

// Sums of squares of each of a stack of `gridDim.z` times `elements`, in parts, `[gridDim.z, gridDim.x]`.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) sum_of_squares(const T *x, float *parts, int elements) {
    x += offset(blockIdx.z, elements);
    float sum = 0.0f;
    each_element<N>(elements, [&](auto count, int i) {
        const auto own = fetch<count.of>(x + i);
        sum += sum_of_products(own, own);
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        parts[offset(blockIdx.z, gridDim.x) + blockIdx.x] = sum;
    }
}

// The factor that brings a global norm down to `limit` where it is above, and the norm; from `parts` of its square. One
// block.
__global__ void __launch_bounds__(256, 4) clip_factor(const float *parts, int count, float limit, float *clip) {
    float sum = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
        sum += parts[i];
    }
    const float norm = sqrtf(block_sum(sum));
    if (threadIdx.x == 0) {
        clip[0] = fminf(1.0f, limit / (norm + 1e-6f));
        clip[1] = norm;
    }
}
