// 16-bit values times activations of the same dtype on tensor cores (common/bitmap_mma.cuh); any other pair of dtypes by the
// plain kernel.
#include "bitmap_linear.cuh"

#include "bitmap_activations.cuh"
#include "common/bitmap_call.cuh"
#include "common/bitmap_plain.cuh"
#include "common/bitmap_sources.cuh"

namespace prism::cuda {
namespace {

struct PlainValues {
  static constexpr int kColumns = 2;
  const uint8_t* bitmap;
  const int64_t* panel_offsets;
  const void* values;
  int64_t size;
  DType dtype;
  int bits = 0;

  __device__ void LoadLevels(float*) const {}

  template <class Body>
  __device__ void Decode(int64_t, int64_t, int64_t, const Unit<2>& mask, int64_t next, const float*, Body body) const {
    for (int row = 0; row < kPanelRows; ++row) {
      const uint32_t kept = mask.Row(row);
      float pair[2];
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        const bool stored = (kept >> b & 1) != 0;
        pair[b] = stored && next >= 0 && next < size ? LoadFloat(values, dtype, next) : 0.0f;
        next += stored;
      }
      body(row, pair);
    }
  }
};

bool TakesTensorCores(const BitmapLinearArgs& a) { return a.x_dtype == a.values_dtype && a.x_dtype != DType::kFloat32; }

MmaCall CallOf(const BitmapLinearArgs& a) {
  return {{a.x, a.x_dtype, a.m, a.k, nullptr}, false, a.x_dtype, a.bias, a.y, a.n};
}

}  // namespace

int64_t BitmapLinearScratchBytes(const BitmapLinearArgs& a) {
  return TakesTensorCores(a) ? MmaScratchBytes<ValuesOfTiles>(CallOf(a)) : 0;
}

cudaError_t BitmapLinear(const BitmapLinearArgs& a, cudaStream_t stream) {
  if (!TakesTensorCores(a)) {
    const PlainValues source{a.bitmap, a.panel_offsets, a.values, a.size, a.values_dtype};
    return LaunchBitmapPlain(source, {{a.x, a.x_dtype, a.m, a.k, nullptr}, nullptr, a.bias, a.n, a.y}, stream);
  }
  const BitmapValuesSource::Weight weight{a.bitmap, static_cast<const uint8_t*>(a.values), a.panel_offsets, 2 * a.size, CeilDiv(a.k, 2)};
  return CallMma<ValuesOfTiles>(CallOf(a), weight, a.scratch, stream);
}

}  // namespace prism::cuda
