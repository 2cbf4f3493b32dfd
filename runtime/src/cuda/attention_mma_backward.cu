// Gradients of attention on tensor cores, as in `attention_backward.cu`; storage and `starts` as in `attention_mma.cu`. Nothing
// is added by two blocks, and each adds in one order.
#include "attention_mma.cuh"

// Queries or keys that arrive at once.
constexpr int STEP = 32;

// `Σ a ⊙ b` of a chunk of numbers in bf16.
__device__ inline float dot(const Chunk &a, const Chunk &b) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum += first_of(a.words[i]) * first_of(b.words[i]) + second_of(a.words[i]) * second_of(b.words[i]);
    }
    return sum;
}

// Writes this lane's part of rows, the first `rows` of them.
template <int M, int COLUMNS>
__device__ inline void write_rows(bf16 *to, const float (&sums)[M][COLUMNS][4], float factor, int rows, int dim, int cols) {
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        const int row = 8 * i + lane() / 4;
        if (row < rows) {
#pragma unroll
            for (int n = 0; n < COLUMNS; ++n) {
                if (n * CHUNK < dim) {
                    const float *pair = &sums[i / 2][n][2 * (i % 2)];
                    write_pair(to + offset(row, cols) + n * CHUNK + lane() % 4 * 2, factor * pair[0], factor * pair[1]);
                }
            }
        }
    }
}

// The gradient of queries, and each query's `Σ y ⊙ dy` for the other kernel. A block of four warps for a tile of queries.
template <int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, WIDTH > 64 ? 3 : 2)
    attention_mma_backward_queries(int query, int kv, int dim, const bf16 *q, const bf16 *k, const bf16 *v,
                                   const int *starts, const bf16 *y, const float *lse, const bf16 *dy, bf16 *dq,
                                   float *shift, int q_len, int k_len, int v_cols) {
    // As many rows as registers allow; keys arrive one step ahead where 48 KiB hold two.
    constexpr int M = WIDTH > 64 ? 1 : 2, ROWS = WARPS * 16 * M, COLUMNS = WIDTH / CHUNK, STAGES = WIDTH > 64 ? 1 : 2;
    constexpr int UNROLLED = WIDTH > 64 ? 2 : 4;
    SHARED(Chunk, queries, [ROWS][COLUMNS]);
    SHARED(Chunk, grads, [ROWS][COLUMNS]);
    SHARED(Chunk, keys, [STAGES][STEP][COLUMNS]);
    SHARED(Chunk, values, [STAGES][STEP][COLUMNS]);
    const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
    // Those with the most keys come first.
    const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * ROWS;
    const int count = min(ROWS, q_len - first);
    const int q_cols = query * dim, kv_cols = kv * dim;
    const size_t q_at = offset(sequence * q_len + first, q_cols) + head * dim;
    const size_t row_at = offset(sequence * query + head, q_len) + first;
    k += offset(sequence * k_len, kv_cols) + head / (query / kv) * dim;
    v += offset(sequence * k_len, v_cols) + head / (query / kv) * dim;
    const int position = k_len - q_len + first, end = position + count;
    if (starts) {
        starts += offset(sequence, q_len) + first;
    }
    const int begin = starts ? starts[0] / STEP * STEP : 0;
    const auto bring = [&](int from, int stage) {
        if (from < end) {
            copy_rows(keys[stage], k + offset(from, kv_cols), end - from, dim, kv_cols);
            copy_rows(values[stage], v + offset(from, v_cols), end - from, dim, v_cols);
            end_copies();
        }
    };
    copy_rows(queries, q + q_at, count, dim, q_cols);
    copy_rows(grads, dy + q_at, count, dim, q_cols);
    bring(begin, 0);

    const int top = warp() * 16 * M, lowest = position + top;
    const int oldest = starts && top < count ? starts[top] : 0;
    // A lane has a chunk of a row.
#pragma unroll 4
    for (int i = 0; i < 16 * M; i += WARP / COLUMNS) {
        const int row = top + i + lane() / COLUMNS, column = lane() % COLUMNS * CHUNK;
        const size_t at = q_at + offset(row, q_cols) + column;
        float along = 0.0f;
        if (row < count && column < dim) {
            along = dot(*reinterpret_cast<const Chunk *>(y + at), *reinterpret_cast<const Chunk *>(dy + at));
        }
        for (int apart = COLUMNS / 2; apart > 0; apart /= 2) {
            along += __shfl_xor_sync(ALL_LANES, along, apart);
        }
        if (row < count && column == 0) {
            shift[row_at + row] = along;
        }
    }
    __syncwarp();
    // Scores are in units of ln 2.
    const float scale = 1.0f / sqrtf(static_cast<float>(dim));
    float logs[M][2], shifts[M][2], sums[M][COLUMNS][4] = {};
#pragma unroll
    for (int i = 0; i < 2 * M; ++i) {
        const int row = top + 8 * i + lane() / 4;
        logs[i / 2][i % 2] = row < count ? LOG2_E * lse[row_at + row] : 0.0f;
        shifts[i / 2][i % 2] = row < count ? shift[row_at + row] : 0.0f;
    }
    int stage = 0;
    for (int from = begin; from < end; from += STEP, stage = (stage + 1) % STAGES) {
        wait_copies<0>();
        __syncthreads();
        if (STAGES > 1) {
            bring(from + STEP, (stage + 1) % STAGES);
        }
        // Whether this warp has rows that see any of these keys.
        if (top < count && from < lowest + 16 * M && from + STEP > oldest) {
            float scores[M][STEP / 8][4] = {}, alongs[M][STEP / 8][4] = {};
            multiply_rows<M, STEP, UNROLLED>(scores, queries + top, keys[stage]);
            multiply_rows<M, STEP, UNROLLED>(alongs, grads + top, values[stage]);
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
                for (int i = 0; i < STEP / 2; ++i) {
                    float &score = scores[m][i / 4][i % 4];
                    const float weight = power_of_two(fmaf(LOG2_E * scale, score, -logs[m][i / 2 % 2]));
                    score = weight * (alongs[m][i / 4][i % 4] - shifts[m][i / 2 % 2]);
                }
            }
            multiply_weights<M, STEP>(sums, scores, keys[stage]);
        }
        if (STAGES == 1) {
            __syncthreads();
            bring(from + STEP, 0);
        }
    }
    write_rows(dq + q_at + offset(top, q_cols), sums, scale, count - top, dim, q_cols);
}

// The gradients of keys and of values. A block of four warps for a tile of keys of one key/value head of one sequence; it goes
// through all queries that see them, head by head.
template <int WIDTH>
__global__ void __launch_bounds__(WARPS * WARP, 2)
    attention_mma_backward_keys(int query, int kv, int dim, const bf16 *q, const bf16 *k, const bf16 *v, const int *starts,
                                const float *lse, const bf16 *dy, const float *shift, bf16 *dk, bf16 *dv, int q_len,
                                int k_len, int v_cols) {
    constexpr int M = WIDTH > 64 ? 1 : 2, ROWS = WARPS * 16 * M, COLUMNS = WIDTH / CHUNK, STAGES = WIDTH > 64 ? 1 : 2;
    SHARED(Chunk, keys, [ROWS][COLUMNS]);
    SHARED(Chunk, values, [ROWS][COLUMNS]);
    SHARED(Chunk, queries, [STAGES][STEP][COLUMNS]);
    SHARED(Chunk, grads, [STAGES][STEP][COLUMNS]);
    const int head = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
    const int first = static_cast<int>(blockIdx.x) * ROWS, count = min(ROWS, k_len - first);
    const int q_cols = query * dim, kv_cols = kv * dim;
    const size_t kv_at = offset(sequence * k_len + first, kv_cols) + head * dim;
    if (starts) {
        starts += offset(sequence, q_len);
    }
    // The first query that sees a key of the tile, and one more than the last.
    const int before = k_len - q_len, start = max(0, first - before);
    const int end = end_of_readers(starts, start, q_len, first + count - 1);
    // Of the step that comes, a query for each lane. Where there is none, zeros take the place of its rows.
    float log = 0.0f, along = 0.0f;
    int document = 0;
    // The head of the group and the first query.
    int h = 0, from = start, stage = 0;
    q += offset(sequence * q_len, q_cols) + head * (query / kv) * dim;
    dy += offset(sequence * q_len, q_cols) + head * (query / kv) * dim;
    lse += offset(sequence * query + head * (query / kv), q_len);
    shift += offset(sequence * query + head * (query / kv), q_len);
    const auto bring = [&] {
        const int there = end - from;
        copy_rows(queries[stage], q + offset(from, q_cols) + h * dim, there, dim, q_cols);
        copy_rows(grads[stage], dy + offset(from, q_cols) + h * dim, there, dim, q_cols);
        end_copies();
        log = lane() < there ? LOG2_E * lse[h * q_len + from + lane()] : 0.0f;
        along = lane() < there ? shift[h * q_len + from + lane()] : 0.0f;
        document = starts ? starts[min(from + lane(), end - 1)] : 0;
    };
    copy_rows(keys, k + kv_at, count, dim, kv_cols);
    copy_rows(values, v + offset(sequence * k_len + first, v_cols) + head * dim, count, dim, v_cols);
    end_copies();
    if (start < end) {
        bring();
    }
    const int top = warp() * 16 * M, own = first + top;
    const float scale = 1.0f / sqrtf(static_cast<float>(dim));
    float key_sums[M][COLUMNS][4] = {}, value_sums[M][COLUMNS][4] = {};
    while (start < end && h < query / kv) {
        // What comes now, and where the next is.
        const float logs = log, shifts = along;
        const int documents = document, now = before + from, current = stage;
        from += STEP;
        if (from >= end) {
            from = start;
            ++h;
        }
        stage = (stage + 1) % STAGES;
        wait_copies<0>();
        __syncthreads();
        if (STAGES > 1 && h < query / kv) {
            bring();
        }
        const int oldest = __shfl_sync(ALL_LANES, documents, 0), newest = __shfl_sync(ALL_LANES, documents, STEP - 1);
        // Whether any of these queries sees a key of this warp.
        if (top < count && own < now + STEP && own + 16 * M > oldest) {
            float scores[M][STEP / 8][4] = {};
            multiply_rows<M, STEP, 2>(scores, keys + top, queries[current]);
#pragma unroll
            for (int i = 0; i < STEP / 4; ++i) {
                const float own_log = __shfl_sync(ALL_LANES, logs, i / 2 * 8 + lane() % 4 * 2 + i % 2);
#pragma unroll
                for (int m = 0; m < M; ++m) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        float &score = scores[m][i / 2][2 * half + i % 2];
                        score = power_of_two(fmaf(LOG2_E * scale, score, -own_log));
                    }
                }
            }
            if (own + 16 * M - 1 > now || own < newest) {
#pragma unroll
                for (int i = 0; i < STEP / 4; ++i) {
                    const int column = i / 2 * 8 + lane() % 4 * 2 + i % 2;
                    const int from_key = __shfl_sync(ALL_LANES, documents, column);
#pragma unroll
                    for (int j = 0; j < 2 * M; ++j) {
                        const int key = own + 8 * j + lane() / 4;
                        if (key > now + column || key < from_key) {
                            scores[j / 2][i / 2][j % 2 * 2 + i % 2] = 0.0f;
                        }
                    }
                }
            }
            multiply_weights<M, STEP>(value_sums, scores, grads[current]);
            float alongs[M][STEP / 8][4] = {};
            multiply_rows<M, STEP, 2>(alongs, values + top, grads[current]);
#pragma unroll
            for (int i = 0; i < STEP / 4; ++i) {
                const float own_shift = __shfl_sync(ALL_LANES, shifts, i / 2 * 8 + lane() % 4 * 2 + i % 2);
#pragma unroll
                for (int j = 0; j < 2 * M; ++j) {
                    scores[j / 2][i / 2][j % 2 * 2 + i % 2] *= alongs[j / 2][i / 2][j % 2 * 2 + i % 2] - own_shift;
                }
            }
            multiply_weights<M, STEP>(key_sums, scores, queries[current]);
        }
        if (STAGES == 1 && h < query / kv) {
            __syncthreads();
            bring();
        }
    }
    // Those of keys that no query sees.
    wait_copies<0>();
    write_rows(dk + kv_at + offset(top, kv_cols), key_sums, scale, count - top, dim, kv_cols);
    write_rows(dv + kv_at + offset(top, kv_cols), value_sums, 1.0f, count - top, dim, kv_cols);
}
