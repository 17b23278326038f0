// A whole linear over quads: activations put in order, panels spread over threads. Without torch, so that the C++ tests
// call kernels as the bindings do.
#pragma once
#include "quad_linear.h"

namespace prism::cpu {

// Runs `kernel` on all panels of `weight`; m, n and k are at least 1. bias [16 * panels] may be null.
// parallel(count, grain, body) calls body(begin, end) on ranges that cover [0, count).
template <class Weight, class Parallel>
void CallQuadLinear(const QuadLinearKernel<Weight>& kernel, const Weight& weight, const QuadGrid& grid,
                    Arithmetic arithmetic, const QuadInput& input, const float* bias, int64_t n, void* y,
                    const Parallel& parallel) {
  QuadLinearArgs args;
  args.grid = grid;
  args.k = input.k;
  args.output = {y, input.dtype, n, bias};
  QuadActivations& in = args.activations;
  in.arithmetic = arithmetic;
  in.m = input.m;
  in.quads = CeilDiv(input.k, kBlockColumns) * kBlockQuads;
  const TokenWidths& widths = grid.bits == 4 ? kernel.widths4 : kernel.widths;
  in.tiles = CutTokens(input.m, widths);
  int64_t width = 0;
  for (const TokenTile& tile : in.tiles) width += tile.width;
  const int64_t words = width * in.quads * kernel.parts;
  AlignedBytes x(words * 4), sums(width * grid.groups * SumWords(arithmetic) * 4), scales(input.m * 4);
  in.x = reinterpret_cast<uint32_t*>(x.data());
  in.sums = reinterpret_cast<uint32_t*>(sums.data());
  in.scales = reinterpret_cast<float*>(scales.data());
  in.parts = kernel.parts;
  QuadInput source = input;
  source.int8 = arithmetic == Arithmetic::kInt8;
  const bool offset = kernel.int8_offset && !widths.IsFew(input.m) && grid.bits < 8;
  source.int8_offset = source.int8 && offset ? 0x80808080u : 0;
  uint32_t *tile_x = in.x, *tile_sums = in.sums;
  for (const TokenTile& tile : in.tiles) {
    parallel(tile.width, 1 + 8192 / input.k, [&](int64_t begin, int64_t end) {
      kernel.arrange(source, grid, tile, static_cast<int>(begin), static_cast<int>(end), in.quads, tile_x, tile_sums,
                     in.scales);
    });
    tile_x += in.TileWords(tile);
    tile_sums += in.TileSums(tile, grid);
  }
  constexpr int64_t kSet = kPanelsTogether;
  const int64_t panels = NumPanels(n), sets = CeilDiv(panels, kSet);
  const int64_t grain = 1 + 65536 / (kSet * kPanelRows * input.k * input.m + 1);
  parallel(sets, grain, [&](int64_t begin, int64_t end) {
    kernel.run(args, weight, kSet * begin, std::min(kSet * end, panels));
  });
}

}  // namespace prism::cpu
