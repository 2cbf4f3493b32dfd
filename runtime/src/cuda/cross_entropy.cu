// The loss of each target, by an online softmax over tiles of the vocabulary: logits of all of it are never held.
//
// `state [rows, 3]` holds for each row the largest logit so far, the sum of exponentials below it, and the target's
// logit. A tile brings the products of `cols` tokens from `first` on; they are softcapped here (`cap` 0 for none).
// A warp for each row.
#include "packs.cuh"
#include "softcap.cuh"

constexpr float LOWEST = -3.0e38f;

// `e^x`.
__device__ inline float power_of_e(float x) {
    return power_of_two(LOG2_E * x);
}

template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    cross_entropy_tile(const T *products, float cap, const int *targets, float *state, int rows, int cols, int first) {
    const Cap by(cap);
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const T *x = products + offset(row, cols);
        const int wanted = targets[row] - first;
        float highest = LOWEST, sum = 0.0f;
        for (int start = 0; start < cols; start += HELD * WARP * N) {
            Pack<T, N> own[HELD];
            each_held<N>(cols - start, [&](int j, int c) { own[j] = fetch<N>(x + start + c); });
            each_held<N>(cols - start, [&](int j, int) {
                float logits[N], high = highest;
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    logits[k] = by.capped(own[j][k]);
                    high = fmaxf(high, logits[k]);
                }
                sum *= power_of_e(highest - high);
#pragma unroll
                for (int k = 0; k < N; ++k) {
                    sum += power_of_e(logits[k] - high);
                }
                highest = high;
            });
        }
        float *own = state + offset(row, 3);
        const float before = first > 0 ? own[0] : LOWEST;
        const float high = fmaxf(before, warp_max(highest));
        sum = warp_sum(sum * power_of_e(highest - high));
        const float target = wanted >= 0 && wanted < cols ? by.capped(to_float(x[wanted])) : 0.0f;
        // All lanes have read what one of them is going to replace.
        if (lane() == 0) {
            own[0] = high;
            own[1] = sum + (first > 0 ? own[1] * power_of_e(before - high) : 0.0f);
            own[2] = target + (first > 0 ? own[2] : 0.0f);
        }
    }
}

// Nats of each row after all tiles.
__global__ void __launch_bounds__(256, 4) cross_entropy_end(const float *state, float *nll, int rows) {
    for (int row = thread_of_grid(); row < rows; row += threads_of_grid()) {
        const float *own = state + offset(row, 3);
        nll[row] = logf(own[1]) + own[0] - own[2];
    }
}

// The gradient of a tile of products, after all tiles went forward: `dnll (softmax − target)` times the slope of the cap.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    cross_entropy_tile_backward(const T *products, float cap, const int *targets, const float *state, const float *dnll,
                                T *dproducts, int rows, int cols, int first) {
    const Cap by(cap);
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const T *x = products + offset(row, cols);
        T *dx = dproducts + offset(row, cols);
        const float *own = state + offset(row, 3);
        const float highest = own[0], size = dnll[row], share = size / own[1];
        const int wanted = targets[row] - first;
        const auto without_target = [&](float product) {
            const float logit = by.capped(product);
            return by.slope(logit) * share * power_of_e(logit - highest);
        };
        for (int start = 0; start < cols; start += HELD * WARP * N) {
            Pack<T, N> packs[HELD];
            each_held<N>(cols - start, [&](int j, int c) { packs[j] = fetch<N>(x + start + c); });
            each_held<N>(cols - start, [&](int j, int c) {
                put(dx + start + c, packed<T, N>([&](int k) { return without_target(packs[j][k]); }));
            });
        }
        // The lane that wrote the target's writes it again.
        if (wanted >= 0 && wanted < cols && wanted / N % WARP == lane()) {
            const float product = to_float(x[wanted]);
            dx[wanted] = from_float<T>(without_target(product) - size * by.slope(by.capped(product)));
        }
    }
}
