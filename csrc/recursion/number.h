// The number format of every recursion: a mantissa in [1, 2) (or 0) and an integer exponent of two of its own.
//
// A probability in a sequence model leaves the range of float within a few frames.  Log-domain arithmetic costs an exp
// and a log per arc and loses digits as |log p| grows; scaled probabilities underflow in graphs whose paths must end
// in one state.  With a mantissa and an exponent a recursion needs multiply, add and exponent alignment alone, and its
// relative error stays that of the mantissa, whatever the magnitude.
//
// Exponents are integers of the mantissa's width, so that lanes match in vector code.  Finite exponents lie above
// `floor_exponent`; anything below is flushed to zero, whose exponent is `zero_exponent`.  The gap between the two
// keeps sums of a few exponents ordered and free of overflow: an exponent, an arc weight and an emission are added at
// most.
#pragma once

// Compiled for CUDA too, where no header of the standard library is at hand: csrc/cuda/team.h defines what these do.
#if !defined(__CUDACC__)
#include <cstdint>
#include <cstring>
#define SEQTRAIN_DEVICE inline
#endif

namespace seqtrain {

template <class Real>
struct Format;

template <>
struct Format<float> {
  using Exponent = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Exponent bias = 127;
  static constexpr float tiny = 1e-37f;
};

template <>
struct Format<double> {
  using Exponent = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Exponent bias = 1023;
  static constexpr double tiny = 1e-300;
};

template <class Real>
using ExponentOf = typename Format<Real>::Exponent;

constexpr int32_t zero_exponent = -(1 << 28);
constexpr int32_t floor_exponent = -(1 << 27);
constexpr int32_t largest_input_exponent = 1 << 26;  // of one emission or one arc weight, in absolute value

#if !defined(__CUDACC__)
template <class Real>
inline ExponentOf<Real> to_bits(Real value) {
  ExponentOf<Real> bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class Real>
inline Real from_bits(ExponentOf<Real> bits) {
  Real value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
#else
template <class Real>
SEQTRAIN_DEVICE ExponentOf<Real> to_bits(Real value) {
  return bits_of(value);
}

template <class Real>
SEQTRAIN_DEVICE Real from_bits(ExponentOf<Real> bits) {
  return real_of(bits);
}
#endif

// 2^k for k up to the largest of a finite number; 0 where 2^k would be subnormal.
template <class Real>
SEQTRAIN_DEVICE Real power_of_two(ExponentOf<Real> k) {
  constexpr ExponentOf<Real> bias = Format<Real>::bias;
  const ExponentOf<Real> clamped = k < -bias ? -bias : k;
  return from_bits<Real>((clamped + bias) << Format<Real>::mantissa_bits);
}

// Brings mantissa >= 0 back to [1, 2) and moves the rest into the exponent.
template <class Real>
SEQTRAIN_DEVICE void normalize(Real& mantissa, ExponentOf<Real>& exponent) {
  using Exponent = ExponentOf<Real>;
  constexpr int bits = Format<Real>::mantissa_bits;
  constexpr Exponent mask = (Exponent{1} << bits) - 1;
  constexpr Exponent one = Format<Real>::bias << bits;
  const Exponent pattern = to_bits(mantissa);
  const Exponent moved = exponent + ((pattern >> bits) - Format<Real>::bias);
  const bool alive = (mantissa > Format<Real>::tiny) & (moved > floor_exponent);
  mantissa = alive ? from_bits<Real>((pattern & mask) | one) : Real{0};
  exponent = alive ? moved : Exponent{zero_exponent};
}

}  // namespace seqtrain
