// The two-lane residual: `keep · lane + post · y`, both single values where they lie.
#include "packs.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4)
    update_lane(const float *keep, const float *post, const T *lane, const T *y, T *out, int elements) {
    const float kept = *keep, added = *post;
    each_element<N>(elements, [&](auto count, int i) {
        const auto a = fetch<count.of>(lane + i), b = fetch<count.of>(y + i);
        put(out + i, packed<T, count.of>([&](int k) { return kept * a[k] + added * b[k]; }));
    });
}
