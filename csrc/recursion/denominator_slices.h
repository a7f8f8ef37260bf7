// What csrc/cuda/denominator.h reads of a denominator's layout, beside the layout itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "denominator_layout.h"

namespace seqtrain {

// Arcs in slices of a warp's 32 lanes, rows of the most arcs first.  A row has 1, 2, 4 … or 32 neighbouring lanes, as
// many as it needs for each to have no more than `most_steps` arcs, and its arcs in turns: arc j is number j / lanes of
// lane j % lanes.  Number n of lane l of a slice stands at 128 (begin[slice] + n / 4) + 4 l + n % 4, so that a lane
// reads four at once, and a warp its neighbours.
struct DenominatorSlices {
  static constexpr int64_t lanes = 32;
  static constexpr int64_t together = 4;
  static constexpr int64_t most_steps = 32;

  Index32 row;    // (slices · 32,) of each lane; -1: none
  Index32 share;  // (slices,) lanes of each row
  Index32 begin;  // (slices + 1,)
  Index32 from;   // (places,) where each arc comes from; past a lane's last arc, where one of its row does
  Index32 arc;    // (places,) its number; -1 where there is none

  // Row r has the entries row_begin[r] … row_begin[r + 1] of `entry_from` and `entry_arc`.
  DenominatorSlices(int64_t rows, const int32_t* row_begin, const int32_t* entry_from, const int32_t* entry_arc) {
    const auto length = [&](int32_t r) { return int64_t{row_begin[r + 1] - row_begin[r]}; };
    Index32 order(at(rows));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return length(a) > length(b); });
    begin.push_back(0);
    for (int64_t next = 0; next < rows;) {
      const int64_t group = lanes_for(length(order[at(next)]));
      const int64_t steps = (length(order[at(next)]) + group - 1) / group;
      const int64_t fours = (steps + together - 1) / together, places = fours * together * lanes;
      const int64_t first = begin.back() * together * lanes;
      share.push_back(static_cast<int32_t>(group));
      begin.push_back(static_cast<int32_t>(begin.back() + fours));
      from.resize(at(first + places), 0);
      arc.resize(at(first + places), -1);
      for (int64_t lane = 0; lane < lanes; lane += group) {
        const bool filled = next < rows && lanes_for(length(order[at(next)])) == group;
        row.insert(row.end(), at(group), filled ? order[at(next)] : -1);
        if (!filled) continue;
        const int32_t entry = row_begin[order[at(next)]];
        const int64_t count = length(order[at(next++)]);
        for (int64_t j = 0; j < places / lanes * group && count > 0; j++) {
          const int64_t l = lane + j % group, n = j / group;
          const int64_t place = first + n / together * together * lanes + l * together + n % together;
          // What a zero is multiplied by mustn't be larger than all that the row sums up.
          const int64_t item = entry + std::min(j, count - 1);
          from[at(place)] = entry_from[item];
          if (j < count) arc[at(place)] = entry_arc[item];
        }
      }
    }
  }

 private:
  static int64_t lanes_for(int64_t length) {
    int64_t group = 1;
    while (group < lanes && group * most_steps < length) group *= 2;
    return group;
  }
};

struct DenominatorTables {
  DenominatorSlices incoming;  // rows are arrivals
  DenominatorSlices outgoing;  // rows are slots
  Index32 incoming_column;     // (incoming slices · 32,) of each lane's arrival; 0 where there is none
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
    for (const int32_t m : incoming.row) incoming_column.push_back(m >= 0 ? arrival_column[at(m)] : 0);
    for (int64_t s = 0; s < layout.slots; s++) node_state[at(layout.slot_node[s])] = layout.slot_state[s];
    Grouping by_slot;
    by_slot.build(layout.slots, layout.finals, [&](int64_t f) { return int64_t{layout.final_slot[f]}; });
    final_begin.assign(by_slot.begin.begin(), by_slot.begin.end());
    final_order.assign(by_slot.order.begin(), by_slot.order.end());
  }
};

}  // namespace seqtrain
