// A radix select: histograms over the three digits of the scores' keys, from the top, find the key of the smallest score
// that stays; one more pass marks. Counts are integers, so atomics leave nothing to chance. A row is the work of one block,
// which keeps its histogram in shared memory and reads the row four times, from the caches after the first. A matrix is
// cut into chunks, and every step is a launch: bound by reading the scores four times, 4 * 4 bytes per score.
//
// Scores equal to the threshold stay from the last one backwards, so marking numbers them in their order.
#include "topk_mask.cuh"

#include "../common/dtype.h"
#include "common/launch.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kChunk = 1 << 15;  // scores that a block takes of a matrix
constexpr int kDigits = 3;
constexpr int kBins = 1 << 11;
constexpr int kBinsOfThread = kBins / kThreads;
constexpr int kResident = 4;  // blocks per multiprocessor that registers are spent for; left free, the compiler spills
constexpr unsigned kAll = 0xffffffffu;
using Count = unsigned long long;  // what atomicAdd takes

__device__ int DigitShift(int digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }
__device__ int DigitWidth(int digit) { return digit == 2 ? 10 : 11; }

// Unsigned integers in the order of the scores: NaN is -inf, -0 is 0.
__device__ uint32_t Key(float score) {
  uint32_t bits = FloatBits(score + 0.0f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0xff800000u;
  return bits ^ ((0u - (bits >> 31)) | 0x80000000u);
}

// What is known of the threshold so far.
struct Selection {
  uint32_t prefix;  // its digits
  int64_t keep;     // how many stay of the scores with these digits, at least 1
  int64_t skip;     // how many of them do not
};

// What the threads of a block share: the histogram, sums of warps (two sets in turn), and what one thread found.
struct Shared {
  uint32_t* histogram;  // [kBins]
  Count* sums;          // [2, kWarps]
  Selection* found;

  __device__ explicit Shared(unsigned char* memory)
      : histogram(reinterpret_cast<uint32_t*>(memory)), sums(reinterpret_cast<Count*>(memory + kBins * 4)),
        found(reinterpret_cast<Selection*>(sums + 2 * kWarps)) {}
};
constexpr size_t kSharedBytes = kBins * 4 + 2 * kWarps * sizeof(Count) + sizeof(Selection);

// The sum over the threads before this one; a barrier between two calls with the same `set`.
__device__ Count SumBefore(Count own, Count* sums, int set, Count* total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  Count sum = own;
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const Count before = __shfl_up_sync(kAll, sum, static_cast<unsigned>(lanes));
    if (lane >= lanes) sum += before;
  }
  if (lane == 31) sums[set * kWarps + warp] = sum;
  __syncthreads();
  Count earlier = 0, all = 0;
  for (int i = 0; i < kWarps; ++i) {
    if (i == warp) earlier = all;
    all += sums[set * kWarps + i];
  }
  *total = all;
  return earlier + sum - own;
}

// The bin of the keep-th largest score, by all threads of the block; every thread gets the longer prefix.
template <class T>
__device__ Selection NextDigit(const T* histogram, int digit, Selection now, const Shared& shared) {
  const int width = DigitWidth(digit), bins = 1 << width;
  const int last = kBins - 1 - static_cast<int>(threadIdx.x) * kBinsOfThread;  // thread 0 has the largest digits
  Count own = 0, all = 0;
  for (int i = 0; i < kBinsOfThread; ++i) own += last - i < bins ? histogram[last - i] : 0;
  auto left = now.keep - static_cast<int64_t>(SumBefore(own, shared.sums, 0, &all));
  if (left >= 1 && left <= static_cast<int64_t>(own)) {
    for (int bin = last;; --bin) {
      const auto count = static_cast<int64_t>(bin < bins ? histogram[bin] : 0);
      if (left <= count) {
        *shared.found = {now.prefix << width | static_cast<uint32_t>(bin), left, count - left};
        break;
      }
      left -= count;
    }
  }
  __syncthreads();
  const Selection next = *shared.found;
  __syncthreads();
  return next;
}

// Clears the histogram of the block and counts the digits of the scores that have the prefix.
__device__ void Histogram(const float* scores, int64_t size, int digit, uint32_t prefix, const Shared& shared) {
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) shared.histogram[bin] = 0;
  __syncthreads();
  const int shift = DigitShift(digit), width = DigitWidth(digit);
  const uint32_t bins = (1u << width) - 1;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const uint32_t key = Key(scores[i]);
    if (digit == 0 || key >> (shift + width) == prefix) atomicAdd(&shared.histogram[key >> shift & bins], 1u);
  }
  __syncthreads();
}

// Marks what stays; of the scores equal to the threshold the first `skip` do not.
__device__ void Mark(const float* scores, int64_t size, uint32_t threshold, int64_t skip, const Shared& shared, bool* mask) {
  if (skip <= 0) {
    for (int64_t i = threadIdx.x; i < size; i += kThreads) mask[i] = Key(scores[i]) >= threshold;
    return;
  }
  int64_t before = 0;
  for (int64_t base = 0, step = 0; base < size; base += kThreads, ++step) {
    const int64_t i = base + threadIdx.x;
    const uint32_t key = i < size ? Key(scores[i]) : 0;
    const bool equal = i < size && key == threshold;
    Count total = 0;
    const int64_t rank = before + static_cast<int64_t>(SumBefore(equal, shared.sums, static_cast<int>(step % 2), &total));
    if (i < size) mask[i] = key > threshold || (equal && rank >= skip);
    before += static_cast<int64_t>(total);
  }
}

__global__ void __launch_bounds__(kThreads, kResident)
    TopkRowsKernel(const float* scores, int64_t num_rows, int64_t k, int64_t keep, bool* mask) {
  PRISM_DYNAMIC_SMEM(memory);
  const Shared shared(memory);
  for (int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const float* from = scores + row * k;
    Selection selection = {0, keep, 0};
    for (int digit = 0; digit < kDigits; ++digit) {
      Histogram(from, k, digit, selection.prefix, shared);
      selection = NextDigit(shared.histogram, digit, selection, shared);
    }
    Mark(from, k, selection.prefix, selection.skip, shared, mask + row * k);
    __syncthreads();
  }
}

// The workspace of a whole matrix: histograms of the three digits, the scores equal to the threshold in each chunk, and
// the selection.
struct Workspace {
  Count* histograms;  // [kDigits, kBins]
  Count* equal;       // [chunks]
  Selection* selection;

  __host__ __device__ Workspace(unsigned char* memory, int64_t chunks)
      : histograms(reinterpret_cast<Count*>(memory)), equal(histograms + kDigits * kBins),
        selection(reinterpret_cast<Selection*>(equal + chunks)) {}
};

__global__ void __launch_bounds__(kThreads)
    TopkHistogramKernel(const float* scores, int64_t size, int digit, Workspace workspace) {
  PRISM_DYNAMIC_SMEM(memory);
  const Shared shared(memory);
  const int64_t begin = blockIdx.x * kChunk;
  Histogram(scores + begin, min(kChunk, size - begin), digit, workspace.selection->prefix, shared);
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) {
    const Count count = shared.histogram[bin];
    if (count != 0) atomicAdd(&workspace.histograms[digit * kBins + bin], count);
  }
}

__global__ void __launch_bounds__(kThreads) TopkSelectKernel(int64_t keep, int digit, Workspace workspace) {
  PRISM_DYNAMIC_SMEM(memory);
  const Shared shared(memory);
  const Selection now = digit == 0 ? Selection{0, keep, 0} : *workspace.selection;
  const Selection next = NextDigit(workspace.histograms + digit * kBins, digit, now, shared);
  if (threadIdx.x == 0) *workspace.selection = next;
}

__global__ void __launch_bounds__(kThreads) TopkEqualKernel(const float* scores, int64_t size, Workspace workspace) {
  PRISM_DYNAMIC_SMEM(memory);
  const Shared shared(memory);
  if (workspace.selection->skip == 0) return;
  const int64_t begin = blockIdx.x * kChunk, end = min(begin + kChunk, size);
  Count own = 0, total = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) own += Key(scores[i]) == workspace.selection->prefix;
  SumBefore(own, shared.sums, 0, &total);
  if (threadIdx.x == 0) workspace.equal[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads)
    TopkMarkKernel(const float* scores, int64_t size, Workspace workspace, bool* mask) {
  PRISM_DYNAMIC_SMEM(memory);
  const Shared shared(memory);
  const Selection selection = *workspace.selection;
  int64_t skip = selection.skip;
  if (skip > 0) {  // less those of the chunks before
    Count own = 0, total = 0;
    for (int64_t chunk = threadIdx.x; chunk < blockIdx.x; chunk += kThreads) own += workspace.equal[chunk];
    SumBefore(own, shared.sums, 0, &total);
    skip -= static_cast<int64_t>(total);
    __syncthreads();
  }
  const int64_t begin = blockIdx.x * kChunk;
  Mark(scores + begin, min(kChunk, size - begin), selection.prefix, skip, shared, mask + begin);
}

__global__ void TopkFillKernel(bool* mask, int64_t size, bool value) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += stride) mask[i] = value;
}

cudaError_t Fill(bool* mask, int64_t size, bool value, cudaStream_t stream) {
  if (size == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(min(CeilDiv(size, kThreads), int64_t{1} << 20));
  return Launch(TopkFillKernel, blocks, kThreads, 0, stream, mask, size, value);
}

}  // namespace

cudaError_t TopkMaskRows(const float* scores, int64_t num_rows, int64_t k, int64_t keep, bool* mask, cudaStream_t stream) {
  if (num_rows == 0 || keep == 0 || keep == k) return Fill(mask, num_rows * k, keep != 0, stream);
  const auto blocks = static_cast<unsigned>(min(num_rows, int64_t{1} << 20));
  return Launch(TopkRowsKernel, blocks, kThreads, kSharedBytes, stream, scores, num_rows, k, keep, mask);
}

int64_t TopkMaskWorkspace(int64_t size) {
  return (kDigits * kBins + CeilDiv(size, kChunk)) * static_cast<int64_t>(sizeof(Count)) + static_cast<int64_t>(sizeof(Selection));
}

cudaError_t TopkMaskAll(const float* scores, int64_t size, int64_t keep, bool* mask, unsigned char* workspace,
                        cudaStream_t stream) {
  if (keep == 0 || keep == size) return Fill(mask, size, keep != 0, stream);
  const int64_t chunks = CeilDiv(size, kChunk);
  const auto blocks = static_cast<unsigned>(chunks);
  const Workspace work(workspace, chunks);
  cudaError_t error = cudaSuccess;
  for (int digit = 0; digit < kDigits && error == cudaSuccess; ++digit) {
    error = Launch(TopkHistogramKernel, blocks, kThreads, kSharedBytes, stream, scores, size, digit, work);
    if (error == cudaSuccess) error = Launch(TopkSelectKernel, 1, kThreads, kSharedBytes, stream, keep, digit, work);
  }
  if (error == cudaSuccess) error = Launch(TopkEqualKernel, blocks, kThreads, kSharedBytes, stream, scores, size, work);
  if (error != cudaSuccess) return error;
  return Launch(TopkMarkKernel, blocks, kThreads, kSharedBytes, stream, scores, size, work, mask);
}

}  // namespace prism::cuda
