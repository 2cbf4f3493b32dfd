// Channels times weights; `step` as in `add_scaled.cu`. A lane for each pack of channels.
#include "channel_sums.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) scale(const float *weights, int step, const T *x, T *y, int rows, int cols) {
    const int c = channel<N>();
    if (c >= cols) {
        return;
    }
    float w[N];
    fetch_weights(w, weights, step, c);
    Pack<T, N> own[ROWS];
    each_row<ROWS>(
        rows, [&](int i, int row) { own[i] = fetch<N>(x + offset(row, cols) + c); },
        [&](int i, int row) {
            put(y + offset(row, cols) + c, packed<T, N>([&](int k) { return w[k] * own[i][k]; }));
        });
}

// The gradient of `x`, `weights ⊙ dy`, with `keep` added to what is in `dx`; and of weights, `Σ dy ⊙ x` over rows, of each
// row of blocks its part, `parts [gridDim.y, C]` for `add_parts`, or where one holds for all channels 8 of each block (null
// if it is not wanted). Also that of `y` and its weights in `add_scaled`, and of each lane in `update_lane`.
template <typename T, int N>
__global__ void __launch_bounds__(256, 3) scale_backward(const float *weights, int step, const T *x, const T *dy, int keep,
                                                      T *dx, float *parts, int rows, int cols) {
    const int c = channel<N>();
    float sums[N] = {};
    if (c < cols) {
        float w[N];
        fetch_weights(w, weights, step, c);
        Pack<T, N> own[ROWS] = {}, grad[ROWS], before[ROWS] = {};
        each_row<ROWS>(
            rows,
            [&](int i, int row) {
                const size_t at = offset(row, cols) + c;
                grad[i] = fetch<N>(dy + at);
                if (parts) {
                    own[i] = fetch<N>(x + at);
                }
                if (keep != 0) {
                    before[i] = fetch<N>(dx + at);
                }
            },
            [&](int i, int row) {
                put(dx + offset(row, cols) + c, weighed_pack(w, grad[i], keep, before[i]));
                add_products(sums, own[i], grad[i]);
            });
    }
    if (parts) {
        const int width = step != 0 ? cols : static_cast<int>(gridDim.x) * ADDERS;
        put_channel_sums(sums, parts + offset(static_cast<int>(blockIdx.y), width), step, cols);
    }
}

// Adds the sums of `parts [count, C]` to `y`, in an order that depends on nothing. A block for each 32 channels, whose warps
// share the parts.
__global__ void __launch_bounds__(256, 4) add_parts(const float *parts, float *y, int count, int cols) {
    SHARED(float, all, [ADDERS][WARP]);
    const int c = static_cast<int>(blockIdx.x) * WARP + lane();
    float sum = 0.0f;
    if (c < cols) {
#pragma unroll 8
        for (int i = warp(); i < count; i += ADDERS) {
            sum += parts[offset(i, cols) + c];
        }
    }
    all[warp()][lane()] = sum;
    __syncthreads();
    if (warp() == 0 && c < cols) {
        sum = 0.0f;
        for (int i = 0; i < ADDERS; ++i) {
            sum += all[i][lane()];
        }
        y[c] += sum;
    }
}
