// The residual stream mixed with the embedding, `weights[0] ⊙ x + weights[1] ⊙ x0`, and its norm.
#include "channel_sums.cuh"
#include "rms_norm.cuh"

template <typename T, int N>
__device__ inline Pack<T, N> mixed_pack(const float (&w)[N], const Pack<T, N> &x, const float (&w0)[N],
                                        const Pack<T, N> &x0) {
    // Said which of the products is fused with the sum: all kernels that mix have the same bits.
    return packed<T, N>([&](int k) { return fmaf(w[k], x[k], w0[k] * x0[k]); });
}

// A lane for each pack of channels.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) mix(const float *weights, const T *x, const T *x0, T *y, int rows, int cols) {
    const int c = channel<N>();
    if (c >= cols) {
        return;
    }
    float w[N], w0[N];
    fetch_floats(w, weights + c);
    fetch_floats(w0, weights + cols + c);
    Pack<T, N> own[ROWS], own0[ROWS];
    each_row<ROWS>(
        rows,
        [&](int i, int row) {
            own[i] = fetch<N>(x + offset(row, cols) + c);
            own0[i] = fetch<N>(x0 + offset(row, cols) + c);
        },
        [&](int i, int row) { put(y + offset(row, cols) + c, mixed_pack(w, own[i], w0, own0[i])); });
}

// A warp for each row.
template <typename T, int N>
__global__ void __launch_bounds__(256, 3)
    mix_norm(const float *weights, const T *x, const T *x0, float scale, T *mixed, T *normed, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        Pack<T, N> own[HELD], own0[HELD];
        float squares = 0.0f;
        const auto keep = [&](int c, const Pack<T, N> &a, const Pack<T, N> &b) {
            float w[N], w0[N];
            fetch_floats(w, weights + c);
            fetch_floats(w0, weights + cols + c);
            const Pack<T, N> sum = mixed_pack(w, a, w0, b);
            put(mixed + at + c, sum);
            squares += sum_of_products(sum, sum);
            return sum;
        };
        each_held<N>(cols, [&](int j, int c) {
            own[j] = fetch<N>(x + at + c);
            own0[j] = fetch<N>(x0 + at + c);
        });
        each_held<N>(cols, [&](int j, int c) { own[j] = keep(c, own[j], own0[j]); });
        each_beyond<N>(cols, [&](int c) { keep(c, fetch<N>(x + at + c), fetch<N>(x0 + at + c)); });
        const float factor = scale * inverse_root(warp_sum(squares), cols);
        each_held<N>(cols, [&](int j, int c) { put(normed + at + c, scaled_pack(factor, own[j])); });
        each_beyond<N>(cols, [&](int c) { put(normed + at + c, scaled_pack(factor, fetch<N>(mixed + at + c))); });
    }
}

// The gradients of both inputs, `weights[0] ⊙ dy` and `weights[1] ⊙ dy`, with `keep` and `keep0` added to what is in `dx` and
// `dx0`; and of weights of each row of blocks its part, `parts [gridDim.y, 2, C]` for `add_parts` (null if it is not wanted).
// A lane for each pack of channels.
template <typename T, int N>
__global__ void __launch_bounds__(256, 3) mix_backward(const float *weights, const T *x, const T *x0, const T *dy, int keep,
                                                    int keep0, T *dx, T *dx0, float *parts, int rows, int cols) {
    const int c = channel<N>();
    float sums[N] = {}, sums0[N] = {};
    if (c < cols) {
        float w[N], w0[N];
        fetch_floats(w, weights + c);
        fetch_floats(w0, weights + cols + c);
        Pack<T, N> own = {}, own0 = {}, grad, before = {}, before0 = {};
        each_row<1>(
            rows,
            [&](int, int row) {
                const size_t at = offset(row, cols) + c;
                grad = fetch<N>(dy + at);
                if (parts) {
                    own = fetch<N>(x + at);
                    own0 = fetch<N>(x0 + at);
                }
                if (keep != 0) {
                    before = fetch<N>(dx + at);
                }
                if (keep0 != 0) {
                    before0 = fetch<N>(dx0 + at);
                }
            },
            [&](int, int row) {
                const size_t at = offset(row, cols) + c;
                put(dx + at, weighed_pack(w, grad, keep, before));
                put(dx0 + at, weighed_pack(w0, grad, keep0, before0));
                add_products(sums, own, grad);
                add_products(sums0, own0, grad);
            });
    }
    if (parts) {
        float *part = parts + offset(2 * static_cast<int>(blockIdx.y), cols);
        put_channel_sums(sums, part, 1, cols);
        put_channel_sums(sums0, part + cols, 1, cols);
    }
}
