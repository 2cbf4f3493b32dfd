// A scaled branch added to the residual stream, `x + weights ⊙ y`, and its norm. `step` is 1 where each channel has a
// weight and 0 where one holds for all.
#include "packs.cuh"
#include "rms_norm.cuh"

template <typename T, int N>
__device__ inline Pack<T, N> added_pack(const Pack<T, N> &x, const float (&w)[N], const Pack<T, N> &y) {
    return packed<T, N>([&](int k) { return x[k] + w[k] * y[k]; });
}

// A lane for each pack of channels.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    add_scaled(const T *x, const float *weights, int step, const T *y, T *sum, int rows, int cols) {
    const int c = channel<N>();
    if (c >= cols) {
        return;
    }
    float w[N];
    fetch_weights(w, weights, step, c);
    Pack<T, N> own[ROWS], branch[ROWS];
    each_row<ROWS>(
        rows,
        [&](int i, int row) {
            own[i] = fetch<N>(x + offset(row, cols) + c);
            branch[i] = fetch<N>(y + offset(row, cols) + c);
        },
        [&](int i, int row) { put(sum + offset(row, cols) + c, added_pack(own[i], w, branch[i])); });
}

// A warp for each row.
template <typename T, int N>
__global__ void __launch_bounds__(256, 3) add_scaled_norm(const T *x, const float *weights, int step, const T *y,
                                                       float scale, T *sum, T *normed, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        Pack<T, N> own[HELD], branch[HELD];
        float squares = 0.0f;
        const auto keep = [&](int c, const Pack<T, N> &a, const Pack<T, N> &b) {
            float w[N];
            fetch_weights(w, weights, step, c);
            const Pack<T, N> added = added_pack(a, w, b);
            put(sum + at + c, added);
            squares += sum_of_products(added, added);
            return added;
        };
        each_held<N>(cols, [&](int j, int c) {
            own[j] = fetch<N>(x + at + c);
            branch[j] = fetch<N>(y + at + c);
        });
        each_held<N>(cols, [&](int j, int c) { own[j] = keep(c, own[j], branch[j]); });
        each_beyond<N>(cols, [&](int c) { keep(c, fetch<N>(x + at + c), fetch<N>(y + at + c)); });
        const float factor = scale * inverse_root(warp_sum(squares), cols);
        each_held<N>(cols, [&](int j, int c) { put(normed + at + c, scaled_pack(factor, own[j])); });
        each_beyond<N>(cols, [&](int c) { put(normed + at + c, scaled_pack(factor, fetch<N>(sum + at + c))); });
    }
}
