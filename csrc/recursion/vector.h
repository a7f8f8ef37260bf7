// Vectors in the compiler's own vector types, as wide as the architecture level's registers: the same code for all.
#pragma once

#include <cstdint>
#include <cstring>

#include "number.h"

namespace seqtrain {

#if defined(__AVX512F__)
constexpr int64_t vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int64_t vector_bytes = 32;
#else
constexpr int64_t vector_bytes = 16;
#endif

template <class Real>
struct VectorOf;  // `Anywhere`: in memory, aligned as its elements are
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(vector_bytes)));
  typedef int32_t Bits __attribute__((vector_size(vector_bytes)));
  typedef float Anywhere __attribute__((vector_size(vector_bytes), aligned(alignof(float)), may_alias));
  typedef int32_t BitsAnywhere __attribute__((vector_size(vector_bytes), aligned(alignof(int32_t)), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(vector_bytes)));
  typedef int64_t Bits __attribute__((vector_size(vector_bytes)));
  typedef double Anywhere __attribute__((vector_size(vector_bytes), aligned(alignof(double)), may_alias));
  typedef int64_t BitsAnywhere __attribute__((vector_size(vector_bytes), aligned(alignof(int64_t)), may_alias));
};

template <class Real>
using Vector = typename VectorOf<Real>::Type;
template <class Real>
using BitVector = typename VectorOf<Real>::Bits;

template <class Real>
constexpr int64_t vector_size = vector_bytes / static_cast<int64_t>(sizeof(Real));

template <class Real>
inline Vector<Real> load_vector(const Real* source) {
  return *reinterpret_cast<const typename VectorOf<Real>::Anywhere*>(source);
}

// The first `count` elements, `rest` in the others.
template <class Real>
inline Vector<Real> load_vector(const Real* source, int64_t count, Real rest) {
  Vector<Real> value = Vector<Real>{} + rest;
  std::memcpy(&value, source, static_cast<std::size_t>(count) * sizeof(Real));
  return value;
}

template <class Real>
inline void store_vector(Real* target, Vector<Real> value) {
  *reinterpret_cast<typename VectorOf<Real>::Anywhere*>(target) = value;
}

template <class Real>
inline BitVector<Real> load_bits(const ExponentOf<Real>* source) {
  return *reinterpret_cast<const typename VectorOf<Real>::BitsAnywhere*>(source);
}

template <class Real>
inline void store_bits(ExponentOf<Real>* target, BitVector<Real> value) {
  *reinterpret_cast<typename VectorOf<Real>::BitsAnywhere*>(target) = value;
}

// `power_of_two` and `normalize` of number.h, element by element.
template <class Real>
inline Vector<Real> power_of_two_of_vector(BitVector<Real> k) {
  constexpr ExponentOf<Real> bias = Format<Real>::bias;
  const BitVector<Real> lowest = BitVector<Real>{} - bias;
  const BitVector<Real> clamped = k > lowest ? k : lowest;
  return (Vector<Real>)((clamped + bias) << Format<Real>::mantissa_bits);
}

template <class Real>
inline void normalize_vector(Vector<Real>& mantissa, BitVector<Real>& exponent) {
  using Exponent = ExponentOf<Real>;
  constexpr int bits = Format<Real>::mantissa_bits;
  constexpr Exponent mask = (Exponent{1} << bits) - 1;
  constexpr Exponent one = Exponent{Format<Real>::bias} << bits;
  const BitVector<Real> pattern = (BitVector<Real>)mantissa;
  const BitVector<Real> moved = exponent + ((pattern >> bits) - Format<Real>::bias);
  const BitVector<Real> alive =
      (mantissa > Vector<Real>{} + Format<Real>::tiny) & (moved > BitVector<Real>{} + Exponent{floor_exponent});
  mantissa = (Vector<Real>)(((pattern & mask) | one) & alive);
  exponent = alive ? moved : BitVector<Real>{} + Exponent{zero_exponent};
}

template <class Real>
inline Real sum_of(Vector<Real> value) {
  Real sum = 0;
  for (int64_t i = 0; i < vector_size<Real>; i++) sum += value[i];
  return sum;
}

}  // namespace seqtrain
