#include "bitmap_dual_shift_linear.h"

#include "quad_generic.h"

namespace prism::cpu {
namespace generic {
namespace {

template <int kBits>
class BitmapQuads {
 public:
  static constexpr int kUnit = 1, kStrips = 1;
  static constexpr bool kSingles = false;
  using Block = Ints;
  using Guard = GuardedStream<8 * kBits>;

  BitmapQuads(const BitmapCodes& weight, const QuadGrid& grid, int64_t panel, Guard* guard)
      : bitmap_(weight.PanelBitmap(panel)), position_(weight.panel_offsets[panel]), guard_(guard),
        levels_(grid.codebook != Codebook::kUniform) {
    std::fill_n(fill_, kPanelRows, static_cast<uint8_t>(grid.ZeroLevel()));
  }

  void StartGroup(const Ints (&zeros)[1], int64_t) {
    if (levels_) return;
    for (int row = 0; row < kLanes; ++row) fill_[row] = static_cast<uint8_t>(zeros[0][row]);
  }

  template <int kIndex>
  Ints Step(int) {
    uint8_t places[kQuadBytes];
    ForPlaces([&](int64_t place, int code) {
      places[place] = code >= 0 ? static_cast<uint8_t>(code) : fill_[place / kQuadColumns];
    });
    return LoadInts(places);
  }

  template <int kCount>
  void Advance() {
    bitmap_ += kQuadMaskBytes;
  }

  // body(place, code) for the 64 places of the quad, code -1 where it is pruned; then moves on in the codes.
  template <class Body>
  void ForPlaces(Body body) {
    const uint8_t* codes = guard_->At(position_);
    const uint64_t mask = LoadMask<uint64_t>(bitmap_);
    int64_t count = 0;
    for (int64_t place = 0; place < kQuadBytes; ++place) {
      body(place, mask >> place & 1 ? static_cast<int>(CodeAt(codes, count++, kBits)) : -1);
    }
    position_ += PackedBytes(count, kBits);
  }

 private:
  const uint8_t* bitmap_;
  int64_t position_;
  Guard* guard_;
  bool levels_;
  uint8_t fill_[kPanelRows];
};

#include "quad_linear_arrange.inc"
#include "quad_linear_tile.inc"
#include "bitmap_dual_shift_linear_run.inc"

using Convert = Float32Convert;

void Run(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  if (a.grid.codebook == Codebook::kNf4) return RunBits<Float32Levels, Float32Levels, 4>(a, weight, begin, end);
  if (a.grid.codebook == Codebook::kNf3) return RunBits<Float32Levels, Float32Levels, 3>(a, weight, begin, end);
  RunWidths<Convert, Convert, Convert, Convert, Convert, Convert>(a, weight, begin, end);
}

// A pruned weight takes the zero point of its own column's group.
template <int kBits>
void RunAnyGroupBits(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  using Quads = BitmapQuads<kBits>;
  const QuadGrid& grid = a.grid;
  std::vector<uint8_t> bytes(static_cast<size_t>(weight.quads * kQuadBytes));
  std::vector<float> sums(static_cast<size_t>(a.activations.m * kPanelRows));
  typename Quads::Guard guard(weight.codes, weight.size);
  for (int64_t panel = begin; panel < end; ++panel) {
    Quads source(weight, grid, panel, &guard);
    for (int64_t quad = 0; quad < weight.quads; ++quad) {
      source.ForPlaces([&](int64_t place, int code) {
        const int64_t column = std::min(quad * kQuadColumns + kQuadOrder[place % kQuadColumns], a.k - 1);
        const int64_t group = panel * grid.groups + column / grid.group_size;
        const int pruned = grid.codebook == Codebook::kUniform ? ZeroPoint(grid, group, place / kQuadColumns)
                                                               : grid.ZeroLevel();
        bytes[static_cast<size_t>(quad * kQuadBytes + place)] = static_cast<uint8_t>(code >= 0 ? code : pruned);
      });
      source.template Advance<1>();
    }
    AddAnyGroups(a, bytes.data(), panel, sums);
  }
}

void RunAnyGroup(const QuadLinearArgs& a, const BitmapCodes& weight, int64_t begin, int64_t end) {
  CodeBits::For(weight.bits, [&](auto bits) { RunAnyGroupBits<bits>(a, weight, begin, end); });
}

}  // namespace

const BitmapDualShiftLinearKernel kBitmapDualShiftLinear = {Arrange<Arithmetic::kFloat32>, Run, 4, kWidths, kWidths};
const BitmapDualShiftLinearKernel kBitmapDualShiftLinearInt8 = {
    Arrange<Arithmetic::kInt8>, RunWidths<Int8, Int8, Int8, Int8, Int8, Int8>, 1, kWidths, kWidths};
const BitmapDualShiftLinearKernel kBitmapDualShiftLinearAnyGroup = {ArrangeNatural, RunAnyGroup, 4, kOneToken, kOneToken};

}  // namespace generic

const BitmapDualShiftLinearKernel& PickBitmapDualShiftLinear(Arithmetic arithmetic, int64_t group_size, int64_t k) {
  using Kernel = const BitmapDualShiftLinearKernel*;
  KernelTable<Kernel> table{&generic::kBitmapDualShiftLinearAnyGroup};
  if (group_size >= k || group_size % kQuadColumns == 0) {
    const bool int8 = arithmetic == Arithmetic::kInt8;
    table.generic = int8 ? &generic::kBitmapDualShiftLinearInt8 : &generic::kBitmapDualShiftLinear;
#if PRISM_X86
    table.avx2 = int8 ? &avx2::kBitmapDualShiftLinearInt8 : &avx2::kBitmapDualShiftLinear;
    table.avx512 = int8 ? &avx512::kBitmapDualShiftLinearInt8 : &avx512::kBitmapDualShiftLinear;
    if (arithmetic == Arithmetic::kInt16) table.avx512 = &avx512::kBitmapDualShiftLinearInt16;
    if (arithmetic == Arithmetic::kBFloat16) table.avx512_bf16 = &avx512_bf16::kBitmapDualShiftLinear;
#endif
  }
  return *Pick<Kernel>("bitmap_dual_shift_linear", table);
}

}  // namespace prism::cpu
