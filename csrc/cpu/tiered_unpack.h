// The dense rows of a weight in tiles, in the dtype of its values: w [n, k], panels [begin, end) of it.
#pragma once
#include "tiered.h"

namespace prism::cpu {

using TieredUnpackFn = void (*)(const TieredBlocks& w, int64_t n, int64_t begin, int64_t end, void* dense);
namespace generic { void TieredUnpack(const TieredBlocks&, int64_t, int64_t, int64_t, void*); }
namespace avx512 { void TieredUnpack(const TieredBlocks&, int64_t, int64_t, int64_t, void*); }

TieredUnpackFn PickTieredUnpack();

}  // namespace prism::cpu
