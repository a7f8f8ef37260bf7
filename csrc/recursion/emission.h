// One frame's emissions: exp of the scores that the recursion reads, as mantissas and exponents.
#pragma once

#include <cstdint>
#include <limits>

#include "exponential.h"
#include "number.h"

namespace seqtrain {

// A frame's largest exponent up to which its scores are split as they are: beyond, the first step of the reduction of
// `split_exponential` is no longer exact in float.
constexpr int32_t exact_input_exponent = 1 << 15;

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

// Writes a frame's emissions relative to the largest, so that scores of any offset stay in range and keep their digits.
// What was taken out, in log, comes in two parts: `shift`, in exponents of two, and `offset`, natural, which is not
// zero only where the scores are far from zero.  `gather` writes the scores to where it's told.
template <class Real, class Gather>
inline bool emit_frame(const Gather& gather, Real* mantissa, ExponentOf<Real>* exponent, int64_t count,
                       ExponentOf<Real>& shift, double& offset) {
  using Exponent = ExponentOf<Real>;
  gather(mantissa);
  Emission<Real> found = split_scores(mantissa, exponent, count);
  if (!found.usable) return false;
  offset = 0;
  if (found.exponent > exact_input_exponent || found.exponent < -exact_input_exponent) {
    gather(mantissa);
    Real largest = -std::numeric_limits<Real>::infinity();
    for (int64_t i = 0; i < count; i++) largest = mantissa[i] > largest ? mantissa[i] : largest;
    if (largest > -std::numeric_limits<Real>::infinity()) {
      for (int64_t i = 0; i < count; i++) mantissa[i] -= largest;
      offset = static_cast<double>(largest);
    }
    found = split_scores(mantissa, exponent, count);
  }
  shift = found.exponent == zero_exponent ? 0 : found.exponent;
  const Exponent top = shift;
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

}  // namespace seqtrain
