// AdamW with decoupled weight decay, of all tensors of a group at once: they lie one after the other.
//
// What changes from step to step is in memory, so that a recorded step can run again: `now` holds the learning rate over
// the first moment's correction, one over the root of the second's, and what weight decay keeps; `clip` the factor on
// gradients. `shadow` (null for none) gets the weights as kernels read them. Tensors of `each` elements may begin elsewhere in
// `gradient` and `shadow`, at `places`.
#include "packs.cuh"
#include "placed.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 3)
    adamw(float *w, const float *gradient, const int *places, int each, float *mean, float *square, T *shadow,
          const float *now, const float *clip, float mean_keep, float square_keep, float eps, int elements) {
    const float size = now[0], root = now[1], keep = now[2], factor = clip[0];
    each_element<N>(elements, [&](auto count, int i) {
        const size_t at = placed(places, i, each, 1);
        float own[count.of], g[count.of], m[count.of], v[count.of];
        fetch_floats(own, w + i);
        fetch_floats(g, gradient + at);
        fetch_floats(m, mean + i);
        fetch_floats(v, square + i);
#pragma unroll
        for (int k = 0; k < count.of; ++k) {
            const float grad = factor * g[k];
            m[k] = mean_keep * m[k] + (1.0f - mean_keep) * grad;
            v[k] = square_keep * v[k] + (1.0f - square_keep) * grad * grad;
            own[k] = own[k] * keep - size * m[k] / (sqrtf(v[k]) * root + eps);
        }
        put_floats(mean + i, m);
        put_floats(square + i, v);
        put_floats(w + i, own);
        if (shadow) {
            put(shadow + at, packed<T, count.of>([&](int k) { return own[k]; }));
        }
    });
}
