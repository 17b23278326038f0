#include "bitmap_linear.h"

#include <bit>

#include "quad_generic.h"

namespace prism::cpu {
namespace generic {
namespace {

template <DType kDType>
class BitmapPairs {
 public:
  static constexpr int kUnit = 1, kStrips = 1, kBytes = kDType == DType::kFloat32 ? 4 : 2;
  static constexpr bool kSingles = false;
  struct Block {
    Floats column[2];
  };
  using Guard = GuardedStream<32 * kBytes>;

  BitmapPairs(const BitmapValues& weight, int64_t panel, Guard* guard)
      : bitmap_(weight.PanelBitmap(panel)), position_(weight.panel_offsets[panel] * kBytes), guard_(guard) {}

  void StartGroup(const Ints (&)[1], int64_t) {}

  template <int kIndex>
  Block Step(int) {
    const uint8_t* values = guard_->At(position_);
    float places[32] = {};
    int64_t count = 0;
    for (uint32_t left = LoadMask<uint32_t>(bitmap_); left != 0; left &= left - 1, ++count) {
      places[std::countr_zero(left)] = LoadFloat(values, kDType, count);
    }
    position_ += count * kBytes;
    Block block;
    for (int row = 0; row < kLanes; ++row) {
      for (int column = 0; column < 2; ++column) block.column[column][row] = places[2 * row + column];
    }
    return block;
  }

  template <int kCount>
  void Advance() {
    bitmap_ += kPairMaskBytes;
  }

 private:
  const uint8_t* bitmap_;
  int64_t position_;
  Guard* guard_;
};

struct Float32Values : Float32 {
  static constexpr int kParts = 2;
  template <int kPart, class Block>
  Floats Decode(const Block& block, Floats) const { return block.column[kPart]; }
};

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "bitmap_linear_run.inc"

}  // namespace

const BitmapLinearKernel kBitmapLinear = {Arrange<Arithmetic::kFloat32>, RunDTypes<Float32Values>, 4, kWidths, kWidths};

}  // namespace generic

Arithmetic BitmapArithmetic(DType x_dtype, DType values_dtype) {
  return values_dtype == DType::kBFloat16 ? ExactArithmetic(x_dtype) : Arithmetic::kFloat32;
}

const BitmapLinearKernel& PickBitmapLinear(Arithmetic arithmetic) {
  using Kernel = const BitmapLinearKernel*;
  KernelTable<Kernel> table{&generic::kBitmapLinear};
#if PRISM_X86
  table.avx2 = &avx2::kBitmapLinear;
  table.avx512 = &avx512::kBitmapLinear;
  if (arithmetic == Arithmetic::kBFloat16) table.avx512_bf16 = &avx512_bf16::kBitmapLinear;
#endif
  (void)arithmetic;
  return *Pick<Kernel>("bitmap_linear", table);
}

}  // namespace prism::cpu
