// The moving average of weights, and weights as kernels read them.
#include "packs.cuh"
#include "placed.cuh"

template <int N>
__global__ void __launch_bounds__(256, 4) ema(float *average, const float *w, float keep, int elements) {
    each_element<N>(elements, [&](auto count, int i) {
        const auto before = fetch<count.of>(average + i), own = fetch<count.of>(w + i);
        put(average + i, packed<float, count.of>([&](int k) { return keep * before[k] + (1.0f - keep) * own[k]; }));
    });
}

// Tensors of `each` elements may begin elsewhere in `y`, at `places`.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    convert(const float *x, const int *places, int each, T *y, int elements) {
    each_element<N>(elements, [&](auto count, int i) {
        float own[count.of];
        fetch_floats(own, x + i);
        put(y + placed(places, i, each, 1), packed<T, count.of>([&](int k) { return own[k]; }));
    });
}
