// exp in branch-free scalar code that the compiler vectorizes.
//
// exp(x) = 2^n · exp(r), n = round(x / ln 2), r = x - n ln 2 in two exact steps (Cody and Waite), so that the relative
// error doesn't grow with |x|.
#pragma once

#include <cmath>

#include "number.h"
#include "vector.h"

namespace seqtrain {

// exp(r) on |r| <= ln 2 / 2; X is Real or a vector of it.
template <class Real>
struct Remainder;

template <>
struct Remainder<float> {
  // Minimax polynomial for the relative error, which is 4e-9: a fifteenth of what rounding to float costs.
  template <class X>
  static X exponential(X r) {
    X p = 1.381459878757596e-3f * r + 8.368716575205326e-3f;
    p = p * r + 4.166838899254799e-2f;
    p = p * r + 1.666652113199234e-1f;
    p = p * r + 4.999999403953552e-1f;
    return p * (r * r) + r + 1.0f;
  }
};

template <>
struct Remainder<double> {
  // Taylor to degree 13: the first term left out is below 5e-18.
  template <class X>
  static X exponential(X r) {
    X p = (1.0 / 6227020800.0) * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    return p * (r * r) + r + 1.0;
  }
};

template <class Real>
struct LogTwo;
template <>
struct LogTwo<float> {
  static constexpr float inverse = 1.44269504088896f, high = 0.693359375f, low = -2.12194440e-4f;
};
template <>
struct LogTwo<double> {
  static constexpr double inverse = 1.4426950408889634, high = 6.93147180369123816490e-01,
                          low = 1.90821492927058770002e-10;
};

// x - n ln 2.  Two steps are exact where multiply and add round once; elsewhere float's first product is exact up to
// |n| = 2^15 alone, and double does it in one.
template <class Real>
inline Real remainder_of(Real x, Real n) {
#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
  if constexpr (sizeof(Real) == sizeof(float))
    return static_cast<Real>(static_cast<double>(x) - static_cast<double>(n) * 0.69314718055994530942);
#endif
  return (x - n * LogTwo<Real>::high) - n * LogTwo<Real>::low;
}

template <class Real>
inline Vector<Real> remainder_of_vector(Vector<Real> x, Vector<Real> n) {
#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA)
  if constexpr (sizeof(Real) == sizeof(float)) {
    for (int64_t i = 0; i < vector_size<Real>; i++) x[i] = remainder_of<Real>(x[i], n[i]);
    return x;
  }
#endif
  return (x - n * LogTwo<Real>::high) - n * LogTwo<Real>::low;
}

// exp(x) = mantissa · 2^exponent, mantissa in [0.7, 1.42); x below about -4.6e7 becomes zero.
template <class Real>
inline void split_exponential(Real x, Real& mantissa, ExponentOf<Real>& exponent) {
  using Exponent = ExponentOf<Real>;
  constexpr Real limit = Real(largest_input_exponent);
  Real scaled = x * LogTwo<Real>::inverse;
  const bool alive = scaled > -limit;
  scaled = alive ? scaled : Real{0};
  scaled = scaled < limit ? scaled : limit;
  const Real n = std::rint(scaled);
  const Real r = alive ? remainder_of<Real>(x, n) : Real{0};
  mantissa = alive ? Remainder<Real>::exponential(r) : Real{0};
  exponent = alive ? Exponent(n) : Exponent{zero_exponent};
}

// x - n ln 2 for results that fit a Real.  Where multiply and add round once, one step does: float's ln 2 is 2e-9 off,
// which times n is below the last place of exp(x) down to exp(-20), and 4 of them at 1e-38.
template <class Real>
inline Vector<Real> remainder_in_range(Vector<Real> x, Vector<Real> n) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  if constexpr (sizeof(Real) == sizeof(float)) return x - n * 0.693147180559945f;
#endif
  return (x - n * LogTwo<Real>::high) - n * LogTwo<Real>::low;
}

// exp(x) of a vector with x <= 0; 0 where the result would be subnormal.  Adding `magic` rounds to an integer, which
// then stands in the low bits of the sum.
template <class Real>
inline Vector<Real> exponential_of_nonpositive(Vector<Real> x) {
  constexpr int bits = Format<Real>::mantissa_bits;
  constexpr Real lowest = Real(1 - Format<Real>::bias) / LogTwo<Real>::inverse;
  constexpr Real magic = Real(3) * Real(ExponentOf<Real>{1} << (bits - 1));
  const Vector<Real> floor = Vector<Real>{} + lowest;
  const Vector<Real> safe = x > floor ? x : floor;
  const Vector<Real> shifted = safe * LogTwo<Real>::inverse + magic;
  const Vector<Real> n = shifted - magic;
  const Vector<Real> r = remainder_in_range<Real>(safe, n);
  const BitVector<Real> value = (BitVector<Real>)Remainder<Real>::exponential(r) + ((BitVector<Real>)shifted << bits);
  return x > floor ? (Vector<Real>)value : Vector<Real>{};
}

}  // namespace seqtrain
