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
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(vector_bytes)));
  typedef int32_t Bits __attribute__((vector_size(vector_bytes)));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(vector_bytes)));
  typedef int64_t Bits __attribute__((vector_size(vector_bytes)));
};

template <class Real>
using Vector = typename VectorOf<Real>::Type;
template <class Real>
using BitVector = typename VectorOf<Real>::Bits;

template <class Real>
constexpr int64_t vector_size = vector_bytes / static_cast<int64_t>(sizeof(Real));

template <class Real>
inline Vector<Real> load_vector(const Real* source) {
  Vector<Real> value;
  std::memcpy(&value, source, vector_bytes);
  return value;
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
  std::memcpy(target, &value, vector_bytes);
}

template <class Real>
inline Real sum_of(Vector<Real> value) {
  Real sum = 0;
  for (int64_t i = 0; i < vector_size<Real>; i++) sum += value[i];
  return sum;
}

}  // namespace seqtrain
