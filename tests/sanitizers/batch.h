// Random batches of scores, in memory to the byte.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "../../csrc/cpu/kernels.h"

namespace seqtrain::sanitizers {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "wrong: %s\n", what.c_str());
  std::exit(1);
}

inline void check(bool holds, const char* what) {
  if (!holds) fail(what);
}

// splitmix64: the standard's distributions cost more than the kernels under a sanitizer.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return uniform() < probability; }
  // Around zero; the sum of uniform numbers is close enough to a normal one.
  double number(double scale) { return scale * 2 * (uniform() + uniform() + uniform() - 1.5); }

 private:
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

// Memory of just this many elements; never a null pointer.
template <class T>
class Array {
 public:
  explicit Array(int64_t size, T value = T{}) : size_(size), data_(new T[static_cast<std::size_t>(size)]) {
    for (int64_t i = 0; i < size; i++) data_[static_cast<std::size_t>(i)] = value;
  }
  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data_[static_cast<std::size_t>(i)]; }
  bool operator==(const Array& other) const {
    return size_ == other.size_ && std::memcmp(data(), other.data(), static_cast<std::size_t>(size_) * sizeof(T)) == 0;
  }

 private:
  int64_t size_;
  std::unique_ptr<T[]> data_;
};

enum class Layout { contiguous, frames_first, labels_first, spread, packed, packed_spread };

// Scores or a gradient with the memory that they stand in.
struct Rows {
  Array<char> memory;
  Array<int64_t> offsets;
  Tensor tensor;

  Rows(Dtype dtype, Layout layout, int64_t batch, int64_t frames, int64_t labels, const Array<int64_t>& lengths)
      : memory(size(dtype, layout, batch, frames, labels, lengths), '\xff'), offsets(batch + 1), tensor{} {
    for (int64_t b = 0; b < batch; b++) offsets[b + 1] = offsets[b] + lengths[b];
    tensor.data = memory.data();
    tensor.dtype = dtype;
    const int64_t step = layout == Layout::spread || layout == Layout::packed_spread ? 2 : 1;
    tensor.stride_label = step;
    tensor.stride_frame = step * labels;
    tensor.stride_utterance = step * labels * frames;
    if (layout == Layout::frames_first) {
      tensor.stride_frame = labels * batch;
      tensor.stride_utterance = labels;
    } else if (layout == Layout::labels_first) {
      tensor.stride_label = frames;
      tensor.stride_frame = 1;
    }
    if (packed(layout)) tensor.offsets = offsets.data();
  }

  static bool packed(Layout layout) { return layout == Layout::packed || layout == Layout::packed_spread; }

 private:
  static int64_t size(Dtype dtype, Layout layout, int64_t batch, int64_t frames, int64_t labels,
                      const Array<int64_t>& lengths) {
    int64_t rows = batch * frames;
    if (packed(layout)) {
      rows = 0;
      for (int64_t b = 0; b < batch; b++) rows += lengths[b];
    }
    int64_t elements = rows * labels;
    // The last element of a spread tensor has nothing behind it.
    if ((layout == Layout::spread || layout == Layout::packed_spread) && elements > 0) elements = 2 * elements - 1;
    return elements * static_cast<int64_t>(item_size(dtype));
  }
};

struct Shape {
  int64_t batch, frames, labels;
  Layout layout;
  Dtype dtype;
  double spoilt;  // share of scores that are NaN
};

inline void fill(Random& random, const Shape& shape, const Array<int64_t>& lengths, const Rows& rows) {
  for (int64_t b = 0; b < shape.batch; b++)
    for (int64_t t = 0; t < lengths[b]; t++)
      for (int64_t v = 0; v < shape.labels; v++) {
        double score = random.number(4);
        const double rare = random.uniform();
        if (rare < 0.02) score = -infinity;
        if (rare > 0.99) score *= 1e4;
        if (rare > 1 - shape.spoilt) score = not_a_number;
        store<double>(rows.tensor.row(b, t), shape.dtype, v * rows.tensor.stride_label, score);
      }
}

inline double element(const Rows& rows, int64_t b, int64_t t, int64_t v) {
  return load<double>(rows.tensor.row(b, t), rows.tensor.dtype, v * rows.tensor.stride_label);
}

inline int64_t rows_of(const Shape& shape, const Array<int64_t>& lengths) {
  if (!Rows::packed(shape.layout)) return shape.batch * shape.frames;
  int64_t rows = 0;
  for (int64_t b = 0; b < shape.batch; b++) rows += lengths[b];
  return rows;
}

}  // namespace seqtrain::sanitizers
