// Row passes of a fused log-softmax: the largest score and the sum of exponentials of a row, and its probabilities.
#pragma once

#include <cstdint>
#include <limits>

#include "../recursion/exponential.h"

namespace seqtrain {

template <class Real>
struct RowNormalizer {
  Real largest;
  Real inverse_sum;  // 1 / Σ exp(score - largest)
  bool finite;       // no NaN, no +inf, and at least one score above -inf
};

template <class Real>
inline RowNormalizer<Real> row_normalizer(const Real* __restrict row, int64_t size) {
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  Real largest = -infinity;
  int bad = 0;
#pragma omp simd reduction(max : largest) reduction(| : bad)
  for (int64_t v = 0; v < size; v++) {
    largest = row[v] > largest ? row[v] : largest;
    bad |= row[v] < infinity ? 0 : 1;
  }
  if (bad != 0 || !(largest > -infinity)) return {Real{0}, Real{0}, false};
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < size; v++) sum += exponential_of_nonpositive(row[v] - largest);
  return {largest, Real{1} / sum, true};
}

// out[v] = scale · softmax(row)[v]
template <class Real>
inline void scaled_softmax(const Real* __restrict row, int64_t size, Real largest, Real inverse_sum, Real scale,
                           Real* __restrict out) {
  const Real factor = inverse_sum * scale;
#pragma omp simd
  for (int64_t v = 0; v < size; v++) out[v] = factor * exponential_of_nonpositive(row[v] - largest);
}

}  // namespace seqtrain
