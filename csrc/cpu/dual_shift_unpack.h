// dual_shift_unpack: the bit planes of panels (common/panels.h) to codes, one per byte.
#pragma once
#include <cstdint>

namespace prism::cpu {

struct DualShiftUnpackArgs {
  const uint8_t* packed = nullptr;  // [panels, blocks, bits, 64]
  int64_t n = 0, k = 0;
  int bits = 0;
  uint8_t* codes = nullptr;  // [n, k]
};

using DualShiftUnpackFn = void (*)(const DualShiftUnpackArgs& args, int64_t begin_panel, int64_t end_panel);
namespace generic {
void DualShiftUnpack(const DualShiftUnpackArgs&, int64_t, int64_t);
}
DualShiftUnpackFn PickDualShiftUnpack();

}  // namespace prism::cpu
