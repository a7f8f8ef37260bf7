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

// All bits in the first `count` elements, none in the others.
template <class Real>
inline BitVector<Real> first_elements(int64_t count) {
  BitVector<Real> index;
  for (int64_t i = 0; i < vector_size<Real>; i++) index[i] = static_cast<ExponentOf<Real>>(i);
  return index < BitVector<Real>{} + static_cast<ExponentOf<Real>>(count);
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

// Element i is value[index[i] mod the vector's size].
template <class Real>
inline Vector<Real> permuted(Vector<Real> value, BitVector<Real> index) {
#if defined(__clang__)
  Vector<Real> result;
  for (int64_t i = 0; i < vector_size<Real>; i++) result[i] = value[index[i] & (vector_size<Real> - 1)];
  return result;
#else
  return __builtin_shuffle(value, index);
#endif
}

// All elements in one, by an operation on two vectors: halves of the vector, halves of what that leaves, and so on.
template <class Real, class Operation, int64_t distance = vector_size<Real> / 2>
inline Real folded(Vector<Real> value, const Operation& operation) {
  if constexpr (distance == 0) {
    return value[0];
  } else {
    BitVector<Real> other;
    for (int64_t i = 0; i < vector_size<Real>; i++) other[i] = static_cast<ExponentOf<Real>>(i ^ distance);
    return folded<Real, Operation, distance / 2>(operation(value, permuted<Real>(value, other)), operation);
  }
}

template <class Real>
inline Real sum_of(Vector<Real> value) {
  return folded<Real>(value, [](Vector<Real> a, Vector<Real> b) { return a + b; });
}

}  // namespace seqtrain
