// The MLP's activation, `leaky_relu(x, 0.5)²`.
#include "packs.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) leaky_relu_squared(const T *x, T *y, int elements) {
    each_element<N>(elements, [&](auto count, int i) {
        const auto v = fetch<count.of>(x + i);
        put(y + i, packed<T, count.of>([&](int k) {
                const float leaky = v[k] > 0.0f ? v[k] : 0.5f * v[k];
                return leaky * leaky;
            }));
    });
}

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) leaky_relu_squared_backward(const T *x, const T *dy, T *dx, int elements) {
    each_element<N>(elements, [&](auto count, int i) {
        const auto v = fetch<count.of>(x + i), grad = fetch<count.of>(dy + i);
        // Twice the leaky value times its slope.
        put(dx + i, packed<T, count.of>([&](int k) { return (v[k] > 0.0f ? 2.0f : 0.5f) * v[k] * grad[k]; }));
    });
}
