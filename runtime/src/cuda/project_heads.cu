// Queries, keys and values of attention from their one product `x [rows, (query + 2 kv)·dim]`, whose rows hold them in this
// order: queries and keys as `head_norm_rope` makes them, queries with a gain; to values the value embedding
// `ve [rows, kv·dim]` is added, times `scale [1]` (null for none).
//
// A warp has the same heads of each of its rows. `V` is the number of neighbouring channels that a lane has of a head of
// `32 V`, and divides `half`; 0 is for heads of any width.
#include "head_norm_rope.cuh"
#include "neighbours.cuh"

// Heads of a warp: it waits for all of their memory together.
template <int V>
__device__ constexpr int heads_of_warp() {
    return V > 0 ? 8 / V : 1;
}

// Turns a head of which a lane has `V` neighbouring channels; back, with `sign` -1.
template <int V>
__device__ inline void turn_lanes(float (&head)[V], const float *turn, int half, float sign) {
    const int c = V * lane(), apart = half / V;
    const bool first = c < half, turns = c < 2 * half;
    const int other = first ? lane() + apart : turns ? lane() - apart : lane();
    const int pair = first ? c : c - half;
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float across = __shfl_sync(ALL_LANES, head[i], other);
        if (turns) {
            const float cosine = turn[2 * (pair + i)], sine = sign * turn[2 * (pair + i) + 1];
            head[i] = first ? head[i] * cosine + across * sine : head[i] * cosine - across * sine;
        }
    }
}

// The place of a head of a row among queries, keys or values.
template <typename P>
__device__ inline P *place(P *q, P *k, P *v, int query, int kv, int row, int head, int dim) {
    if (head < query) {
        return q + offset(row * query + head, dim);
    }
    return head < query + kv ? k + offset(row * kv + head - query, dim) : v + offset(row * kv + head - query - kv, dim);
}

template <typename T, int V>
__global__ void __launch_bounds__(256, 4)
    project_heads(const T *x, int query, int kv, const float *angles, int half, const float *gain, const float *scale,
                  const T *ve, T *q, T *k, T *v, int rows, int dim, int len, int start) {
    constexpr int OWN = heads_of_warp<V>();
    const int all = query + 2 * kv, groups = (all + OWN - 1) / OWN, first = warp_of_grid() % groups * OWN;
    const float size = ve ? scale[0] : 0.0f;
    for (int row = warp_of_grid() / groups; row < rows; row += warps_of_grid() / groups) {
        const float *turn = angles + offset(start + row % len, 2 * half);
        const T *from = x + offset(row * all + first, dim);
        if constexpr (V == 0) {
            T *to = place(q, k, v, query, kv, row, first, dim);
            if (first < query + kv) {
                turn_head(from, first < query ? gain[first] : 1.0f, turn, half, to, dim);
            } else {
                const size_t among = offset(row * kv + first - query - kv, dim);
                for (int c = lane(); c < dim; c += WARP) {
                    to[c] = from_float<T>(to_float(from[c]) + (ve ? size * to_float(ve[among + c]) : 0.0f));
                }
            }
        } else {
            Neighbours<T, V> heads[OWN] = {};
#pragma unroll
            for (int j = 0; j < OWN; ++j) {
                if (first + j < all) {
                    heads[j] = fetch_neighbours<V>(from + offset(j, dim) + V * lane());
                }
            }
#pragma unroll
            for (int j = 0; j < OWN; ++j) {
                const int head = first + j;
                if (head < all) {
                    float own[V], squares = 0.0f;
#pragma unroll
                    for (int i = 0; i < V; ++i) {
                        own[i] = to_float(heads[j].of[i]);
                        squares += own[i] * own[i];
                    }
                    if (head < query + kv) {
                        const float r = inverse_root(warp_sum(squares), dim);
                        const float factor = r * (head < query ? gain[head] : 1.0f);
#pragma unroll
                        for (int i = 0; i < V; ++i) {
                            own[i] *= factor;
                        }
                        turn_lanes(own, turn, half, 1.0f);
                    } else if (ve) {
                        const Neighbours<T, V> more =
                            fetch_neighbours<V>(ve + offset(row * kv + head - query - kv, dim) + V * lane());
#pragma unroll
                        for (int i = 0; i < V; ++i) {
                            own[i] += size * to_float(more.of[i]);
                        }
                    }
                    put_neighbours<V>(place(q, k, v, query, kv, row, head, dim) + V * lane(), own);
                }
            }
        }
    }
}

// The gradient of `x`, and of the value embedding `dve` (null where there is none). Values have one from attention, and a
// `second` from what excludes them (null for none). Of gains `dgain [warps / groups, query]` and of the scale
// `dscale [warps]` get a part of each warp (null where they are not wanted).
template <typename T, int V>
__global__ void __launch_bounds__(256, 4)
    project_heads_backward(const T *x, int query, int kv, const float *angles, int half, const float *gain,
                           const float *scale, const T *ve, const T *dq, const T *dk, const T *dv, const T *second, T *dx,
                           T *dve, float *dgain, float *dscale, int rows, int dim, int len, int start) {
    constexpr int OWN = heads_of_warp<V>();
    const int all = query + 2 * kv, groups = (all + OWN - 1) / OWN, first = warp_of_grid() % groups * OWN;
    const float size = ve ? scale[0] : 0.0f;
    float of_gain[OWN] = {}, of_scale = 0.0f;
    for (int row = warp_of_grid() / groups; row < rows; row += warps_of_grid() / groups) {
        const float *turn = angles + offset(start + row % len, 2 * half);
        const size_t at = offset(row * all + first, dim);
        if constexpr (V == 0) {
            const T *grad = place(dq, dk, dv, query, kv, row, first, dim);
            if (first < query + kv) {
                const float by = first < query ? gain[first] : 1.0f;
                of_gain[0] += turn_head_back(x + at, grad, by, turn, half, dx + at, dim);
            } else {
                const size_t among = offset(row * kv + first - query - kv, dim);
                for (int c = lane(); c < dim; c += WARP) {
                    const float sum = to_float(grad[c]) + (second ? to_float(second[among + c]) : 0.0f);
                    dx[at + c] = from_float<T>(sum);
                    if (ve) {
                        of_scale += sum * to_float(ve[among + c]);
                        dve[among + c] = from_float<T>(size * sum);
                    }
                }
            }
        } else {
            Neighbours<T, V> heads[OWN] = {}, grads[OWN] = {};
#pragma unroll
            for (int j = 0; j < OWN; ++j) {
                if (first + j < all) {
                    heads[j] = fetch_neighbours<V>(x + at + offset(j, dim) + V * lane());
                    grads[j] = fetch_neighbours<V>(place(dq, dk, dv, query, kv, row, first + j, dim) + V * lane());
                }
            }
#pragma unroll
            for (int j = 0; j < OWN; ++j) {
                const int head = first + j;
                if (head < all) {
                    float own[V], out[V], squares = 0.0f;
#pragma unroll
                    for (int i = 0; i < V; ++i) {
                        own[i] = to_float(heads[j].of[i]);
                        out[i] = to_float(grads[j].of[i]);
                        squares += own[i] * own[i];
                    }
                    if (head < query + kv) {
                        turn_lanes(out, turn, half, -1.0f);
                        float along = 0.0f;
#pragma unroll
                        for (int i = 0; i < V; ++i) {
                            along += own[i] * out[i];
                        }
                        const float r = inverse_root(warp_sum(squares), dim);
                        along = warp_sum(along) * r;
                        of_gain[j] += along;
                        const float factor = r * (head < query ? gain[head] : 1.0f);
                        const float pull = along * r / static_cast<float>(dim);
#pragma unroll
                        for (int i = 0; i < V; ++i) {
                            out[i] = factor * (out[i] - pull * own[i]);
                        }
                    } else {
                        const size_t among = offset(row * kv + head - query - kv, dim) + V * lane();
                        if (second) {
                            const Neighbours<T, V> more = fetch_neighbours<V>(second + among);
#pragma unroll
                            for (int i = 0; i < V; ++i) {
                                out[i] += to_float(more.of[i]);
                            }
                        }
                        if (ve) {
                            const Neighbours<T, V> embedded = fetch_neighbours<V>(ve + among);
                            float scaled[V];
#pragma unroll
                            for (int i = 0; i < V; ++i) {
                                of_scale += out[i] * to_float(embedded.of[i]);
                                scaled[i] = size * out[i];
                            }
                            put_neighbours<V>(dve + among, scaled);
                        }
                    }
                    put_neighbours<V>(dx + at + offset(j, dim) + V * lane(), out);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < OWN; ++j) {
        if (dgain && lane() == 0 && first + j < query) {
            dgain[offset(warp_of_grid() / groups, query) + first + j] = of_gain[j];
        }
    }
    of_scale = warp_sum(of_scale);
    if (dscale && lane() == 0) {
        dscale[warp_of_grid()] = of_scale;
    }
}
