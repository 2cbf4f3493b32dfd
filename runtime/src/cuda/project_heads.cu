// Queries, keys and values of attention from their one product `x [rows, (query + 2 kv)·dim]`, whose rows hold them in this
// order: queries and keys as `head_norm_rope` makes them, queries with a gain; to values the value embedding
// `ve [rows, kv·dim]` is added, times `scale [1]` (null for none). Rows of `v` begin `v_cols` apart: it may be that part of the
// product. Of a row `used` heads are gone through: all, or queries and keys only.
//
// A warp has the same heads of each of its rows: one, of any width, where `L` is 0, and otherwise as many as `L` lanes each
// make, in which `half` is whole packs.
#include "head_norm_rope.cuh"
#include "heads.cuh"

// Rows that are read before one of them is used.
constexpr int AT_ONCE = 2;

template <int L>
__device__ constexpr int heads_of_warp() {
    return L > 0 ? WARP / L : 1;
}

// Turns a head, or turns it back with `sign` -1; `c` is the first channel of this lane.
template <int N>
__device__ inline void turn_lanes(float (&own)[N], const float *turn, int half, int c, float sign) {
    const bool first = c < half, turns = c < 2 * half;
    const int other = first ? lane() + half / N : turns ? lane() - half / N : lane();
    turn += 2 * (first ? c : c - half);
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        const float across[2] = {__shfl_sync(ALL_LANES, own[k], other), __shfl_sync(ALL_LANES, own[k + 1], other)};
        if (turns) {
            const Pack<float, 4> pair = fetch<4>(turn + 2 * k);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float cosine = pair[2 * i], sine = sign * pair[2 * i + 1];
                own[k + i] = first ? own[k + i] * cosine + across[i] * sine : own[k + i] * cosine - across[i] * sine;
            }
        }
    }
}

// Where a head begins in the first row of queries, keys or values.
template <typename P>
__device__ inline P *place(P *q, P *k, P *v, int query, int kv, int head, int dim) {
    return head < query ? q + head * dim : head < query + kv ? k + (head - query) * dim : v + (head - query - kv) * dim;
}

template <typename T, int L>
__global__ void __launch_bounds__(256, 4)
    project_heads(const T *x, int query, int kv, const float *angles, int half, const float *gain, const float *scale,
                  const T *ve, T *q, T *k, T *v, int v_cols, int used, int rows, int dim, int len, int start) {
    constexpr int OWN = heads_of_warp<L>();
    const int all = query + 2 * kv, groups = (used + OWN - 1) / OWN, first = warp_of_grid() % groups * OWN;
    const int apart = warps_of_grid() / groups;
    const float size = ve ? scale[0] : 0.0f;
    // The head of this lane, and where it goes.
    const int head = first + lane() / (WARP / OWN);
    T *const into = place(q, k, v, query, kv, head, dim);
    const int cols = head < query ? query * dim : head < query + kv ? kv * dim : v_cols;
    if constexpr (L == 0) {
        for (int row = warp_of_grid() / groups; row < rows; row += apart) {
            const T *from = x + offset(row * all + first, dim);
            T *to = into + offset(row, cols);
            if (first < query + kv) {
                const float *turn = angles + offset(start + row % len, 2 * half);
                turn_head(from, first < query ? gain[first] : 1.0f, turn, half, to, dim);
            } else {
                const size_t among = offset(row * kv + first - query - kv, dim);
                for (int c = lane(); c < dim; c += WARP) {
                    to[c] = from_float<T>(to_float(from[c]) + (ve ? size * to_float(ve[among + c]) : 0.0f));
                }
            }
        }
    } else {
        constexpr int N = numbers_of_lane<T>();
        const int c = lane() % L * N;
        const bool there = head < used, embeds = ve && there && head >= query + kv;
        const float by = head < query ? gain[head] : 1.0f;
        for (int top = warp_of_grid() / groups; top < rows; top += AT_ONCE * apart) {
            Pack<T, N> heads[AT_ONCE] = {}, more[AT_ONCE] = {};
#pragma unroll
            for (int j = 0; j < AT_ONCE; ++j) {
                const int row = top + j * apart;
                if (there && row < rows) {
                    heads[j] = fetch<N>(x + offset(row * all + head, dim) + c);
                }
                if (embeds && row < rows) {
                    more[j] = fetch<N>(ve + offset(row * kv + head - query - kv, dim) + c);
                }
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; ++j) {
                const int row = top + j * apart;
                if (row < rows) {
                    float own[N];
#pragma unroll
                    for (int i = 0; i < N; ++i) {
                        own[i] = heads[j][i] + (embeds ? size * more[j][i] : 0.0f);
                    }
                    if (first < query + kv) {
                        const float r = inverse_root(head_sum<L>(sum_of_products(heads[j], heads[j])), dim);
                        const float factor = head < query + kv ? r * by : 1.0f;
#pragma unroll
                        for (int i = 0; i < N; ++i) {
                            own[i] *= factor;
                        }
                        const float *turn = angles + offset(start + row % len, 2 * half);
                        turn_lanes(own, turn, head < query + kv ? half : 0, c, 1.0f);
                    }
                    if (there) {
                        put(into + offset(row, cols) + c, packed<T, N>([&](int i) { return own[i]; }));
                    }
                }
            }
        }
    }
}

// The gradient of `x`, and of the value embedding `dve` (null where there is none). Values have one from attention, and a
// `second` from what excludes them (null for none). Of gains `dgain [warps / groups, query]` and of the scale
// `dscale [warps]` get a part of each warp (null where they are not wanted).
template <typename T, int L>
__global__ void __launch_bounds__(256, 4)
    project_heads_backward(const T *x, int query, int kv, const float *angles, int half, const float *gain,
                           const float *scale, const T *ve, const T *dq, const T *dk, const T *dv, const T *second, T *dx,
                           T *dve, float *dgain, float *dscale, int rows, int dim, int len, int start) {
    constexpr int OWN = heads_of_warp<L>();
    const int all = query + 2 * kv, groups = (all + OWN - 1) / OWN, first = warp_of_grid() % groups * OWN;
    const int apart = warps_of_grid() / groups;
    // The head of this lane, and where its gradient is.
    const int head = first + lane() / (WARP / OWN), cols = (head < query ? query : kv) * dim;
    const T *const from = place(dq, dk, dv, query, kv, head, dim);
    const float size = ve ? scale[0] : 0.0f, by = head < query ? gain[head] : 1.0f;
    float of_gain = 0.0f, of_scale = 0.0f;
    if constexpr (L == 0) {
        for (int row = warp_of_grid() / groups; row < rows; row += apart) {
            const size_t at = offset(row * all + head, dim);
            const T *grad = from + offset(row, cols);
            if (head < query + kv) {
                const float *turn = angles + offset(start + row % len, 2 * half);
                of_gain += turn_head_back(x + at, grad, by, turn, half, dx + at, dim);
            } else {
                const size_t among = offset(row * kv + head - query - kv, dim);
#pragma unroll 1
                for (int c = lane(); c < dim; c += WARP) {
                    const float sum = to_float(grad[c]) + (second ? to_float(second[among + c]) : 0.0f);
                    dx[at + c] = from_float<T>(sum);
                    if (ve) {
                        of_scale += sum * to_float(ve[among + c]);
                        dve[among + c] = from_float<T>(size * sum);
                    }
                }
            }
        }
    } else {
        constexpr int N = numbers_of_lane<T>();
        const int c = lane() % L * N;
        const bool there = head < all, is_value = there && head >= query + kv;
        for (int row = warp_of_grid() / groups; row < rows; row += apart) {
            const size_t at = offset(row * all + head, dim) + c, among = offset(row * kv + head - query - kv, dim) + c;
            // Of values, whose own numbers are not needed, the second gradient.
            Pack<T, N> own = {}, grad = {};
            if (there) {
                grad = fetch<N>(from + offset(row, cols) + c);
                if (!is_value) {
                    own = fetch<N>(x + at);
                } else if (second) {
                    own = fetch<N>(second + among);
                }
            }
            float out[N];
#pragma unroll
            for (int i = 0; i < N; ++i) {
                out[i] = grad[i] + (is_value ? own[i] : 0.0f);
            }
            if (first < query + kv) {
                turn_lanes(out, angles + offset(start + row % len, 2 * half), is_value ? 0 : half, c, -1.0f);
                float along = 0.0f;
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    along += own[i] * out[i];
                }
                const float r = inverse_root(head_sum<L>(sum_of_products(own, own)), dim);
                along = head_sum<L>(along) * r;
                const float pull = along * r / static_cast<float>(dim);
                if (!is_value) {
                    of_gain += along;
#pragma unroll
                    for (int i = 0; i < N; ++i) {
                        out[i] = r * by * (out[i] - pull * own[i]);
                    }
                }
            }
            if (ve && is_value) {
                const Pack<T, N> embedded = fetch<N>(ve + among);
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    of_scale += out[i] * embedded[i];
                }
                put(dve + among, packed<T, N>([&](int i) { return size * out[i]; }));
            }
            if (there) {
                put(dx + at, packed<T, N>([&](int i) { return out[i]; }));
            }
        }
    }
    if (dgain && head < query && lane() % (WARP / OWN) == 0) {
        dgain[offset(warp_of_grid() / groups, query) + head] = of_gain;
    }
    of_scale = warp_sum(of_scale);
    if (dscale && lane() == 0) {
        dscale[warp_of_grid()] = of_scale;
    }
}
