// What tensor cores need: products of a warp, matrices from the memory of a block into its lanes, and copies into that
// memory that arrive later. On the host each is a function of the whole warp, or a copy that arrives when it is waited for.
//
// How a warp holds matrices, with `g = lane / 4` and `t = lane % 4`; a register has two numbers in bf16, the first below:
//   A, 16 rows by 16:    a[0] = (g, 2t), a[1] = (g + 8, 2t), a[2] = (g, 2t + 8), a[3] = (g + 8, 2t + 8), and the columns after
//   B, 16 by 8 columns:  b[0] = (2t, g), b[1] = (2t + 8, g), and the rows after
//   C, 16 by 8 in f32:   c[0] = (g, 2t), c[1] = (g, 2t + 1), c[2] = (g + 8, 2t), c[3] = (g + 8, 2t + 1)
#pragma once

#include "storage.cuh"
#include "threads.cuh"

// Eight numbers in bf16: what is copied at once, and a row of what is loaded as a matrix.
struct alignas(16) Chunk {
    unsigned words[4];
};

// Numbers of a chunk.
constexpr int CHUNK = 8;

// `c += A B`. All lanes take part.
__device__ inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef __CUDA_ARCH__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    const unsigned own[] = {a[0], a[1], a[2], a[3], b0, b1};
    const auto all = host::share(own, 6, __FILE__, __LINE__);
    for (int i = 0; i < 4; ++i) {
        const int row = lane() / 4, column = lane() % 4 * 2 + i % 2;
        for (int half = 0; half < 2; ++half) {
            for (int t = 0; t < 4; ++t) {
                const unsigned x = all[row * 4 + t][half * 2 + i / 2], y = all[column * 4 + t][4 + half];
                c[i] += first_of(x) * first_of(y);
                c[i] += second_of(x) * second_of(y);
            }
        }
    }
#endif
}

// Four matrices of 8 rows: lane `8 m + r` says where row `r` of matrix `m` is. Register `m` then has row `lane / 4`, and of
// it the numbers `2 (lane % 4)` and the next. All lanes take part.
__device__ inline void load_matrices(unsigned (&to)[4], const Chunk *row) {
#ifdef __CUDA_ARCH__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
                 : "memory");
#else
    const auto rows = host::share_address(row, alignof(Chunk), __FILE__, __LINE__);
    for (int m = 0; m < 4; ++m) {
        to[m] = static_cast<const Chunk *>(rows[m * 8 + lane() / 4])->words[lane() % 4];
    }
#endif
}

// The same transposed: register `m` has column `lane / 4`, and of it the numbers `2 (lane % 4)` and the next.
__device__ inline void load_matrices_transposed(unsigned (&to)[4], const Chunk *row) {
#ifdef __CUDA_ARCH__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
                 : "memory");
#else
    const auto rows = host::share_address(row, alignof(Chunk), __FILE__, __LINE__);
    const int column = lane() / 4, first = lane() % 4 * 2;
    for (int m = 0; m < 4; ++m) {
        to[m] = 0;
        for (int i = 0; i < 2; ++i) {
            const unsigned word = static_cast<const Chunk *>(rows[m * 8 + first + i])->words[column / 2];
            to[m] |= (word >> column % 2 * 16 & 0xffffu) << i * 16;
        }
    }
#endif
}

// Copies a chunk into the memory of the block, or zeros where it is not `there`; it arrives by the time that is waited for.
__device__ inline void copy_later(Chunk *to, const bf16 *from, bool there) {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
#else
    host::copy_later(to, from, sizeof(Chunk), there, __FILE__, __LINE__);
#endif
}

// Ends a group of copies.
__device__ inline void end_copies() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    host::end_copies();
#endif
}

// Waits for the groups of copies of this thread, all but the last `LEFT`. Those of others need a barrier after it.
template <int LEFT>
__device__ inline void wait_copies() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#else
    host::wait_copies(LEFT);
#endif
}
