// The pass over the weights: sums of w and w^2 of the scaled matrix by row and by column, each weight loaded once.
//
// A lane owns 8, 16 or (bfloat16) 32 columns of a row. Up to 256 columns, several rows pass a block side by side and a row
// is summed by shuffles; beyond, a row takes the whole block and one barrier. Column sums stay in the registers of the
// lanes that own the columns, so that a row is not read again for them: "prism" finishes the factor of a row as soon as it
// is summed. Weights come through a ring of asynchronous copies; a lane reads what it copied itself, which needs no
// barrier. More than 16384 columns (float32: 8192) are taken in windows, and rows are then summed in a pass of their own.
//
// 4096 x 14336 bfloat16 (one window): 117 MB per iteration, 27 us of an H200's 4.3 TB/s; 128 blocks hold 115 KB of partial column sums
// each, 15 MB that the second-level cache serves.
#pragma once
#include "common/bitmap.cuh"
#include "common/ptx.cuh"
#include "sinkhorn_state.cuh"

namespace prism::cuda {

inline constexpr int kVectorColumns = 8;
inline constexpr int kMostThreads = 512;  // 128 registers each: up to 64 of them are column sums

struct SumShape {
  int threads, lanes, vectors;  // per block, per row, and vectors of 8 columns per lane

  __host__ __device__ int RowsAtOnce() const { return threads / lanes; }
  __host__ __device__ int64_t Window() const { return static_cast<int64_t>(lanes) * vectors * kVectorColumns; }
};

// float32 weights take more registers on their way, hence at most two vectors.
template <class T>
SumShape ShapeFor(int64_t k) {
  const int64_t vectors = CeilDiv(k, kVectorColumns);
  if (vectors <= 32) {
    int lanes = 1;
    while (lanes < vectors) lanes *= 2;
    return {256, lanes, 1};
  }
  const int threads = static_cast<int>(min(static_cast<int64_t>(kMostThreads), CeilDiv(vectors, 32) * 32));
  return {threads, threads, vectors > 2 * threads && sizeof(T) == 2 ? 4 : vectors > threads ? 2 : 1};
}

template <class T, int kVectors>
struct Ring {
  static constexpr int kPieces = kVectors * static_cast<int>(sizeof(T)) / 2;  // of 16 bytes per lane and row
  static constexpr int kStages = kPieces <= 4 ? 4 : 2;
};

// The block's matrix lies in shared memory: its many pointers would take registers that the sums need.
inline constexpr int64_t kMatrixBytes = 384;

template <class T, int kVectors>
int64_t SumSharedBytes(const SumShape& shape) {
  const int64_t ring = static_cast<int64_t>(Ring<T, kVectors>::kPieces * Ring<T, kVectors>::kStages) * shape.threads * 16;
  const int64_t groups = shape.RowsAtOnce() > 1 ? static_cast<int64_t>(shape.threads) * kVectorColumns * 8 : 0;
  return kMatrixBytes + 2 * 32 * 2 * sizeof(double) + shape.Window() * 4 + max(ring, groups);
}

// The sums of a pair over the lanes of a row, in all of them.
template <class V>
__device__ void SumOfRow(const SumShape& shape, V* scratch, int* turn, V* first, V* second) {
  for (int lanes = min(shape.lanes, 32) / 2; lanes > 0; lanes /= 2) {
    *first += __shfl_xor_sync(0xffffffffu, *first, lanes);
    *second += __shfl_xor_sync(0xffffffffu, *second, lanes);
  }
  if (shape.lanes <= 32) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  V* slots = scratch + (*turn ^= 1) * 64;  // two in turn: who comes to the next barrier has read these
  if (lane == 0) slots[warp] = *first, slots[32 + warp] = *second;
  __syncthreads();
  const bool used = lane < shape.lanes / 32;
  *first = SumOfWarp(used ? slots[lane] : V{0});
  *second = SumOfWarp(used ? slots[32 + lane] : V{0});
}

template <class T, int kVectors, bool kPrism>
class SumBlock {
 public:
  __device__ SumBlock(const SinkhornMatrix<T>& matrix, const SumShape& shape, unsigned char* shared)
      : a_(matrix), shape_(shape), lane_(static_cast<int>(threadIdx.x) % shape.lanes),
        group_(static_cast<int>(threadIdx.x) / shape.lanes), unit_(static_cast<float>(matrix.state.scalars[2])),
        scratch_(reinterpret_cast<double*>(shared)), inverse_(reinterpret_cast<float4*>(scratch_ + 128)),
        ring_(reinterpret_cast<unsigned char*>(inverse_ + shape.Window() / 4)),
        aligned_(matrix.k * sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(matrix.kept) % 16 == 0) {
    begin_ = blockIdx.x * SinkhornChunk(matrix.k);
    end_ = min(matrix.n, begin_ + SinkhornChunk(matrix.k));
    steps_ = CeilDiv(end_ - begin_, shape.RowsAtOnce());
  }

  __device__ void Run() {
    const int64_t windows = CeilDiv(a_.k, shape_.Window());
    if (windows > 1) SumRowsOfWindows(windows);
    for (int64_t window = 0; window < windows; ++window) {
      Open(window);
      windows > 1 ? Pass<false>() : Pass<true>();
      WriteColumns();
    }
  }

 private:
  static constexpr int kStages = Ring<T, kVectors>::kStages, kPieces = Ring<T, kVectors>::kPieces;
  static constexpr int kColumns = kVectors * kVectorColumns;

  __device__ int64_t Row(int64_t step) const { return begin_ + step * shape_.RowsAtOnce() + group_; }
  __device__ int64_t Column(int v) const { return column_ + (static_cast<int64_t>(v) * shape_.lanes + lane_) * kVectorColumns; }

  // Keeps the compiler from loading all vectors of a lane before it uses the first: there are no registers for that.
  static __device__ void OneAtATime() { asm volatile("" ::: "memory"); }

  // Column factors of a window, two float4 per lane and vector.
  __device__ void Open(int64_t window) {
    column_ = window * shape_.Window();
    __syncthreads();
    for (int64_t c = threadIdx.x; c < shape_.Window(); c += shape_.threads) {
      const int64_t vector = c / kVectorColumns, half = c % kVectorColumns / 4;
      float* to = reinterpret_cast<float*>(inverse_ + (vector / shape_.lanes * 2 + half) * shape_.lanes + vector % shape_.lanes);
      to[c % 4] = column_ + c < a_.k ? a_.state.columns.inverse[column_ + c] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kColumns; ++i) sum_[i] = square_[i] = 0.0f;
  }

  __device__ unsigned char* Slot(int64_t step, int piece) const {
    return ring_ + ((step % kStages * kPieces + piece) * shape_.threads + threadIdx.x) * 16;
  }

  // Begins the copies of one step; rows past the end and columns past k become 0.
  __device__ void Copy(int64_t step) {
    const int64_t row = Row(step);
    constexpr int kElements = 16 / static_cast<int>(sizeof(T));
#pragma unroll
    for (int piece = 0; piece < kPieces && step < steps_; ++piece) {
      constexpr int kPiecesPerVector = kPieces / kVectors;
      const int64_t c = Column(piece / kPiecesPerVector) + piece % kPiecesPerVector * kElements;
      const int64_t count = row < end_ ? max(int64_t{0}, min(int64_t{kElements}, a_.k - c)) : 0;
      const T* from = count > 0 ? a_.kept + row * a_.k + c : a_.kept;
      unsigned char* slot = Slot(step, piece);
      if (aligned_) {
        CopyAsync16(slot, from, static_cast<int>(count * sizeof(T)));
      } else {
        for (int i = 0; i < kElements; ++i) reinterpret_cast<T*>(slot)[i] = i < count ? from[i] : T{0};
      }
    }
    CopyAsyncCommit();
  }

  __device__ void Load(int64_t step, int v, float (&values)[kVectorColumns]) const {
    if constexpr (sizeof(T) == 4) {
      const float4 low = *reinterpret_cast<const float4*>(Slot(step, 2 * v));
      const float4 high = *reinterpret_cast<const float4*>(Slot(step, 2 * v + 1));
      values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
      values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
    } else {
      const uint4 words = *reinterpret_cast<const uint4*>(Slot(step, v));
      const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[2 * i] = BitsToFloat(pairs[i] << 16);
        values[2 * i + 1] = BitsToFloat(pairs[i] & 0xffff0000u);
      }
    }
  }

  __device__ void AddToRow(int v, const float (&values)[kVectorColumns], float* sum, float* square) const {
    const float4 low = inverse_[2 * v * shape_.lanes + lane_], high = inverse_[(2 * v + 1) * shape_.lanes + lane_];
    const float inverse[kVectorColumns] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < kVectorColumns; ++i) {
      const float scaled = values[i] * inverse[i];
      *sum += scaled;
      *square = __fmaf_rn(scaled, scaled, *square);
    }
  }

  // All rows of this block times one window; kRows: the window is the whole row, which is summed on the way.
  template <bool kRows>
  __device__ void Pass() {
    for (int stage = 0; stage < kStages - 1; ++stage) Copy(stage);
    for (int64_t step = 0; step < steps_; ++step) {
      CopyAsyncWait<kStages - 2>();
      const int64_t row = Row(step);
      float sum = 0.0f, square = 0.0f;
      if (kRows) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          float values[kVectorColumns];
          Load(step, v, values);
          AddToRow(v, values, &sum, &square);
          OneAtATime();
        }
        SumOfRow(shape_, reinterpret_cast<float*>(scratch_), &turn_, &sum, &square);
        FinishRow(row, sum, square);
      }
      const float scale = kRows && kPrism ? row_inverse_ : row < end_ ? a_.state.rows.inverse[row] : 0.0f;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        float values[kVectorColumns];
        Load(step, v, values);
#pragma unroll
        for (int i = 0; i < kVectorColumns; ++i) {
          const float scaled = values[i] * scale;
          sum_[v * kVectorColumns + i] += scaled;
          square_[v * kVectorColumns + i] = __fmaf_rn(scaled, scaled, square_[v * kVectorColumns + i]);
        }
        OneAtATime();
      }
      Copy(step + kStages - 1);
    }
    CopyAsyncWait<0>();
  }

  __device__ void SumRowsOfWindows(int64_t windows) {
    for (int64_t row = begin_; row < end_; ++row) {
      float sum = 0.0f, square = 0.0f;
      for (int64_t c = threadIdx.x; c < windows * shape_.Window() && c < a_.k; c += shape_.threads) {
        const float scaled = Widen(a_.kept[row * a_.k + c]) * a_.state.columns.inverse[c];
        sum += scaled;
        square = __fmaf_rn(scaled, scaled, square);
      }
      SumOfRow(shape_, reinterpret_cast<float*>(scratch_), &turn_, &sum, &square);
      FinishRow(row, sum, square);
    }
  }

  // The spread of a row from its sums; "prism" moves its factor. All lanes of the row compute the same.
  __device__ void FinishRow(int64_t row, float sum, float square) {
    const bool valid = row < end_;
    const SinkhornLines& rows = a_.state.rows;
    const int32_t count = valid ? rows.count[row] : 0;
    const bool asked = count > 1 && (kPrism || rows.live[row]);
    const double factor = valid ? rows.factor[row] : 1.0;
    float squares = asked ? square - sum * sum / static_cast<float>(count) : 0.0f;
    const bool again = asked && !(squares > square * static_cast<float>(kCancellation));
    float spread = asked ? sqrtf(squares / static_cast<float>(kPrism ? count : count - 1)) / (unit_ * static_cast<float>(factor)) : 0.0f;
    // A row whose mean is large against its spread is summed again; what decides is uniform where lanes must meet.
    if (shape_.lanes > 32 ? again : __any_sync(0xffffffffu, again) != 0) {
      const float exact = SumAgain(row, asked ? count : 0);
      if (again) spread = sqrtf(exact / static_cast<float>(kPrism ? count : count - 1)) / (unit_ * static_cast<float>(factor));
    }
    if (kPrism) {
      const double moved = fmin(fmax(factor * static_cast<double>(fmaxf(spread, 1e-4f)), kPrismLowest), kPrismHighest);
      const double next = count > 0 ? moved : factor;
      row_inverse_ = valid ? unit_ / static_cast<float>(next) : 0.0f;
      if (valid && lane_ == 0) rows.factor[row] = next, rows.inverse[row] = row_inverse_;
    } else if (valid && lane_ == 0) {
      rows.spread[row] = static_cast<double>(spread);
    }
  }

  // Sum of squared deviations from the mean of the row, scaled by the columns alone, in double. Without divisions, whose
  // registers are needed by the column sums: a column's inverse has float's relative error, a part of 1e-7 of the mean.
  __device__ float SumAgain(int64_t row, int32_t count) {
    double total = 0.0, unused = 0.0, squares = 0.0;
    for (int64_t c = lane_; count > 0 && c < a_.k; c += shape_.lanes) total += Scaled(row, c);
    SumOfRow(shape_, scratch_, &turn_, &total, &unused);
    const double mean = total * static_cast<double>(1.0f / static_cast<float>(max(count, 1)));
    double rest = 0.0;  // of the mean: 1 / count is rounded to float, and the sum of what is left corrects for that
    for (int64_t c = lane_; count > 0 && c < a_.k; c += shape_.lanes) {
      const double gap = a_.Keeps(row * a_.k + c) ? Scaled(row, c) - mean : 0.0;
      squares += gap * gap;
      rest += gap;
    }
    SumOfRow(shape_, scratch_, &turn_, &squares, &rest);
    const auto left = static_cast<float>(rest);
    return static_cast<float>(squares) - left * left / static_cast<float>(max(count, 1));
  }

  __device__ double Scaled(int64_t row, int64_t c) const {
    return static_cast<double>(Widen(a_.kept[row * a_.k + c])) * static_cast<double>(a_.state.columns.inverse[c]);
  }

  // This block's column sums; rows that passed side by side are added in their order.
  __device__ void WriteColumns() {
    float* to_sum = a_.state.chunk_sum + blockIdx.x * a_.k;
    float* to_square = a_.state.chunk_square + blockIdx.x * a_.k;
    if (shape_.RowsAtOnce() == 1) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int64_t c = Column(i / kVectorColumns) + i % kVectorColumns;
        if (c < a_.k) to_sum[c] = sum_[i], to_square[c] = square_[i];
      }
      return;
    }
    float* sums = reinterpret_cast<float*>(ring_);
    float* squares = sums + shape_.threads * kVectorColumns;
    __syncthreads();
    for (int i = 0; i < kVectorColumns; ++i) {
      sums[threadIdx.x * kVectorColumns + i] = sum_[i];
      squares[threadIdx.x * kVectorColumns + i] = square_[i];
    }
    __syncthreads();
    const int64_t width = shape_.Window();
    for (int64_t c = threadIdx.x; c < min(width, a_.k); c += shape_.threads) {
      float sum = 0.0f, square = 0.0f;
      for (int group = 0; group < shape_.RowsAtOnce(); ++group) {
        sum += sums[group * width + c];
        square += squares[group * width + c];
      }
      to_sum[c] = sum, to_square[c] = square;
    }
  }

  const SinkhornMatrix<T>& a_;
  const SumShape shape_;
  const int lane_, group_;
  const float unit_;
  double* const scratch_;  // [2, 64]
  float4* const inverse_;
  unsigned char* const ring_;
  const bool aligned_;
  int64_t begin_, end_, steps_, column_ = 0;
  int turn_ = 0;
  float row_inverse_ = 0.0f;
  float sum_[kColumns], square_[kColumns];
};

}  // namespace prism::cuda
