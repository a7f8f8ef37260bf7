// Row passes of a fused log-softmax: the largest score and the sum of exponentials of a row, and its probabilities.
// Four accumulators a pass: with one, each step would wait for the one before.
#pragma once

#include <cstdint>
#include <limits>

#include "../recursion/exponential.h"
#include "../recursion/vector.h"
#include "prefetch.h"

namespace seqtrain {

template <class Real>
struct RowNormalizer {
  Real largest;
  Real inverse_sum;  // 1 / Σ exp(score - largest)
  bool finite;       // no NaN, no +inf, and at least one score above -inf
};

// `ahead` is the row that is looked at next: it comes into the caches while the exponentials keep the processor busy
// and memory idle.  It may be any address.
template <class Real>
inline RowNormalizer<Real> row_normalizer(const Real* __restrict row, int64_t size, const Real* ahead) {
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  constexpr int64_t step = vector_size<Real>;
  using V = Vector<Real>;
  const V lowest = V{} - infinity;
  V top[4] = {lowest, lowest, lowest, lowest};
  BitVector<Real> good = BitVector<Real>{} - 1;
  const auto look = [&](V x, V& best) {
    best = x > best ? x : best;
    good &= x < infinity;
  };
  int64_t v = 0;
  for (; v + 4 * step <= size; v += 4 * step) {
    look(load_vector(row + v), top[0]);
    look(load_vector(row + v + step), top[1]);
    look(load_vector(row + v + 2 * step), top[2]);
    look(load_vector(row + v + 3 * step), top[3]);
  }
  for (; v + step <= size; v += step) look(load_vector(row + v), top[0]);
  if (v < size) look(load_vector(row + v, size - v, -infinity), top[1]);
  top[0] = top[0] > top[1] ? top[0] : top[1];
  top[2] = top[2] > top[3] ? top[2] : top[3];
  top[0] = top[0] > top[2] ? top[0] : top[2];
  Real largest = top[0][0];
  bool all_good = true;
  for (int64_t i = 0; i < step; i++) {
    largest = top[0][i] > largest ? top[0][i] : largest;
    all_good &= good[i] != 0;
  }
  if (!all_good || !(largest > -infinity)) return {Real{0}, Real{0}, false};

  V sum[4] = {V{}, V{}, V{}, V{}};
  v = 0;
  for (; v + 4 * step <= size; v += 4 * step) {
    for (int64_t line = 0; line < 4 * vector_bytes; line += cache_line)
      __builtin_prefetch(reinterpret_cast<const char*>(ahead + v) + line, 0, second_cache);
    sum[0] += exponential_of_nonpositive<Real>(load_vector(row + v) - largest);
    sum[1] += exponential_of_nonpositive<Real>(load_vector(row + v + step) - largest);
    sum[2] += exponential_of_nonpositive<Real>(load_vector(row + v + 2 * step) - largest);
    sum[3] += exponential_of_nonpositive<Real>(load_vector(row + v + 3 * step) - largest);
  }
  for (; v + step <= size; v += step) sum[0] += exponential_of_nonpositive<Real>(load_vector(row + v) - largest);
  if (v < size) sum[1] += exponential_of_nonpositive<Real>(load_vector(row + v, size - v, -infinity) - largest);
  return {largest, Real{1} / sum_of<Real>((sum[0] + sum[1]) + (sum[2] + sum[3])), true};
}

// out[v] = scale · softmax(row)[v]; `out` may be `row`.  `ahead` as above: the hardware's own prefetching ends with
// every page.
template <class Real>
inline void scaled_softmax(const Real* row, int64_t size, Real largest, Real inverse_sum, Real scale, Real* out,
                           const Real* ahead) {
  constexpr int64_t step = vector_size<Real>;
  const Real factor = inverse_sum * scale;
  int64_t v = 0;
  for (; v + 2 * step <= size; v += 2 * step) {
    for (int64_t line = 0; line < 2 * vector_bytes; line += cache_line)
      __builtin_prefetch(reinterpret_cast<const char*>(ahead + v) + line, 0, second_cache);
    const Vector<Real> x = load_vector(row + v), y = load_vector(row + v + step);
    store_vector<Real>(out + v, factor * exponential_of_nonpositive<Real>(x - largest));
    store_vector<Real>(out + v + step, factor * exponential_of_nonpositive<Real>(y - largest));
  }
  for (; v + step <= size; v += step)
    store_vector<Real>(out + v, factor * exponential_of_nonpositive<Real>(load_vector(row + v) - largest));
  if (v < size) {
    const Vector<Real> last =
        factor * exponential_of_nonpositive<Real>(load_vector(row + v, size - v, largest) - largest);
    std::memcpy(out + v, &last, static_cast<std::size_t>(size - v) * sizeof(Real));
  }
}

}  // namespace seqtrain
