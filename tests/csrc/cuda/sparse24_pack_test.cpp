#include "cuda/sparse24_pack.cuh"

#include "check.h"
#include "sparse24_cases.h"

using namespace prism;

namespace {

// Every stored element stands where the formula of reference/sparse24.py says, written out here once more.
void CheckPlaces(test::Buffer<uint16_t>& weight, test::Buffer<bool>& mask, int64_t n, int64_t k,
                 test::Buffer<uint16_t>& values, test::Buffer<uint32_t>& columns) {
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t quad = 0; quad < CeilDiv(k, 4); ++quad) {
      const int64_t g = row % 16 / 2, h = row % 2, step = quad % 16 / 8, p = quad % 8 / 4, i = quad % 4 / 2, j = quad % 2;
      const int64_t tile = row / 16 * NumSparseTiles(k) + quad / 16;
      const uint32_t held = columns[tile * 32 + 4 * g + 2 * step + i] >> 4 * (4 * h + 2 * j + p) & 15;
      const int64_t pair = (((tile * 2 + step) * 32 + 4 * g + 2 * j + p) * 4 + 2 * i + h) * 2;
      PRISM_CHECK((held & 3) < held >> 2, "row %ld quad %ld: columns %u", row, quad, held);
      int64_t stored = 0;
      for (int64_t c = 0; c < std::min<int64_t>(4, k - 4 * quad); ++c) {
        const int64_t at = row * k + 4 * quad + c;
        const bool is_first = c == (held & 3), is_second = c == held >> 2;
        stored += is_first || is_second;
        PRISM_CHECK(!mask[at] || is_first || is_second, "row %ld column %ld is lost", row, 4 * quad + c);
        if (!is_first && !is_second) continue;
        const uint16_t expected = mask[at] ? weight[at] : 0;
        PRISM_CHECK(values[pair + is_second] == expected, "row %ld column %ld", row, 4 * quad + c);
      }
      PRISM_CHECK(stored == std::min<int64_t>(2, k - 4 * quad), "row %ld quad %ld stores %ld", row, quad, stored);
    }
  }
}

void TestValues(int64_t n, int64_t k, int least) {
  test::Buffer<bool> mask = test::QuadMask(n, k, least);
  test::Buffer<uint16_t> weight(n * k), values(2 * test::PackedPairs(n, k)), again(n * k);
  test::Buffer<uint32_t> columns(test::PackedColumnWords(n, k));
  for (int64_t i = 0; i < n * k; ++i) weight[i] = static_cast<uint16_t>(test::RandomInt(1, 65535));
  PRISM_CHECK(cuda::Sparse24Pack(weight.data(), mask.data(), n, k, values.data(), columns.data(), nullptr) == cudaSuccess,
              "launch");
  CheckPlaces(weight, mask, n, k, values, columns);
  PRISM_CHECK(cuda::Sparse24Unpack(values.data(), columns.data(), n, k, again.data(), nullptr) == cudaSuccess, "launch");
  for (int64_t i = 0; i < n * k; ++i) {
    PRISM_CHECK(again[i] == (mask[i] ? weight[i] : 0), "%ldx%ld element %ld", n, k, i);
  }
}

void TestCodes(int64_t n, int64_t k) {
  test::Buffer<bool> mask = test::QuadMask(n, k, 2);
  test::Buffer<uint8_t> codes(n * k), again(n * k);
  test::Buffer<uint16_t> weight(n * k), values(2 * test::PackedPairs(n, k));
  test::Buffer<uint32_t> words(test::PackedCodeWords(n, k)), columns(test::PackedColumnWords(n, k));
  test::Buffer<uint32_t> same_columns(columns.size());
  for (int64_t i = 0; i < n * k; ++i) weight[i] = codes[i] = static_cast<uint8_t>(test::RandomInt(0, 15));
  cuda::Sparse24Pack(weight.data(), mask.data(), n, k, values.data(), same_columns.data(), nullptr);
  PRISM_CHECK(cuda::Sparse24PackCodes(codes.data(), mask.data(), n, k, words.data(), columns.data(), nullptr) ==
                  cudaSuccess, "launch");
  for (int64_t i = 0; i < columns.size(); ++i) PRISM_CHECK(columns[i] == same_columns[i], "columns %ld", i);
  for (int64_t i = 0; i < words.size(); ++i) {  // tile, lane, step
    const int64_t lane = i / 2 % 32, tile = i / 64;
    for (int64_t e = 0; e < 8; ++e) {
      const uint32_t code = words[i] >> (4 * (e / 2) + 16 * (e % 2)) & 15;
      PRISM_CHECK(code == values[((tile * 2 + i % 2) * 32 + lane) * 8 + e], "word %ld element %ld", i, e);
    }
  }
  PRISM_CHECK(cuda::Sparse24UnpackCodes(words.data(), columns.data(), n, k, again.data(), nullptr) == cudaSuccess,
              "launch");
  for (int64_t i = 0; i < n * k; ++i) {
    PRISM_CHECK(again[i] == (mask[i] ? codes[i] : 0), "%ldx%ld code %ld", n, k, i);
  }
}

}  // namespace

int main() {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {5, 7}, {17, 65}, {31, 127}, {16, 64}, {33, 200}, {18, 144}}) {
    for (const int least : {0, 2}) TestValues(n, k, least);
    TestCodes(n, k);
  }
  return 0;
}
