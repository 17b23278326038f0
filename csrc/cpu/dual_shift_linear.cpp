#include "dual_shift_linear.h"

#include <algorithm>

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

// Row `row` as float32 weights without the column scale.
void DecodeRow(const DualShiftLinearArgs& a, int64_t row, float* weights) {
  const uint8_t* codes = a.codes + row * a.code_bytes;
  const float* levels = CodebookLevels(a.codebook);
  for (int64_t group = 0, begin = 0; begin < a.k; ++group, begin += a.group_size) {
    const int64_t end = std::min(begin + a.group_size, a.k);
    const float scale = BFloat16ToFloat(a.scale[row * a.groups + group]);
    if (levels != nullptr) {
      for (int64_t j = begin; j < end; ++j) weights[j] = levels[CodeAt(codes, j, a.bits)] * scale;
      continue;
    }
    const int zero = static_cast<int>(CodeAt(a.zero + row * a.zero_bytes, group, a.bits));
    for (int64_t j = begin; j < end; ++j) {
      weights[j] = static_cast<float>(static_cast<int>(CodeAt(codes, j, a.bits)) - zero) * scale;
    }
  }
}

// Sixteen partial sums: vectorizable without reordering float additions.
float Dot(const float* a, const float* b, int64_t k) {
  constexpr int kSums = 16;
  float sums[kSums] = {};
  int64_t j = 0;
  for (; j + kSums <= k; j += kSums) {
    for (int i = 0; i < kSums; ++i) sums[i] += a[j + i] * b[j + i];
  }
  for (int i = 0; j + i < k; ++i) sums[i] += a[j + i] * b[j + i];
  for (int width = kSums / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

void Run(const DualShiftLinearArgs& a, int64_t begin, int64_t end, float* scratch) {
  const float* x = static_cast<const float*>(a.x);
  for (int64_t row = begin; row < end; ++row) {
    DecodeRow(a, row, scratch);
    for (int64_t token = 0; token < a.m; ++token) a.y[token * a.n + row] = Dot(x + token * a.k, scratch, a.k);
  }
}

}  // namespace

const DualShiftLinearKernel kDualShiftLinear = {Run, 1, false};

}  // namespace generic

const DualShiftLinearKernel* PickDualShiftLinear(DType x_dtype, int bits, int64_t group_size, int64_t k) {
  using Kernel = const DualShiftLinearKernel*;
  KernelTable<Kernel> table{&generic::kDualShiftLinear};
#if PRISM_X86
  if (group_size >= k || group_size % ColumnsPerLane(bits) == 0) {
    table.avx2 = &avx2::kDualShiftLinear;
    table.avx512 = &avx512::kDualShiftLinear;
    if (x_dtype == DType::kBFloat16) table.avx512_bf16 = &avx512_bf16::kDualShiftLinear;
  }
#endif
  return Pick<Kernel>("dual_shift_linear", table);
}

DualShiftLayout LayoutFor(const DualShiftLinearKernel& kernel, int bits) {
  return {kernel.lanes, kernel.lanes == 1 ? 1 : ColumnsPerLane(bits), kernel.bfloat16};
}

int64_t ScratchFloats(const DualShiftLinearKernel& kernel, const DualShiftLinearArgs& args) {
  // Generic: one decoded row. SIMD: scales and zero points of a panel, readable one vector beyond the last group.
  return kernel.lanes == 1 ? args.k : kPanelRows * 2 * (args.groups + kernel.lanes);
}

void ArrangeActivations(float* x, int64_t k, int64_t group_size, const DualShiftLayout& layout, void* out,
                        float* sums) {
  if (layout.bfloat16) {
    for (int64_t j = 0; j < k; ++j) x[j] = BFloat16ToFloat(FloatToBFloat16(x[j]));
  }
  for (int64_t begin = 0; begin < k; begin += std::min(group_size, k - begin)) {
    double sum = 0.0;
    for (int64_t j = begin; j < begin + std::min(group_size, k - begin); ++j) sum += static_cast<double>(x[j]);
    *sums++ = static_cast<float>(sum);
  }
  const int per_lane = layout.columns_per_lane, words = layout.bfloat16 ? 2 : 1, steps = per_lane / words;
  int64_t position = 0;
  for (int64_t begin = 0; begin < k; begin += layout.BlockColumns()) {
    for (int step = 0; step < steps; ++step) {
      for (int lane = 0; lane < layout.lanes; ++lane) {
        for (int word = 0; word < words; ++word, ++position) {
          const int64_t column = begin + int64_t{lane} * per_lane + step + word * steps;
          const float value = column < k ? x[column] : 0.0f;
          if (layout.bfloat16) {
            static_cast<uint16_t*>(out)[position] = static_cast<uint16_t>(FloatBits(value) >> 16);
          } else {
            static_cast<float*>(out)[position] = value;
          }
        }
      }
    }
  }
}

void ArrangeGroups(int64_t k, int64_t group_size, const DualShiftLayout& layout, int32_t* first_group,
                   int32_t* lane_group) {
  const int64_t block = layout.BlockColumns();
  for (int64_t begin = 0; begin < k; begin += block, ++first_group) {
    const int64_t first = begin / group_size;
    *first_group = static_cast<int32_t>(first);
    for (int lane = 0; lane < layout.lanes; ++lane, ++lane_group) {
      const int64_t column = std::min(begin + int64_t{lane} * layout.columns_per_lane, k - 1);
      *lane_group = static_cast<int32_t>(column / group_size - first);
    }
  }
}

}  // namespace prism::cpu
