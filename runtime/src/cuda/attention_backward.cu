// Gradients of attention, from its output `y`, that one's gradient `dy`, and the logarithms of sums that forward kept. With
// the probabilities `P` and `dP = dy Vᵀ`: `dS = P ⊙ (dP − Σ y ⊙ dy)`, `dQ = dS K`, `dK = dSᵀ Q`, `dV = Pᵀ dy`, the scores'
// scale apart. Nothing is added by two blocks, so that the order of blocks changes nothing. `starts` as in forward.
#include "attention.cuh"

// `Σ a[c] b[c]`.
__device__ inline float dot(const float *a, const float *b, int dim) {
    float sum = 0.0f;
    for (int c = 0; c < dim; ++c) {
        sum += a[c] * b[c];
    }
    return sum;
}

// `sums[c] += Σ weights[i] tile[i][c]` for this lane's channels.
template <int WIDTH>
__device__ inline void add_rows(float (&sums)[WIDTH / WARP], const float *weights, const float (&tile)[KEYS][WIDTH + 1],
                                int dim) {
#pragma unroll
    for (int j = 0; j < WIDTH / WARP; ++j) {
        const int c = lane() + WARP * j;
        if (c < dim) {
            for (int i = 0; i < KEYS; ++i) {
                sums[j] += weights[i] * tile[i][c];
            }
        }
    }
}

// The gradient of queries, and each query's `Σ y ⊙ dy` for the other kernel. Blocks as in forward.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, 2)
    attention_backward_queries(int query, int kv, int dim, const T *q, const T *k, const T *v, const int *starts,
                               const T *y, const float *lse, const T *dy, T *dq, float *shift, int q_len, int k_len, int v_cols) {
    // Queries of a warp: fewer where heads are so wide that memory of the block would not hold them.
    constexpr int EACH = WIDTH > 128 ? 1 : 4;
    SHARED(float, queries, [WARPS * EACH][WIDTH]);
    SHARED(float, grads, [WARPS * EACH][WIDTH]);
    SHARED(float, tile, [KEYS][WIDTH + 1]);
    SHARED(float, weights, [WARPS * EACH][KEYS]);
    const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
    const int first = static_cast<int>(blockIdx.x) * WARPS * EACH;
    const int count = min(WARPS * EACH, q_len - first);
    const int q_cols = query * dim, kv_cols = kv * dim;
    const size_t q_at = offset(sequence * q_len + first, q_cols) + head * dim;
    const size_t kv_at = offset(sequence * k_len, kv_cols) + head / (query / kv) * dim;
    v += offset(sequence * k_len, v_cols) + head / (query / kv) * dim;
    const size_t row_at = offset(sequence * query + head, q_len) + first;
    const int position = k_len - q_len + first, end = position + count;
    const float scale = 1.0f / sqrtf(static_cast<float>(dim));
    if (starts) {
        starts += offset(sequence, q_len) + first;
    }
    // Outputs lie where queries will: they are needed once.
    load_rows(queries, y + q_at, count, dim, q_cols, 1.0f);
    load_rows(grads, dy + q_at, count, dim, q_cols, 1.0f);
    __syncthreads();
    float shifts[EACH], logs[EACH], sums[EACH][WIDTH / WARP];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int own = warp() * EACH + i;
        float along = 0.0f;
        for (int c = lane(); c < dim; c += WARP) {
            along += queries[own][c] * grads[own][c];
        }
        shifts[i] = warp_sum(along);
        logs[i] = own < count ? lse[row_at + own] : 0.0f;
        if (own < count && lane() == 0) {
            shift[row_at + own] = shifts[i];
        }
        for (int j = 0; j < WIDTH / WARP; ++j) {
            sums[i][j] = 0.0f;
        }
    }
    __syncthreads();
    load_rows(queries, q + q_at, count, dim, q_cols, scale);
    for (int from = starts ? starts[0] / KEYS * KEYS : 0; from < end; from += KEYS) {
        const int there = min(KEYS, end - from);
        float along[EACH];
        __syncthreads();
        load_rows(tile, v + offset(from, v_cols), there, dim, v_cols, 1.0f);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            along[i] = dot(grads[warp() * EACH + i], tile[lane()], dim);
        }
        __syncthreads();
        load_rows(tile, k + kv_at + offset(from, kv_cols), there, dim, kv_cols, 1.0f);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int own = warp() * EACH + i;
            const bool seen = own < count && from + lane() <= position + own && lane() < there &&
                              is_since(starts, own, count, from + lane());
            const float score = dot(queries[own], tile[lane()], dim);
            weights[own][lane()] = seen ? expf(score - logs[i]) * (along[i] - shifts[i]) : 0.0f;
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            add_rows<WIDTH>(sums[i], weights[warp() * EACH + i], tile, dim);
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int own = warp() * EACH + i;
        for (int j = 0; j < WIDTH / WARP; ++j) {
            const int c = lane() + WARP * j;
            if (own < count && c < dim) {
                dq[q_at + offset(own, q_cols) + c] = from_float<T>(scale * sums[i][j]);
            }
        }
    }
}

// The gradients of keys and of values. A block of four warps for each tile of keys of one key/value head of one sequence; it
// goes through all queries that see them, 32 at a time, for scores one to a lane.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, 2)
    attention_backward_keys(int query, int kv, int dim, const T *q, const T *k, const T *v, const int *starts,
                            const float *lse, const T *dy, const float *shift, T *dk, T *dv, int q_len, int k_len, int v_cols) {
    // As above, of keys.
    constexpr int EACH = WIDTH > 128 ? 1 : 4;
    SHARED(float, keys, [WARPS * EACH][WIDTH]);
    SHARED(float, values, [WARPS * EACH][WIDTH]);
    SHARED(float, tile, [KEYS][WIDTH + 1]);
    SHARED(float, weights, [WARPS * EACH][KEYS]);
    const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
    const int first = static_cast<int>(blockIdx.x) * WARPS * EACH;
    const int count = min(WARPS * EACH, k_len - first);
    const int q_cols = query * dim, kv_cols = kv * dim;
    const size_t kv_at = offset(sequence * k_len + first, kv_cols) + head * dim;
    const float scale = 1.0f / sqrtf(static_cast<float>(dim));
    load_rows(keys, k + kv_at, count, dim, kv_cols, scale);
    load_rows(values, v + offset(sequence * k_len + first, v_cols) + head * dim, count, dim, v_cols, 1.0f);
    float key_sums[EACH][WIDTH / WARP], value_sums[EACH][WIDTH / WARP];
    for (int i = 0; i < EACH; ++i) {
        for (int j = 0; j < WIDTH / WARP; ++j) {
            key_sums[i][j] = value_sums[i][j] = 0.0f;
        }
    }
    if (starts) {
        starts += offset(sequence, q_len);
    }
    // The first query that sees a key of the tile, and one more than the last.
    const int before = k_len - q_len, start = max(0, first - before);
    const int end = end_of_readers(starts, start, q_len, first + count - 1);
    for (int h = head * (query / kv); h < (head + 1) * (query / kv); ++h) {
        for (int from = start; from < end; from += KEYS) {
            const int there = min(KEYS, end - from);
            const size_t q_at = offset(sequence * q_len + from, q_cols) + h * dim;
            const size_t row_at = offset(sequence * query + h, q_len) + from;
            const float log = lane() < there ? lse[row_at + lane()] : 0.0f;
            const float shifted = lane() < there ? shift[row_at + lane()] : 0.0f;
            float chances[EACH];
            __syncthreads();
            load_rows(tile, q + q_at, there, dim, q_cols, 1.0f);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const int own = warp() * EACH + i;
                const bool seen = own < count && first + own <= before + from + lane() && lane() < there &&
                                  is_since(starts, from + lane(), end, first + own);
                chances[i] = seen ? expf(dot(keys[own], tile[lane()], dim) - log) : 0.0f;
                weights[own][lane()] = chances[i];
            }
            __syncthreads();
            load_rows(tile, dy + q_at, there, dim, q_cols, 1.0f);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const int own = warp() * EACH + i;
                add_rows<WIDTH>(value_sums[i], weights[own], tile, dim);
                const float along = dot(values[own], tile[lane()], dim);
                // All lanes have read the chances.
                __syncwarp();
                weights[own][lane()] = chances[i] * (along - shifted);
            }
            __syncthreads();
            load_rows(tile, q + q_at, there, dim, q_cols, 1.0f);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                add_rows<WIDTH>(key_sums[i], weights[warp() * EACH + i], tile, dim);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int own = warp() * EACH + i;
        for (int j = 0; j < WIDTH / WARP; ++j) {
            const int c = lane() + WARP * j;
            if (own < count && c < dim) {
                const size_t at = kv_at + offset(own, kv_cols) + c;
                dk[at] = from_float<T>(scale * key_sums[i][j]);
                dv[at] = from_float<T>(value_sums[i][j]);
            }
        }
    }
}
