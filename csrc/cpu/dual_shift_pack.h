// dual_shift_pack: codes, one per byte, to the bit planes of panels (common/panels.h); only the low `bits` bits of a code
// are stored, and 0 past n and k.
#pragma once
#include <cstdint>

namespace prism::cpu {

struct DualShiftPackArgs {
  const uint8_t* codes = nullptr;  // [n, k]
  int64_t n = 0, k = 0;
  int bits = 0;
  uint8_t* packed = nullptr;  // [panels, blocks, bits, 64]
};

using DualShiftPackFn = void (*)(const DualShiftPackArgs& args, int64_t begin_panel, int64_t end_panel);
namespace generic {
void DualShiftPack(const DualShiftPackArgs&, int64_t, int64_t);
}
DualShiftPackFn PickDualShiftPack();

}  // namespace prism::cpu
