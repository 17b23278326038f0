#include "quad_linear.h"

namespace prism::cpu {
namespace {

int Fit(const int* widths, int count, int64_t tokens) {
  return *std::find_if(widths, widths + count - 1, [&](int width) { return width >= tokens; });
}

}  // namespace

std::vector<TokenTile> CutTokens(int64_t m, const TokenWidths& widths) {
  if (widths.IsFew(m)) return {{0, static_cast<int>(m), Fit(widths.few, widths.num_few, m)}};
  const int64_t step = widths.many[0], widest = widths.many[widths.num_many - 1];
  const bool even = widest == step * widths.num_many;  // every multiple of the narrowest is there
  std::vector<TokenTile> tiles;
  for (int64_t first = 0; first < m;) {
    const int64_t left = m - first;
    int64_t count = std::min(left, widest);
    // Once the widest, which some kernels decode for; what is left in tiles all alike, as few as can be.
    if (even && left > widest && (first > 0 || m < 2 * widest)) {
      const int64_t steps = CeilDiv(left, step), num_tiles = CeilDiv(steps, widest / step);
      count = steps / num_tiles * step;
    }
    tiles.push_back({first, static_cast<int>(count), Fit(widths.many, widths.num_many, count)});
    first += count;
  }
  return tiles;
}

void AddAnyGroups(const QuadLinearArgs& a, const uint8_t* codes, int64_t panel, std::vector<float>& sums) {
  const QuadGrid& grid = a.grid;
  const float* levels = CodebookLevels(grid.codebook);
  const int64_t m = a.activations.m, padded = a.activations.quads * kQuadColumns;
  const float* x = reinterpret_cast<const float*>(a.activations.x);
  const int mask = (1 << grid.bits) - 1;
  std::fill(sums.begin(), sums.end(), 0.0f);
  for (int64_t j = 0; j < a.k; ++j) {
    const int64_t at = panel * grid.groups + j / grid.group_size;
    const uint8_t* column = codes + j / kQuadColumns * kQuadBytes;
    const int64_t byte = std::find(kQuadOrder, kQuadOrder + 4, static_cast<int>(j % kQuadColumns)) - kQuadOrder;
    float weights[kPanelRows];
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const int code = column[r * kQuadColumns + byte] & mask;
      const float step = levels != nullptr ? levels[code] : static_cast<float>(code - ZeroPoint(grid, at, r));
      weights[r] = step * BFloat16ToFloat(grid.scale[at * kPanelRows + r]);
    }
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t r = 0; r < kPanelRows; ++r) sums[t * kPanelRows + r] += weights[r] * x[t * padded + j];
    }
  }
  for (int64_t t = 0; t < m; ++t) {
    const float scale = a.activations.arithmetic == Arithmetic::kInt8 ? a.activations.scales[t] : 1.0f;
    for (int64_t r = 0; r < kPanelRows && panel * kPanelRows + r < a.output.n; ++r) {
      const int64_t row = panel * kPanelRows + r;
      const float bias = a.output.bias != nullptr ? a.output.bias[row] : 0.0f;
      StoreFloat(sums[t * kPanelRows + r] * scale + bias, a.output.y, a.output.dtype, t * a.output.n + row);
    }
  }
}

}  // namespace prism::cpu
