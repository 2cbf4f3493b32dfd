// Kernels with a mistake each, by which the host's checks are tested.
#include "../packs.cuh"
#include "../tensor_core.cuh"

// No barrier between writing and reading what others wrote.
__global__ void no_barrier(float *y) {
    SHARED(float, all, [64]);
    all[threadIdx.x] = static_cast<float>(threadIdx.x);
    y[threadIdx.x] = all[63 - threadIdx.x];
}

// The next round writes what others may not have read yet.
__global__ void no_second_barrier(float *y) {
    SHARED(float, one, [1]);
    float sum = 0.0f;
    for (unsigned round = 0; round < 2; ++round) {
        if (threadIdx.x == 63 * round) {
            one[0] = static_cast<float>(round + 1);
        }
        __syncthreads();
        sum += one[0];
    }
    y[threadIdx.x] = sum;
}

// Half of the block waits for the other.
__global__ void half_a_barrier(float *y) {
    if (threadIdx.x < 32) {
        __syncthreads();
    }
    y[threadIdx.x] = 1.0f;
}

// Each half waits at a place of its own.
__global__ void two_barriers(float *y) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 1.0f;
}

// One lane takes no part.
__global__ void lost_lane(float *y) {
    float sum = 1.0f;
    if (threadIdx.x != 5) {
        sum = warp_sum(sum);
    }
    y[threadIdx.x] = sum;
}

// One element too far.
__global__ void past_the_end(float *y) {
    y[threadIdx.x + 1] = 1.0f;
}

// The same, in the memory of the block.
__global__ void past_the_shared_end(float *y) {
    SHARED(float, all, [64]);
    all[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = all[threadIdx.x];
}

// Read before anything was written.
__global__ void never_written(float *y) {
    SHARED(float, all, [64]);
    y[threadIdx.x] = all[threadIdx.x];
}

// More than a block has.
__global__ void too_much(float *y) {
    SHARED(float, all, [13000]);
    all[threadIdx.x] = 1.0f;
    y[threadIdx.x] = all[threadIdx.x];
}

// In order all is well: a block that counts on another one having run.
__global__ void blocks_in_order(float *y) {
    y[64 * blockIdx.x + threadIdx.x] = blockIdx.x == 0 ? 1.0f : 1.0f + y[64 * (blockIdx.x - 1) + threadIdx.x];
}

// A chunk for each thread, with its number in all places.
__device__ inline void copy_numbers(Chunk (&from)[64], Chunk (&to)[64]) {
    for (unsigned &word : from[threadIdx.x].words) {
        word = pack(static_cast<float>(threadIdx.x), static_cast<float>(threadIdx.x));
    }
    copy_later(&to[threadIdx.x], reinterpret_cast<const bf16 *>(&from[threadIdx.x]), true);
    end_copies();
}

// Waits for a copy after it was read.
__global__ void late_wait(float *y) {
    SHARED(Chunk, from, [64]);
    SHARED(Chunk, to, [64]);
    copy_numbers(from, to);
    y[threadIdx.x] = first_of(to[threadIdx.x].words[0]);
    wait_copies<0>();
}

// Waits for its own copy only.
__global__ void own_wait(float *y) {
    SHARED(Chunk, from, [64]);
    SHARED(Chunk, to, [64]);
    copy_numbers(from, to);
    wait_copies<0>();
    y[threadIdx.x] = first_of(to[63 - threadIdx.x].words[0]);
}

// Never waits.
__global__ void no_wait(float *y) {
    SHARED(Chunk, from, [64]);
    SHARED(Chunk, to, [64]);
    copy_numbers(from, to);
    y[threadIdx.x] = 1.0f;
}

// From between two chunks.
__global__ void half_a_chunk(float *y) {
    SHARED(Chunk, all, [64]);
    copy_later(&all[threadIdx.x], reinterpret_cast<const bf16 *>(&all[0]) + 4, true);
    end_copies();
    wait_copies<0>();
    y[threadIdx.x] = 1.0f;
}

// 16 bytes at once, from between two of them and to it.
__global__ void read_between(float *y) {
    const Pack<float, 4> own = fetch<4>(y + 2);
    y[threadIdx.x] = own[0];
}

__global__ void write_between(float *y) {
    y[threadIdx.x] = 1.0f;
    put(y + 2, packed<float, 4>([](int) { return 1.0f; }));
}
