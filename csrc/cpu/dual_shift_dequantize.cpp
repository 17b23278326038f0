#include "dual_shift_dequantize.h"

#include <algorithm>
#include <cstring>

#include "isa.h"
#include "panel_codes.h"

namespace prism::cpu {
namespace generic {
namespace {

// Scales and zero points of the group that was asked for last.
class PanelGrid {
 public:
  PanelGrid(const DualShiftDequantizeArgs& args, int64_t panel) : a_(args), first_(panel * args.groups) {}

  void MoveTo(int64_t column) {
    const int64_t group = std::min(column / a_.group_size, a_.groups - 1);  // columns past k have any
    if (group == group_) return;
    group_ = group;
    LoadScales(a_.scale + (first_ + group) * kPanelRows, scale);
    if (a_.codebook == Codebook::kUniform) LoadZeros(a_.zero + (first_ + group) * ZeroBytes(a_.bits), a_.bits, zero);
  }

  float scale[kPanelRows] = {}, zero[kPanelRows] = {};

 private:
  const DualShiftDequantizeArgs& a_;
  int64_t first_, group_ = -1;
};

void DecodeColumn(const uint32_t* lanes, int byte, const float* levels, const PanelGrid& grid, float column_scale,
                  float* out) {
  if (levels != nullptr) {
    for (int r = 0; r < kPanelRows; ++r) out[r] = levels[(lanes[r] >> 8 * byte) & 255u] * grid.scale[r] * column_scale;
    return;
  }
  for (int r = 0; r < kPanelRows; ++r) {
    const float code = static_cast<float>(static_cast<int32_t>((lanes[r] >> 8 * byte) & 255u));
    out[r] = (code - grid.zero[r]) * grid.scale[r] * column_scale;
  }
}

// Results are never NaN, because scales are finite.
inline uint32_t RoundedBits(float value) {
  const uint32_t bits = FloatBits(value);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

// Two columns to one lane.
template <DType kDType>
void Pair(const float* low, const float* high, uint32_t* out) {
  for (int r = 0; r < kPanelRows; ++r) {
    if constexpr (kDType == DType::kBFloat16) {
      out[r] = (RoundedBits(low[r]) >> 16) | (RoundedBits(high[r]) & 0xffff0000u);
    } else {
      out[r] = FloatToFloat16(low[r]) | static_cast<uint32_t>(FloatToFloat16(high[r])) << 16;
    }
  }
}

template <DType kDType>
void DecodeBlock(const DualShiftDequantizeArgs& a, const uint8_t* block, int64_t first, PanelGrid& grid,
                 uint32_t (&tile)[kBlockColumns][kPanelRows]) {
  const float* levels = CodebookLevels(a.codebook);
  for (int q = 0; q < kBlockQuads; ++q) {
    uint32_t lanes[kPanelRows];
    float values[kQuadColumns][kPanelRows];
    LoadQuad(block, a.bits, q, lanes);
    for (int b = 0; b < kQuadColumns; ++b) {
      const int64_t column = q * kQuadColumns + kQuadOrder[b];
      grid.MoveTo(first + column);
      DecodeColumn(lanes, b, levels, grid, a.column_scale[first + column], values[kQuadOrder[b]]);
    }
    if constexpr (kDType == DType::kFloat32) {
      std::memcpy(tile[q * kQuadColumns], values, sizeof values);
    } else {
      Pair<kDType>(values[0], values[1], tile[2 * q]);
      Pair<kDType>(values[2], values[3], tile[2 * q + 1]);
    }
  }
}

template <DType kDType>
void DecodePanels(const DualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kBytes = kDType == DType::kFloat32 ? 4 : 2, kWords = kBlockColumns * kBytes / 4;
  for (int64_t panel = begin; panel < end; ++panel) {
    const uint8_t* block = a.codes + panel * PanelCodeBytes(a.k, a.bits);
    const int64_t row = panel * kPanelRows, rows = std::min(kPanelRows, a.n - row);
    PanelGrid grid(a, panel);
    for (int64_t first = 0; first < a.k; first += kBlockColumns, block += a.bits * kQuadBytes) {
      uint32_t tile[kBlockColumns][kPanelRows], words[kWords];
      DecodeBlock<kDType>(a, block, first, grid, tile);
      char* out = static_cast<char*>(a.weight) + (row * a.k + first) * kBytes;
      const size_t bytes = static_cast<size_t>(std::min(kBlockColumns, a.k - first) * kBytes);
      for (int64_t r = 0; r < rows; ++r, out += a.k * kBytes) {
        for (int64_t i = 0; i < kWords; ++i) words[i] = tile[i][r];
        std::memcpy(out, words, bytes);
      }
    }
  }
}

}  // namespace

void DualShiftDequantize(const DualShiftDequantizeArgs& a, int64_t begin, int64_t end) {
  switch (a.dtype) {
    case DType::kFloat32: return DecodePanels<DType::kFloat32>(a, begin, end);
    case DType::kFloat16: return DecodePanels<DType::kFloat16>(a, begin, end);
    default: return DecodePanels<DType::kBFloat16>(a, begin, end);
  }
}

}  // namespace generic

DualShiftDequantizeFn PickDualShiftDequantize() {
  using Fn = DualShiftDequantizeFn;
#if PRISM_X86
  return Pick<Fn>("dual_shift_dequantize",
                  {generic::DualShiftDequantize, avx2::DualShiftDequantize, avx512::DualShiftDequantize, nullptr});
#else
  return Pick<Fn>("dual_shift_dequantize", {generic::DualShiftDequantize});
#endif
}

}  // namespace prism::cpu
