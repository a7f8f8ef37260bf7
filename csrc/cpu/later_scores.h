// Scores of a later frame, asked for before they are read.
//
// Few elements of a row are read, so no hardware prefetcher sees them coming, and the processor drops requests while
// too many of them are under way.  So they are spread as evenly as can be over all the work on a frame: each of its
// loops makes a share of them, vector by vector.
#pragma once

#include <cstdint>

#include "../recursion/vector.h"

namespace seqtrain {

template <class Real>
class LaterScores {
 public:
  // Element m stands at row + place[m]; `count` of them, whole vectors.  Rows that aren't there may be asked for.
  LaterScores(const char* row, const int64_t* place, int64_t count) : row_(row), place_(place), count_(count) {}

  // Of the vector that begins with element m, eighths [begin, end).
  template <int begin, int end>
  void request(int64_t m) const {
    if (m >= count_) return;
    constexpr int64_t first = begin * vector_size<Real> / 8, past = end * vector_size<Real> / 8;
    for (int64_t i = first; i < past; i++) __builtin_prefetch(row_ + place_[m + i]);
    // A function that only asks has no effect, by the compiler's lights, and its calls would go.
    asm volatile("");
  }

 private:
  const char* row_;
  const int64_t* place_;
  int64_t count_;
};

}  // namespace seqtrain
