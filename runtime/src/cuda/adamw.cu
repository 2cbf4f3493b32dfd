// AdamW with decoupled weight decay, of all tensors of a group at once: they lie one after the other.
//
// What changes from step to step is in memory, so that a recorded step can run again: `now` holds the learning rate over
// the first moment's correction, one over the root of the second's, and what weight decay keeps; `clip` the factor on
// gradients. `shadow` (null for none) gets the weights as kernels read them. Tensors of `each` elements may begin elsewhere in
// `gradient` and `shadow`, at `places`.
#include "placed.cuh"
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4)
    adamw(float *w, const float *gradient, const int *places, int each, float *mean, float *square, T *shadow,
          const float *now, const float *clip, float mean_keep, float square_keep, float eps, int elements) {
    const float size = now[0], root = now[1], keep = now[2], factor = clip[0];
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        const size_t at = placed(places, i, each, 1);
        const float g = factor * gradient[at];
        const float m = mean_keep * mean[i] + (1.0f - mean_keep) * g;
        const float v = square_keep * square[i] + (1.0f - square_keep) * g * g;
        const float next = w[i] * keep - size * m / (sqrtf(v) * root + eps);
        mean[i] = m;
        square[i] = v;
        w[i] = next;
        if (shadow) {
            shadow[at] = from_float<T>(next);
        }
    }
}
