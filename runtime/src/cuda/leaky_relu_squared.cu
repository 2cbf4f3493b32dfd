// The MLP's activation, `leaky_relu(x, 0.5)²`.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) leaky_relu_squared(const T *x, T *y, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        const float v = to_float(x[i]);
        const float leaky = v > 0.0f ? v : 0.5f * v;
        y[i] = from_float<T>(leaky * leaky);
    }
}

template <typename T>
__global__ void __launch_bounds__(256, 4) leaky_relu_squared_backward(const T *x, const T *dy, T *dx, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        const float v = to_float(x[i]);
        // Twice the leaky value times its slope.
        dx[i] = from_float<T>((v > 0.0f ? 2.0f : 0.5f) * v * to_float(dy[i]));
    }
}
