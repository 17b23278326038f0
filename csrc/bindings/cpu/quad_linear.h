// What the bindings of the linears over quads share: activations put in order, panels spread over threads.
#pragma once
#include <memory>

#include "../../cpu/quad_linear.h"
#include "quantized.h"

namespace prism {

// Sums of one group must fit 32 bits: 255 * 127 * 65536 just does.
inline void CheckInt8(const std::optional<int64_t>& activation_bits, const cpu::QuadGrid& grid, int64_t k,
                      const char* op) {
  if (!activation_bits.has_value()) return;
  STD_TORCH_CHECK(*activation_bits == 8, op, ": activation_bits must be 8 or None, got ", *activation_bits);
  STD_TORCH_CHECK(grid.codebook == Codebook::kUniform, op, ": activation_bits needs the uniform codebook");
  STD_TORCH_CHECK(std::min(grid.group_size, k) <= 65536, op, ": activation_bits needs groups of at most 65536 columns");
}

// Runs `kernel` on all panels of `weight`. x [m, k]; column_scale [k] and bias [n] in x.dtype may be null.
template <class Weight>
void RunQuadLinear(const cpu::QuadLinearKernel<Weight>& kernel, const Weight& weight, const cpu::QuadGrid& grid,
                   cpu::Arithmetic arithmetic, const cpu::QuadInput& input, const float* bias, int64_t n, void* y) {
  using cpu::AlignedBytes;
  cpu::QuadLinearArgs args;
  args.grid = grid;
  args.k = input.k;
  args.output = {y, input.dtype, n, bias};
  cpu::QuadActivations& in = args.activations;
  in.arithmetic = arithmetic;
  in.m = input.m;
  in.quads = CeilDiv(input.k, kBlockColumns) * kBlockQuads;
  const cpu::TokenWidths& widths = grid.bits == 4 ? kernel.widths4 : kernel.widths;
  in.tiles = cpu::CutTokens(input.m, widths);
  int64_t width = 0;
  for (const cpu::TokenTile& tile : in.tiles) width += tile.width;
  const int64_t words = width * in.quads * kernel.parts;
  AlignedBytes x(words * 4), sums(width * grid.groups * 4), scales(input.m * 4);
  in.x = reinterpret_cast<uint32_t*>(x.data());
  in.sums = reinterpret_cast<uint32_t*>(sums.data());
  in.scales = reinterpret_cast<float*>(scales.data());
  in.parts = kernel.parts;
  cpu::QuadInput source = input;
  source.int8 = arithmetic == cpu::Arithmetic::kInt8;
  const bool offset = kernel.int8_offset && !widths.IsFew(input.m) && grid.bits < 8;
  source.int8_offset = source.int8 && offset ? 0x80808080u : 0;
  int64_t position = 0;  // tokens before the tile, padding included
  for (const cpu::TokenTile& tile : in.tiles) {
    torch::stable::parallel_for(0, tile.width, 1 + 8192 / input.k, [&](int64_t begin, int64_t end) {
      kernel.arrange(source, grid, tile, static_cast<int>(begin), static_cast<int>(end), in.quads,
                     in.x + position * in.quads * in.parts, in.sums + position * grid.groups, in.scales);
    });
    position += tile.width;
  }
  constexpr int64_t kSet = cpu::kPanelsTogether;
  const int64_t panels = NumPanels(n), sets = CeilDiv(panels, kSet);
  const int64_t grain = 1 + 65536 / (kSet * kPanelRows * input.k * input.m + 1);
  torch::stable::parallel_for(0, sets, grain, [&](int64_t begin, int64_t end) {
    kernel.run(args, weight, kSet * begin, std::min(kSet * end, panels));
  });
}

// bias [n] as float32 [16 * panels], empty where there is none.
inline std::vector<float> PaddedBias(const std::optional<Tensor>& bias, const Tensor& x, int64_t n, const char* op) {
  std::vector<float> values;
  if (!bias.has_value()) return values;
  const DType dtype = FloatDType(*bias, op, "bias");
  CheckTensor(*bias, x.scalar_type(), op, "bias");
  CheckNumel(*bias, n, op, "bias");
  values.resize(static_cast<size_t>(NumPanels(n) * kPanelRows));
  for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = LoadFloat(bias->const_data_ptr(), dtype, i);
  return values;
}

// y [m, n] of x.dtype where there is nothing to multiply: bias, or 0.
inline void StoreBias(const std::vector<float>& bias, int64_t m, int64_t n, DType dtype, void* y) {
  for (int64_t i = 0; i < m * n; ++i) StoreFloat(bias.empty() ? 0.0f : bias[static_cast<size_t>(i % n)], y, dtype, i);
}

}  // namespace prism
