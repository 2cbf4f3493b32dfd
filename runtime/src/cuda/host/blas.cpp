// cuBLASLt, as far as the program uses it, computed on the processor by loops; beside the driver that does so, whose streams
// it queues on. Its algorithms are all one.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "cuda.hpp"

#include "launch.hpp"

namespace host {
// Of `driver.cpp`.
int queue(void *stream, std::function<int()> work);
} // namespace host

namespace {

// CUDA's names of kinds, and cuBLASLt's of attributes and failures.
constexpr int F32 = 0, BF16 = 14, FIRST_TURNED = 3, SECOND_TURNED = 4, COUNT = 5, STRIDE = 6;
constexpr int OK = 0, BAD_VALUE = 7;

// Counts down columns.
struct Layout {
    int kind;
    std::uint64_t rows, cols;
    std::int64_t lead;
    std::int32_t count = 1;
    std::int64_t stride = 0;
};

struct Description {
    std::int32_t turned[2] = {0, 0};
};

struct Heuristic {
    std::uint64_t algorithm[8];
    std::size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

float load(const void *at, int kind, std::size_t i) {
    if (kind == F32) {
        return static_cast<const float *>(at)[i];
    }
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<const std::uint16_t *>(at)[i]) << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

void store(void *at, int kind, std::size_t i, float x) {
    if (kind == F32) {
        static_cast<float *>(at)[i] = x;
    } else {
        static_cast<bf16 *>(at)[i] = from_float<bf16>(x);
    }
}

// `[count, k]` of a matrix whose columns are of length `k` (`whole`), or whose rows are.
std::vector<float> gathered(const void *from, const Layout &layout, int item, std::uint64_t count, std::uint64_t k,
                            bool whole) {
    std::vector<float> all(count * k);
    for (std::uint64_t j = 0; j < count; ++j) {
        for (std::uint64_t i = 0; i < k; ++i) {
            all[j * k + i] = load(from, layout.kind, item * layout.stride + (whole ? j * layout.lead + i : i * layout.lead + j));
        }
    }
    return all;
}

float dot(const float *a, const float *b, std::uint64_t k) {
    float sums[16] = {};
    std::uint64_t i = 0;
    for (; i + 16 <= k; i += 16) {
        for (int j = 0; j < 16; ++j) {
            sums[j] += a[i + j] * b[i + j];
        }
    }
    float sum = 0.0f;
    for (; i < k; ++i) {
        sum += a[i] * b[i];
    }
    for (const float part : sums) {
        sum += part;
    }
    return sum;
}

bool fits(const Layout &layout) {
    return (layout.kind == F32 || layout.kind == BF16) && layout.lead >= static_cast<std::int64_t>(layout.rows);
}

} // namespace

extern "C" {

// No version that NVIDIA's has.
std::size_t cublasLtGetVersion() {
    return 100;
}

int cublasLtCreate(void **handle) {
    static int one;
    *handle = &one;
    return OK;
}

int cublasLtDestroy(void *) {
    return OK;
}

int cublasLtMatrixLayoutCreate(void **layout, int kind, std::uint64_t rows, std::uint64_t cols, std::int64_t lead) {
    *layout = new Layout{kind, rows, cols, lead};
    return OK;
}

int cublasLtMatrixLayoutSetAttribute(void *layout, int attribute, const void *value, std::size_t size) {
    auto &own = *static_cast<Layout *>(layout);
    if (attribute == COUNT && size == sizeof own.count) {
        std::memcpy(&own.count, value, size);
    } else if (attribute == STRIDE && size == sizeof own.stride) {
        std::memcpy(&own.stride, value, size);
    } else {
        return BAD_VALUE;
    }
    return OK;
}

int cublasLtMatmulDescCreate(void **description, int, int) {
    *description = new Description;
    return OK;
}

int cublasLtMatmulDescSetAttribute(void *description, int attribute, const void *value, std::size_t size) {
    auto &own = *static_cast<Description *>(description);
    if ((attribute != FIRST_TURNED && attribute != SECOND_TURNED) || size != sizeof(std::int32_t)) {
        return BAD_VALUE;
    }
    std::memcpy(&own.turned[attribute - FIRST_TURNED], value, size);
    return OK;
}

int cublasLtMatmulPreferenceCreate(void **preference) {
    static int one;
    *preference = &one;
    return OK;
}

int cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, std::size_t) {
    return OK;
}

int cublasLtMatmulPreferenceDestroy(void *) {
    return OK;
}

int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int asked, Heuristic *found,
                                   int *count) {
    *count = asked < 2 ? asked : 2;
    for (int i = 0; i < *count; ++i) {
        found[i] = Heuristic{};
    }
    return OK;
}

int cublasLtMatmul(void *, void *description, const float *factor, const void *a, void *a_layout, const void *b,
                   void *b_layout, const float *keep, const void *c, void *c_layout, void *y, void *y_layout, const void *,
                   void *, std::size_t, void *stream) {
    const Description how = *static_cast<Description *>(description);
    const Layout first = *static_cast<Layout *>(a_layout), second = *static_cast<Layout *>(b_layout);
    const Layout added = *static_cast<Layout *>(c_layout), result = *static_cast<Layout *>(y_layout);
    const std::uint64_t m = how.turned[0] ? first.cols : first.rows, k = how.turned[0] ? first.rows : first.cols;
    const std::uint64_t n = how.turned[1] ? second.rows : second.cols;
    const bool agree = k == (how.turned[1] ? second.cols : second.rows) && result.rows == m && result.cols == n &&
                       first.count == result.count && second.count == result.count;
    if (!agree || !fits(first) || !fits(second) || !fits(result) || (*keep != 0.0f && !c)) {
        return BAD_VALUE;
    }
    const float by = *factor, kept = *keep;
    return host::queue(stream, [=] {
        for (int item = 0; item < result.count; ++item) {
            const std::vector<float> rows = gathered(a, first, item, m, k, how.turned[0]);
            const std::vector<float> columns = gathered(b, second, item, n, k, !how.turned[1]);
            for (std::uint64_t column = 0; column < n; ++column) {
                for (std::uint64_t row = 0; row < m; ++row) {
                    const auto at = item * result.stride + column * result.lead + row;
                    const float before = kept == 0.0f ? 0.0f : kept * load(c, added.kind, at);
                    store(y, result.kind, at, by * dot(&rows[row * k], &columns[column * k], k) + before);
                }
            }
        }
        return OK;
    });
}
}
