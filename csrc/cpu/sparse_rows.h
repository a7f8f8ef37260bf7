// Dense rows that are zero but for a few columns, written a vector at a time.
//
// To put the columns into a row of zeros one by one, and to copy that, would have each vector wait for the single
// elements that were just stored.  Here the elements of a vector are picked out of the row of columns by a permutation,
// which is the same for all rows that begin as far behind a boundary of vectors; vectors without columns are zeros that
// nobody has to make.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "../recursion/graph.h"
#include "../recursion/vector.h"
#include "rows.h"

namespace seqtrain {

// Rows of `labels` elements that follow one another in memory.  A vector that two rows share is written with the later
// one: `finish` comes behind the last.
template <class Real>
class SparseRows {
 public:
  static constexpr int64_t size = vector_size<Real>;

  // Whether they can be written so, from rows of `width` values: those of the columns and others behind them.
  static bool possible(const Tensor& rows, int64_t labels, int64_t width) {
    return rows.dtype == dtype_of<Real>() && rows.stride_label == 1 && rows.stride_frame == labels && labels >= size &&
           width >= size;
  }

  // Column k stands at label[k]; these ascend.
  void begin(Real* rows, int64_t labels, const int64_t* label, int64_t columns, int64_t width) {
    next_ = rows;
    labels_ = labels;
    foreign_ = phase_of(rows);
    shared_ = Vector<Real>{};
    for (int64_t phase = 0; phase < size; phase++) {
      filled_[at(phase)].pieces.clear();
      zeros_[at(phase)].pieces.clear();
    }
    label_ = label;
    columns_ = columns;
    width_ = width;
  }

  // The next row: weight · values at the columns where it's `filled`, else zeros.
  template <bool stream>
  void write(const Real* values, Real weight, bool filled) {
    const int64_t phase = phase_of(next_), whole = (phase + labels_) / size;
    const Pattern& pattern = pattern_of(phase, filled);
    const Piece* piece = pattern.pieces.data();
    const Piece* const last = piece + pattern.pieces.size() - 1;
    const ExponentOf<Real>* element = pattern.elements.data();
    const auto make = [&] {
      const BitVector<Real> index = load_bits<Real>(element);
      const Vector<Real> picked = permuted<Real>(load_vector(values + piece->first), index);
      element += size;
      piece++;
      return (Vector<Real>)((BitVector<Real>)(picked * weight) & (index < BitVector<Real>{} + none));
    };
    Real* const out = next_ - phase;
    const Vector<Real> start = (Vector<Real>)((BitVector<Real>)make() | (BitVector<Real>)shared_);
    if (foreign_ > 0) {
      for (int64_t i = foreign_; i < size; i++) out[i] = start[i];
      foreign_ = 0;
    } else {
      put<stream>(out, start);
    }
    int64_t j = 1;
    while (piece < last) {
      for (const int64_t end = piece->vector; j < end; j++) put<stream>(out + j * size, Vector<Real>{});
      put<stream>(out + j++ * size, make());
    }
    for (; j < whole; j++) put<stream>(out + j * size, Vector<Real>{});
    shared_ = make();
    next_ += labels_;
  }

  void finish() {
    const int64_t phase = phase_of(next_);
    for (int64_t i = foreign_; i < phase; i++) next_[i - phase] = shared_[i];
  }

 private:
  static constexpr ExponentOf<Real> none = size;

  // A vector of the row, and the first of the values that its elements are among.
  struct Piece {
    int32_t vector, first;
  };
  // The vectors that aren't zero everywhere, the first one in any case, and what of the row comes behind whole vectors.
  // Of each, which value every element is, or `none`.
  struct Pattern {
    std::vector<Piece> pieces;
    std::vector<ExponentOf<Real>> elements;
  };

  // Elements between the boundary of vectors and what `address` points to.
  static int64_t phase_of(const Real* address) {
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(address) / sizeof(Real) % at(size));
  }

  const Pattern& pattern_of(int64_t phase, bool filled) {
    Pattern& pattern = filled ? filled_[at(phase)] : zeros_[at(phase)];
    if (!pattern.pieces.empty()) return pattern;
    pattern.elements.clear();
    const auto open = [&](int64_t vector, int64_t k) {
      pattern.pieces.push_back({static_cast<int32_t>(vector), static_cast<int32_t>(std::min(k, width_ - size))});
      pattern.elements.insert(pattern.elements.end(), at(size), none);
    };
    open(0, 0);
    for (int64_t k = 0; filled && k < columns_; k++) {
      const int64_t place = phase + label_[k];
      if (place / size != pattern.pieces.back().vector) open(place / size, k);
      *(pattern.elements.end() - size + place % size) = static_cast<ExponentOf<Real>>(k - pattern.pieces.back().first);
    }
    const int64_t whole = (phase + labels_) / size;
    if (pattern.pieces.back().vector != whole) open(whole, 0);
    return pattern;
  }

  template <bool stream>
  static void put(Real* target, Vector<Real> value) {
    if constexpr (stream) {
      stream_vector(target, value);
    } else {
      store_vector(target, value);
    }
  }

  Real* next_ = nullptr;
  int64_t labels_ = 0, columns_ = 0, width_ = 0;
  const int64_t* label_ = nullptr;
  int64_t foreign_ = 0;    // elements of the first vector that stand before all rows
  Vector<Real> shared_{};  // of the vector in which the next row begins, what stands before it
  std::array<Pattern, static_cast<std::size_t>(size)> filled_, zeros_;  // by the phase of a row
};

}  // namespace seqtrain
