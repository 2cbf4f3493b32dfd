// The two-lane residual: `keep · lane + post · y`, both single values where they lie.
#include "storage.cuh"
#include "threads.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4)
    update_lane(const float *keep, const float *post, const T *lane, const T *y, T *out, int elements) {
    for (int i = thread_of_grid(); i < elements; i += threads_of_grid()) {
        out[i] = from_float<T>(*keep * to_float(lane[i]) + *post * to_float(y[i]));
    }
}
