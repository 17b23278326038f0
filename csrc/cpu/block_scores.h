// Sums over 16x16 tiles of scores [n, k]: panels [begin, end) of 16 rows, out [ceil(n / 16), ceil(k / 16)].
// Each column of a tile is summed from the first row down, then the 16 columns in a fixed order.
#pragma once
#include <cstdint>

namespace prism::cpu {

using BlockScoresFn = void (*)(const float* scores, const bool* mask,  // [n, k], or null
                               int64_t n, int64_t k, int64_t begin, int64_t end, float* out);
namespace generic { void BlockScores(const float*, const bool*, int64_t, int64_t, int64_t, int64_t, float*); }
namespace avx2 { void BlockScores(const float*, const bool*, int64_t, int64_t, int64_t, int64_t, float*); }
namespace avx512 { void BlockScores(const float*, const bool*, int64_t, int64_t, int64_t, int64_t, float*); }

BlockScoresFn PickBlockScores();

}  // namespace prism::cpu
