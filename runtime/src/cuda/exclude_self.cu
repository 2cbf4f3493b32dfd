// Exclusive self-attention: `y − (y·v̂) v̂` per head, `v̂ = v / max(‖v‖, 1e-12)` the key/value head's own value at that
// position. Rows of values begin `v_cols` apart. `L` lanes for each query head of each row, or a warp where `L` is 0.
#include "heads.cuh"

template <typename T, int L>
__global__ void __launch_bounds__(256, 4)
    exclude_self(int query, int kv, int dim, const T *y, const T *v, int v_cols, T *out, int rows) {
    const int group = query / kv, total = rows * query;
    if constexpr (L == 0) {
        for (int i = warp_of_grid(); i < total; i += warps_of_grid()) {
            const size_t at = offset(i, dim);
            const T *own = v + offset(i / query, v_cols) + i % query / group * dim;
            float squares = 0.0f, along = 0.0f;
            for (int c = lane(); c < dim; c += WARP) {
                const float value = to_float(own[c]);
                squares += value * value;
                along += value * to_float(y[at + c]);
            }
            const float norm = fmaxf(sqrtf(warp_sum(squares)), 1e-12f);
            along = warp_sum(along) / norm / norm;
            for (int c = lane(); c < dim; c += WARP) {
                out[at + c] = from_float<T>(to_float(y[at + c]) - along * to_float(own[c]));
            }
        }
    } else {
        // Heads of a warp, and how many times as many it reads before it uses one.
        constexpr int N = numbers_of_lane<T>(), HEADS = WARP / L, AT_ONCE = 2;
        const int c = lane() % L * N;
        for (int first = warp_of_grid() * HEADS * AT_ONCE; first < total; first += warps_of_grid() * HEADS * AT_ONCE) {
            Pack<T, N> heads[AT_ONCE] = {}, values[AT_ONCE] = {};
#pragma unroll
            for (int j = 0; j < AT_ONCE; ++j) {
                const int i = first + j * HEADS + lane() / L;
                if (i < total) {
                    heads[j] = fetch<N>(y + offset(i, dim) + c);
                    values[j] = fetch<N>(v + offset(i / query, v_cols) + i % query / group * dim + c);
                }
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; ++j) {
                const float norm = fmaxf(sqrtf(head_sum<L>(sum_of_products(values[j], values[j]))), 1e-12f);
                const float along = head_sum<L>(sum_of_products(heads[j], values[j])) / norm / norm;
                const int i = first + j * HEADS + lane() / L;
                if (i < total) {
                    const auto left = packed<T, N>([&](int k) { return heads[j][k] - along * values[j][k]; });
                    put(out + offset(i, dim) + c, left);
                }
            }
        }
    }
}

// With `a = y·v̂` and `b = dout·v̂`: `dy = dout − b v̂`, and of each query head `dv = (2ab v̂ − a dout − b y) / ‖v‖`. `L` lanes
// for each key/value head of each row, or a warp where `L` is 0; then heads are of at most 256.
template <typename T, int L>
__global__ void __launch_bounds__(256, 4) exclude_self_backward(int query, int kv, int dim, const T *y, const T *v,
                                                                int v_cols, const T *dout, T *dy, T *dv, int rows) {
    const int group = query / kv, total = rows * kv;
    if constexpr (L == 0) {
        for (int i = warp_of_grid(); i < total; i += warps_of_grid()) {
            const T *own = v + offset(i / kv, v_cols) + i % kv * dim;
            float squares = 0.0f, sums[256 / WARP] = {};
            for (int c = lane(); c < dim; c += WARP) {
                squares += to_float(own[c]) * to_float(own[c]);
            }
            const float inverse = 1.0f / fmaxf(sqrtf(warp_sum(squares)), 1e-12f);
            for (int h = 0; h < group; ++h) {
                const size_t at = offset(i * group + h, dim);
                float a = 0.0f, b = 0.0f;
                for (int c = lane(); c < dim; c += WARP) {
                    a += to_float(y[at + c]) * to_float(own[c]);
                    b += to_float(dout[at + c]) * to_float(own[c]);
                }
                a = warp_sum(a) * inverse;
                b = warp_sum(b) * inverse;
#pragma unroll
                for (int j = 0; j < 256 / WARP; ++j) {
                    const int c = lane() + WARP * j;
                    if (c < dim) {
                        const float along = inverse * to_float(own[c]), grad = to_float(dout[at + c]);
                        dy[at + c] = from_float<T>(grad - b * along);
                        sums[j] += (2.0f * a * b * along - a * grad - b * to_float(y[at + c])) * inverse;
                    }
                }
            }
#pragma unroll
            for (int j = 0; j < 256 / WARP; ++j) {
                const int c = lane() + WARP * j;
                if (c < dim) {
                    dv[offset(i, dim) + c] = from_float<T>(sums[j]);
                }
            }
        }
    } else {
        // Heads of a warp, and query heads of each that it reads before it uses one.
        constexpr int N = numbers_of_lane<T>(), HEADS = WARP / L, AT_ONCE = 2;
        const int c = lane() % L * N;
        for (int first = warp_of_grid() * HEADS; first < total; first += warps_of_grid() * HEADS) {
            const int i = first + lane() / L;
            const bool there = i < total;
            Pack<T, N> own = {};
            if (there) {
                own = fetch<N>(v + offset(i / kv, v_cols) + i % kv * dim + c);
            }
            float sums[N] = {}, inverse = 0.0f;
            for (int top = 0; top < group; top += AT_ONCE) {
                Pack<T, N> heads[AT_ONCE] = {}, grads[AT_ONCE] = {};
#pragma unroll
                for (int j = 0; j < AT_ONCE; ++j) {
                    if (there && top + j < group) {
                        heads[j] = fetch<N>(y + offset(i * group + top + j, dim) + c);
                        grads[j] = fetch<N>(dout + offset(i * group + top + j, dim) + c);
                    }
                }
                if (top == 0) {
                    inverse = 1.0f / fmaxf(sqrtf(head_sum<L>(sum_of_products(own, own))), 1e-12f);
                }
#pragma unroll
                for (int j = 0; j < AT_ONCE; ++j) {
                    const float a = head_sum<L>(sum_of_products(heads[j], own)) * inverse;
                    const float b = head_sum<L>(sum_of_products(grads[j], own)) * inverse;
#pragma unroll
                    for (int k = 0; k < N; ++k) {
                        sums[k] += (2.0f * a * b * inverse * own[k] - a * grads[j][k] - b * heads[j][k]) * inverse;
                    }
                    if (there && top + j < group) {
                        const auto left = packed<T, N>([&](int k) { return grads[j][k] - b * inverse * own[k]; });
                        put(dy + offset(i * group + top + j, dim) + c, left);
                    }
                }
            }
            if (there) {
                put(dv + offset(i, dim) + c, packed<T, N>([&](int k) { return sums[k]; }));
            }
        }
    }
}
