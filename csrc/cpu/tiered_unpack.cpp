#include "tiered_unpack.h"

#include "isa.h"

namespace prism::cpu {
namespace generic {
namespace {

template <class T>
int64_t DecodeTile(const uint8_t* mask, const uint8_t* values, T* out) {
  const uint8_t* begin = values;
  std::fill(out, out + kTileSize, T{0});
  for (int j = 0; j < kTilePairs; ++j, out += 2 * kPanelRows) {
    for (uint32_t bits = LoadPairMask(mask + 4 * j); bits != 0; bits &= bits - 1, values += sizeof(T)) {
      std::memcpy(out + __builtin_ctz(bits), values, sizeof(T));
    }
  }
  return values - begin;
}

#include "tiered_unpack_panels.inc"

}  // namespace

void TieredUnpack(const TieredBlocks& w, int64_t n, int64_t begin, int64_t end, void* dense) {
  UnpackPanels(w, n, begin, end, dense);
}

}  // namespace generic

TieredUnpackFn PickTieredUnpack() {
#if PRISM_X86
  return Pick<TieredUnpackFn>("tiered_unpack", {generic::TieredUnpack, nullptr, avx512::TieredUnpack, nullptr});
#else
  return Pick<TieredUnpackFn>("tiered_unpack", {generic::TieredUnpack});
#endif
}

}  // namespace prism::cpu
