// The loss of each target, by an online softmax over tiles of the vocabulary: logits of all of it are never held.
//
// `state [rows, 3]` holds for each row the largest logit so far, the sum of exponentials below it, and the target's
// logit. A tile brings the products of `cols` tokens from `first` on; they are softcapped here (`cap` 0 for none).
// A warp for each row.
#include "softcap.cuh"
#include "storage.cuh"
#include "threads.cuh"

constexpr float LOWEST = -3.0e38f;

template <typename T>
__global__ void __launch_bounds__(256, 4)
    cross_entropy_tile(const T *products, float cap, const int *targets, float *state, int rows, int cols, int first) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const T *x = products + offset(row, cols);
        const int wanted = targets[row] - first;
        float highest = LOWEST, sum = 0.0f, target = 0.0f;
        for (int c = lane(); c < cols; c += WARP) {
            const float product = to_float(x[c]);
            const float logit = cap > 0.0f ? capped(product, cap) : product;
            const float high = fmaxf(highest, logit);
            sum = sum * expf(highest - high) + expf(logit - high);
            highest = high;
            target += c == wanted ? logit : 0.0f;
        }
        float *own = state + offset(row, 3);
        const float before = first > 0 ? own[0] : LOWEST;
        const float high = fmaxf(before, warp_max(highest));
        sum = warp_sum(sum * expf(highest - high));
        target = warp_sum(target);
        // All lanes have read what one of them is going to replace.
        if (lane() == 0) {
            own[0] = high;
            own[1] = sum + (first > 0 ? own[1] * expf(before - high) : 0.0f);
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
template <typename T>
__global__ void __launch_bounds__(256, 4)
    cross_entropy_tile_backward(const T *products, float cap, const int *targets, const float *state, const float *dnll,
                                T *dproducts, int rows, int cols, int first) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        const float *own = state + offset(row, 3);
        const int wanted = targets[row] - first;
        for (int c = lane(); c < cols; c += WARP) {
            const float product = to_float(products[at + c]);
            const float logit = cap > 0.0f ? capped(product, cap) : product;
            const float share = logit / cap;
            const float slope = cap > 0.0f ? 1.0f - share * share : 1.0f;
            const float chance = expf(logit - own[0]) / own[1];
            dproducts[at + c] = from_float<T>(dnll[row] * slope * (chance - (c == wanted ? 1.0f : 0.0f)));
        }
    }
}
