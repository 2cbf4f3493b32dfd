// NorMuon's second moment, which evens out the sizes of an orthogonalised update's rows, or of its columns where it is wide;
// of a stack of matrices.
#include "channel_sums.cuh"

// Sums of squares of rows. A warp for each.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) normuon_rows(const T *update, float *sums, int rows, int cols) {
    for (int row = warp_of_grid(); row < rows; row += warps_of_grid()) {
        float sum = 0.0f;
        for (int c = lane() * N; c < cols; c += WARP * N) {
            const Pack<T, N> u = fetch<N>(update + offset(row, cols) + c);
            sum += sum_of_products(u, u);
        }
        sum = warp_sum(sum);
        if (lane() == 0) {
            sums[row] = sum;
        }
    }
}

// The same of columns, `sums [gridDim.z, C]`. A lane for each pack of them, and a warp for each of the rows.
template <typename T, int N>
__global__ void __launch_bounds__(256, 4) normuon_columns(const T *update, float *sums, int rows, int cols) {
    const int c = channel<N>();
    update += offset(static_cast<int>(blockIdx.z), rows) * cols;
    float own[N] = {};
    if (c < cols) {
        Pack<T, N> u[ROWS];
        each_row<ROWS>(
            rows, [&](int i, int row) { u[i] = fetch<N>(update + offset(row, cols) + c); },
            [&](int i, int) { add_products(own, u[i], u[i]); });
    }
    put_channel_sums(own, sums + offset(static_cast<int>(blockIdx.z), cols), 1, cols);
}

// Moments `v ← v + (1 − beta)(sum / n − v)`, and of each row or column the factor `1 / sqrt(v)`, times what leaves the whole
// matrix's norm as it was; it takes the place of the sum. A block for each matrix.
__global__ void __launch_bounds__(256, 4) normuon_factors(float *sums, float *moments, float beta, float n, int count) {
    SHARED(float, parts, [16]);
    float *own = sums + offset(blockIdx.x, count), *moment = moments + offset(blockIdx.x, count);
    float before = 0.0f, after = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
        const float sum = own[i], v = moment[i] + (1.0f - beta) * (sum / n - moment[i]);
        moment[i] = v;
        before += sum;
        after += sum / fmaxf(v, 1e-10f);
    }
    before = warp_sum(before);
    after = warp_sum(after);
    if (lane() == 0) {
        parts[warp()] = before;
        parts[8 + warp()] = after;
    }
    __syncthreads();
    before = after = 0.0f;
    for (int i = 0; i < 8; ++i) {
        before += parts[i];
        after += parts[8 + i];
    }
    const float norm = sqrtf(before / fmaxf(after, 1e-30f));
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
        own[i] = norm / sqrtf(fmaxf(moment[i], 1e-10f));
    }
}
