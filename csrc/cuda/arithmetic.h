// Exponentials, logarithms and reductions with one rounding an operation, the same on the device and on the host.
#pragma once

// clang-format off: the number format needs what the team defines
#include "team.h"
#include "../recursion/number.h"
// clang-format on

namespace seqtrain {

template <class Real>
SEQTRAIN_DEVICE Real infinity_of() {
  return from_bits<Real>(ExponentOf<Real>{2 * Format<Real>::bias + 1} << Format<Real>::mantissa_bits);
}

template <class Real>
SEQTRAIN_DEVICE Real lowest_of() {
  return -from_bits<Real>((ExponentOf<Real>{2 * Format<Real>::bias + 1} << Format<Real>::mantissa_bits) - 1);
}

// exp(r) for |r| <= ln 2 / 2; polynomials of csrc/recursion/exponential.h, fused step by step.
SEQTRAIN_DEVICE float exponential_of_remainder(float r) {
  float p = fused(1.381459878757596e-3f, r, 8.368716575205326e-3f);
  p = fused(p, r, 4.166838899254799e-2f);
  p = fused(p, r, 1.666652113199234e-1f);
  p = fused(p, r, 4.999999403953552e-1f);
  p = fused(p, r, 1.0f);
  return fused(p, r, 1.0f);
}

SEQTRAIN_DEVICE double exponential_of_remainder(double r) {
  double p = 1.0 / 6227020800.0;
  p = fused(p, r, 1.0 / 479001600.0);
  p = fused(p, r, 1.0 / 39916800.0);
  p = fused(p, r, 1.0 / 3628800.0);
  p = fused(p, r, 1.0 / 362880.0);
  p = fused(p, r, 1.0 / 40320.0);
  p = fused(p, r, 1.0 / 5040.0);
  p = fused(p, r, 1.0 / 720.0);
  p = fused(p, r, 1.0 / 120.0);
  p = fused(p, r, 1.0 / 24.0);
  p = fused(p, r, 1.0 / 6.0);
  p = fused(p, r, 0.5);
  return fused(p, r * r, r) + 1.0;
}

// Nearest integer of a number below 2^27 in absolute value, without a library call.
SEQTRAIN_DEVICE int64_t nearest(double x) { return static_cast<int64_t>(x < 0 ? x - 0.5 : x + 0.5); }

SEQTRAIN_DEVICE double reduce_argument(double x, double n) {
  return fused(-n, 1.90821492927058770002e-10, fused(-n, 6.93147180369123816490e-01, x));
}

// 1.5 · 2^(bits of the mantissa): added to a number, it rounds it to an integer, which stands in the low bits of the
// sum.
template <class Real>
constexpr Real rounding = static_cast<Real>(ExponentOf<Real>{3} << (Format<Real>::mantissa_bits - 1));

// x - n ln 2 as a Real.
template <class Real>
SEQTRAIN_DEVICE Real remainder_of(double x, double n) {
  if constexpr (sizeof(Real) == sizeof(float)) return static_cast<Real>(fused(-n, 0.69314718055994530942, x));
  return static_cast<Real>(reduce_argument(x, n));
}

// exp(x) = mantissa · 2^exponent; x below about -4.6e7 becomes zero.
template <class Real>
SEQTRAIN_DEVICE void split_exponential(double x, Real& mantissa, ExponentOf<Real>& exponent) {
  constexpr double limit = largest_input_exponent;
  const double scaled = x * 1.4426950408889634;
  const double shifted = (scaled < limit ? scaled : limit) + rounding<double>;
  const bool alive = scaled > -limit;
  const Real m = exponential_of_remainder(remainder_of<Real>(x, shifted - rounding<double>));
  mantissa = alive ? m : Real{0};
  exponent = alive ? static_cast<int32_t>(to_bits(shifted)) : zero_exponent;
}

// The same for x <= 0.
template <class Real>
SEQTRAIN_DEVICE void split_exponential_of_nonpositive(double x, Real& mantissa, int32_t& exponent) {
  constexpr double lowest = -0.69314718055994530942 * largest_input_exponent;
  const double shifted = fused(x, 1.4426950408889634, rounding<double>);
  const Real m = exponential_of_remainder(remainder_of<Real>(x, shifted - rounding<double>));
  const bool alive = x > lowest;
  mantissa = alive ? m : Real{0};
  exponent = alive ? static_cast<int32_t>(to_bits(shifted)) : zero_exponent;
}

// exp(x) = mantissa · power, for x up to the exponent's range; the power of two is 0 where it would be subnormal.  All
// of it is multiplications, additions and one shift: conversions between numbers and integers are slow.
SEQTRAIN_DEVICE void exponential(float x, float& mantissa, float& power) {
  const float near = larger(x, -88.0f);
  const float shifted = fused(near, 1.44269504f, rounding<float> + 127.0f);
  // ln 2 of a float is 2e-9 off, which times 127 doesn't show.
  mantissa = exponential_of_remainder(fused(rounding<float> + 127.0f - shifted, 0.693147181f, near));
  power = from_bits<float>(static_cast<int32_t>(static_cast<uint32_t>(to_bits(shifted)) << 23));
}
SEQTRAIN_DEVICE void exponential(double x, double& mantissa, double& power) {
  const double near = larger(x, -709.0);
  const double shifted = fused(near, 1.4426950408889634, rounding<double> + 1023.0);
  mantissa = exponential_of_remainder(reduce_argument(near, shifted - (rounding<double> + 1023.0)));
  power = from_bits<double>(static_cast<int64_t>(static_cast<uint64_t>(to_bits(shifted)) << 52));
}

template <class Real>
SEQTRAIN_DEVICE Real exponential(Real x) {
  Real mantissa, power;
  exponential(x, mantissa, power);
  return mantissa * power;
}

// log of a positive normal number, by the series of artanh.
SEQTRAIN_DEVICE double logarithm(double x) {
  int64_t pattern = to_bits(x);
  int64_t exponent = (pattern >> 52) - 1023;
  double m = from_bits<double>((pattern & ((int64_t{1} << 52) - 1)) | (int64_t{1023} << 52));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    exponent += 1;
  }
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double p = 1.0 / 25.0;
  for (int k = 23; k >= 1; k -= 2) p = fused(p, square, 1.0 / k);
  return fused(static_cast<double>(exponent), 0.69314718055994530942, 2.0 * s * p);
}

struct Sum {
  template <class T>
  SEQTRAIN_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  SEQTRAIN_DEVICE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

constexpr int warp = 32;
constexpr int largest_block = 512;           // threads, as seqtrain/ops/cuda/runtime.py has it
constexpr int64_t reduction_bytes = 32 * 8;  // what `reduce` needs of shared memory, at its start

// Every thread's value combined, in an order fixed by the number of threads; all get the result.  The number of threads
// is a multiple of a warp.
template <class Operation, class T>
SEQTRAIN_DEVICE T reduce(const Team& team, T value, Operation operation) {
  for (int mask = warp / 2; mask > 0; mask /= 2) value = operation(value, team.exchange(value, mask));
  T* slot = reinterpret_cast<T*>(team.shared(0));
  if (team.thread() % warp == 0) slot[team.thread() / warp] = value;
  team.sync();
  T all = slot[0];
  for (int w = 1; w < team.threads() / warp; w++) all = operation(all, slot[w]);
  team.sync();  // the slots may be used again
  return all;
}

// What a thread does to each of the items first, first + step, … < end: `load`s four of them before the first is
// `use`d, so that it waits for memory once.
template <class Load, class Use>
SEQTRAIN_DEVICE void for_batches(int first, int end, int step, const Load& load, const Use& use) {
  using Item = decltype(load(first));
  constexpr int together = sizeof(Item) > 12 ? 1 : 4;
  Item loaded[together];
  SEQTRAIN_ROLLED for (int begin = first; begin < end; begin += together * step) {
    SEQTRAIN_UNROLLED
    for (int i = 0; i < together; i++)
      if (begin + i * step < end) loaded[i] = load(begin + i * step);
    SEQTRAIN_UNROLLED
    for (int i = 0; i < together; i++)
      if (begin + i * step < end) use(begin + i * step, loaded[i]);
  }
}

// Exponents far below any sum of three, so that products with a zero stay at the bottom.
template <class Real>
SEQTRAIN_DEVICE Real scaled(Real mantissa, ExponentOf<Real> exponent, ExponentOf<Real> top) {
  return mantissa * power_of_two<Real>(exponent - top);
}

}  // namespace seqtrain
