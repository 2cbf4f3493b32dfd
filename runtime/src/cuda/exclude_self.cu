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
