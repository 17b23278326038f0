// The iterations of sinkhorn.h over the kernels' sums.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../common/dtype.h"
#include "sinkhorn.h"

namespace prism::cpu {
namespace {

constexpr int64_t kColumnBlock = 1024;            // columns that one task finishes
constexpr int64_t kBlockBytes = int64_t{1} << 18;  // rows that stay in the second-level cache between two readings
constexpr int64_t kPrefetchBytes = 1024;           // within a row that comes from memory

const double kSinqLowest = std::exp(-0.3), kSinqHighest = std::exp(10.0);
const double kPrismLowest = std::exp(-10.0), kPrismHighest = std::exp(10.0);

// One side of the matrix: its columns or its rows.
struct Lines {
  explicit Lines(int64_t size)
      : factor(size, 1.0), inverse(size), sum(size), square(size), spread(size), count(size), live(size) {}
  std::vector<double> factor;
  std::vector<float> inverse;  // of factor, times the power of two that brings the matrix near 1
  std::vector<double> sum, square;
  std::vector<double> spread;  // standard deviation of the scaled line
  std::vector<int32_t> count;
  std::vector<uint8_t> live;   // two kept entries differ
};

// Where sum of squares - sum^2 / count is smaller than this part of the sum of squares, too few bits are left of it.
constexpr double kCancellation = 1.0 / 32;

class Solver {
 public:
  Solver(const SinkhornKernels& kernels, const SinkhornMatrix& matrix, const SinkhornParallelFor& parallel_for)
      : kernels_(kernels), matrix_(matrix), parallel_for_(parallel_for), n_(matrix.n), k_(matrix.k),
        chunks_(CeilDiv(matrix.n, kSinkhornChunk)), bitmap_stride_(2 * CeilDiv(matrix.k, 16)), columns_(matrix.k),
        rows_(matrix.n) {}

  void Sinq(int64_t iterations);
  void Prism(int64_t iterations);
  void Rms();
  void WriteFactors() const {
    for (int64_t j = 0; j < k_; ++j) matrix_.column_factor[j] = static_cast<float>(columns_.factor[j]);
    for (int64_t i = 0; i < n_; ++i) matrix_.row_factor[i] = static_cast<float>(rows_.factor[i]);
  }

 private:
  using Chunk = std::function<void(int64_t chunk, int64_t begin, int64_t rows)>;

  void ForChunks(const Chunk& body) const;
  void ForColumns(const std::function<void(int64_t begin, int64_t end)>& body) const;
  void Prepare();
  void SumBoth();
  void PrismRows(int64_t chunk, int64_t begin, int64_t rows);
  void AddChunks();
  void Invert(Lines& lines, int64_t begin, int64_t end) const;
  void FinishSpread(Lines& lines, int64_t i, int correction) const;
  double SumAgain(const Lines& lines, int64_t i) const;
  void PrismStep(Lines& lines, int64_t i) const;
  const void* RowsFrom(int64_t begin) const {
    return static_cast<const uint8_t*>(matrix_.weight) + begin * k_ * DTypeBytes(matrix_.dtype);
  }
  SinkhornRows Rows(int64_t begin, int64_t count) const {
    const uint8_t* bitmap = stray_ ? &bitmap_[begin * bitmap_stride_] : nullptr;
    return {RowsFrom(begin), bitmap, count, k_, bitmap_stride_, kPrefetchBytes};
  }

  const SinkhornKernels& kernels_;
  const SinkhornMatrix& matrix_;
  const SinkhornParallelFor& parallel_for_;
  const int64_t n_, k_, chunks_, bitmap_stride_;
  Lines columns_, rows_;
  std::vector<uint8_t> bitmap_;  // the mask at a bit each, which costs 3 % of what reading the weights does
  bool stray_ = false;           // a pruned entry is not 0, so that sums need the bitmap
  double unit_ = 1.0;            // power of two that keeps squares of the weights within float
  std::vector<float> chunk_sum_, chunk_square_;  // [chunks, k]
};

void Solver::ForChunks(const Chunk& body) const {
  parallel_for_(chunks_, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kSinkhornChunk;
      body(chunk, begin, std::min(kSinkhornChunk, n_ - begin));
    }
  });
}

void Solver::ForColumns(const std::function<void(int64_t, int64_t)>& body) const {
  parallel_for_(CeilDiv(k_, kColumnBlock), [&](int64_t first, int64_t last) {
    body(first * kColumnBlock, std::min(last * kColumnBlock, k_));
  });
}

// Counts, live lines, and the mask as bits.
void Solver::Prepare() {
  if (matrix_.mask != nullptr) bitmap_.resize(n_ * bitmap_stride_);
  const int64_t width = DTypeBytes(matrix_.dtype), line = k_ * width;
  std::vector<uint8_t> all(chunks_ * line, 0xff), any(chunks_ * line);
  std::vector<uint8_t> count(chunks_ * k_);
  std::vector<SinkhornRow> rows(n_);
  ForChunks([&](int64_t chunk, int64_t begin, int64_t num_rows) {
    const uint8_t* mask = matrix_.mask != nullptr ? matrix_.mask + begin * k_ : nullptr;
    uint8_t* bitmap = bitmap_.empty() ? nullptr : &bitmap_[begin * bitmap_stride_];
    kernels_.prepare(Rows(begin, num_rows), mask, bitmap, &rows[begin], &count[chunk * k_], &all[chunk * line],
                     &any[chunk * line]);
  });
  for (int64_t chunk = 1; chunk < chunks_; ++chunk) {
    for (int64_t i = 0; i < line; ++i) {
      all[i] &= all[chunk * line + i];
      any[i] |= any[chunk * line + i];
    }
  }
  for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
    for (int64_t j = 0; j < k_; ++j) columns_.count[j] += count[chunk * k_ + j];
  }
  for (int64_t j = 0; j < k_; ++j) {
    uint32_t in_all = 0, in_any = 0;  // of bfloat16 the upper half
    std::memcpy(reinterpret_cast<uint8_t*>(&in_all) + 4 - width, &all[j * width], width);
    std::memcpy(reinterpret_cast<uint8_t*>(&in_any) + 4 - width, &any[j * width], width);
    columns_.live[j] = SinkhornLive(in_all, in_any);
  }
  float largest = 0;
  for (int64_t i = 0; i < n_; ++i) {
    rows_.count[i] = rows[i].count;
    rows_.live[i] = rows[i].live;
    stray_ |= rows[i].stray;
    largest = std::max(largest, rows[i].largest);
  }
  const int exponent = std::ilogb(largest);
  unit_ = std::ldexp(1.0, -std::clamp(exponent, -100, 100));
  chunk_sum_.resize(chunks_ * k_);
  chunk_square_.resize(chunks_ * k_);
  Invert(columns_, 0, k_);
  Invert(rows_, 0, n_);
}

void Solver::Invert(Lines& lines, int64_t begin, int64_t end) const {
  for (int64_t i = begin; i < end; ++i) lines.inverse[i] = static_cast<float>(unit_ / lines.factor[i]);
}

// Column sums from the chunks', in their order.
void Solver::AddChunks() {
  ForColumns([&](int64_t begin, int64_t end) {
    std::fill(columns_.sum.begin() + begin, columns_.sum.begin() + end, 0.0);
    std::fill(columns_.square.begin() + begin, columns_.square.begin() + end, 0.0);
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      const float* sum = &chunk_sum_[chunk * k_];
      const float* square = &chunk_square_[chunk * k_];
      for (int64_t j = begin; j < end; ++j) {
        columns_.sum[j] += static_cast<double>(sum[j]);
        columns_.square[j] += static_cast<double>(square[j]);
      }
    }
  });
}

// Standard deviation of line i of the scaled matrix, from sums that lack the line's own factor. A line whose mean is
// large against it, such as two survivors that are nearly equal, is summed again in double.
void Solver::FinishSpread(Lines& lines, int64_t i, int correction) const {
  const int32_t count = lines.count[i];
  lines.spread[i] = 0.0;
  if (count <= 1) return;
  const double scale = 1.0 / (unit_ * lines.factor[i]);
  double squares = lines.square[i] - lines.sum[i] * lines.sum[i] / count;
  squares = squares > lines.square[i] * kCancellation ? squares * scale * scale : SumAgain(lines, i);
  lines.spread[i] = std::sqrt(squares / (count - correction));
}

// Sum of squared deviations from the mean, in double.
double Solver::SumAgain(const Lines& lines, int64_t i) const {
  const bool is_row = &lines == &rows_;
  const Lines& across = is_row ? columns_ : rows_;
  const auto size = static_cast<int64_t>(across.factor.size());
  const auto add_up = [&](const auto& term) {
    double total = 0.0;
    for (int64_t l = 0; l < size; ++l) {
      const int64_t row = is_row ? i : l, column = is_row ? l : i;
      const bool kept = bitmap_.empty() || (bitmap_[row * bitmap_stride_ + column / 8] >> (column % 8) & 1) != 0;
      const double divisor = across.factor[l] * lines.factor[i];
      if (kept) total += term(static_cast<double>(LoadFloat(matrix_.weight, matrix_.dtype, row * k_ + column)) / divisor);
    }
    return total;
  };
  const double mean = add_up([](double value) { return value; }) / lines.count[i];
  return add_up([mean](double value) { return (value - mean) * (value - mean); });
}

// Unbiased spreads of all columns and rows of the same scaled matrix, in one pass over it.
void Solver::SumBoth() {
  ForChunks([&](int64_t chunk, int64_t begin, int64_t rows) {
    float* sum = &chunk_sum_[chunk * k_];
    float* square = &chunk_square_[chunk * k_];
    std::fill(sum, sum + k_, 0.0f);
    std::fill(square, square + k_, 0.0f);
    kernels_.both_sums(Rows(begin, rows), columns_.inverse.data(), &rows_.inverse[begin], &rows_.sum[begin],
                       &rows_.square[begin], sum, square);
    for (int64_t i = begin; i < begin + rows; ++i) {
      if (rows_.live[i] != 0) FinishSpread(rows_, i, 1);
    }
  });
  AddChunks();
  ForColumns([&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      if (columns_.live[j] != 0) FinishSpread(columns_, j, 1);
    }
  });
}

struct Extremes {
  double smallest = std::numeric_limits<double>::infinity();
  double largest = 0.0;
  void Add(const Lines& lines) {
    for (size_t i = 0; i < lines.spread.size(); ++i) {
      if (lines.live[i] == 0) continue;
      smallest = std::min(smallest, lines.spread[i]);
      largest = std::max(largest, lines.spread[i]);
    }
  }
};

void Solver::Sinq(int64_t iterations) {
  Prepare();
  std::vector<double> best_columns = columns_.factor, best_rows = rows_.factor;
  double least = std::numeric_limits<double>::infinity(), target = 0.0;
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    SumBoth();
    Extremes extremes;
    extremes.Add(columns_);
    extremes.Add(rows_);
    if (extremes.largest == 0.0) break;  // no live line
    if (iteration == 0) target = std::clamp(std::clamp(extremes.smallest, 1e-3, 1e3) + 1e-6, 1e-3, 1e3);
    const double imbalance = extremes.largest / std::max(extremes.smallest, 1e-12);
    if (imbalance > least) break;
    least = imbalance;
    best_columns = columns_.factor;
    best_rows = rows_.factor;
    for (Lines* lines : {&columns_, &rows_}) {
      for (size_t i = 0; i < lines->factor.size(); ++i) {
        if (lines->live[i] == 0) continue;
        const double step = std::clamp(std::clamp(lines->spread[i], 1e-3, 1e3) / target, 0.7, 2.0);
        lines->factor[i] = std::clamp(lines->factor[i] * step, kSinqLowest, kSinqHighest);
      }
    }
    Invert(columns_, 0, k_);
    Invert(rows_, 0, n_);
  }
  columns_.factor.swap(best_columns);
  rows_.factor.swap(best_rows);
}

void Solver::PrismStep(Lines& lines, int64_t i) const {
  FinishSpread(lines, i, 0);
  if (lines.count[i] == 0) return;
  lines.factor[i] = std::clamp(lines.factor[i] * std::max(lines.spread[i], 1e-4), kPrismLowest, kPrismHighest);
  Invert(lines, i, i + 1);
}

// The rows of one chunk, then what they add to the columns. A row's factor depends on that row alone, so a few rows are
// read from memory once, finished, and read again from the cache with their new factors, while the next ones come from
// memory.
void Solver::PrismRows(int64_t chunk, int64_t begin, int64_t rows) {
  float* sum = &chunk_sum_[chunk * k_];
  float* square = &chunk_square_[chunk * k_];
  std::fill(sum, sum + k_, 0.0f);
  std::fill(square, square + k_, 0.0f);
  const int64_t end = begin + rows;
  const int64_t block = std::max<int64_t>(8, kBlockBytes / (DTypeBytes(matrix_.dtype) * k_) / 8 * 8);
  for (int64_t at = begin; at < end; at += block) {
    const int64_t count = std::min(block, end - at);
    SinkhornRows in = Rows(at, count);
    kernels_.row_sums(in, columns_.inverse.data(), &rows_.sum[at], &rows_.square[at]);
    for (int64_t i = at; i < at + count; ++i) PrismStep(rows_, i);
    in.prefetch_bytes = count * k_ * DTypeBytes(matrix_.dtype);
    kernels_.column_sums(in, &rows_.inverse[at], sum, square);
  }
}

void Solver::Prism(int64_t iterations) {
  Prepare();
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    ForChunks([&](int64_t chunk, int64_t begin, int64_t rows) { PrismRows(chunk, begin, rows); });
    AddChunks();
    ForColumns([&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) PrismStep(columns_, j);
    });
  }
}

void Solver::Rms() {
  std::vector<double> square(chunks_ * k_);
  std::vector<int32_t> count(chunks_ * k_);
  ForChunks([&](int64_t chunk, int64_t begin, int64_t rows) {
    const uint8_t* mask = matrix_.mask != nullptr ? matrix_.mask + begin * k_ : nullptr;
    kernels_.squares(RowsFrom(begin), mask, rows, k_, &square[chunk * k_], &count[chunk * k_]);
  });
  double logarithms = 0.0;
  int64_t live = 0;
  for (int64_t j = 0; j < k_; ++j) {
    double total = 0.0;
    int64_t kept = 0;
    for (int64_t at = j; at < chunks_ * k_; at += k_) {
      total += square[at];
      kept += count[at];
    }
    if (total == 0.0) continue;
    columns_.spread[j] = std::sqrt(total / kept);
    logarithms += std::log(columns_.spread[j]);
    ++live;
  }
  const double centre = live > 0 ? std::exp(logarithms / live) : 1.0;
  for (int64_t j = 0; j < k_; ++j) {
    if (columns_.spread[j] > 0.0) columns_.factor[j] = std::clamp(columns_.spread[j] / centre, 0.1, 10.0);
  }
}

}  // namespace

void Sinkhorn(const SinkhornKernels& kernels, const SinkhornMatrix& matrix, SinkhornVariant variant, int64_t iterations,
              const SinkhornParallelFor& parallel_for) {
  Solver solver(kernels, matrix, parallel_for);
  if (matrix.n > 0 && matrix.k > 0) {
    switch (variant) {
      case SinkhornVariant::kSinq: solver.Sinq(iterations); break;
      case SinkhornVariant::kPrism: solver.Prism(iterations); break;
      case SinkhornVariant::kRms: solver.Rms(); break;
    }
  }
  solver.WriteFactors();
}

}  // namespace prism::cpu
