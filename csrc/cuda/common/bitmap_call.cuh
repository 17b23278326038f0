// A whole call of BitmapMmaKernel: which shape of it, what the activations need first, and where scratch memory goes.
#pragma once
#include <type_traits>

#include "../bitmap_activations.cuh"
#include "bitmap_sources.cuh"

namespace prism::cuda {

struct MmaCall {
  ActivationArgs x;
  bool quantized;    // round x c to 8 bits per token
  DType multiplied;  // kFloat16 or kBFloat16: of both operands
  const void* bias;  // [n] of x.dtype, or null
  void* y;           // [m, n] of x.dtype
  int64_t n;
};

template <int kTiles>
using ValuesOfTiles = BitmapValuesSource;
template <int kTiles>
using FourBitCodes = BitmapCodesSource<4, kTiles>;
template <int kTiles>
using AnyCodes = BitmapCodesSource<0, kTiles>;

// body(Shape) for this many tokens.
template <template <int> class SourceOf, class Body>
auto WithShape(int64_t m, Body body) {
  if constexpr (SourceOf<1>::kOneShape) {
    return body(TwoTiles{});
  } else {
    using Few = std::conditional_t<SourceOf<1>::kScaled, OneTileOfTwoPanels, OneTile>;
    return m <= Few::kTokens ? body(Few{}) : m <= TwoTiles::kTokens ? body(TwoTiles{}) : body(EightTiles{});
  }
}

// Few tokens are read as they lie, where vectors of them are aligned, and scaled in the kernel where that rounds once.
template <class Shape>
bool ReadsDirectly(const MmaCall& call) {
  const uint16_t* factors = call.x.column_scale;
  return Shape::kTiles == 1 && !call.quantized && call.x.k % kBlockColumns == 0 && Aligned16(call.x.x) &&
         (factors == nullptr || (call.multiplied == DType::kBFloat16 && Aligned16(factors)));
}

struct MmaScratch {
  int64_t fragments, partials, scales;  // where they begin, in bytes
  int64_t bytes;
  int splits;
};

template <template <int> class SourceOf, class Shape>
MmaScratch LayOut(const MmaCall& call) {
  const int splits = BitmapMmaSplits<SourceOf<Shape::kTiles>, Shape>(call.x.m, call.n, call.x.k);
  MmaScratch scratch = {0, 0, 0, 0, splits};
  scratch.partials = ReadsDirectly<Shape>(call) ? 0 : FragmentBytes(call.x.m, call.x.k, Shape::kTiles);
  scratch.scales = scratch.partials + 4 * PartialFloats(splits, call.x.m, call.n);
  scratch.bytes = scratch.scales + (call.quantized ? call.x.m * 4 : 0);
  return scratch;
}

template <template <int> class SourceOf>
int64_t MmaScratchBytes(const MmaCall& call) {
  return WithShape<SourceOf>(call.x.m, [&](auto shape) { return LayOut<SourceOf, decltype(shape)>(call).bytes; });
}

template <template <int> class SourceOf, class Shape>
cudaError_t CallMmaShape(const MmaCall& call, const typename SourceOf<Shape::kTiles>::Weight& weight, unsigned char* scratch,
                         cudaStream_t stream) {
  using Source = SourceOf<Shape::kTiles>;
  const MmaScratch at = LayOut<SourceOf, Shape>(call);
  const bool direct = ReadsDirectly<Shape>(call);
  float* const token_scale = call.quantized ? reinterpret_cast<float*>(scratch + at.scales) : nullptr;
  if (call.quantized) {
    if (const cudaError_t error = TokenScales(call.x, token_scale, stream); error != cudaSuccess) return error;
  }
  if (!direct) {
    const cudaError_t error = ArrangeFragments(call.x, token_scale, call.multiplied, Shape::kTiles, scratch + at.fragments, stream);
    if (error != cudaSuccess) return error;
  }
  const LinearOutput out{call.y, call.bias, token_scale, reinterpret_cast<float*>(scratch + at.partials), call.x.dtype, call.x.m, call.n};
  const BitmapMmaArgs args{direct ? call.x.x : scratch + at.fragments, direct ? call.x.column_scale : nullptr, out, call.x.k, 0};
  if (call.multiplied == DType::kBFloat16) return LaunchBitmapMma<Source, BFloat16Arithmetic, Shape>(weight, args, at.splits, stream);
  return LaunchBitmapMma<Source, Float16Arithmetic, Shape>(weight, args, at.splits, stream);
}

// weight: of SourceOf<kTiles>::Weight for any number of tiles.
template <template <int> class SourceOf, class Weight>
cudaError_t CallMma(const MmaCall& call, const Weight& weight, void* scratch, cudaStream_t stream) {
  return WithShape<SourceOf>(call.x.m, [&](auto shape) {
    return CallMmaShape<SourceOf, decltype(shape)>(call, weight, static_cast<unsigned char*>(scratch), stream);
  });
}

}  // namespace prism::cuda
