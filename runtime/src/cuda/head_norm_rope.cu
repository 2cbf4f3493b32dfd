// Queries and keys before attention: each head of `x [rows, heads·dim]` normalised by its root mean square, rotated by
// its position, times its gain (null for none). `angles [positions, half, 2]` holds cosines and sines, computed in f64;
// row `i` is at position `start + i % len`. Halves, not pairs. A warp for each head of each row.
#include "rms_norm.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 4)
    head_norm_rope(const T *x, int heads, const float *angles, int half, const float *gain, T *y, int rows, int dim,
                   int len, int start) {
    for (int i = warp_of_grid(); i < rows * heads; i += warps_of_grid()) {
        const T *head = x + offset(i, dim);
        T *out = y + offset(i, dim);
        const float *turn = angles + offset(start + i / heads % len, 2 * half);
        const float factor = inverse_rms(head, dim) * (gain ? gain[i % heads] : 1.0f);
        for (int c = lane(); c < half; c += WARP) {
            const float a = factor * to_float(head[c]);
            const float b = factor * to_float(head[c + half]);
            const float cosine = turn[2 * c], sine = turn[2 * c + 1];
            out[c] = from_float<T>(a * cosine + b * sine);
            out[c + half] = from_float<T>(b * cosine - a * sine);
        }
        for (int c = 2 * half + lane(); c < dim; c += WARP) {
            out[c] = from_float<T>(factor * to_float(head[c]));
        }
    }
}

// The gradient of `x`, and of gains a part of each warp, `dgain [warps / heads, heads]` (null for none): their number is a
// multiple of that of heads, so that each warp has one head only. Turned back, `dy` is the gradient
// of `gain · x · r`, from which both follow.
template <typename T>
__global__ void __launch_bounds__(256, 4)
    head_norm_rope_backward(const T *x, int heads, const float *angles, int half, const float *gain, const T *dy, T *dx,
                            float *dgain, int rows, int dim, int len, int start) {
    float of_gain = 0.0f;
    for (int i = warp_of_grid(); i < rows * heads; i += warps_of_grid()) {
        const T *head = x + offset(i, dim), *grad = dy + offset(i, dim);
        T *out = dx + offset(i, dim);
        const float *turn = angles + offset(start + i / heads % len, 2 * half);
        const float r = inverse_rms(head, dim);
        // `Σ x ⊙ (dy turned back)`.
        float along = 0.0f;
        for (int c = lane(); c < half; c += WARP) {
            const float a = to_float(grad[c]), b = to_float(grad[c + half]);
            const float cosine = turn[2 * c], sine = turn[2 * c + 1];
            along += to_float(head[c]) * (a * cosine - b * sine) + to_float(head[c + half]) * (b * cosine + a * sine);
        }
        for (int c = 2 * half + lane(); c < dim; c += WARP) {
            along += to_float(head[c]) * to_float(grad[c]);
        }
        along = warp_sum(along) * r;
        of_gain += along;
        const float factor = r * (gain ? gain[i % heads] : 1.0f), pull = along * r / static_cast<float>(dim);
        for (int c = lane(); c < half; c += WARP) {
            const float a = to_float(grad[c]), b = to_float(grad[c + half]);
            const float cosine = turn[2 * c], sine = turn[2 * c + 1];
            out[c] = from_float<T>(factor * (a * cosine - b * sine - pull * to_float(head[c])));
            out[c + half] = from_float<T>(factor * (b * cosine + a * sine - pull * to_float(head[c + half])));
        }
        for (int c = 2 * half + lane(); c < dim; c += WARP) {
            out[c] = from_float<T>(factor * (to_float(grad[c]) - pull * to_float(head[c])));
        }
    }
    if (dgain && lane() == 0) {
        dgain[warp_of_grid()] = of_gain;
    }
}
