// One automaton as the kernels find it: sizes, and where its parts stand in the arrays of its batch, which
// csrc/cpu/device_layout.cpp fills.  Notions (arrival, node, slot, slice): csrc/recursion/graph.h.
#pragma once

#include "integers.h"

namespace seqtrain {

constexpr int64_t slice_lanes = 16;
constexpr int32_t without_base = -2147483647 - 1;  // of a row whose sources aren't neighbours

// A weighted sum over arcs; places in the integers but for `mantissa`, which is one in the reals.
struct SliceTable {
  int64_t begin;  // (slices + 1,) first row of each, counted from this table's first
  int64_t base;
  int64_t input;
  int64_t exponent;
  int64_t mantissa;
};

struct GraphTable {
  int64_t single, arrivals, aggregates, columns, arcs, finals;
  int64_t start_node;  // -1 where nothing is accepted
  int64_t first_arc, first_final;
  double largest_weight, largest_final_weight;
  double empty;  // log of the weight of the path without arcs
  SliceTable incoming, outgoing;
  int64_t column;           // (arrivals,)
  int64_t slot_of_arrival;  // (arrivals,)
  int64_t aggregate_begin;  // (aggregates + 1,)
  int64_t column_begin;     // (columns + 1,) the arrivals of each column are …
  int64_t column_arrival;   // (arrivals,) … these
  int64_t slot_exponent;    // (slots,) final weights relative to the largest
  int64_t slot_mantissa;
  int64_t arc_source;  // (arcs,) node, and arrival, -1 where useless; weights relative to the largest
  int64_t arc_arrival;
  int64_t arc_exponent;
  int64_t arc_mantissa;
  int64_t final_slot;  // (finals,) -1 where useless
  int64_t final_exponent;
  int64_t final_mantissa;
};

}  // namespace seqtrain
