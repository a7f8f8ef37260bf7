// One automaton that all sequences of a batch share, laid out once and kept: integers in one block of memory, which the
// caller owns.  Weights are no part of it, they are gathered for each call through `incoming_arc` and `outgoing_arc`.
//
// Arrivals, nodes and slots are those of graph.h, in another order: arrivals stand by label, so that the arrivals of a
// column of the scores are neighbours, whose emission is read once and whose occupancies are summed in a register.
// Every useful state has a slot, the index of backward scores, and a node, the index of forward scores: its arrival's
// where it has just one, else an aggregate behind the arrivals.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "graph.h"

namespace seqtrain {

struct DenominatorLayout {
  static constexpr int64_t header = 8;

  int64_t arrivals, aggregates, slots, columns, arcs, finals, start_slot;
  const int32_t* column_label;       // (columns,) ascending
  const int32_t* column_begin;       // (columns + 1,) arrivals of each column
  const int32_t* arrival_slot;       // (arrivals,)
  const int32_t* slot_state;         // (slots,)
  const int32_t* slot_node;          // (slots,)
  const int32_t* aggregate_begin;    // (aggregates + 1,)
  const int32_t* aggregate_arrival;  // arrivals of each aggregate
  const int32_t* incoming_begin;     // (arrivals + 1,)
  const int32_t* incoming_node;      // (arcs,) where each arc comes from
  const int32_t* incoming_arc;       // (arcs,) its number
  const int32_t* outgoing_begin;     // (slots + 1,)
  const int32_t* outgoing_arrival;   // (arcs,)
  const int32_t* outgoing_arc;       // (arcs,)
  const int32_t* final_slot;         // (finals,) of each final entry, -1 where useless

  int64_t nodes() const { return arrivals + aggregates; }

  explicit DenominatorLayout(const int32_t* block)
      : arrivals(block[0]),
        aggregates(block[1]),
        slots(block[2]),
        columns(block[3]),
        arcs(block[4]),
        finals(block[5]),
        start_slot(block[6]) {
    const int32_t* next = block + header;
    const auto take = [&](int64_t size) { return std::exchange(next, next + size); };
    column_label = take(columns);
    column_begin = take(columns + 1);
    arrival_slot = take(arrivals);
    slot_state = take(slots);
    slot_node = take(slots);
    aggregate_begin = take(aggregates + 1);
    aggregate_arrival = take(aggregate_begin[aggregates]);
    incoming_begin = take(arrivals + 1);
    incoming_node = take(arcs);
    incoming_arc = take(arcs);
    outgoing_begin = take(slots + 1);
    outgoing_arrival = take(arcs);
    outgoing_arc = take(arcs);
    final_slot = take(finals);
  }
};

// The block of a graph's layout; which arcs and final weights are -inf is part of the structure.
inline Index32 lay_out_denominator(const GraphView& graph) {
  UsefulArcs useful;
  useful.build(graph);
  struct Key {
    int32_t label, state, arc;
  };
  std::vector<Key> keys;
  keys.reserve(at(graph.arcs));
  for (int64_t a = 0; a < graph.arcs; a++)
    if (useful.arc(graph, a)) keys.push_back({graph.label(a), graph.destination(a), static_cast<int32_t>(a)});
  std::sort(keys.begin(), keys.end(), [](const Key& x, const Key& y) {
    return x.label != y.label ? x.label < y.label : x.state != y.state ? x.state < y.state : x.arc < y.arc;
  });

  Index32 slot(at(graph.states), -1), slot_state;
  for (int32_t s = 0; s < graph.states; s++)
    if (useful.state(s)) {
      slot[at(s)] = static_cast<int32_t>(slot_state.size());
      slot_state.push_back(s);
    }

  Index32 column_label, column_begin, arrival_slot, arrival_of_key, incoming_begin;
  for (std::size_t i = 0; i < keys.size(); i++) {
    const bool new_label = i == 0 || keys[i].label != keys[i - 1].label;
    if (new_label) {
      column_label.push_back(keys[i].label);
      column_begin.push_back(static_cast<int32_t>(arrival_slot.size()));
    }
    if (new_label || keys[i].state != keys[i - 1].state) {
      arrival_slot.push_back(slot[at(keys[i].state)]);
      incoming_begin.push_back(static_cast<int32_t>(i));
    }
    arrival_of_key.push_back(static_cast<int32_t>(arrival_slot.size()) - 1);
  }
  const auto arrivals = static_cast<int32_t>(arrival_slot.size());
  column_begin.push_back(arrivals);
  incoming_begin.push_back(static_cast<int32_t>(keys.size()));

  const auto slots = static_cast<int64_t>(slot_state.size());
  Grouping arrivals_of_slot;
  arrivals_of_slot.build(slots, arrivals, [&](int64_t m) { return int64_t{arrival_slot[at(m)]}; });
  Index32 slot_node(at(slots)), aggregate_begin(1, 0), aggregate_arrival;
  for (int64_t s = 0; s < slots; s++) {
    const int64_t begin = arrivals_of_slot.begin[at(s)], end = arrivals_of_slot.begin[at(s + 1)];
    if (end - begin == 1) {
      slot_node[at(s)] = arrivals_of_slot.order[at(begin)];
      continue;
    }
    slot_node[at(s)] = arrivals + static_cast<int32_t>(aggregate_begin.size()) - 1;
    aggregate_arrival.insert(aggregate_arrival.end(), arrivals_of_slot.order.begin() + begin,
                             arrivals_of_slot.order.begin() + end);
    aggregate_begin.push_back(static_cast<int32_t>(aggregate_arrival.size()));
  }

  Index32 incoming_node, incoming_arc, outgoing_begin, outgoing_arrival, outgoing_arc, final_slot;
  for (const Key& key : keys) {
    incoming_node.push_back(slot_node[at(slot[at(graph.source(key.arc))])]);
    incoming_arc.push_back(key.arc);
  }
  Grouping leaving;
  leaving.build(slots, static_cast<int64_t>(keys.size()),
                [&](int64_t i) { return int64_t{slot[at(graph.source(keys[at(i)].arc))]}; });
  for (const int64_t begin : leaving.begin) outgoing_begin.push_back(static_cast<int32_t>(begin));
  for (const int32_t i : leaving.order) {
    outgoing_arrival.push_back(arrival_of_key[at(i)]);
    outgoing_arc.push_back(keys[at(i)].arc);
  }
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (int64_t f = 0; f < graph.finals; f++)
    final_slot.push_back(graph.final_weight[f] > -infinity ? slot[at(graph.final_state[f])] : -1);

  Index32 header{arrivals,
                 static_cast<int32_t>(aggregate_begin.size()) - 1,
                 static_cast<int32_t>(slots),
                 static_cast<int32_t>(column_label.size()),
                 static_cast<int32_t>(keys.size()),
                 static_cast<int32_t>(graph.finals),
                 useful.state(graph.start) ? slot[at(graph.start)] : -1,
                 0};
  Index32 block;
  for (Index32* part : {&header, &column_label, &column_begin, &arrival_slot, &slot_state, &slot_node, &aggregate_begin,
                        &aggregate_arrival, &incoming_begin, &incoming_node, &incoming_arc, &outgoing_begin,
                        &outgoing_arrival, &outgoing_arc, &final_slot})
    block.insert(block.end(), part->begin(), part->end());
  return block;
}

}  // namespace seqtrain
