// What Muon does around the orthogonalisation, of a stack of matrices of one shape that lie one after the other; what
// changes from step to step is in memory, as in `adamw.cu`: `now` holds the momentum, the learning rate, and what weight
// decay keeps. The matrices may lie elsewhere among gradients and shadows, at `places` (null where they do not).
#include "placed.cuh"
#include "storage.cuh"
#include "threads.cuh"

// Muon's momentum `M ← μM + G`, `U = G + μM`, or as an average (NorMuon's) `M ← M + (1 − μ)(G − M)`, `U = G + μ(M − G)`;
// with `equal` rows of `U` have norm 1 then. A warp for each row.
template <typename T>
__global__ void __launch_bounds__(256, 4) muon_direction(const float *gradient, const int *places, float *momentum,
                                                         const float *now, const float *clip, int averaged, int equal,
                                                         T *update, int stack, int rows, int cols) {
    const float mu = now[0], factor = clip[0];
    for (int row = warp_of_grid(); row < stack * rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        const float *grad = gradient + placed(places, row, rows, cols);
        float squares = 0.0f;
        for (int c = lane(); c < cols; c += WARP) {
            const float g = factor * grad[c], before = momentum[at + c];
            const float m = averaged ? before + (1.0f - mu) * (g - before) : mu * before + g;
            const float u = averaged ? g + mu * (m - g) : g + mu * m;
            momentum[at + c] = m;
            squares += u * u;
        }
        const float size = equal ? 1.0f / fmaxf(sqrtf(warp_sum(squares)), 1e-7f) : 1.0f;
        for (int c = lane(); c < cols; c += WARP) {
            const float g = factor * grad[c], m = momentum[at + c];
            update[at + c] = from_float<T>(size * (averaged ? g + mu * (m - g) : g + mu * m));
        }
    }
}

// Divides each of a stack of `gridDim.z` by `scale` times its norm, and a little more. `parts [gridDim.z, count]` are of the
// norms' squares.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    muon_normalize(T *x, const float *parts, int count, float scale, float epsilon, int elements) {
    x += offset(blockIdx.z, elements);
    parts += offset(blockIdx.z, count);
    float sum = 0.0f;
    for (int i = 0; i < count; ++i) {
        sum += parts[i];
    }
    const float factor = 1.0f / (scale * sqrtf(sum) + epsilon);
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        x[i] = from_float<T>(factor * to_float(x[i]));
    }
}

// `W ← W · keep − lr · height · U`; cautious, a weight decays only where `U ⊙ W ≥ 0`. `factors` (null for none) are on rows
// (`by_row`) or columns of each matrix of the stack `[stack, rows, cols]`. `shadow` (null for none) gets the weights as
// kernels read them.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    muon_apply(float *w, const T *update, const float *factors, int by_row, T *shadow, const int *places,
               const float *now, float height, int cautious, int stack, int rows, int cols) {
    const float size = now[1] * height, keep = now[2];
    for (int row = warp_of_grid(); row < stack * rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols), elsewhere = placed(places, row, rows, cols);
        const int matrix = row / rows;
        for (int c = lane(); c < cols; c += WARP) {
            const float factor = !factors ? 1.0f : by_row ? factors[row] : factors[offset(matrix, cols) + c];
            const float u = factor * to_float(update[at + c]), before = w[at + c];
            const float kept = cautious && u * before < 0.0f ? before : before * keep;
            const float next = kept - size * u;
            w[at + c] = next;
            if (shadow) {
                shadow[elsewhere + c] = from_float<T>(next);
            }
        }
    }
}
