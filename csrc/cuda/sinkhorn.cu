// The launches of sinkhorn.cuh: what is known of the lines beforehand, then per iteration one pass over the weights
// (sinkhorn_sums.cuh), the columns, and for "sinq" the step of both sides, whose best iterate and end stay on the device.
#include "sinkhorn.cuh"

#include <new>

#include "sinkhorn_sums.cuh"

namespace prism::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kOneBlock = 512;

__device__ void Widen(float value, bool keep, float* low, float* high) {
  if (!keep) return;
  *low = value < *low ? value : *low;
  *high = value > *high ? value : *high;
}

// Of the columns of one chunk of rows: kept entries, the lowest and the highest; and the copy with zeros where pruned.
template <class T>
__global__ void PrepareColumnsKernel(const SinkhornArgs args) {
  const SinkhornMatrix<T> a(args);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, first = blockIdx.y * SinkhornChunk(a.k);
  if (c >= a.k) return;
  T* kept = static_cast<T*>(a.state.kept);
  int32_t count = 0;
  float low = INFINITY, high = -INFINITY;
  for (int64_t row = first; row < min(a.n, first + SinkhornChunk(a.k)); ++row) {
    const int64_t at = row * a.k + c;
    const bool keep = a.Keeps(at);
    Widen(cuda::Widen(a.weight[at]), keep, &low, &high);
    count += keep;
    if (kept != nullptr) kept[at] = keep ? a.weight[at] : T{0};
  }
  const int64_t to = blockIdx.y * a.k + c;
  a.state.chunk_count[to] = count;
  a.state.chunk_sum[to] = low;
  a.state.chunk_square[to] = high;
}

// A warp per row.
template <class T>
__global__ void PrepareRowsKernel(const SinkhornArgs args) {
  const SinkhornMatrix<T> a(args);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= a.n) return;
  int32_t count = 0;
  float low = INFINITY, high = -INFINITY;
  for (int64_t c = threadIdx.x % 32; c < a.k; c += 32) {
    const bool keep = a.Keeps(row * a.k + c);
    Widen(cuda::Widen(a.weight[row * a.k + c]), keep, &low, &high);
    count += keep;
  }
  count = SumOfWarp(count);
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    low = fminf(low, __shfl_xor_sync(0xffffffffu, low, lanes));
    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
  }
  if (threadIdx.x % 32 != 0) return;
  a.state.rows.count[row] = count;
  a.state.rows.live[row] = low < high;
  a.state.largest[row] = count > 0 ? fmaxf(fabsf(low), fabsf(high)) : 0.0f;
}

struct Extremes {
  double smallest, largest;
};

// Of all threads of a block of kOneBlock, in all of them. `shared`: 2 * 32 doubles.
__device__ Extremes ExtremesOfBlock(Extremes own, double* shared) {
  const auto narrow = [](Extremes mine) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      mine.smallest = fmin(mine.smallest, __shfl_xor_sync(0xffffffffu, mine.smallest, lanes));
      mine.largest = fmax(mine.largest, __shfl_xor_sync(0xffffffffu, mine.largest, lanes));
    }
    return mine;
  };
  own = narrow(own);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) shared[warp] = own.smallest, shared[32 + warp] = own.largest;
  __syncthreads();
  const int from = lane % (kOneBlock / 32);
  return narrow({shared[from], shared[32 + from]});
}

__global__ void UnitKernel(const SinkhornArgs args) {
  PRISM_DYNAMIC_SMEM(shared);
  const SinkhornMatrix<float> a(args);
  Extremes own = {0.0, 0.0};
  for (int64_t i = threadIdx.x; i < a.n; i += kOneBlock) own.largest = fmax(own.largest, static_cast<double>(a.state.largest[i]));
  const Extremes all = ExtremesOfBlock(own, reinterpret_cast<double*>(shared));
  if (threadIdx.x != 0) return;
  const int exponent = all.largest > 0.0 ? ilogb(all.largest) : 0;
  a.state.scalars[0] = INFINITY;
  a.state.scalars[2] = ldexp(1.0, -min(max(exponent, -100), 100));
  *a.state.stopped = 0;
}

__device__ void StartLine(const SinkhornLines& lines, int64_t i, double unit) {
  lines.factor[i] = lines.best[i] = 1.0;
  lines.spread[i] = 0.0;
  lines.inverse[i] = static_cast<float>(unit);
}

__global__ void StartKernel(const SinkhornArgs args) {
  const SinkhornMatrix<float> a(args);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const double unit = a.state.scalars[2];
  if (i < a.n) StartLine(a.state.rows, i, unit);
  if (i >= a.k) return;
  StartLine(a.state.columns, i, unit);
  int32_t count = 0;
  float low = INFINITY, high = -INFINITY;
  for (int64_t at = i; at < a.chunks * a.k; at += a.k) {
    count += a.state.chunk_count[at];
    low = fminf(low, a.state.chunk_sum[at]);
    high = fmaxf(high, a.state.chunk_square[at]);
  }
  a.state.columns.count[i] = count;
  a.state.columns.live[i] = low < high;
}

template <class T, int kVectors, bool kPrism>
__global__ void __launch_bounds__(kMostThreads, 1) SumKernel(const SinkhornArgs args, const SumShape shape) {
  PRISM_DYNAMIC_SMEM(shared);
  static_assert(sizeof(SinkhornMatrix<T>) <= kMatrixBytes);
  auto* a = reinterpret_cast<SinkhornMatrix<T>*>(shared);
  if (threadIdx.x == 0) new (a) SinkhornMatrix<T>(args);
  __syncthreads();
  if (*a->state.stopped != 0) return;
  SumBlock<T, kVectors, kPrism>(*a, shape, shared + kMatrixBytes).Run();
}

// Sum of squared deviations from the mean of the scaled column, in double.
template <class T>
__device__ double SumAgain(const SinkhornMatrix<T>& a, int64_t c) {
  const double factor = a.state.columns.factor[c];
  const auto scaled = [&](int64_t row) {
    return static_cast<double>(cuda::Widen(a.kept[row * a.k + c])) / (a.state.rows.factor[row] * factor);
  };
  double total = 0.0, squares = 0.0;
  for (int64_t row = 0; row < a.n; ++row) {
    if (a.Keeps(row * a.k + c)) total += scaled(row);
  }
  const double mean = total / a.state.columns.count[c];
  for (int64_t row = 0; row < a.n; ++row) {
    const double gap = a.Keeps(row * a.k + c) ? scaled(row) - mean : 0.0;
    squares += gap * gap;
  }
  return squares;
}

// The blocks' column sums in their order; the spread of each column, and for "prism" its next factor.
template <class T, bool kPrism>
__global__ void FinishColumnsKernel(const SinkhornArgs args) {
  const SinkhornMatrix<T> a(args);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const SinkhornLines& columns = a.state.columns;
  if (*a.state.stopped != 0 || c >= a.k || columns.count[c] == 0) return;
  double sum = 0.0, square = 0.0, spread = 0.0;
  for (int64_t at = c; at < a.chunks * a.k; at += a.k) {
    sum += static_cast<double>(a.state.chunk_sum[at]);
    square += static_cast<double>(a.state.chunk_square[at]);
  }
  const int32_t count = columns.count[c];
  const double unit = a.state.scalars[2];
  if (count > 1 && (kPrism || columns.live[c])) {
    const double scale = 1.0 / (unit * columns.factor[c]);
    double squares = square - sum * sum / count;
    squares = squares > square * kCancellation ? squares * scale * scale : SumAgain(a, c);
    spread = sqrt(squares / (kPrism ? count : count - 1));
  }
  if (kPrism) {
    columns.factor[c] = fmin(fmax(columns.factor[c] * fmax(spread, 1e-4), kPrismLowest), kPrismHighest);
    columns.inverse[c] = static_cast<float>(unit / columns.factor[c]);
  } else {
    columns.spread[c] = spread;
  }
}

__device__ void AddExtremes(const SinkhornLines& lines, int64_t size, Extremes* extremes) {
  for (int64_t i = threadIdx.x; i < size; i += kOneBlock) {
    if (!lines.live[i]) continue;
    extremes->smallest = fmin(extremes->smallest, lines.spread[i]);
    extremes->largest = fmax(extremes->largest, lines.spread[i]);
  }
}

__device__ void SinqStep(const SinkhornLines& lines, int64_t size, double target, double unit) {
  for (int64_t i = threadIdx.x; i < size; i += kOneBlock) {
    lines.best[i] = lines.factor[i];
    if (!lines.live[i]) continue;
    const double step = fmin(fmax(fmin(fmax(lines.spread[i], 1e-3), 1e3) / target, 0.7), 2.0);
    lines.factor[i] = fmin(fmax(lines.factor[i] * step, exp(-0.3)), exp(10.0));
    lines.inverse[i] = static_cast<float>(unit / lines.factor[i]);
  }
}

// One block per matrix: the iteration ends where the imbalance grows; otherwise these factors are the best, and move.
__global__ void SinqStepKernel(const SinkhornArgs args, bool first) {
  PRISM_DYNAMIC_SMEM(shared);
  const SinkhornMatrix<float> a(args);
  if (*a.state.stopped != 0) return;
  Extremes own = {INFINITY, 0.0};
  AddExtremes(a.state.columns, a.k, &own);
  AddExtremes(a.state.rows, a.n, &own);
  const Extremes all = ExtremesOfBlock(own, reinterpret_cast<double*>(shared));
  const double smallest = fmin(fmax(all.smallest, 1e-3), 1e3) + 1e-6;
  const double target = first ? fmin(fmax(smallest, 1e-3), 1e3) : a.state.scalars[1];
  const double imbalance = all.largest / fmax(all.smallest, 1e-12);
  const bool stop = all.largest == 0.0 || imbalance > a.state.scalars[0];
  __syncthreads();  // all have read the scalars
  if (threadIdx.x == 0) {
    *a.state.stopped = stop;
    a.state.scalars[0] = stop ? a.state.scalars[0] : imbalance;
    a.state.scalars[1] = target;
  }
  if (stop) return;
  SinqStep(a.state.columns, a.k, target, a.state.scalars[2]);
  SinqStep(a.state.rows, a.n, target, a.state.scalars[2]);
}

// A thread per column.
template <class T>
__global__ void SquareColumnsKernel(const SinkhornArgs args) {
  const SinkhornMatrix<T> a(args);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.k) return;
  double square = 0.0;
  int32_t count = 0;
  for (int64_t row = 0; row < a.n; ++row) {
    if (!a.Keeps(row * a.k + c)) continue;
    const double value = static_cast<double>(cuda::Widen(a.weight[row * a.k + c]));
    square += value * value;
    ++count;
  }
  a.state.columns.spread[c] = count > 0 ? sqrt(square / count) : 0.0;
}

// The root mean squares over their geometric mean.
__global__ void CentreColumnsKernel(const SinkhornArgs args) {
  PRISM_DYNAMIC_SMEM(shared);
  auto* scratch = reinterpret_cast<double*>(shared);
  const SinkhornMatrix<float> a(args);
  const SinkhornLines& columns = a.state.columns;
  double logarithms = 0.0, live = 0.0;
  for (int64_t c = threadIdx.x; c < a.k; c += kOneBlock) {
    if (columns.spread[c] > 0.0) logarithms += log(columns.spread[c]), live += 1.0;
  }
  int turn = 0;
  SumOfRow(SumShape{kOneBlock, kOneBlock, 1}, scratch, &turn, &logarithms, &live);
  const double centre = live > 0.0 ? exp(logarithms / live) : 1.0;
  for (int64_t c = threadIdx.x; c < a.k; c += kOneBlock) {
    columns.best[c] = columns.spread[c] > 0.0 ? fmin(fmax(columns.spread[c] / centre, 0.1), 10.0) : 1.0;
  }
}

__global__ void WriteKernel(const SinkhornArgs args) {
  const SinkhornMatrix<float> a(args);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, index = blockIdx.z;
  const bool last = args.variant == SinkhornVariant::kPrism;
  const SinkhornLines &columns = a.state.columns, &rows = a.state.rows;
  if (i < a.k) args.column_factor[index * a.k + i] = static_cast<float>(last ? columns.factor[i] : columns.best[i]);
  if (i >= a.n) return;
  const bool closed = args.variant == SinkhornVariant::kRms;
  args.row_factor[index * a.n + i] = closed ? 1.0f : static_cast<float>(last ? rows.factor[i] : rows.best[i]);
}

// Launches one after another until one fails.
struct Launches {
  const SinkhornArgs& args;
  cudaStream_t stream;
  cudaError_t error = cudaSuccess;

  template <class Kernel, class... More>
  void Add(Kernel kernel, int64_t x, int64_t y, int threads, int64_t shared, More... more) {
    if (error != cudaSuccess) return;
    const dim3 grid(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(args.batch));
    error = Launch(kernel, grid, static_cast<unsigned>(threads), static_cast<size_t>(shared), stream, args, more...);
  }
};

template <class T, int kVectors, bool kPrism>
void Iterate(Launches& launches, const SumShape& shape, bool first) {
  const SinkhornArgs& a = launches.args;
  launches.Add(SumKernel<T, kVectors, kPrism>, CeilDiv(a.n, SinkhornChunk(a.k)), 1, shape.threads,
               SumSharedBytes<T, kVectors>(shape), shape);
  launches.Add(FinishColumnsKernel<T, kPrism>, CeilDiv(a.k, kThreads), 1, kThreads, 0);
  if (!kPrism) launches.Add(SinqStepKernel, 1, 1, kOneBlock, 64 * sizeof(double), first);
}

template <class T, bool kPrism>
void IterateShape(Launches& launches, const SumShape& shape, bool first) {
  if (shape.vectors == 1) return Iterate<T, 1, kPrism>(launches, shape, first);
  if (shape.vectors == 2) return Iterate<T, 2, kPrism>(launches, shape, first);
  if constexpr (sizeof(T) == 2) Iterate<T, 4, kPrism>(launches, shape, first);
}

template <class T>
cudaError_t Run(const SinkhornArgs& a, cudaStream_t stream) {
  Launches launches{a, stream};
  const int64_t lines = CeilDiv(max(a.n, a.k), kThreads);
  if (a.variant == SinkhornVariant::kRms) {
    launches.Add(SquareColumnsKernel<T>, CeilDiv(a.k, kThreads), 1, kThreads, 0);
    launches.Add(CentreColumnsKernel, 1, 1, kOneBlock, 128 * sizeof(double));
    launches.Add(WriteKernel, lines, 1, kThreads, 0);
    return launches.error;
  }
  launches.Add(PrepareColumnsKernel<T>, CeilDiv(a.k, kThreads), CeilDiv(a.n, SinkhornChunk(a.k)), kThreads, 0);
  launches.Add(PrepareRowsKernel<T>, CeilDiv(a.n, kThreads / 32), 1, kThreads, 0);
  launches.Add(UnitKernel, 1, 1, kOneBlock, 64 * sizeof(double));
  launches.Add(StartKernel, lines, 1, kThreads, 0);
  const SumShape shape = ShapeFor<T>(a.k);
  const bool prism = a.variant == SinkhornVariant::kPrism;
  for (int64_t i = 0; i < a.iterations; ++i) {
    prism ? IterateShape<T, true>(launches, shape, i == 0) : IterateShape<T, false>(launches, shape, i == 0);
  }
  launches.Add(WriteKernel, lines, 1, kThreads, 0);
  return launches.error;
}

}  // namespace

int64_t SinkhornWorkspace(DType dtype, bool masked, int64_t batch, int64_t n, int64_t k) {
  return batch * StateBytes(dtype, masked, n, k);
}

cudaError_t Sinkhorn(const SinkhornArgs& args, cudaStream_t stream) {
  if (args.batch == 0 || args.n == 0 || args.k == 0) return cudaSuccess;
  constexpr int64_t kMostAtOnce = 65535;  // of the third dimension of a grid
  for (int64_t first = 0; first < args.batch; first += kMostAtOnce) {
    SinkhornArgs part = args;
    const int64_t at = first * args.n * args.k;
    part.batch = min(kMostAtOnce, args.batch - first);
    part.weight = static_cast<const unsigned char*>(args.weight) + at * DTypeBytes(args.dtype);
    part.mask = args.mask != nullptr ? args.mask + at : nullptr;
    part.column_factor += first * args.k;
    part.row_factor += first * args.n;
    const cudaError_t error = args.dtype == DType::kFloat32 ? Run<float>(part, stream) : Run<uint16_t>(part, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace prism::cuda
