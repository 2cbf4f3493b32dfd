// Exclusive self-attention: `y − (y·v̂) v̂` per head, `v̂ = v / max(‖v‖, 1e-12)` the key/value head's own value at that
// position. A warp for each query head of each row.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4)
    exclude_self(int query, int kv, int dim, const T *y, const T *v, T *out, int rows) {
    for (int i = warp_of_grid(); i < rows * query; i += warps_of_grid()) {
        const size_t at = offset(i, dim);
        const T *own = v + offset(i / query * kv + i % query / (query / kv), dim);
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
}

// With `a = y·v̂` and `b = dout·v̂`: `dy = dout − b v̂`, and of each query head `dv = (2ab v̂ − a dout − b y) / ‖v‖`. A warp
// for each key/value head of each row; heads of at most 256.
template <typename T>
__global__ void __launch_bounds__(256, 4) exclude_self_backward(int query, int kv, int dim, const T *y, const T *v,
                                                                const T *dout, T *dy, T *dv, int rows) {
    const int group = query / kv;
    for (int i = warp_of_grid(); i < rows * kv; i += warps_of_grid()) {
        const T *own = v + offset(i, dim);
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
}
