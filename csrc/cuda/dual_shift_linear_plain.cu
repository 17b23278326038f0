// Any dtype of x and any group size, on float32 cores: a block takes a panel and eight tokens; a thread is one row and one
// sixteenth of the quads, whose sums are added in order. Decoding costs as much as the products of about five tokens.
#include "dual_shift_linear_plain.cuh"

#include "../common/panels.h"
#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kParts = 16, kTokens = 8;  // threads per row, tokens per block
constexpr int kThreads = kParts * static_cast<int>(kPanelRows);
constexpr size_t kSharedBytes = (kParts * kTokens * kPanelRows + 16) * sizeof(float);

struct Levels {
  float values[16];
};

// The codes of quad `quad` of row `row` in a block: byte b is column kQuadOrder[b].
__device__ uint32_t LoadQuad(const uint8_t* block, int bits, int quad, int row) {
  const PlaneWidths widths = PlaneWidthsOf(bits);
  const auto plane = [&](int width, const uint8_t* vectors) {
    const int per_vector = 8 / width;
    const auto* word = reinterpret_cast<const uint32_t*>(vectors + quad / per_vector * kQuadBytes) + row;
    return __ldg(word) >> width * (quad % per_vector) & ((1u << width) - 1u) * 0x01010101u;
  };
  const uint32_t low = plane(widths.low, block);
  return widths.high == 0 ? low : low | plane(widths.high, block + widths.low * kQuadBytes) << widths.low;
}

// (q - z) * s or level * s of one row, column by column in rising order.
class Row {
 public:
  __device__ Row(const DualShiftLinearArgs& a, const float* levels, int64_t panel, int row)
      : a_(a), levels_(levels), groups_(CeilDiv(a.k, a.group_size)), panel_(panel), row_(row) {}

  __device__ float Weight(uint32_t code, int64_t column) {
    if (column >= end_) MoveTo(column / a_.group_size);
    const bool uniform = a_.codebook == Codebook::kUniform;
    const float step = uniform ? static_cast<float>(static_cast<int>(code)) - zero_ : levels_[code];
    return step * scale_;
  }

 private:
  __device__ void MoveTo(int64_t group) {
    const int64_t at = panel_ * groups_ + group;
    end_ = (group + 1) * a_.group_size;
    scale_ = BFloat16ToFloat(a_.scale[at * kPanelRows + row_]);
    if (a_.codebook != Codebook::kUniform) return;
    const uint8_t* zero = a_.zero + at * ZeroBytes(a_.bits);
    zero_ = static_cast<float>(a_.bits > 4 ? zero[row_] : row_ < 8 ? zero[row_] & 15 : zero[row_ - 8] >> 4);
  }

  const DualShiftLinearArgs& a_;
  const float* levels_;
  const int64_t groups_, panel_;
  const int row_;
  int64_t end_ = 0;
  float scale_ = 0.0f, zero_ = 0.0f;
};

__global__ void __launch_bounds__(kThreads) DualShiftLinearPlainKernel(DualShiftLinearArgs a, Levels levels) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* const kept = reinterpret_cast<float*>(shared);  // [parts, tokens, 16 rows], then levels
  const int r = threadIdx.x % kPanelRows, part = threadIdx.x / kPanelRows;
  const int64_t token_tiles = CeilDiv(a.m, kTokens), first = blockIdx.x % token_tiles * kTokens;
  const int64_t panel = blockIdx.x / token_tiles, blocks = NumBlocks32(a.k);
  const uint8_t* const codes = a.codes + panel * blocks * a.bits * kQuadBytes;
  auto* const level_table = kept + kParts * kTokens * kPanelRows;  // in shared memory: codes index it
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (threadIdx.x == static_cast<unsigned>(i)) level_table[i] = levels.values[i];
  }
  __syncthreads();
  Row row(a, level_table, panel, r);
  float sums[kTokens] = {};
  for (int64_t quad = part; quad < NumQuads(a.k); quad += kParts) {
    const int64_t block = quad / kBlockQuads;
    const uint32_t four = LoadQuad(codes + block * a.bits * kQuadBytes, a.bits, static_cast<int>(quad % kBlockQuads), r);
    for (int i = 0; i < kQuadColumns; ++i) {
      const int64_t column = quad * kQuadColumns + i;
      if (column >= a.k) break;
      const int byte = i == 1 ? 2 : i == 2 ? 1 : i;  // the inverse of kQuadOrder is itself
      float weight = row.Weight(four >> 8 * byte & 255u, column);
      if (a.column_scale != nullptr) weight *= BFloat16ToFloat(a.column_scale[column]);
#pragma unroll
      for (int token = 0; token < kTokens; ++token) {
        if (first + token < a.m) {
          const float x = LoadFloat(a.x, a.x_dtype, (first + token) * a.k + column);
          sums[token] = __fmaf_rn(weight, x, sums[token]);
        }
      }
    }
  }
#pragma unroll
  for (int token = 0; token < kTokens; ++token) kept[(part * kTokens + token) * kPanelRows + r] = sums[token];
  __syncthreads();
  const int token = threadIdx.x / kPanelRows;
  const int64_t out_row = panel * kPanelRows + r;
  if (token >= kTokens || first + token >= a.m || out_row >= a.n) return;
  float sum = 0.0f;
  for (int p = 0; p < kParts; ++p) sum += kept[(p * kTokens + token) * kPanelRows + r];
  if (a.token_scale != nullptr) sum *= a.token_scale[first + token];
  if (a.bias != nullptr) sum += LoadFloat(a.bias, a.y_dtype, out_row);
  StoreFloat(sum, a.y, a.y_dtype, (first + token) * a.n + out_row);
}

}  // namespace

cudaError_t DualShiftLinearPlain(const DualShiftLinearArgs& a, cudaStream_t stream) {
  Levels levels{};
  for (int i = 0; i < CodebookSize(a.codebook); ++i) levels.values[i] = CodebookLevels(a.codebook)[i];
  const int64_t blocks = CeilDiv(a.m, kTokens) * NumPanels(a.n);
  return Launch(DualShiftLinearPlainKernel, static_cast<unsigned>(blocks), kThreads,
                kSharedBytes, stream, a, levels);
}

}  // namespace prism::cuda
