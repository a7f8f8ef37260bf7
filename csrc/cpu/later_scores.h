// Scores of a later frame, asked for before they are read.
//
// Few elements of a row are read, so no hardware prefetcher sees them coming, and the processor drops requests while
// too many of them are under way.  So they are spread as evenly as can be over all the work on a frame: each of its
// loops makes a share of them, vector by vector.
#pragma once

#include <cstdint>
#include <vector>

#include "../recursion/vector.h"
#include "prefetch.h"

namespace seqtrain {

// Places in a row, in bytes, that all of the cache's lines with certain elements can be asked for by, wherever lines
// begin: where elements are within a line's size of each other, the first and the last of them.
class Lines {
 public:
  // Labels ascend.
  void find(const std::vector<int32_t>& labels, int64_t step) {
    place_.clear();
    for (std::size_t i = 0; i < labels.size();) {
      const int64_t first = labels[i] * step;
      int64_t last = first;
      for (; i < labels.size() && labels[i] * step - first < cache_line; i++) last = labels[i] * step;
      place_.push_back(first);
      if (last > first) place_.push_back(last);
    }
    count_ = static_cast<int64_t>(place_.size());
    place_.resize(place_.size() + most_in_vector, count_ > 0 ? place_.back() : 0);
  }

  int64_t count() const { return count_; }
  // Behind the last one stand others that may be asked for, up to a vector's end.
  const int64_t* places() const { return place_.data(); }

 private:
  static constexpr std::size_t most_in_vector = vector_bytes / sizeof(float);

  std::vector<int64_t> place_;
  int64_t count_ = 0;
};

template <class Real>
class LaterScores {
 public:
  LaterScores() = default;
  // Rows that aren't there may be asked for.
  LaterScores(const char* row, const Lines& lines) : row_(row), place_(lines.places()), count_(lines.count()) {}

  // Of the vector that begins with element m, eighths [begin, end).
  template <int begin, int end>
  void request(int64_t m) const {
    if (m >= count_) return;
    constexpr int64_t first = begin * vector_size<Real> / 8, past = end * vector_size<Real> / 8;
    for (int64_t i = first; i < past; i++) __builtin_prefetch(row_ + place_[m + i], 0, second_cache);
    // A function that only asks has no effect, by the compiler's lights, and its calls would go.
    asm volatile("");
  }

 private:
  const char* row_ = nullptr;
  const int64_t* place_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace seqtrain
