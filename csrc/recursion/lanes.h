// Values of several sequences side by side: element l of a row belongs to sequence l.  Every operation stays within its
// element, so that a sequence's result doesn't depend on which others stand beside it, nor on how many.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "number.h"
#include "vector.h"

namespace seqtrain {

// One row of `Width` numbers, in as few registers as the architecture level has for it.
template <class Real, int64_t Width>
struct Row {
  static constexpr int64_t bytes = Width * static_cast<int64_t>(sizeof(Real));
  static constexpr int64_t part_bytes = bytes < vector_bytes ? bytes : vector_bytes;
  static constexpr int64_t parts = bytes / part_bytes;
  static constexpr int64_t per_part = Width / parts;
  typedef Real Part __attribute__((vector_size(part_bytes)));

  Part part[parts];

  // Part by part: an array as a whole would go through memory.
  static Part load_part(const Real* source, int64_t i) {
    Part value;
    std::memcpy(&value, source + i * per_part, part_bytes);
    return value;
  }
  static Row load(const Real* source) {
    Row row;
    for (int64_t i = 0; i < parts; i++) row.part[i] = load_part(source, i);
    return row;
  }
  static Row all(Real value) {
    Row row;
    for (int64_t i = 0; i < parts; i++) row.part[i] = Part{} + value;
    return row;
  }
  void store(Real* target) const {
    for (int64_t i = 0; i < parts; i++) std::memcpy(target + i * per_part, &part[i], part_bytes);
  }

  // this += weight · source
  void add(Real weight, const Real* source) {
    for (int64_t i = 0; i < parts; i++) part[i] += weight * load_part(source, i);
  }
  Row& operator+=(const Row& other) {
    for (int64_t i = 0; i < parts; i++) part[i] += other.part[i];
    return *this;
  }
  Row& operator*=(const Row& other) {
    for (int64_t i = 0; i < parts; i++) part[i] *= other.part[i];
    return *this;
  }
  void at_least(const Row& least) {
    for (int64_t i = 0; i < parts; i++) part[i] = part[i] > least.part[i] ? part[i] : least.part[i];
  }
};

template <class Real, int64_t Width>
inline Row<Real, Width> operator+(Row<Real, Width> a, const Row<Real, Width>& b) {
  return a += b;
}
template <class Real, int64_t Width>
inline Row<Real, Width> operator*(Row<Real, Width> a, const Row<Real, Width>& b) {
  return a *= b;
}

// `value` where the condition holds, else 0.
template <class Real, int64_t Width>
inline Row<Real, Width> where_positive(const Row<Real, Width>& condition, const Row<Real, Width>& value) {
  Row<Real, Width> row;
  for (int64_t i = 0; i < row.parts; i++)
    row.part[i] = condition.part[i] > Real{0} ? value.part[i] : typename Row<Real, Width>::Part{};
  return row;
}

// `value` where any of a, b, c is at most `least`, else 0.
template <class Real, int64_t Width>
inline Row<Real, Width> where_low(const Row<Real, Width>& a, const Row<Real, Width>& b, const Row<Real, Width>& c,
                                  Real least, const Row<Real, Width>& value) {
  Row<Real, Width> row;
  for (int64_t i = 0; i < row.parts; i++) {
    auto lowest = a.part[i] < b.part[i] ? a.part[i] : b.part[i];
    lowest = c.part[i] < lowest ? c.part[i] : lowest;
    row.part[i] = lowest <= least ? value.part[i] : typename Row<Real, Width>::Part{};
  }
  return row;
}

}  // namespace seqtrain
