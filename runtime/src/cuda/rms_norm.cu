// Root mean square norm: `scale · x / sqrt(mean(x²) + eps)` over channels. A warp for each row.
#include "packs.cuh"
#include "rms_norm.cuh"

template <typename T, int N>
__global__ void __launch_bounds__(256, 4) rms_norm(const T *x, float scale, T *y, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        Pack<T, N> own[HELD];
        float squares = 0.0f;
        const auto add = [&](const Pack<T, N> &pack) { squares += sum_of_products(pack, pack); };
        each_held<N>(cols, [&](int j, int c) { own[j] = fetch<N>(x + at + c); });
        each_held<N>(cols, [&](int j, int) { add(own[j]); });
        each_beyond<N>(cols, [&](int c) { add(fetch<N>(x + at + c)); });
        const float factor = scale * inverse_root(warp_sum(squares), cols);
        each_held<N>(cols, [&](int j, int c) { put(y + at + c, scaled_pack(factor, own[j])); });
        each_beyond<N>(cols, [&](int c) { put(y + at + c, scaled_pack(factor, fetch<N>(x + at + c))); });
    }
}

// `scale · r · (dy − x · r² · mean(x · dy))` with `r` the inverse root mean square; with `keep` added to what is in `dx`.
template <typename T, int N>
__global__ void __launch_bounds__(256, 3)
    rms_norm_backward(const T *x, float scale, const T *dy, int keep, T *dx, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        const size_t at = offset(row, cols);
        Pack<T, N> own[HELD], grad[HELD];
        float squares = 0.0f, along = 0.0f;
        const auto add = [&](const Pack<T, N> &a, const Pack<T, N> &b) {
            squares += sum_of_products(a, a);
            along += sum_of_products(a, b);
        };
        each_held<N>(cols, [&](int j, int c) {
            own[j] = fetch<N>(x + at + c);
            grad[j] = fetch<N>(dy + at + c);
        });
        each_held<N>(cols, [&](int j, int) { add(own[j], grad[j]); });
        each_beyond<N>(cols, [&](int c) { add(fetch<N>(x + at + c), fetch<N>(dy + at + c)); });
        const float r = inverse_root(warp_sum(squares), cols);
        const float pull = warp_sum(along) * r * r / static_cast<float>(cols), size = scale * r;
        const auto end = [&](int c, const Pack<T, N> &a, const Pack<T, N> &b) {
            put_sum<N>(dx + at + c, keep, [&](int k) { return size * (b[k] - pull * a[k]); });
        };
        each_held<N>(cols, [&](int j, int c) { end(c, own[j], grad[j]); });
        each_beyond<N>(cols, [&](int c) { end(c, fetch<N>(x + at + c), fetch<N>(dy + at + c)); });
    }
}
