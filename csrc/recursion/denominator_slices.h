// What csrc/cuda/denominator.h reads of a denominator's layout, beside the layout itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "denominator_layout.h"

namespace seqtrain {

// Arcs in slices of 32 rows, the longest first; entry j of the row in lane l of a slice at begin[slice] + 32 j + l.
struct DenominatorSlices {
  static constexpr int64_t lanes = 32;

  Index32 row;                 // (slices · 32,), -1 past the last
  std::vector<int64_t> begin;  // (slices + 1,)
  Index32 from;                // (places,) where each arc comes from; past a row's last arc, where that one does
  Index32 arc;                 // (places,) its number; -1 where there is none

  // Row r has the entries row_begin[r] … row_begin[r + 1] of `entry_from` and `entry_arc`.
  DenominatorSlices(int64_t rows, const int32_t* row_begin, const int32_t* entry_from, const int32_t* entry_arc) {
    const auto length = [&](int32_t r) { return row_begin[r + 1] - row_begin[r]; };
    row.resize(at(rows));
    std::iota(row.begin(), row.end(), 0);
    std::stable_sort(row.begin(), row.end(), [&](int32_t a, int32_t b) { return length(a) > length(b); });
    row.resize(at((rows + lanes - 1) / lanes * lanes), -1);
    begin.push_back(0);
    for (std::size_t first = 0; first < row.size(); first += lanes)
      begin.push_back(begin.back() + lanes * length(row[first]));
    from.assign(at(begin.back()), 0);
    arc.assign(at(begin.back()), -1);
    for (int64_t i = 0; i < rows; i++) {
      int64_t place = begin[at(i / lanes)] + i % lanes;
      const int32_t end = row_begin[row[at(i)] + 1];
      for (int32_t entry = row_begin[row[at(i)]]; entry < end; entry++, place += lanes) {
        from[at(place)] = entry_from[entry];
        arc[at(place)] = entry_arc[entry];
      }
      // What a zero is multiplied by mustn't be larger than all that the row sums up.
      if (length(row[at(i)]) > 0)
        for (; place < begin[at(i / lanes) + 1]; place += lanes) from[at(place)] = entry_from[end - 1];
    }
  }
};

struct DenominatorTables {
  DenominatorSlices incoming;  // rows are arrivals
  DenominatorSlices outgoing;  // rows are slots
  Index32 arrival_column;      // (arrivals,)
  Index32 node_state;          // (nodes,) the state whose value a node has; -1: one of several arrivals of a state
  Index32 final_begin;         // (slots + 1,) final entries of each slot
  Index32 final_order;         // final entries by slot
  bool narrow;                 // whether where arcs come from fits into 16 bits

  explicit DenominatorTables(const DenominatorLayout& layout)
      : incoming(layout.arrivals, layout.incoming_begin, layout.incoming_node, layout.incoming_arc),
        outgoing(layout.slots, layout.outgoing_begin, layout.outgoing_arrival, layout.outgoing_arc),
        arrival_column(at(layout.arrivals)),
        node_state(at(layout.nodes()), -1),
        narrow(layout.nodes() <= int64_t{1} << 16) {
    for (int64_t k = 0; k < layout.columns; k++)
      for (int32_t m = layout.column_begin[k]; m < layout.column_begin[k + 1]; m++)
        arrival_column[at(m)] = static_cast<int32_t>(k);
    for (int64_t s = 0; s < layout.slots; s++) node_state[at(layout.slot_node[s])] = layout.slot_state[s];
    Grouping by_slot;
    by_slot.build(layout.slots, layout.finals, [&](int64_t f) { return int64_t{layout.final_slot[f]}; });
    final_begin.assign(by_slot.begin.begin(), by_slot.begin.end());
    final_order.assign(by_slot.order.begin(), by_slot.order.end());
  }
};

}  // namespace seqtrain
