// Steps of the recursions over a laid-out automaton, one thread an output (equations: seqtrain/reference.py; layout:
// csrc/recursion/graph.h).
#pragma once

#include "graph_table.h"
#include "sweep.h"

namespace seqtrain {

// Adds m · 2^e to sum · 2^top.
template <class Real>
SEQTRAIN_DEVICE void add_scaled(Real& sum, ExponentOf<Real>& top, Real m, ExponentOf<Real> e) {
  const ExponentOf<Real> larger = e > top ? e : top;
  sum = scaled<Real>(sum, top, larger) + scaled<Real>(m, e, larger);
  top = larger;
}

// A graph of the batch: its table, and the arrays that the places in it count from.
template <class Real>
struct Graph {
  const GraphTable& table;
  const Real* reals;
  const int32_t* integers;

  SEQTRAIN_DEVICE int64_t nodes() const { return table.arrivals + table.aggregates; }
  SEQTRAIN_DEVICE int64_t slots() const { return table.single + table.aggregates; }
  SEQTRAIN_DEVICE int64_t column(int64_t m) const { return integers[table.column + m]; }
  SEQTRAIN_DEVICE int64_t slot_of(int64_t m) const {
    return m < table.single ? m : integers[table.slot_of_arrival + m];
  }
  SEQTRAIN_DEVICE int64_t node_of_slot(int64_t s) const {
    return s < table.single ? s : table.arrivals + s - table.single;
  }

  // Calls visit(input, mantissa, exponent) for the arcs of an output, in the order of the rows.
  template <class Visit>
  SEQTRAIN_DEVICE void for_each_arc(const SliceTable& slices, int64_t output, const Visit& visit) const {
    const int64_t slice = output / slice_lanes, lane = output % slice_lanes;
    const int32_t* begin = integers + slices.begin;
    const int64_t end = begin[slice + 1];
    SEQTRAIN_ROLLED
    for (int64_t row = begin[slice]; row < end; row++) {
      const int64_t place = row * slice_lanes + lane;
      const Real weight = reals[slices.mantissa + place];
      if (!(weight > 0)) continue;  // the lane has no arc in this row
      const int32_t base = integers[slices.base + row];
      const int64_t from = base != without_base ? base + lane : integers[slices.input + place];
      visit(from, weight, integers[slices.exponent + place]);
    }
  }

  // Σ over the arcs of weight · input.
  SEQTRAIN_DEVICE void weighted_sum(const SliceTable& slices, int64_t output, States<Real> input, Real& sum,
                                    ExponentOf<Real>& top) const {
    sum = 0;
    top = zero_exponent;
    for_each_arc(slices, output, [&](int64_t from, Real weight, int32_t exponent) {
      add_scaled<Real>(sum, top, input.mantissa[from] * weight,
                       static_cast<ExponentOf<Real>>(input.exponent[from] + exponent));
    });
  }

  // The sum of the arrivals of a state that has several.
  SEQTRAIN_DEVICE void aggregate(int64_t q, States<Real> nodes) const {
    const int32_t* begin = integers + table.aggregate_begin + q;
    Real sum = 0;
    ExponentOf<Real> top = zero_exponent;
    for (int64_t m = begin[0]; m < begin[1]; m++) add_scaled<Real>(sum, top, nodes.mantissa[m], nodes.exponent[m]);
    put_state<Real>(nodes, table.arrivals + q, sum, top);
  }
};

}  // namespace seqtrain
