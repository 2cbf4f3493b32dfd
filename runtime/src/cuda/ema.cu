// The moving average of weights, and weights as kernels read them.
#include "placed.cuh"
#include "storage.cuh"
#include "threads.cuh"

__global__ void __launch_bounds__(256, 4) ema(float *average, const float *w, float keep, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        average[i] = keep * average[i] + (1.0f - keep) * w[i];
    }
}

// Tensors of `each` elements may begin elsewhere in `y`, at `places`.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    convert(const float *x, const int *places, int each, T *y, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        y[placed(places, i, each, 1)] = from_float<T>(x[i]);
    }
}
