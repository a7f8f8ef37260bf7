// Steps of the forward-backward recursion over one automaton shared by the sequences of a row (equations:
// seqtrain/reference.py, `full_sum` and `leaky_full_sum`).
//
// Numbers are plain floats under one exponent of two a frame and sequence, which costs a fifth of an exponent a state
// (number.h): each frame's values are multiplied by the power of two that brings the sum of the frame before to
// 2^target.  What then falls below 2^floor is raised to it, instead of being flushed to zero.  So the recursions give
// upper bounds, in both directions, and what raising has added to the likelihood is at most the posterior mass, summed
// over frames, of the entries that were raised (or whose emission was): added mass arrives there, and every upper bound
// of what follows is in the entry's backward score.  That sum, `doubt`, is computed beside the occupancies.  Where it
// is below `tolerance` the result is as exact as the arithmetic; where not, the caller takes a wider format.  What
// leaks hides that a backward score was raised; where it's above 2^lowest_leak, raising adds less than rounding does.
#pragma once

#include <cmath>
#include <cstdint>

#include "denominator_layout.h"
#include "exponential.h"
#include "lanes.h"

namespace seqtrain {

template <class Real>
struct Scaling;
template <>
struct Scaling<float> {
  // A frame may grow by the largest number of arcs out of a state before its factor is known: 2^60 · 2^40 fits, squared
  // it needn't.
  static constexpr int target = 60, floor = -90, largest_factor = 120, lowest_likelihood = -90, lowest_leak = -60;
  static constexpr double weight_range = 80, tolerance = 1e-7;
};
template <>
struct Scaling<double> {
  static constexpr int target = 400, floor = -800, largest_factor = 900, lowest_likelihood = -600, lowest_leak = -740;
  static constexpr double weight_range = 600, tolerance = 1e-13;
};

template <class Real>
inline Real scaled_floor() {
  return std::ldexp(Real{1}, Scaling<Real>::floor);
}

// exp(x) / 2^top of rows of scores, in place: at least the floor, and 0 for -inf.  Scores that are far below the row's
// largest, which is about 2^top, are brought to the floor first, so that both steps of the reduction are exact.
template <class Real, int64_t Width>
inline void exponential_of_rows(const ExponentOf<Real>* top, int64_t count, Real* __restrict x) {
  using Values = Row<Real, Width>;
  using Part = typename Values::Part;
  typedef ExponentOf<Real> Bits __attribute__((vector_size(Values::part_bytes)));
  constexpr int bits = Format<Real>::mantissa_bits;
  constexpr Real magic = Real(3) * Real(ExponentOf<Real>{1} << (bits - 1)),
                 infinity = std::numeric_limits<Real>::infinity();
  const Part floor = Part{} + scaled_floor<Real>();
  Bits scale[Values::parts];
  Part least[Values::parts];
  for (int64_t i = 0; i < Values::parts; i++) {
    std::memcpy(&scale[i], top + i * Values::per_part, sizeof(Bits));
    for (int64_t j = 0; j < Values::per_part; j++)
      least[i][j] = static_cast<Real>(scale[i][j] + (Scaling<Real>::floor - 2)) / LogTwo<Real>::inverse;
  }
  for (int64_t k = 0; k < count; k++) {
    for (int64_t i = 0; i < Values::parts; i++) {
      Real* place = x + k * Width + i * Values::per_part;
      const Part score = Values::load_part(place, 0);
      const Part safe = score > least[i] ? score : least[i];
      // Adding `magic` rounds to an integer, which then stands in the low bits of the sum.
      const Part shifted = safe * LogTwo<Real>::inverse + magic;
      const Part n = shifted - magic;
      const Part r = (safe - n * LogTwo<Real>::high) - n * LogTwo<Real>::low;
      const Part y = (Part)((Bits)Remainder<Real>::exponential(r) + (((Bits)shifted - scale[i]) << bits));
      const Part kept = y > floor ? y : floor;
      const Part found = score > -infinity ? kept : Part{};
      std::memcpy(place, &found, sizeof found);
    }
  }
}

// The power of two that brings `sum` to about 2^target.
template <class Real>
inline int scaling_exponent(Real sum) {
  if (!(sum > 0)) return 0;
  const int wanted = Scaling<Real>::target - std::ilogb(sum);
  return std::min(std::max(wanted, -Scaling<Real>::largest_factor), Scaling<Real>::largest_factor);
}

// An automaton's weights as the recursion multiplies them, relative to the largest.
template <class Real>
struct DenominatorWeights {
  std::vector<Real> incoming, outgoing;   // (arcs,) in the layout's orders
  std::vector<Real> leak;                 // (slots,) coefficient · distribution; empty: no leak
  std::vector<double> final_weight;       // (slots,) not log, 0 where not final
  double largest = 0, largest_final = 0;  // log
  bool in_range = true;

  void build(const GraphView& graph, const DenominatorLayout& layout, double coefficient, const double* distribution) {
    double smallest = std::numeric_limits<double>::infinity();
    largest = largest_final = -smallest;
    for (int64_t i = 0; i < layout.arcs; i++) {
      const double weight = graph.weight[layout.incoming_arc[i]];
      largest = std::max(largest, weight);
      smallest = std::min(smallest, weight);
    }
    if (layout.arcs == 0) largest = smallest = 0;
    std::vector<Real> factor(at(graph.arcs));
    for (int64_t i = 0; i < layout.arcs; i++) {
      const int32_t a = layout.incoming_arc[i];
      factor[at(a)] = static_cast<Real>(std::exp(graph.weight[a] - largest));
    }
    incoming.resize(at(layout.arcs));
    outgoing.resize(at(layout.arcs));
    for (int64_t i = 0; i < layout.arcs; i++) {
      incoming[at(i)] = factor[at(layout.incoming_arc[i])];
      outgoing[at(i)] = factor[at(layout.outgoing_arc[i])];
    }
    in_range = largest - smallest < Scaling<Real>::weight_range;

    double smallest_final = std::numeric_limits<double>::infinity();
    for (int64_t f = 0; f < graph.finals; f++)
      if (layout.final_slot[f] >= 0) {
        largest_final = std::max(largest_final, graph.final_weight[f]);
        smallest_final = std::min(smallest_final, graph.final_weight[f]);
      }
    final_weight.assign(at(layout.slots), 0.0);
    for (int64_t f = 0; f < graph.finals; f++)
      if (layout.final_slot[f] >= 0)
        final_weight[at(layout.final_slot[f])] += std::exp(graph.final_weight[f] - largest_final);
    in_range = in_range && largest_final - smallest_final < Scaling<Real>::weight_range;

    leak.clear();
    if (coefficient == 0) return;
    for (int64_t s = 0; s < layout.slots; s++)
      leak.push_back(static_cast<Real>(coefficient * distribution[layout.slot_state[s]]));
  }
};

// The state's share of what leaks is added to every state: source = alpha + leak · total, for the nodes of states.
template <class Real, int64_t Width>
inline void leak_forward(const DenominatorLayout& graph, const Real* __restrict leak, const Real* __restrict alpha,
                         const Row<Real, Width>& total, Real* __restrict source) {
  for (int64_t s = 0; s < graph.slots; s++) {
    const int64_t node = graph.slot_node[s] * Width;
    Row<Real, Width> value = total * Row<Real, Width>::all(leak[s]);
    value += Row<Real, Width>::load(alpha + node);
    value.store(source + node);
  }
}

// Every state leaks the same: beta += Σ leak · beta.
template <class Real, int64_t Width>
inline void leak_backward(const DenominatorLayout& graph, const Row<Real, Width>& leaking, Real* __restrict beta) {
  for (int64_t s = 0; s < graph.slots; s++)
    (Row<Real, Width>::load(beta + s * Width) + leaking).store(beta + s * Width);
}

// One frame forward: from `source`, nodes of the frame before, to the nodes of this one; returns the sum over states.
template <class Real, int64_t Width>
inline Row<Real, Width> advance(const DenominatorLayout& graph, const Real* __restrict weight,
                                const Real* __restrict source, const Real* __restrict emission,
                                const Row<Real, Width>& factor, Real* __restrict alpha) {
  using Values = Row<Real, Width>;
  const Values floor = Values::all(scaled_floor<Real>());
  Values total = Values::all(0);
  for (int64_t k = 0; k < graph.columns; k++) {
    const Values y = Values::load(emission + k * Width), least = where_positive(y, floor);
    for (int64_t m = graph.column_begin[k]; m < graph.column_begin[k + 1]; m++) {
      Values even = Values::all(0), odd = even;
      int64_t i = graph.incoming_begin[m];
      const int64_t end = graph.incoming_begin[m + 1];
      for (; i + 2 <= end; i += 2) {
        even.add(weight[i], source + graph.incoming_node[i] * Width);
        odd.add(weight[i + 1], source + graph.incoming_node[i + 1] * Width);
      }
      if (i < end) even.add(weight[i], source + graph.incoming_node[i] * Width);
      Values value = (even + odd) * factor * y;
      value.at_least(least);
      value.store(alpha + m * Width);
      total += value;
    }
  }
  for (int64_t q = 0; q < graph.aggregates; q++) {
    Values sum = Values::all(0);
    for (int64_t i = graph.aggregate_begin[q]; i < graph.aggregate_begin[q + 1]; i++)
      sum += Values::load(alpha + graph.aggregate_arrival[i] * Width);
    sum.store(alpha + (graph.arrivals + q) * Width);
  }
  return total;
}

// What `occupy` adds up over a frame.
template <class Real, int64_t Width>
struct Occupied {
  Row<Real, Width> total, doubtful;
};

// Occupancies of a frame's labels, and product = emission · beta · factor of its arrivals, for `retreat`.
// An occupancy is (alpha · half) · (beta · other_half): the two together divide by the likelihood.
template <class Real, int64_t Width>
inline Occupied<Real, Width> occupy(const DenominatorLayout& graph, const Real* __restrict alpha,
                                    const Real* __restrict beta, const Real* __restrict emission,
                                    const Row<Real, Width>& half, const Row<Real, Width>& other_half,
                                    const Row<Real, Width>& factor, Real* __restrict product,
                                    Real* __restrict occupancy) {
  using Values = Row<Real, Width>;
  const Real floor = scaled_floor<Real>();
  Occupied<Real, Width> found{Values::all(0), Values::all(0)};
  for (int64_t k = 0; k < graph.columns; k++) {
    const Values y = Values::load(emission + k * Width);
    Values sum = Values::all(0);
    for (int64_t m = graph.column_begin[k]; m < graph.column_begin[k + 1]; m++) {
      const Values a = Values::load(alpha + m * Width), b = Values::load(beta + graph.arrival_slot[m] * Width);
      const Values gamma = (a * half) * (b * other_half);
      sum += gamma;
      found.doubtful += where_low(a, b, y, floor, gamma);
      (b * factor * y).store(product + m * Width);
    }
    sum.store(occupancy + k * Width);
    found.total += sum;
  }
  return found;
}

// What `retreat` adds up over a frame.
template <class Real, int64_t Width>
struct Retreated {
  Row<Real, Width> total, leaking;
};

// One frame back: the slots' beta from the products of the arrivals.
template <class Real, int64_t Width>
inline Retreated<Real, Width> retreat(const DenominatorLayout& graph, const Real* __restrict weight,
                                      const Real* __restrict leak, const Real* __restrict product,
                                      Real* __restrict beta) {
  using Values = Row<Real, Width>;
  const Values floor = Values::all(scaled_floor<Real>());
  Retreated<Real, Width> found{Values::all(0), Values::all(0)};
  for (int64_t s = 0; s < graph.slots; s++) {
    Values even = Values::all(0), odd = even;
    int64_t i = graph.outgoing_begin[s];
    const int64_t end = graph.outgoing_begin[s + 1];
    for (; i + 2 <= end; i += 2) {
      even.add(weight[i], product + graph.outgoing_arrival[i] * Width);
      odd.add(weight[i + 1], product + graph.outgoing_arrival[i + 1] * Width);
    }
    if (i < end) even.add(weight[i], product + graph.outgoing_arrival[i] * Width);
    Values value = even + odd;
    value.at_least(floor);
    value.store(beta + s * Width);
    found.total += value;
    if (leak != nullptr) found.leaking += value * Values::all(leak[s]);
  }
  if (leak != nullptr) leak_backward(graph, found.leaking, beta);
  return found;
}

}  // namespace seqtrain
