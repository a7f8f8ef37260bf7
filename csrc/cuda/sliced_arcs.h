// Weighted sums over the arcs of a shared automaton (layout: csrc/recursion/denominator_slices.h).
//
// A frame's values are level where all but zeros have one exponent: their mantissas aren't normalized then, but floats
// that can be multiplied by weights and added up as they are.  Nothing is lost by that: the mantissas lie between
// 2^lowest_level and 2^highest_level, so that no product with a weight of 2^-60 or more leaves the range of a float,
// and each operation rounds as it would with exponents beside it.
#pragma once

#include "cluster.h"

namespace seqtrain {

constexpr int32_t lowest_level = -60, highest_level = 60;

// A number that isn't normalized.
template <class Real>
struct Loose {
  Real mantissa = 0;
  ExponentOf<Real> exponent = 2 * zero_exponent;

  SEQTRAIN_DEVICE void add(Real m, ExponentOf<Real> e) {
    const ExponentOf<Real> top = e > exponent ? e : exponent;
    mantissa = scaled<Real>(mantissa, exponent, top) + scaled<Real>(m, e, top);
    exponent = top;
  }
};

// What a thread has seen of the values that it wrote.
struct Seen {
  int32_t top = zero_exponent;  // the largest exponent
  int32_t uneven = 0;           // whether one doesn't fit to the others' level
};

// All values of a frame: `top` is their largest exponent; where they are level, theirs is `exponent`.
struct Level {
  int32_t top = zero_exponent;
  int32_t exponent = 0;
  bool even = false;

  // Of what the threads of a cluster have seen; a barrier of the cluster.
  SEQTRAIN_DEVICE static Level of(Cluster& cluster, Seen seen, int32_t exponent) {
    cluster.largest_of_both(seen.top, seen.uneven);
    return {seen.top, exponent, seen.uneven == 0};
  }
};

// A normalized number as a value of the level of `exponent`, where it fits.
template <class Real>
SEQTRAIN_DEVICE void bring_to(int32_t exponent, Real& m, ExponentOf<Real>& e, Seen& seen) {
  if (!(m > 0)) return;
  seen.top = e > seen.top ? static_cast<int32_t>(e) : seen.top;
  const ExponentOf<Real> above = e - exponent;
  if (above < lowest_level || above > highest_level) {
    seen.uneven = 1;
    return;
  }
  m *= power_of_two<Real>(above);
  e = exponent;
}

// Four neighbours, read at once.
template <class T>
struct alignas(16) Four {
  T item[4];

  SEQTRAIN_DEVICE T operator[](int i) const { return item[i]; }
};
// Taken apart when they are used: a part of a register can't be waited for.
template <>
struct alignas(8) Four<uint16_t> {
  uint32_t item[2];

  SEQTRAIN_DEVICE uint32_t operator[](int i) const {
    return i % 2 == 0 ? lower_half(item[i / 2]) : upper_half(item[i / 2]);
  }
};

template <class Real>
struct SlicedArcs {
  const int32_t* row;
  const int32_t* share;
  const int32_t* begin;
  const void* from;  // of 16 bits if `narrow`, else of 32
  bool narrow;
  const Real* mantissa;
  const int32_t* exponent;  // null: no exponents beside the mantissas
  int lanes;

  SEQTRAIN_DEVICE ExponentOf<Real> exponent_of(int64_t place) const {
    return exponent != nullptr ? exponent[place] : 0;
  }
  SEQTRAIN_DEVICE int32_t source(int64_t place) const {
    return narrow ? int32_t{static_cast<const uint16_t*>(from)[place]} : static_cast<const int32_t*>(from)[place];
  }
  // What is known of a lane beside its arcs; the first of those of a row leads.
  struct Lane {
    int32_t row, share, begin, end;
    bool leads;
  };
  SEQTRAIN_DEVICE Lane lane(int i) const {
    const int slice = i / warp;
    return {row[i], share[slice], begin[slice], begin[slice + 1], (i & (share[slice] - 1)) == 0};
  }
  // Calls with each of the cluster's lanes that this thread has, and its number.  The next one is read ahead.
  template <class Use>
  SEQTRAIN_DEVICE void each_lane(const Cluster& cluster, const Use& use) const {
    int i = cluster.begin();
    if (i >= lanes) return;
    Lane next = lane(i);
    while (i < lanes) {
      const Lane here = sizeof(Real) == sizeof(float) ? next : lane(i);  // there are no registers for two in double
      const int number = i;
      i += cluster.step();
      if (sizeof(Real) == sizeof(float) && i < lanes) next = lane(i);
      use(number, here);
    }
  }

  // Calls with the place of each arc of a lane.
  template <class Visit>
  SEQTRAIN_DEVICE void each(int lane, const Visit& visit) const {
    for (int32_t four = begin[lane / warp]; four < begin[lane / warp + 1]; four++)
      SEQTRAIN_ROLLED for (int i = 0; i < 4; i++) visit(4 * (int64_t{four} * warp + lane % warp) + i);
  }

  // Σ over the arcs of the row of a lane, on all lanes of that row; all threads of a warp call with lanes of a slice.
  SEQTRAIN_DEVICE Loose<Real> sum(const Cluster& cluster, const Lane& lane, States<Real> values,
                                  const Level& level) const {
    return narrow ? sum_from(static_cast<const uint16_t*>(from), cluster, lane, values, level)
                  : sum_from(static_cast<const int32_t*>(from), cluster, lane, values, level);
  }

 private:
  template <class Index>
  SEQTRAIN_DEVICE Loose<Real> sum_from(const Index* index, const Cluster& cluster, const Lane& lane,
                                       States<Real> values, const Level& level) const {
    const Team& team = cluster.team;
    const int fours = lane.end - lane.begin;
    const int64_t place = int64_t{lane.begin} * warp + team.thread() % warp;
    const auto* source = reinterpret_cast<const Four<Index>*>(index) + place;
    const auto* weight = reinterpret_cast<const Four<Real>*>(mantissa) + place;
    if (level.even && exponent == nullptr) {
      Real sum = 0;
      if (cluster.in_shared_memory) {  // said so that the compiler sees it
        const char* there = reinterpret_cast<const char*>(values.mantissa);
        sum = sum_of_level(source, weight, fours, reinterpret_cast<const Real*>(team.shared(there - team.shared(0))));
      } else {
        SEQTRAIN_ROLLED for (int n = 0; n < fours; n++)
            add_level(sum, source[n * warp], weight[n * warp], values.mantissa);
      }
      for (int mask = 1; mask < lane.share; mask *= 2) sum += team.exchange(sum, mask);
      return {sum, level.exponent};
    }
    const auto* exponents = reinterpret_cast<const Four<int32_t>*>(exponent) + place;
    Loose<Real> all;
    SEQTRAIN_ROLLED for (int n = 0; n < fours; n++) {
      const Four<Index> node = source[n * warp];
      const Four<Real> w = weight[n * warp];
      Four<int32_t> e{};
      if (exponent != nullptr) e = exponents[n * warp];
      for (int i = 0; i < 4; i++) all.add(w[i] * values.mantissa[node[i]], e[i] + values.exponent[node[i]]);
    }
    for (int mask = 1; mask < lane.share; mask *= 2) {
      const Real m = team.exchange(all.mantissa, mask);
      all.add(m, team.exchange(all.exponent, mask));
    }
    return all;
  }

  template <class Index>
  SEQTRAIN_DEVICE static void add_level(Real& sum, const Four<Index>& node, const Four<Real>& w, const Real* values) {
    SEQTRAIN_UNROLLED for (int i = 0; i < 4; i++) sum += w[i] * values[node[i]];
  }

  template <class Index>
  SEQTRAIN_DEVICE static void read_four(const Four<Index>* source, const Four<Real>* weight, Four<Index>& node,
                                        Four<Real>& w) {
    read_here(source->item, node.item);
    read_here(weight->item, w.item);
  }

  // Two fours are read ahead of what is used.
  template <class Index>
  SEQTRAIN_DEVICE static Real sum_of_level(const Four<Index>* source, const Four<Real>* weight, int fours,
                                           const Real* values) {
    Real sum = 0;
    if constexpr (sizeof(Real) == sizeof(double)) {  // there are no registers for more
      SEQTRAIN_ROLLED for (int n = 0; n < fours; n++) add_level(sum, source[n * warp], weight[n * warp], values);
      return sum;
    }
    Four<Index> node0{}, node1{}, node2{};
    Four<Real> weight0{}, weight1{}, weight2{};
    if (0 < fours) read_four(source, weight, node0, weight0);
    if (1 < fours) read_four(source + warp, weight + warp, node1, weight1);
    SEQTRAIN_ROLLED for (int left = fours; left > 0; left -= 3) {
      if (2 < left) read_four(source + 2 * warp, weight + 2 * warp, node2, weight2);
      add_level(sum, node0, weight0, values);
      if (left == 1) break;
      if (3 < left) read_four(source + 3 * warp, weight + 3 * warp, node0, weight0);
      add_level(sum, node1, weight1, values);
      if (left == 2) break;
      if (4 < left) read_four(source + 4 * warp, weight + 4 * warp, node1, weight1);
      add_level(sum, node2, weight2, values);
      source += 3 * warp;
      weight += 3 * warp;
    }
    return sum;
  }
};

}  // namespace seqtrain
