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
