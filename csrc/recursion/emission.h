// One frame's emissions: exp of the scores that the recursion reads, as mantissas and exponents.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "exponential.h"
#include "number.h"
#include "vector.h"

namespace seqtrain {

// A frame's largest exponent up to which its scores are split as they are: beyond, the first step of the reduction of
// `split_exponential` is no longer exact.
template <class Real>
constexpr int32_t exact_input_exponent = sizeof(Real) == 8 ? 1 << 20 : 1 << 15;

template <class Real>
struct Emission {
  bool usable;                // no NaN, no +inf
  ExponentOf<Real> exponent;  // the largest; zero_exponent where every score is -inf
};

// `mantissa` holds `count` scores, and then the mantissas of their exponentials.
template <class Real>
inline Emission<Real> split_scores(Real* __restrict mantissa, ExponentOf<Real>* __restrict exponent, int64_t count) {
  using Exponent = ExponentOf<Real>;
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  int bad = 0;
  Exponent top = zero_exponent;
#pragma omp simd reduction(max : top) reduction(| : bad)
  for (int64_t i = 0; i < count; i++) {
    const Real score = mantissa[i];
    bad |= score < infinity ? 0 : 1;
    Real m;
    Exponent e;
    split_exponential(score, m, e);
    mantissa[i] = m;
    exponent[i] = e;
    top = e > top ? e : top;
  }
  return {bad == 0, top};
}

// The same relative to the largest score, in double whatever the scores' type: where that one is far from zero, the
// difference to scores that aren't would lose their digits in float.  Returns what was taken out.
template <class Real>
inline double split_relative_scores(Real* mantissa, ExponentOf<Real>* exponent, int64_t count) {
  Real largest = -std::numeric_limits<Real>::infinity();
  for (int64_t i = 0; i < count; i++) largest = mantissa[i] > largest ? mantissa[i] : largest;
  const double offset = largest > -std::numeric_limits<Real>::infinity() ? static_cast<double>(largest) : 0.0;
  for (int64_t i = 0; i < count; i++) {
    double m;
    ExponentOf<double> e;
    split_exponential(static_cast<double>(mantissa[i]) - offset, m, e);
    mantissa[i] = static_cast<Real>(m);
    exponent[i] = static_cast<ExponentOf<Real>>(e);
  }
  return offset;
}

// Makes a frame's scores emissions relative to the largest, so that scores of any offset stay in range and keep their
// digits.  What was taken out, in log, comes in two parts: `shift`, in exponents of two, and `offset`, natural, which
// is not zero only where the largest score is far from zero; then `gather` writes the scores once more.
template <class Real, class Gather>
inline bool split_frame(const Gather& gather, Real* mantissa, ExponentOf<Real>* exponent, int64_t count,
                        ExponentOf<Real>& shift, double& offset) {
  using Exponent = ExponentOf<Real>;
  const Emission<Real> found = split_scores(mantissa, exponent, count);
  if (!found.usable) return false;
  Exponent top = found.exponent;
  offset = 0;
  if (top > exact_input_exponent<Real> || top < -exact_input_exponent<Real>) {
    gather(mantissa);
    offset = split_relative_scores(mantissa, exponent, count);
    top = 0;
  }
  shift = top;
  Real* __restrict m = mantissa;
  Exponent* __restrict e = exponent;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    const Exponent below = e[i] - top;
    e[i] = below < -largest_input_exponent ? Exponent{zero_exponent} : below;
    m[i] = below < -largest_input_exponent ? Real{0} : m[i];
  }
  return true;
}

// The same from the start: `gather` writes the scores to where it's told.
template <class Real, class Gather>
inline bool emit_frame(const Gather& gather, Real* mantissa, ExponentOf<Real>* exponent, int64_t count,
                       ExponentOf<Real>& shift, double& offset) {
  gather(mantissa);
  return split_frame<Real>(gather, mantissa, exponent, count, shift, offset);
}

// How far a frame's scores reach.
template <class Real>
struct Extent {
  Real lowest, highest;
  bool finite;
};

template <class Real>
class ExtentOfVectors {
 public:
  void add(Vector<Real> score) {
    lowest_ = score < lowest_ ? score : lowest_;
    highest_ = score > highest_ ? score : highest_;
    zero_ += score * Real{0};
  }
  Extent<Real> found() const {
    return {folded<Real>(lowest_, [](Vector<Real> a, Vector<Real> b) { return a < b ? a : b; }),
            folded<Real>(highest_, [](Vector<Real> a, Vector<Real> b) { return a > b ? a : b; }),
            sum_of<Real>(zero_) == Real{0}};
  }

 private:
  static constexpr Real infinity = std::numeric_limits<Real>::infinity();
  Vector<Real> lowest_ = Vector<Real>{} + infinity, highest_ = Vector<Real>{} - infinity;
  Vector<Real> zero_{};  // not a number once a score was NaN or infinite
};

// A frame whose emissions, relative to the largest, are all above two to this power is *plain*: they are numbers of the
// mantissas' type, and have no exponents.  A product of a score with its emission is then off its exponent by no more
// than this, and what a sum of such products drops is smaller than the sum's rounding by the rest of the type's range.
template <class Real>
constexpr int32_t least_plain_exponent = sizeof(Real) == 8 ? -400 : -60;

// Makes whole vectors of scores emissions, if the frame is plain.  Calls meanwhile(i) for each, with its first element.
template <class Real, class Meanwhile>
inline bool emit_plain(const Extent<Real>& extent, Real* __restrict score, int64_t count, ExponentOf<Real>& shift,
                       const Meanwhile& meanwhile) {
  using Exponent = ExponentOf<Real>;
  constexpr int bits = Format<Real>::mantissa_bits;
  constexpr Real magic = Real(3) * Real(Exponent{1} << (bits - 1));  // as in exponential.h
  const Real top = std::rint(extent.highest * LogTwo<Real>::inverse);
  const Real least = extent.lowest * LogTwo<Real>::inverse - top;
  if (!extent.finite || !(std::abs(top) <= Real(exact_input_exponent<Real>)) || !(least > least_plain_exponent<Real>))
    return false;
  shift = static_cast<Exponent>(top);
  for (int64_t i = 0; i < count; i += vector_size<Real>) {
    meanwhile(i);
    const Vector<Real> x = load_vector(score + i);
    const Vector<Real> shifted = x * LogTwo<Real>::inverse + magic;
    const Vector<Real> n = shifted - magic;
    const Vector<Real> r = remainder_of_vector<Real>(x, n);
    const BitVector<Real> y =
        (BitVector<Real>)Remainder<Real>::exponential(r) + (((BitVector<Real>)shifted - shift) << bits);
    store_vector(score + i, (Vector<Real>)y);
  }
  return true;
}

}  // namespace seqtrain
