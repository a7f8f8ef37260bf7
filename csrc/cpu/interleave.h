// Rows of several utterances put side by side, and taken apart again: [k][utterance] ↔ [utterance][k].
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../recursion/exponential.h"
#include "../recursion/lanes.h"

namespace seqtrain {

// 4 × 4 numbers, rows for columns: the registers of every architecture level hold a row of it.
struct Square {
  typedef float Quarter __attribute__((vector_size(16)));
  Quarter row[4];

  static Square load(const float* const* rows, int64_t at) {
    Square square;
    for (int i = 0; i < 4; i++) std::memcpy(&square.row[i], rows[i] + at, sizeof(Quarter));
    return square;
  }

  Square transposed() const {
    const Quarter ab_low = shuffle<0, 4, 1, 5>(row[0], row[1]), ab_high = shuffle<2, 6, 3, 7>(row[0], row[1]);
    const Quarter cd_low = shuffle<0, 4, 1, 5>(row[2], row[3]), cd_high = shuffle<2, 6, 3, 7>(row[2], row[3]);
    return {{shuffle<0, 1, 4, 5>(ab_low, cd_low), shuffle<2, 3, 6, 7>(ab_low, cd_low),
             shuffle<0, 1, 4, 5>(ab_high, cd_high), shuffle<2, 3, 6, 7>(ab_high, cd_high)}};
  }

 private:
  template <int A, int B, int C, int D>
  static Quarter shuffle(Quarter x, Quarter y) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(x, y, A, B, C, D);
#else
    typedef int32_t Index __attribute__((vector_size(16)));
    return __builtin_shuffle(x, y, Index{A, B, C, D});
#endif
  }
};

// What `interleave_columns` found in each utterance's scores.
template <class Real, int64_t Width>
struct Seen {
  Row<Real, Width> largest;  // -inf where there are none
  Row<Real, Width> usable;   // 0 where a score is NaN or +inf, else 1
};

// out[i][l] = rows[l][first + i] for `count` labels; rows that are null give -inf.
template <class Real, int64_t Width>
inline void interleave(const Real* const* rows, const int64_t* stride, int64_t first, int64_t count, Real* out) {
  constexpr int64_t step = 4;
  for (int64_t l = 0; l < Width; l += step) {
    int64_t i = 0;
    if constexpr (sizeof(Real) == sizeof(float)) {
      bool plain = true;
      for (int64_t j = l; j < l + step; j++) plain = plain && rows[j] != nullptr && stride[j] == 1;
      for (; plain && i + step <= count; i += step) {
        const Square square = Square::load(rows + l, first + i).transposed();
        for (int64_t j = 0; j < step; j++) std::memcpy(out + (i + j) * Width + l, &square.row[j], 4 * sizeof(float));
      }
    }
    for (int64_t j = l; j < l + step; j++) {
      const Real* row = rows[j];
      for (int64_t m = i; m < count; m++)
        out[m * Width + j] = row == nullptr ? -std::numeric_limits<Real>::infinity() : row[(first + m) * stride[j]];
    }
  }
}

// out[k][l] = rows[l][label[k]].
template <class Real, int64_t Width>
inline Seen<Real, Width> interleave_columns(const Real* const* rows, const int64_t* stride, const int32_t* label,
                                            int64_t columns, Real* out) {
  using Values = Row<Real, Width>;
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  // Blocks that stay in the first cache.  Where an automaton uses many of the labels, all of them are put side by side
  // four by four, and those it doesn't use are left out after that.
  constexpr int64_t block = 64, widest = 3 * block, line = 64 / static_cast<int64_t>(sizeof(Real));
  alignas(64) Real all[widest * Width];
  Seen<Real, Width> seen{Values::all(-infinity), Values::all(1)};
  for (int64_t begin = 0; begin < columns; begin += block) {
    const int64_t end = std::min(begin + block, columns), first = label[begin], span = label[end - 1] + 1 - first;
    Real* target = out + begin * Width;
    // The next block's scores are fetched while this one is put in order: the rows are too many to be foreseen.
    for (int64_t l = 0; l < Width && end < columns; l++)
      for (int64_t v = 0; v < span && rows[l] != nullptr; v += line)
        __builtin_prefetch(rows[l] + std::min<int64_t>(label[end] + v, label[columns - 1]) * stride[l]);
    if (span == end - begin) {
      interleave<Real, Width>(rows, stride, first, span, target);
    } else if (span <= widest) {
      interleave<Real, Width>(rows, stride, first, span, all);
      for (int64_t k = begin; k < end; k++) Values::load(all + (label[k] - first) * Width).store(out + k * Width);
    } else {
      for (int64_t l = 0; l < Width; l++) {
        const Real* row = rows[l];
        for (int64_t k = begin; k < end; k++)
          out[k * Width + l] = row == nullptr ? -infinity : row[label[k] * stride[l]];
      }
    }
    for (int64_t k = begin; k < end; k++) {
      const Values x = Values::load(out + k * Width);
      for (int64_t i = 0; i < Values::parts; i++) {
        seen.largest.part[i] = x.part[i] > seen.largest.part[i] ? x.part[i] : seen.largest.part[i];
        seen.usable.part[i] = x.part[i] < infinity ? seen.usable.part[i] : typename Values::Part{};
      }
    }
  }
  return seen;
}

// rows[l][k] = from[k][l] · scale[l], for the rows that aren't null.
template <class Real, class Out, int64_t Width>
inline void separate_columns(const Real* from, const Real* scale, int64_t columns, Out* const* rows) {
  constexpr int64_t step = 4, block = 64;
  for (int64_t begin = 0; begin < columns; begin += block) {
    const int64_t end = std::min(begin + block, columns);
    for (int64_t l = 0; l < Width; l += step) {
      int64_t k = begin;
      if constexpr (sizeof(Real) == sizeof(float) && sizeof(Out) == sizeof(float)) {
        bool all = true;
        for (int64_t j = l; j < l + step; j++) all = all && rows[j] != nullptr;
        Square::Quarter factor;
        std::memcpy(&factor, scale + l, sizeof factor);
        for (; all && k + step <= end; k += step) {
          const Real* source[step];
          for (int64_t j = 0; j < step; j++) source[j] = from + (k + j) * Width + l;
          Square square = Square::load(source, 0);
          for (int64_t j = 0; j < step; j++) square.row[j] *= factor;
          square = square.transposed();
          for (int64_t j = 0; j < step; j++) std::memcpy(rows[l + j] + k, &square.row[j], 4 * sizeof(float));
        }
      }
      for (int64_t j = l; j < l + step; j++)
        for (int64_t m = k; rows[j] != nullptr && m < end; m++)
          rows[j][m] = static_cast<Out>(from[m * Width + j] * scale[j]);
    }
  }
}

}  // namespace seqtrain
