// Rows of `table [V, C]` by token id. The host has checked the ids.
#include "channel_sums.cuh"

// A warp for each row.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) embed(const T *table, const int *ids, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        copy_row<N>(table + offset(ids[row], cols), y + offset(row, cols), cols);
    }
}

// Adds the gradient of the table, without atomics: `order` lists the rows of `dy` by token, those of token `t` from `starts[t]` to
// `starts[t + 1]`. A block for each token and the channels of a warp, whose warps share the rows: some tokens have thousands.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    embed_backward(const T *dy, const int *starts, const int *order, float *dtable, int vocab, int cols) {
    const int chunks = (cols + WARP * N - 1) / (WARP * N);
    for (int i = static_cast<int>(blockIdx.x); i < vocab * chunks; i += static_cast<int>(gridDim.x)) {
        const int token = i / chunks, first = i % chunks * WARP * N, c = first + lane() * N, end = starts[token + 1];
        // The same for all threads of the block.
        if (starts[token] == end) {
            continue;
        }
        float sums[N] = {};
        if (c < cols) {
#pragma unroll 4
            for (int j = starts[token] + warp(); j < end; j += ADDERS) {
                const Pack<T, N> grad = fetch<N>(dy + offset(order[j], cols) + c);
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    sums[k] += grad[k];
                }
            }
        }
        add_warps(sums, [&](int at, float sum) {
            if (first + at < cols) {
                dtable[offset(token, cols) + first + at] += sum;
            }
        });
    }
}
