// The emulator itself: what it must compute, and the mistakes that it must notice (each in a child process).
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "cuda/common/ptx.cuh"

using namespace prism;

namespace {

void MmaKernel(const uint16_t* a, const uint16_t* b, float* d) {
  const int g = emulator::Lane() / 4, t = emulator::Lane() % 4;
  const auto pair = [](const uint16_t* at) { return at[0] | static_cast<uint32_t>(at[1]) << 16; };
  PRISM_DYNAMIC_SMEM(shared);
  auto* tile = reinterpret_cast<uint16_t*>(shared);
  for (int i = emulator::Lane() * 8; i < 256; i += 256) cuda::CopyAsync16(tile + i, a + i);
  cuda::CopyAsyncCommit();
  cuda::CopyAsyncWait<0>();
  __syncwarp();
  uint32_t fragment[4];  // matrices of ldmatrix in the order of a: rows 0-7 and 8-15, then columns 8-15 of both
  const int row = emulator::Lane() % 16, column = emulator::Lane() / 16 * 8;
  cuda::LoadMatrix4(fragment, tile + row * 16 + column);
  const uint32_t fragment_b[2] = {pair(b + g * 16 + 2 * t), pair(b + g * 16 + 2 * t + 8)};
  float sums[4] = {0, 0, 0, 0};
  cuda::MmaBf16(sums, fragment, fragment_b);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

void TestMma() {
  test::Buffer<uint16_t> a(256), b(128);
  for (int64_t i = 0; i < a.size(); ++i) a[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(-8, 8)));
  for (int64_t i = 0; i < b.size(); ++i) b[i] = FloatToBFloat16(static_cast<float>(test::RandomInt(-8, 8)));
  test::Buffer<float> d(128);
  PRISM_CHECK(cuda::Launch(MmaKernel, 1, 32, 512, nullptr, a.data(), b.data(), d.data()) == cudaSuccess, "launch");
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float expected = 0;
      for (int k = 0; k < 16; ++k) expected += BFloat16ToFloat(a[row * 16 + k]) * BFloat16ToFloat(b[column * 16 + k]);
      PRISM_CHECK(d[row * 8 + column] == expected, "element %d, %d", row, column);
    }
  }
}

// columns[16][8]: byte c0 | c1 << 2 per quad of A; values[16][8][2]. Lanes that are not selected hold nonsense.
template <int kSelector>
void SparseMmaKernel(const uint16_t* values, const uint8_t* columns, const uint16_t* b, float* d) {
  const int g = emulator::Lane() / 4, t = emulator::Lane() % 4;
  const auto pair = [](const uint16_t* at) { return at[0] | static_cast<uint32_t>(at[1]) << 16; };
  uint32_t a[4], fragment_b[4], held = 0xffffffffu;
  for (int i = 0; i < 4; ++i) {
    a[i] = pair(values + ((g + i % 2 * 8) * 8 + t + i / 2 * 4) * 2);
    fragment_b[i] = pair(b + g * 32 + 8 * i + 2 * t);
  }
  if (t / 2 == kSelector) {
    held = 0;
    for (int i = 0; i < 8; ++i) {
      held |= static_cast<uint32_t>(columns[(g + i / 4 * 8) * 8 + t % 2 * 4 + i % 4]) << 4 * i;
    }
  }
  float sums[4] = {0, 0, 0, 0};
  cuda::MmaSparseFp16<kSelector>(sums, a, fragment_b, held);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// d [16, 8] = a [16, 32] times b [8, 32]^T, bytes.
void BytesMmaKernel(const uint8_t* a, const uint8_t* b, int* d) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  const auto word = [](const uint8_t* at) { return *reinterpret_cast<const uint32_t*>(at); };
  const uint32_t fragment_a[4] = {word(a + g * 32 + 4 * t), word(a + (g + 8) * 32 + 4 * t), word(a + g * 32 + 4 * t + 16), word(a + (g + 8) * 32 + 4 * t + 16)};
  const uint32_t fragment_b[2] = {word(b + g * 32 + 4 * t), word(b + g * 32 + 4 * t + 16)};
  int sums[4] = {1, 1, 1, 1};
  cuda::MmaU8S8(sums, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

void TestBytesMma() {
  alignas(4) uint8_t a[16 * 32], b[8 * 32];
  int d[128];
  for (uint8_t& byte : a) byte = static_cast<uint8_t>(test::RandomInt(0, 255));
  for (uint8_t& byte : b) byte = static_cast<uint8_t>(test::RandomInt(0, 255));
  PRISM_CHECK(cuda::Launch(BytesMmaKernel, 1, 32, 0, nullptr, a, b, d) == cudaSuccess, "launch");
  for (int row = 0; row < 16; ++row) {
    for (int token = 0; token < 8; ++token) {
      int expected = 1;
      for (int k = 0; k < 32; ++k) expected += a[row * 32 + k] * static_cast<int8_t>(b[token * 32 + k]);
      PRISM_CHECK(d[row * 8 + token] == expected, "row %d, token %d", row, token);
    }
  }
}

void TestSparseMma() {
  test::Buffer<uint16_t> values(256), b(256);
  test::Buffer<uint8_t> columns(128);
  test::Buffer<float> dense(16 * 32), d(128);
  for (int64_t i = 0; i < b.size(); ++i) b[i] = FloatToFloat16(static_cast<float>(test::RandomInt(-8, 8)));
  for (int64_t i = 0; i < dense.size(); ++i) dense[i] = 0;
  for (int64_t i = 0; i < 128; ++i) {
    const int64_t first = test::RandomInt(0, 2), second = test::RandomInt(first + 1, 3);
    columns[i] = static_cast<uint8_t>(first | second << 2);
    for (int64_t kept = 0; kept < 2; ++kept) {
      const auto value = static_cast<float>(test::RandomInt(-8, 8));
      values[2 * i + kept] = FloatToFloat16(value);
      dense[4 * i + (kept == 0 ? first : second)] = value;
    }
  }
  for (const auto kernel : {SparseMmaKernel<0>, SparseMmaKernel<1>}) {
    PRISM_CHECK(cuda::Launch(kernel, 1, 32, 0, nullptr, values.data(), columns.data(), b.data(), d.data()) == cudaSuccess,
                "launch");
    for (int row = 0; row < 16; ++row) {
      for (int token = 0; token < 8; ++token) {
        float expected = 0;
        for (int k = 0; k < 32; ++k) expected += dense[row * 32 + k] * Float16ToFloat(b[token * 32 + k]);
        PRISM_CHECK(d[row * 8 + token] == expected, "row %d, token %d", row, token);
      }
    }
  }
}

void GridKernel(int* counts, int* seen) {
  if (threadIdx.x == 0) atomicAdd(counts, 1);
  cuda::GridBarrier();
  if (threadIdx.x == 0) seen[blockIdx.x] = *counts;
}

void TestGridBarrier() {
  int counts = 0, seen[5] = {};
  PRISM_CHECK(cuda::LaunchCooperative(GridKernel, 5, 64, 0, nullptr, &counts, seen) == cudaSuccess, "launch");
  for (const int value : seen) PRISM_CHECK(value == 5, "%d blocks before the barrier", value);
}

void SumKernel(const float* in, float* out) {
  float sum = in[threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  const unsigned negative = __ballot_sync(0xffffffffu, in[threadIdx.x] < 0);
  if (__reduce_add_sync(0xffffffffu, in[threadIdx.x] < 0) != __popc(negative)) sum = -1e9f;
  out[threadIdx.x] = sum + static_cast<float>(__popc(negative));
}

void TestCollectives() {
  test::Buffer<float> in(64), out(64);
  float sums[2] = {0, 0};
  for (int i = 0; i < 64; ++i) in[i] = static_cast<float>(i % 2 == 0 ? i : -i), sums[i / 32] += in[i] + (in[i] < 0);
  cuda::Launch(SumKernel, 1, 64, 0, nullptr, in.data(), out.data());
  for (int i = 0; i < 64; ++i) PRISM_CHECK(out[i] == sums[i / 32], "lane %d: %f", i, static_cast<double>(out[i]));
}

void ScanKernel(int* sums) {
  int sum = static_cast<int>(threadIdx.x) + 1;
  for (int lanes = 1; lanes < 32; lanes *= 2) sum = cuda::AddFromBelow(sum, lanes);
  sums[threadIdx.x] = sum;
  sums[32 + threadIdx.x] = cuda::AddUpWarp(static_cast<int>(threadIdx.x) + 1);
}

void TestScan() {
  int sums[64];
  cuda::Launch(ScanKernel, 1, 32, 0, nullptr, sums);
  for (int i = 0; i < 32; ++i) PRISM_CHECK(sums[i] == (i + 1) * (i + 2) / 2, "lane %d: %d", i, sums[i]);
  for (int i = 32; i < 64; ++i) PRISM_CHECK(sums[i] == 32 * 33 / 2, "lane %d: %d", i % 32, sums[i]);
}

void TestBits() {
  PRISM_CHECK(__funnelshift_r(0x89abcdefu, 0x01234567u, 4) == 0x789abcdeu, "a shift of 4");
  PRISM_CHECK(__funnelshift_r(1u, 2u, 0) == 1u && __funnelshift_r(1u, 2u, 32) == 1u, "shifts wrap at 32");
  PRISM_CHECK(__funnelshift_rc(1u, 2u, 32) == 2u && __funnelshift_rc(1u, 2u, 99) == 2u, "shifts stop at 32");
  PRISM_CHECK(cuda::Permute(0x33221100u, 0x77665544u, 0xffff0742u) == 0x00774422u, "four bytes");
  PRISM_CHECK(cuda::Permute(0x33228100u, 0x77665544u, 0xf098u) == 0x0000ff00u, "signs of bytes");
  PRISM_CHECK(cuda::AndOr(0xffu, 0x0fu, 0x100u) == 0x10fu, "and, or");
  cuda::PrefetchL2(nullptr);
}

void SharedKernel(uint16_t* out) {
  PRISM_DYNAMIC_SMEM(shared);
  cuda::StoreShared2(cuda::ToShared(shared), 2 * (63 - threadIdx.x), static_cast<uint16_t>(threadIdx.x));
  __syncthreads();
  out[threadIdx.x] = reinterpret_cast<uint16_t*>(shared)[threadIdx.x];
}

void TestSharedAddress() {
  uint16_t out[64] = {};
  PRISM_CHECK(cuda::Launch(SharedKernel, 1, 64, 128, nullptr, out) == cudaSuccess, "launch");
  for (int i = 0; i < 64; ++i) PRISM_CHECK(out[i] == 63 - i, "element %d: %d", i, out[i]);
}

void PairsKernel(const uint32_t* in, float* out) {
  const float2 pair = cuda::UnpackFp16(cuda::LoadOnce8(in).y);
  cuda::Store16(out, make_uint4(__float_as_uint(pair.x), __float_as_uint(pair.y), 0, 0));
}

void TestPairs() {
  alignas(8) const uint32_t in[2] = {0, FloatToFloat16(-1.5f) | static_cast<uint32_t>(FloatToFloat16(0.25f)) << 16};
  alignas(16) float out[4] = {};
  cuda::Launch(PairsKernel, 1, 1, 0, nullptr, in, out);
  PRISM_CHECK(out[0] == -1.5f && out[1] == 0.25f, "%f %f", static_cast<double>(out[0]), static_cast<double>(out[1]));
}

void SkippedBarrier(int*) {
  if (threadIdx.x < 32) __syncwarp();
  if (threadIdx.x != 5) __syncthreads();
  if (threadIdx.x == 5) __syncwarp();
}

void UnfinishedCopy(int* from) {
  PRISM_DYNAMIC_SMEM(shared);
  cuda::CopyAsync16(shared, from);
}

void PastSharedMemory(int* out) {
  PRISM_DYNAMIC_SMEM(shared);
  *out = shared[512];
}

void EqualColumns(int*) {
  const uint32_t zero[4] = {0, 0, 0, 0};
  float sums[4] = {0, 0, 0, 0};
  cuda::MmaSparseBf16<0>(sums, zero, zero, 0);
}

void MustDie(const char* name, void (*kernel)(int*)) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    alignas(16) int memory[4] = {};
    cuda::Launch(kernel, 1, 64, 512, nullptr, memory);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  PRISM_CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 0), "%s was not noticed", name);
}

// Lane i reads what lane 31 - i wrote. Without the barrier between, some order of threads reads NaN patterns.
void MissingBarrier(float* out) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* values = reinterpret_cast<float*>(shared);
  values[threadIdx.x] = 1.0f;
  out[threadIdx.x] = values[63 - threadIdx.x];
}

void TestMissingBarrierShows() {
  test::Buffer<float> out(64);
  cuda::Launch(MissingBarrier, 1, 64, 512, nullptr, out.data());
  int wrong = 0;
  for (int i = 0; i < 64; ++i) wrong += out[i] != 1.0f;
  PRISM_CHECK(wrong > 0, "a missing barrier left no trace");
}

}  // namespace

int main() {
  TestMma();
  TestBytesMma();
  TestSparseMma();
  TestGridBarrier();
  TestCollectives();
  TestScan();
  TestBits();
  TestPairs();
  TestSharedAddress();
  MustDie("a barrier that one thread skips", SkippedBarrier);
  MustDie("a quad whose columns do not rise", EqualColumns);
  MustDie("an asynchronous copy that is not waited for", UnfinishedCopy);
#if defined(__SANITIZE_ADDRESS__)
  MustDie("a read past shared memory", PastSharedMemory);
#else
  (void)PastSharedMemory;
#endif
  TestMissingBarrierShows();
  return 0;
}
