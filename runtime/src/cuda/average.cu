// Two lanes to one: `(a + b) / 2`.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4) average(const T *a, const T *b, T *y, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        y[i] = from_float<T>(0.5f * (to_float(a[i]) + to_float(b[i])));
    }
}

// Two gradients to one: `y + x` in the place of `y`.
template <typename T>
__global__ void __launch_bounds__(256, 4) add_to(const T *x, T *y, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        y[i] = from_float<T>(to_float(y[i]) + to_float(x[i]));
    }
}
