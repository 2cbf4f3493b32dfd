// Queries and keys before attention: each head of `x [rows, heads·dim]` normalised by its root mean square, rotated by
// its position, times its gain (null for none). `angles [positions, half, 2]` holds cosines and sines, computed in f64;
// row `i` is at position `start + i % len`. Halves, not pairs. A warp for each head of each row.
#include "head_norm_rope.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4)
    head_norm_rope(const T *x, int heads, const float *angles, int half, const float *gain, T *y, int rows, int dim,
                   int len, int start) {
    for (int i = warp_of_grid(); i < rows * heads; i += warps_of_grid()) {
        const float *turn = angles + offset(start + i / heads % len, 2 * half);
        turn_head(x + offset(i, dim), gain ? gain[i % heads] : 1.0f, turn, half, y + offset(i, dim), dim);
    }
}

// The gradient of `x`, and of gains a part of each warp, `dgain [warps / heads, heads]` (null for none): their number is a
// multiple of that of heads, so that each warp has one head only.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    head_norm_rope_backward(const T *x, int heads, const float *angles, int half, const float *gain, const T *dy, T *dx,
                            float *dgain, int rows, int dim, int len, int start) {
    float of_gain = 0.0f;
    for (int i = warp_of_grid(); i < rows * heads; i += warps_of_grid()) {
        const float *turn = angles + offset(start + i / heads % len, 2 * half);
        const size_t at = offset(i, dim);
        of_gain += turn_head_back(x + at, dy + at, gain ? gain[i % heads] : 1.0f, turn, half, dx + at, dim);
    }
    if (dgain && lane() == 0) {
        dgain[warp_of_grid()] = of_gain;
    }
}
