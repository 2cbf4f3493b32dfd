// The bound on logits, `cap · tanh(x / cap)`.
#include "softcap.cuh"
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) softcap(const T *x, float cap, T *y, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        y[i] = from_float<T>(capped(to_float(x[i]), cap));
    }
}

// The gradient, `(1 − tanh²(x / cap)) dy`.
template <typename T>
__global__ void __launch_bounds__(256, 4) softcap_backward(const T *x, float cap, const T *dy, T *dx, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        const float share = capped(to_float(x[i]), cap) / cap;
        dx[i] = from_float<T>((1.0f - share * share) * to_float(dy[i]));
    }
}
