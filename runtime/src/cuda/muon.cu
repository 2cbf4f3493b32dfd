// What Muon does around the orthogonalisation, of a stack of matrices of one shape that lie one after the other; what
// changes from step to step is in memory, as in `adamw.cu`: `now` holds the momentum, the learning rate, and what weight
// decay keeps. The matrices may lie elsewhere among gradients and shadows, at `places` (null where they do not).
#include "packs.cuh"
#include "placed.cuh"

// Muon's momentum `M ← μM + G`, `U = G + μM`, or as an average (NorMuon's) `M ← M + (1 − μ)(G − M)`, `U = G + μ(M − G)`;
// with `equal` rows of `U` have norm 1 then. A warp for each row.
template <typename T, int N>
__global__ void __launch_bounds__(256, 3) muon_direction(const float *gradient, const int *places, float *momentum,
                                                         const float *now, const float *clip, int averaged, int equal,
                                                         T *update, int stack, int rows, int cols) {
    const float mu = now[0], factor = clip[0];
    for (int row = warp_of_grid(); row < stack * rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        const float *grad = gradient + placed(places, row, rows, cols);
        float held[HELD][N], squares = 0.0f;
        const auto direction = [&](float g, float m) { return averaged ? g + mu * (m - g) : g + mu * m; };
        // Goes on with the momentum; `u` gets the direction.
        const auto go_on = [&](int c, float(&u)[N]) {
            float m[N];
            fetch_floats(u, grad + c);
            fetch_floats(m, momentum + at + c);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const float g = factor * u[k];
                m[k] = averaged ? m[k] + (1.0f - mu) * (g - m[k]) : mu * m[k] + g;
                u[k] = direction(g, m[k]);
                squares += u[k] * u[k];
            }
            put_floats(momentum + at + c, m);
        };
        each_held<N>(cols, [&](int j, int c) { go_on(c, held[j]); });
        each_beyond<N>(cols, [&](int c) {
            float u[N];
            go_on(c, u);
        });
        const float size = equal ? 1.0f / fmaxf(sqrtf(warp_sum(squares)), 1e-7f) : 1.0f;
        each_held<N>(cols, [&](int j, int c) {
            put(update + at + c, packed<T, N>([&](int k) { return size * held[j][k]; }));
        });
        each_beyond<N>(cols, [&](int c) {
            float g[N], m[N];
            fetch_floats(g, grad + c);
            fetch_floats(m, momentum + at + c);
            put(update + at + c, packed<T, N>([&](int k) { return size * direction(factor * g[k], m[k]); }));
        });
    }
}

// Divides each of a stack of `gridDim.z` by `scale` times its norm, and a little more. `parts [gridDim.z, count]` are of the
// norms' squares.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    muon_normalize(T *x, const float *parts, int count, float scale, float epsilon, int elements) {
    x += offset(blockIdx.z, elements);
    parts += offset(blockIdx.z, count);
    float sum = 0.0f;
    for (int i = lane(); i < count; i += WARP) {
        sum += parts[i];
    }
    const float factor = 1.0f / (scale * sqrtf(warp_sum(sum)) + epsilon);
    each_element<N>(elements, [&](auto few, int i) { put(x + i, scaled_pack(factor, fetch<few.of>(x + i))); });
}

// `W ← W · keep − lr · height · U`; cautious, a weight decays only where `U ⊙ W ≥ 0`. `factors` (null for none) are on rows
// (`by_row`) or columns of each matrix of the stack `[stack, rows, cols]`. `shadow` (null for none) gets the weights as
// kernels read them.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    muon_apply(float *w, const T *update, const float *factors, int by_row, T *shadow, const int *places,
               const float *now, float height, int cautious, int stack, int rows, int cols) {
    const float size = now[1] * height, keep = now[2];
    for (int row = warp_of_grid(); row < stack * rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols), elsewhere = placed(places, row, rows, cols);
        const int matrix = row / rows;
        const float of_row = factors && by_row ? factors[row] : 1.0f;
        for (int c = lane() * N; c < cols; c += WARP * N) {
            float own[N], factor[N];
            const Pack<T, N> u = fetch<N>(update + at + c);
            fetch_floats(own, w + at + c);
            if (factors && !by_row) {
                fetch_floats(factor, factors + offset(matrix, cols) + c);
            }
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const float moved = (factors && !by_row ? factor[k] : of_row) * u[k];
                const float kept = cautious && moved * own[k] < 0.0f ? own[k] : own[k] * keep;
                own[k] = kept - size * moved;
            }
            put_floats(w + at + c, own);
            if (shadow) {
                put(shadow + elsewhere + c, packed<T, N>([&](int k) { return own[k]; }));
            }
        }
    }
}
