// A number of the recursions (csrc/recursion/number.h) as the sweeps over frames hold it: mantissa and exponent in one
// word of memory, which is read and written at once.
#pragma once

#include "arithmetic.h"

namespace seqtrain {

template <class Real>
struct alignas(2 * sizeof(Real)) Cell {
  Real mantissa;
  int32_t exponent;
};

// The exponent of what is no term of a sum: below that of zero, so that it's lost even beside zeros.
constexpr int32_t no_exponent = 2 * zero_exponent;

template <class Real>
SEQTRAIN_DEVICE Cell<Real> zero_cell() {
  return {Real{0}, zero_exponent};
}

SEQTRAIN_DEVICE int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

// Sums, whose mantissas are not normalized.
template <class Real>
SEQTRAIN_DEVICE Cell<Real> sum(const Cell<Real>& a, const Cell<Real>& b) {
  const int32_t top = larger(a.exponent, b.exponent);
  return {scaled<Real>(a.mantissa, a.exponent, top) + scaled<Real>(b.mantissa, b.exponent, top), top};
}

template <class Real>
SEQTRAIN_DEVICE Cell<Real> sum(const Cell<Real>& a, const Cell<Real>& b, const Cell<Real>& c) {
  const int32_t top = larger(larger(a.exponent, b.exponent), c.exponent);
  return {scaled<Real>(a.mantissa, a.exponent, top) + scaled<Real>(b.mantissa, b.exponent, top) +
              scaled<Real>(c.mantissa, c.exponent, top),
          top};
}

// A product, normalized.
template <class Real>
SEQTRAIN_DEVICE Cell<Real> product(const Cell<Real>& a, const Cell<Real>& b) {
  Real mantissa = a.mantissa * b.mantissa;
  ExponentOf<Real> exponent = a.exponent + b.exponent;
  normalize(mantissa, exponent);
  return {mantissa, static_cast<int32_t>(exponent)};
}

// A product relative to 2^top; a probability, so that it can't exceed 2^2 but for rounding.
template <class Real>
SEQTRAIN_DEVICE Real product_below(const Cell<Real>& a, const Cell<Real>& b, int32_t top) {
  const int32_t exponent = a.exponent + b.exponent - top;
  return a.mantissa * b.mantissa * power_of_two<Real>(exponent < 2 ? exponent : 2);
}

}  // namespace seqtrain
