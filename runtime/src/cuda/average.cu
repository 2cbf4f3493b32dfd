// Two lanes to one: `(a + b) / 2`.
#include "packs.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) average(const T *a, const T *b, T *y, int elements) {
    each_element<N>(elements, [&](auto count, int i) {
        const auto own = fetch<count.of>(a + i), other = fetch<count.of>(b + i);
        put(y + i, packed<T, count.of>([&](int k) { return 0.5f * (own[k] + other[k]); }));
    });
}

// Two gradients to one: `y + x` in the place of `y`.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) add_to(const T *x, T *y, int elements) {
    each_element<N>(elements, [&](auto count, int i) {
        const auto own = fetch<count.of>(x + i), before = fetch<count.of>(y + i);
        put(y + i, packed<T, count.of>([&](int k) { return before[k] + own[k]; }));
    });
}
