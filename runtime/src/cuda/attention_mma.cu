// `attention` on tensor cores: storage in bf16, `dim` a multiple of 8 up to `WIDTH`, all memory from multiples of 16 bytes.
// Arguments as there, and `starts [B, q_len]` (null for none): the first position of each query's document, which does not
// fall along a sequence; a query sees no key before it.
//
// A block of four warps for each tile of queries of one head of one sequence: 128 of them, or 64 where heads are wide. Keys
// arrive while values are used, and values while keys are.
#include "attention_mma.cuh"

template <int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, WIDTH > 64 ? 3 : 2)
    attention_mma(int query, int kv, int dim, const bf16 *q, const bf16 *k, const bf16 *v, const int *starts, bf16 *y,
                  float *lse, int q_len, int k_len, int v_cols) {
    // As many rows as registers allow, and as many keys of a step as 48 KiB do.
    constexpr int M = WIDTH > 64 ? 1 : 2, ROWS = WARPS * 16 * M, STEP = 64, COLUMNS = WIDTH / CHUNK;
    SHARED(Chunk, queries, [ROWS][COLUMNS]);
    SHARED(Chunk, keys, [STEP][COLUMNS]);
    SHARED(Chunk, values, [STEP][COLUMNS]);
    const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
    // Those with the most keys come first.
    const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * ROWS;
    const int count = min(ROWS, q_len - first);
    const int q_cols = query * dim, kv_cols = kv * dim;
    const size_t q_at = offset(sequence * q_len + first, q_cols) + head * dim;
    k += offset(sequence * k_len, kv_cols) + head / (query / kv) * dim;
    v += head / (query / kv) * dim;
    // The position of the first query, and one more than that of the last.
    const int position = k_len - q_len + first, end = position + count;
    if (starts) {
        starts += offset(sequence, q_len) + first;
    }
    const int begin = starts ? starts[0] / STEP * STEP : 0;
    copy_rows(queries, q + q_at, count, dim, q_cols);
    copy_rows(keys, k + offset(begin, kv_cols), end - begin, dim, kv_cols);
    end_copies();

    // Of this warp: its first row, that one's position, and where its document begins.
    const int top = warp() * 16 * M, lowest = position + top;
    const int oldest = starts && top < count ? starts[top] : 0;
    // Scores in units of ln 2. Largest so far, this lane's part of the sum, and its part of the output.
    const float scale = LOG2_E / sqrtf(static_cast<float>(dim));
    float highest[M][2], sums[M][2], outputs[M][COLUMNS][4] = {};
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        highest[i / 2][i % 2] = LOWEST;
        sums[i / 2][i % 2] = 0.0f;
    }
    for (int from = begin; from < end; from += STEP) {
        // Whether this warp has rows that see any of these keys.
        const bool seen = top < count && from < lowest + 16 * M && from + STEP > oldest;
        float scores[M][STEP / 8][4] = {};
        wait_copies<0>();
        __syncthreads();
        copy_rows(values, v + offset(sequence * k_len + from, v_cols), end - from, dim, v_cols);
        end_copies();
        if (seen) {
            multiply_rows<M, STEP, COLUMNS / 2>(scores, queries + top, keys);
        }
        wait_copies<0>();
        __syncthreads();
        if (from + STEP < end) {
            copy_rows(keys, k + offset(from + STEP, kv_cols), end - from - STEP, dim, kv_cols);
            end_copies();
        }
        if (!seen) {
            continue;
        }
        if (from + STEP - 1 > lowest || (starts && from < starts[min(top + 16 * M, count) - 1])) {
#pragma unroll
            for (int i = 0; i < 2 * M; ++i) {
                const int row = top + 8 * i + lane() / 4;
                const int document = starts ? starts[min(row, count - 1)] : 0;
                hide<STEP>(scores[i / 2], i % 2, document - from, position + row - from);
            }
        }
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float high = -infinity();
#pragma unroll
                for (int n = 0; n < STEP / 8; ++n) {
                    high = fmaxf(high, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
                }
                // Never infinite, so that a row that has seen nothing yet stays without weight.
                high = fmaxf(highest[m][half], scale * quad_max(high));
                const float correction = power_of_two(highest[m][half] - high);
                highest[m][half] = high;
                float sum = 0.0f;
#pragma unroll
                for (int i = 0; i < STEP / 4; ++i) {
                    float &score = scores[m][i / 2][2 * half + i % 2];
                    score = power_of_two(fmaf(scale, score, -high));
                    sum += score;
                }
                sums[m][half] = sums[m][half] * correction + sum;
#pragma unroll
                for (int i = 0; i < 2 * COLUMNS; ++i) {
                    outputs[m][i / 2][2 * half + i % 2] *= correction;
                }
            }
        }
        multiply_weights<M, STEP>(outputs, scores, values);
    }
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        const int m = i / 2, half = i % 2, row = top + 8 * i + lane() / 4;
        const float sum = quad_sum(sums[m][half]), factor = 1.0f / sum;
        if (row < count) {
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n) {
                if (n * CHUNK < dim) {
                    bf16 *to = y + q_at + offset(row, q_cols) + n * CHUNK + lane() % 4 * 2;
                    write_pair(to, factor * outputs[m][n][2 * half], factor * outputs[m][n][2 * half + 1]);
                }
            }
            if (lse && lane() % 4 == 0) {
                lse[offset(sequence * query + head, q_len) + first + row] = LN_2 * (highest[m][half] + log2f(sum));
            }
        }
    }
}
