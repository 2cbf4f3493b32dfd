// Products of a warp alone, by which the host's own are tested: `C = A B` of 16 by 16 and 16 by 8 small whole numbers. Each of
// four warps computes it, and gives one of the four numbers that its lanes have.
#include "../tensor_core.cuh"

// Of A by row and column, and of B: whole numbers, and no two rows or columns alike.
__device__ inline float of_a(int row, int column) {
    return static_cast<float>((row * 7 + column * 3 + row * column) % 17 - 8);
}

__device__ inline float of_b(int row, int column) {
    return static_cast<float>((row * 5 + column * 11 + row * column) % 13 - 6);
}

// `rows` of 16 numbers each, by `of` or by its transpose, in chunks.
__device__ inline void fill(Chunk *to, int rows, int columns, float (*of)(int, int), bool transposed) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * columns / 2; i += static_cast<int>(blockDim.x)) {
        const int row = i / (columns / 2), column = i % (columns / 2) * 2;
        const float first = transposed ? of(column, row) : of(row, column);
        const float second = transposed ? of(column + 1, row) : of(row, column + 1);
        to[row * (columns / CHUNK) + column / CHUNK].words[column % CHUNK / 2] = pack(first, second);
    }
}

// Each number where the layout says it is, or with two registers of A in the place of each other.
__device__ inline void by_hand(float *y, bool swapped) {
    const int g = lane() / 4, t = lane() % 4;
    unsigned a[4], b[2];
    for (int i = 0; i < 4; ++i) {
        const int down = swapped ? i / 2 : i % 2, right = swapped ? i % 2 : i / 2;
        a[i] = pack(of_a(g + 8 * down, 2 * t + 8 * right), of_a(g + 8 * down, 2 * t + 8 * right + 1));
    }
    for (int i = 0; i < 2; ++i) {
        b[i] = pack(of_b(2 * t + 8 * i, g), of_b(2 * t + 8 * i + 1, g));
    }
    float c[4] = {};
    multiply(c, a, b[0], b[1]);
    y[threadIdx.x] = c[warp()];
}

__global__ void fragments_by_hand(float *y) {
    by_hand(y, false);
}

// A mistake, which the test is to find.
__global__ void fragments_swapped(float *y) {
    by_hand(y, true);
}

// From rows of A and of B's transpose.
__global__ void fragments_of_rows(float *y) {
    SHARED(Chunk, left, [16 * 2]);
    SHARED(Chunk, right, [16 * 2]);
    fill(left, 16, 16, of_a, false);
    // Its upper half alone is a product's right side; the lower one is loaded with it.
    fill(right, 8, 16, of_b, true);
    fill(right + 16, 8, 16, of_b, true);
    __syncthreads();
    unsigned a[4], b[4];
    load_matrices(a, &left[lane() % 16 * 2 + lane() / 16]);
    load_matrices(b, &right[(lane() / 16 * 8 + lane() % 8) * 2 + lane() / 8 % 2]);
    float c[4] = {};
    multiply(c, a, b[0], b[1]);
    y[threadIdx.x] = c[warp()];
}

// From rows of A's transpose and of B, which were copied.
__global__ void fragments_of_columns(float *y) {
    SHARED(Chunk, left, [16 * 2]);
    SHARED(Chunk, right, [16 * 2]);
    SHARED(Chunk, before, [16]);
    fill(left, 16, 16, of_a, true);
    fill(before, 16, 8, of_b, false);
    __syncthreads();
    // Two columns of chunks, of which one is zeros.
    if (threadIdx.x < 32) {
        const int row = static_cast<int>(threadIdx.x) / 2, column = static_cast<int>(threadIdx.x) % 2;
        copy_later(&right[threadIdx.x], reinterpret_cast<const bf16 *>(&before[row]), column == 0);
        end_copies();
    }
    wait_copies<0>();
    __syncthreads();
    unsigned a[4], b[4];
    load_matrices_transposed(a, &left[(lane() / 16 * 8 + lane() % 8) * 2 + lane() / 8 % 2]);
    load_matrices_transposed(b, &right[lane() % 16 * 2 + lane() / 16]);
    float c[4] = {};
    multiply(c, a, b[0], b[1]);
    // The zeros change nothing.
    multiply(c, a, b[2], b[3]);
    y[threadIdx.x] = c[warp()];
}
