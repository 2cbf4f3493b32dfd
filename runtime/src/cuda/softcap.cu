// The bound on logits, `cap · tanh(x / cap)`.
#include "packs.cuh"
#include "softcap.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) softcap(const T *x, float cap, T *y, int elements) {
    const Cap by(cap);
    each_element<N>(elements, [&](auto count, int i) {
        const auto v = fetch<count.of>(x + i);
        put(y + i, packed<T, count.of>([&](int k) { return by.capped(v[k]); }));
    });
}

// The gradient, `(1 − tanh²(x / cap)) dy`.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) softcap_backward(const T *x, float cap, const T *dy, T *dx, int elements) {
    const Cap by(cap);
    each_element<N>(elements, [&](auto count, int i) {
        const auto v = fetch<count.of>(x + i), grad = fetch<count.of>(dy + i);
        put(dx + i, packed<T, count.of>([&](int k) { return by.slope(by.capped(v[k])) * grad[k]; }));
    });
}
