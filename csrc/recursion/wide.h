// The numbers of the sweeps over lattices: those of number.h in double, but with exponents that never reach a floor.  A
// lattice's arcs carry whole scores, and a sum over its paths may lie a billion below zero.
#pragma once

// The name by which the compiler for CUDA, which has no folders, knows it too.
#include "../recursion/number.h"

namespace seqtrain {

// mantissa · 2^exponent; the mantissa of what is stored for a state lies in [1, 2), or is 0.
struct Wide {
  double mantissa;
  int64_t exponent;
};

constexpr int64_t wide_zero_exponent = -(int64_t{1} << 60);
constexpr double largest_lattice_weight = 1e12;  // in absolute value; below its negative a weight counts as -inf

SEQTRAIN_DEVICE Wide wide_zero() { return {0.0, wide_zero_exponent}; }

// sum += mantissa · 2^exponent; the sum is not normalized.
SEQTRAIN_DEVICE void wide_add(Wide& sum, double mantissa, int64_t exponent) {
  const int64_t top = sum.exponent > exponent ? sum.exponent : exponent;
  sum.mantissa =
      sum.mantissa * power_of_two<double>(sum.exponent - top) + mantissa * power_of_two<double>(exponent - top);
  sum.exponent = top;
}

SEQTRAIN_DEVICE void wide_normalize(Wide& value) {
  constexpr int bits = Format<double>::mantissa_bits;
  constexpr int64_t bias = Format<double>::bias;
  const int64_t pattern = to_bits(value.mantissa);
  if (!(value.mantissa > Format<double>::tiny)) {
    value = wide_zero();
    return;
  }
  value.exponent += (pattern >> bits) - bias;
  value.mantissa = from_bits<double>((pattern & ((int64_t{1} << bits) - 1)) | (bias << bits));
}

// A value over the total, as an ordinary number; at most 1 but for rounding.
SEQTRAIN_DEVICE double wide_share(double mantissa, int64_t exponent, Wide total) {
  const int64_t e = exponent - total.exponent;
  return mantissa / total.mantissa * power_of_two<double>(e > 4 ? 4 : e);
}

}  // namespace seqtrain
