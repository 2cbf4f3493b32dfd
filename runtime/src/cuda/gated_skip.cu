// A U-Net skip connection: with `s = weights ⊙ skip` and `g = sigmoid(gates)`, `s + g ⊙ (x − s)`; without gates `x + s`.
// Weights and gates are those of one row, `[C]`. A lane for each pack of channels.
#include "channel_sums.cuh"

// What of the output is `x` and what is `s`: all of both without gates.
template <int N>
__device__ inline void read_gates(float (&open)[N], float (&closed)[N], const float *gates, int c) {
    if (gates) {
        fetch_floats(open, gates + c);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
        open[k] = gates ? 1.0f / (1.0f + expf(-open[k])) : 1.0f;
        closed[k] = gates ? 1.0f - open[k] : 1.0f;
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    gated_skip(const float *weights, const float *gates, const T *x, const T *skip, T *y, int rows, int cols) {
    const int c = channel<N>();
    if (c >= cols) {
        return;
    }
    float w[N], open[N] = {}, closed[N];
    fetch_floats(w, weights + c);
    read_gates(open, closed, gates, c);
#pragma unroll
    for (int k = 0; k < N; ++k) {
        w[k] *= closed[k];
    }
    Pack<T, N> own[ROWS], skipped[ROWS];
    each_row<ROWS>(
        rows,
        [&](int i, int row) {
            own[i] = fetch<N>(x + offset(row, cols) + c);
            skipped[i] = fetch<N>(skip + offset(row, cols) + c);
        },
        [&](int i, int row) {
            put(y + offset(row, cols) + c,
                packed<T, N>([&](int k) { return open[k] * own[i][k] + w[k] * skipped[i][k]; }));
        });
}

// Gradients of the inputs, and of weights and gates this block row's part, `parts [2, gridDim.y, C]` for `add_parts` (without
// gates those of weights only).
template <typename T, int N>
__global__ void __launch_bounds__(256, 3)
    gated_skip_backward(const float *weights, const float *gates, const T *x, const T *skip, const T *dy, T *dx, T *dskip,
                        float *parts, int rows, int cols) {
    const int c = channel<N>();
    float of_weight[N] = {}, of_gate[N] = {}, open[N] = {}, closed[N] = {};
    if (c < cols) {
        float w[N];
        fetch_floats(w, weights + c);
        read_gates(open, closed, gates, c);
        Pack<T, N> own = {}, skipped, grad;
        each_row<1>(
            rows,
            [&](int, int row) {
                const size_t at = offset(row, cols) + c;
                grad = fetch<N>(dy + at);
                skipped = fetch<N>(skip + at);
                if (gates) {
                    own = fetch<N>(x + at);
                }
            },
            [&](int, int row) {
                const size_t at = offset(row, cols) + c;
                put(dx + at, packed<T, N>([&](int k) { return grad[k] * open[k]; }));
                put(dskip + at, packed<T, N>([&](int k) { return grad[k] * closed[k] * w[k]; }));
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    of_weight[k] += grad[k] * skipped[k];
                    of_gate[k] += grad[k] * (own[k] - w[k] * skipped[k]);
                }
            });
#pragma unroll
        for (int k = 0; k < N; ++k) {
            of_weight[k] *= closed[k];
            of_gate[k] *= open[k] * closed[k];
        }
    }
    put_channel_sums(of_weight, parts + offset(static_cast<int>(blockIdx.y), cols), 1, cols);
    if (gates) {
        put_channel_sums(of_gate, parts + offset(static_cast<int>(gridDim.y + blockIdx.y), cols), 1, cols);
    }
}
