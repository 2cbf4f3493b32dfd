// Rows of `table [V, C]` by token id. The host has checked the ids.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) embed(const T *table, const int *ids, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const T *from = table + offset(ids[row], cols);
        T *to = y + offset(row, cols);
        for (int c = lane(); c < cols; c += WARP) {
            to[c] = from[c];
        }
    }
}

// Adds the gradient of the table, without atomics: `order` lists the rows of `dy` by token, those of token `t` from `starts[t]` to
// `starts[t + 1]`. A warp for each 32 channels of each token.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    embed_backward(const T *dy, const int *starts, const int *order, float *dtable, int vocab, int cols) {
    const int chunks = (cols + WARP - 1) / WARP;
    for (int i = warp_of_grid(); i < vocab * chunks; i += warps_of_grid()) {
        const int token = i / chunks, c = i % chunks * WARP + lane();
        if (c < cols) {
            float sum = 0.0f;
            for (int j = starts[token]; j < starts[token + 1]; ++j) {
                sum += to_float(dy[offset(order[j], cols) + c]);
            }
            dtable[offset(token, cols) + c] += sum;
        }
    }
}
