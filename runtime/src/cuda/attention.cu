// Causal grouped-query attention with an online softmax: the base without tensor cores. `q [B, q_len, query·dim]`,
// `k, v [B, k_len, kv·dim]`; query `i` is at position `k_len − q_len + i`. `WIDTH` is a bound on `dim`. `lse
// [B, query, q_len]` (null for none) gets the logarithm of each query's sum of exponentials, which backward starts from.
// `starts [B, q_len]` (null for none) is the first position of each query's document, which does not fall along a sequence: a
// query sees no key before it.
//
// A block of four warps for each tile of queries of one head of one sequence. It goes through the keys 32 at a time: for
// scores each lane has a key, for sums of values each lane has every 32nd channel.
#include "attention.cuh"

template <typename T, int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP)
    attention(int query, int kv, int dim, const T *q, const T *k, const T *v, const int *starts, T *y, float *lse, int q_len,
              int k_len, int v_cols) {
    // Queries of a warp: fewer where heads are so wide that memory of the block would not hold them.
    constexpr int EACH = WIDTH > 128 ? 2 : 4;
    constexpr int CHANNELS = WIDTH / WARP;
    SHARED(float, queries, [WARPS * EACH][WIDTH]);
    // Keys, then values. Rows of an odd length, so that neighbours are in different banks.
    SHARED(float, tile, [KEYS][WIDTH + 1]);
    SHARED(float, weights, [WARPS * EACH][KEYS]);
    const int head = static_cast<int>(blockIdx.y);
    const int first = static_cast<int>(blockIdx.x) * WARPS * EACH;
    const int count = min(WARPS * EACH, q_len - first);
    const int q_cols = query * dim, kv_cols = kv * dim, sequence = static_cast<int>(blockIdx.z);
    const size_t q_at = offset(sequence * q_len + first, q_cols) + head * dim;
    const size_t kv_at = offset(sequence * k_len, kv_cols) + head / (query / kv) * dim;
    // The position of the first query, and one more than that of the last.
    const int position = k_len - q_len + first, end = position + count;
    if (starts) {
        starts += offset(sequence, q_len) + first;
    }
    load_rows(queries, q + q_at, count, dim, q_cols, 1.0f / sqrtf(static_cast<float>(dim)));

    // Largest score so far, this lane's part of the sum, and its channels of the output.
    float highest[EACH], sums[EACH], outputs[EACH][CHANNELS];
    for (int i = 0; i < EACH; ++i) {
        highest[i] = LOWEST;
        sums[i] = 0.0f;
        for (int j = 0; j < CHANNELS; ++j) {
            outputs[i][j] = 0.0f;
        }
    }
    for (int from = starts ? starts[0] / KEYS * KEYS : 0; from < end; from += KEYS) {
        const int there = min(KEYS, end - from);
        __syncthreads();
        load_rows(tile, k + kv_at + offset(from, kv_cols), there, dim, kv_cols, 1.0f);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int own = warp() * EACH + i;
            float score = 0.0f;
            for (int c = 0; c < dim; ++c) {
                score += queries[own][c] * tile[lane()][c];
            }
            // Not keys after the query, before its document, or past the end of all.
            const bool seen = from + lane() <= position + own && lane() < there && is_since(starts, own, count, from + lane());
            const float high = fmaxf(highest[i], warp_max(seen ? score : LOWEST));
            const float correction = expf(highest[i] - high);
            const float weight = seen ? expf(score - high) : 0.0f;
            highest[i] = high;
            sums[i] = sums[i] * correction + weight;
            weights[own][lane()] = weight;
            for (int j = 0; j < CHANNELS; ++j) {
                outputs[i][j] *= correction;
            }
        }
        __syncthreads();
        load_rows(tile, v + offset(sequence * k_len + from, v_cols) + head / (query / kv) * dim, there, dim, v_cols, 1.0f);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
#pragma unroll
            for (int j = 0; j < CHANNELS; ++j) {
                const int c = lane() + WARP * j;
                if (c < dim) {
                    for (int key = 0; key < KEYS; ++key) {
                        outputs[i][j] += weights[warp() * EACH + i][key] * tile[key][c];
                    }
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int own = warp() * EACH + i;
        const float sum = warp_sum(sums[i]);
        if (own < count) {
            for (int j = 0; j < CHANNELS; ++j) {
                const int c = lane() + WARP * j;
                if (c < dim) {
                    y[q_at + offset(own, q_cols) + c] = from_float<T>(outputs[i][j] / sum);
                }
            }
            if (lse && lane() == 0) {
                lse[offset(sequence * query + head, q_len) + first + own] = highest[i] + logf(sum);
            }
        }
    }
}
