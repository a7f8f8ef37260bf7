// One automaton laid out for the recursions.
//
// An *arrival* is a (state, label) pair: being in the state after having emitted the label on the way in.  With the
// label on the arrival instead of on the arc, an emission is applied once per arrival and frame, a posterior is
// alpha · beta of an arrival, and no arc-level accumulation is left.  Most topologies have one arrival a state.  A
// state with several gets an *aggregate*: the sum of its arrivals, computed once a frame, so that the number of
// operations is arcs + arrivals, never arrivals × arcs.
//
// Only useful arcs remain: reachable from the start, able to reach a final state, weight above -inf.
//
// Indices of forward scores ("nodes"):  [0, single) arrivals of single-arrival states, in state order; [single,
// arrivals) the other arrivals, grouped by state; [arrivals, nodes) aggregates.  Indices of backward scores ("slots"):
// [0, single) as above, then one slot per aggregate.  So in most graphs both are the same numbers and neighbours stay
// neighbours.
//
// Arcs stand in slices of `lanes` rows (SELL): row r of a slice holds one arc for each of its `lanes` destinations.
// Where the sources of a row are neighbours too (it has a `base`), it's read with one vector load.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "number.h"

namespace seqtrain {

struct GraphView {
  int64_t arcs;
  const int32_t* arc;    // (A, 3) source, destination, label
  const double* weight;  // (A,) log
  int64_t finals;
  const int32_t* final_state;
  const double* final_weight;
  int32_t start;
  int32_t states;

  int32_t source(int64_t a) const { return arc[3 * a]; }
  int32_t destination(int64_t a) const { return arc[3 * a + 1]; }
  int32_t label(int64_t a) const { return arc[3 * a + 2]; }
};

using Index = std::vector<int64_t>;
using Index32 = std::vector<int32_t>;

inline std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

// Items 0 … keys.size()-1 grouped by key, in item order within a group: group k is order[begin[k] … begin[k+1]).
struct Grouping {
  Index begin;
  Index32 order;

  template <class Key>
  void build(int64_t groups, int64_t items, const Key& key) {
    begin.assign(at(groups + 1), 0);
    for (int64_t i = 0; i < items; i++) {
      const int64_t k = key(i);
      if (k >= 0) begin[at(k + 1)]++;
    }
    for (int64_t k = 0; k < groups; k++) begin[at(k + 1)] += begin[at(k)];
    order.resize(at(begin[at(groups)]));
    next_ = begin;
    for (int64_t i = 0; i < items; i++) {
      const int64_t k = key(i);
      if (k >= 0) order[at(next_[at(k)]++)] = static_cast<int32_t>(i);
    }
  }

 private:
  Index next_;
};

// Which arcs lie on some path from the start to a final state.
class UsefulArcs {
 public:
  void build(const GraphView& graph) {
    const int64_t states = graph.states;
    const auto allowed = [&](int64_t a) { return graph.weight[a] > -infinity; };
    by_source.build(states, graph.arcs, [&](int64_t a) { return allowed(a) ? int64_t{graph.source(a)} : int64_t{-1}; });
    by_destination.build(states, graph.arcs,
                         [&](int64_t a) { return allowed(a) ? int64_t{graph.destination(a)} : int64_t{-1}; });
    reachable_.assign(at(states), 0);
    productive_.assign(at(states), 0);
    stack_.clear();
    push(graph.start, reachable_);
    while (!stack_.empty()) {
      const int32_t s = pop();
      for (int64_t k = by_source.begin[at(s)]; k < by_source.begin[at(s + 1)]; k++)
        push(graph.destination(by_source.order[at(k)]), reachable_);
    }
    for (int64_t f = 0; f < graph.finals; f++)
      if (graph.final_weight[f] > -infinity) push(graph.final_state[f], productive_);
    while (!stack_.empty()) {
      const int32_t s = pop();
      for (int64_t k = by_destination.begin[at(s)]; k < by_destination.begin[at(s + 1)]; k++)
        push(graph.source(by_destination.order[at(k)]), productive_);
    }
  }

  bool state(int64_t s) const { return reachable_[at(s)] != 0 && productive_[at(s)] != 0; }
  bool arc(const GraphView& graph, int64_t a) const {
    return graph.weight[a] > -infinity && state(graph.source(a)) && state(graph.destination(a));
  }

  Grouping by_source, by_destination;

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  void push(int32_t s, std::vector<char>& seen) {
    if (seen[at(s)] == 0) {
      seen[at(s)] = 1;
      stack_.push_back(s);
    }
  }
  int32_t pop() {
    const int32_t s = stack_.back();
    stack_.pop_back();
    return s;
  }

  std::vector<char> reachable_, productive_;
  Index32 stack_;
};

// exp(weight) = mantissa · 2^exponent, mantissa in [1, 2); zero where it's far below.
template <class Real>
struct SplitWeight {
  Real mantissa = 0;
  ExponentOf<Real> exponent = zero_exponent;

  SplitWeight() = default;
  explicit SplitWeight(double weight) {
    const double scaled = weight * 1.4426950408889634;
    if (!(scaled > -double(largest_input_exponent))) return;
    const double n = std::floor(scaled);
    mantissa = static_cast<Real>(std::exp2(scaled - n));
    exponent = static_cast<ExponentOf<Real>>(n);
  }
};

constexpr int64_t lanes = 16;
constexpr int32_t scattered = INT32_MIN;  // `base` of a row whose sources are not neighbours

// A weighted sum over incoming (or outgoing) arcs for `rows` outputs, in slices of `lanes`.
template <class Real>
struct Slices {
  using Exponent = ExponentOf<Real>;
  int64_t count = 0;
  Index begin;                 // (count + 1,) first row of each slice
  Index32 neighbours;          // (count,) number of rows where it's 1 to 4 and none is scattered, else 0
  Index32 base;                // (rows,) input index of lane 0, or `scattered`
  Index32 input;               // (rows · lanes,) used where scattered
  std::vector<Real> mantissa;  // (rows · lanes,), 0 where a lane has no arc
  std::vector<Exponent> exponent;

  // Arc i of `arcs` goes from input(i) to output(i) with weight mantissa(i) · 2^exponent(i); arcs are grouped by
  // output.
  template <class Input, class Weight>
  void build(int64_t outputs, const Grouping& arcs, const Input& input_of, const Weight& weight_of) {
    count = (outputs + lanes - 1) / lanes;
    begin.assign(1, 0);
    neighbours.clear();
    base.clear();
    input.clear();
    mantissa.clear();
    exponent.clear();
    auto& rest = rest_;
    rest.resize(lanes);
    for (int64_t slice = 0; slice < count; slice++) {
      sort_by_offset(slice * lanes, std::min(outputs, (slice + 1) * lanes), arcs, input_of);
      for (auto& lane : rest) lane.clear();
      const std::size_t enough = few_offsets() ? 1 : enough_lanes;
      std::size_t depth = 0;
      for (std::size_t i = 0; i < entries_.size();) {
        const std::size_t j = end_of_offset(i);
        // A second arc between the same two places goes with the rest.
        const bool worthwhile = j - i >= enough;
        const std::size_t row = worthwhile ? open_row(entries_[i].offset()) : 0;
        int32_t last_lane = -1;
        for (; i < j; i++) {
          const Arc& arc = arcs_[entries_[i].place()];
          if (worthwhile && arc.lane != last_lane) {
            set(row, arc.lane, weight_of(arc.index));
          } else {
            rest[at(arc.lane)].push_back(arc.index);
            depth = std::max(depth, rest[at(arc.lane)].size());
          }
          last_lane = arc.lane;
        }
      }
      for (std::size_t d = 0; d < depth; d++) {
        const std::size_t row = open_row(scattered);
        for (int64_t lane = 0; lane < lanes; lane++)
          if (d < rest[at(lane)].size()) {
            const int32_t a = rest[at(lane)][d];
            input[row * lanes + at(lane)] = input_of(a);
            set(row, static_cast<int32_t>(lane), weight_of(a));
          }
      }
      const auto rows = static_cast<int64_t>(base.size()) - begin.back();
      neighbours.push_back(depth == 0 && rows <= 4 ? static_cast<int32_t>(rows) : 0);
      begin.push_back(static_cast<int64_t>(base.size()));
    }
  }

 private:
  struct Arc {
    int32_t lane, index;
  };
  // An arc of the slice: the index of its source, relative to its lane, and where it stands in arcs_.  One number, so
  // that sorting is cheap; arcs of the same offset keep their order, by lane and then by index.
  struct Entry {
    uint64_t key;

    Entry(int32_t offset, std::size_t place)
        : key(static_cast<uint64_t>(static_cast<uint32_t>(offset) ^ 0x80000000u) << 32 | static_cast<uint32_t>(place)) {
    }
    int32_t offset() const { return static_cast<int32_t>(static_cast<uint32_t>(key >> 32) ^ 0x80000000u); }
    std::size_t place() const { return static_cast<uint32_t>(key); }
    bool operator<(const Entry& other) const { return key < other.key; }
  };
  std::vector<Arc> arcs_;
  std::vector<Entry> entries_;
  std::vector<Index32> rest_;

  template <class Input>
  void sort_by_offset(int64_t first, int64_t past, const Grouping& arcs, const Input& input_of) {
    arcs_.clear();
    entries_.clear();
    for (int64_t output = first; output < past; output++) {
      const auto lane = static_cast<int32_t>(output - first);
      for (int64_t k = arcs.begin[at(output)]; k < arcs.begin[at(output + 1)]; k++) {
        const int32_t a = arcs.order[at(k)];
        entries_.emplace_back(input_of(a) - lane, arcs_.size());
        arcs_.push_back({lane, a});
      }
    }
    std::sort(entries_.begin(), entries_.end());
  }

  // A vector load pays off from so many lanes on, and scattered loads of all lanes cost as much as so many vectors.
  static constexpr std::size_t enough_lanes = 4;

  std::size_t end_of_offset(std::size_t first) const {
    std::size_t end = first;
    while (end < entries_.size() && entries_[end].offset() == entries_[first].offset()) end++;
    return end;
  }

  // Whether rows of neighbours for all that has less than `enough_lanes` cost no more than the scattered rows that it
  // would take.
  bool few_offsets() const {
    std::size_t offsets = 0, depth = 0, in_lane[lanes] = {};
    for (std::size_t i = 0; i < entries_.size();) {
      const std::size_t end = end_of_offset(i);
      if (end - i < enough_lanes) {
        offsets++;
        for (; i < end; i++) depth = std::max(depth, ++in_lane[at(arcs_[entries_[i].place()].lane)]);
      }
      i = end;
    }
    return offsets <= enough_lanes * depth;
  }

  std::size_t open_row(int32_t row_base) {
    base.push_back(row_base);
    input.insert(input.end(), lanes, 0);
    mantissa.insert(mantissa.end(), lanes, Real{0});
    exponent.insert(exponent.end(), lanes, Exponent{zero_exponent});
    return base.size() - 1;
  }

  void set(std::size_t row, int32_t lane, const SplitWeight<Real>& weight) {
    mantissa[row * lanes + at(lane)] = weight.mantissa;
    exponent[row * lanes + at(lane)] = weight.exponent;
  }
};

// Weights up to this size can't leave the range of exponents on any length there is memory for.
constexpr double ordinary_weight = 64;

template <class Real>
class GraphLayout {
 public:
  int64_t single = 0, arrivals = 0, aggregates = 0;
  Index32 label;          // (arrivals,) column of the scores
  Index32 column;         // (arrivals,) which distinct label
  Index32 column_label;   // distinct labels, ascending
  Index32 first_arrival;  // (columns,) first arrival with the label
  // All other arrivals, each with the first one that has its label.
  struct Repetition {
    int32_t arrival, first;
  };
  std::vector<Repetition> repetitions;
  Index32 slot_of_arrival;  // (arrivals,)
  Index aggregate_begin;    // (aggregates + 1,) arrivals of each aggregate
  int32_t start_node = 0, start_slot = 0;
  Slices<Real> incoming;             // nodes → arrivals
  Slices<Real> outgoing;             // arrivals → slots
  std::vector<double> final_weight;  // (slots,) log sum of the final weights, -inf where not final
  Index32 final_slot;                // (F,) slot of each final entry, -1 where useless
  Index32 arc_arrival;               // (A,) arrival of each arc, -1 where useless
  Index32 arc_source;                // (A,) node of each arc's source
  // Weights far from zero stand here relative to the largest: a constant in all of them can't leave the range of
  // exponents.
  double largest_weight = 0, largest_final_weight = 0;

  int64_t nodes() const { return arrivals + aggregates; }
  int64_t slots() const { return single + aggregates; }

  void build(const GraphView& graph) {
    useful_.build(graph);
    number_arrivals(graph);
    number_labels();
    connect(graph);
    finish(graph);
  }

 private:
  void number_arrivals(const GraphView& graph) {
    const int64_t states = graph.states;
    arc_arrival.assign(at(graph.arcs), -1);
    // Distinct labels into each state, in ascending order; arcs into the state name the arrival by its rank there.
    labels_begin_.assign(1, 0);
    labels_.clear();
    for (int64_t s = 0; s < states; s++) {
      const auto first = static_cast<std::ptrdiff_t>(labels_.size());
      if (useful_.state(s)) {
        for (int64_t k = useful_.by_destination.begin[at(s)]; k < useful_.by_destination.begin[at(s + 1)]; k++) {
          const int32_t a = useful_.by_destination.order[at(k)];
          if (useful_.arc(graph, a)) labels_.push_back(graph.label(a));
        }
        std::sort(labels_.begin() + first, labels_.end());
        labels_.erase(std::unique(labels_.begin() + first, labels_.end()), labels_.end());
      }
      labels_begin_.push_back(static_cast<int64_t>(labels_.size()));
    }
    const auto is_single = [&](int64_t s) {
      return labels_begin_[at(s + 1)] - labels_begin_[at(s)] == 1 && s != graph.start;
    };
    single = 0;
    for (int64_t s = 0; s < states; s++) single += useful_.state(s) && is_single(s) ? 1 : 0;
    first_arrival_.assign(at(states), -1);
    slot_.assign(at(states), -1);
    label.clear();
    slot_of_arrival.clear();
    for (int64_t s = 0; s < states; s++)
      if (useful_.state(s) && is_single(s)) {
        first_arrival_[at(s)] = slot_[at(s)] = static_cast<int32_t>(label.size());
        slot_of_arrival.push_back(static_cast<int32_t>(label.size()));
        label.push_back(labels_[at(labels_begin_[at(s)])]);
      }
    aggregates = 0;
    aggregate_begin.assign(1, single);
    for (int64_t s = 0; s < states; s++)
      if (useful_.state(s) && !is_single(s)) {
        first_arrival_[at(s)] = static_cast<int32_t>(label.size());
        slot_[at(s)] = static_cast<int32_t>(single + aggregates);
        for (int64_t i = labels_begin_[at(s)]; i < labels_begin_[at(s + 1)]; i++) {
          slot_of_arrival.push_back(slot_[at(s)]);
          label.push_back(labels_[at(i)]);
        }
        aggregate_begin.push_back(static_cast<int64_t>(label.size()));
        aggregates++;
      }
    arrivals = static_cast<int64_t>(label.size());
    for (int64_t a = 0; a < graph.arcs; a++) {
      if (!useful_.arc(graph, a)) continue;
      const int64_t s = graph.destination(a);
      const auto first = labels_.begin() + labels_begin_[at(s)];
      const auto rank = std::lower_bound(first, labels_.begin() + labels_begin_[at(s + 1)], graph.label(a)) - first;
      arc_arrival[at(a)] = first_arrival_[at(s)] + static_cast<int32_t>(rank);
    }
  }

  void number_labels() {
    order_.resize(label.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::sort(order_.begin(), order_.end(),
              [&](int32_t x, int32_t y) { return label[at(x)] != label[at(y)] ? label[at(x)] < label[at(y)] : x < y; });
    column.resize(label.size());
    column_label.clear();
    first_arrival.clear();
    repetitions.clear();
    for (const int32_t m : order_) {
      if (column_label.empty() || label[at(m)] != column_label.back()) {
        column_label.push_back(label[at(m)]);
        first_arrival.push_back(m);
      } else {
        repetitions.push_back({m, first_arrival.back()});
      }
      column[at(m)] = static_cast<int32_t>(column_label.size()) - 1;
    }
  }

  int32_t node_of_state(int64_t s) const {
    const int32_t slot = slot_[at(s)];
    return slot < single ? slot : static_cast<int32_t>(arrivals + slot - single);
  }

  void connect(const GraphView& graph) {
    arc_source.assign(at(graph.arcs), -1);
    largest_weight = -std::numeric_limits<double>::infinity();
    for (int64_t a = 0; a < graph.arcs; a++)
      if (arc_arrival[at(a)] >= 0) {
        arc_source[at(a)] = node_of_state(graph.source(a));
        largest_weight = std::max(largest_weight, graph.weight[a]);
      }
    if (arrivals == 0 || std::abs(largest_weight) < ordinary_weight) largest_weight = 0;
    // Most automata have few different weights, and runs of one.
    split_.resize(at(graph.arcs));
    for (int64_t a = 0; a < graph.arcs; a++)
      split_[at(a)] = a > 0 && graph.weight[a] == graph.weight[a - 1]
                          ? split_[at(a - 1)]
                          : SplitWeight<Real>(graph.weight[a] - largest_weight);
    const auto weight = [&](int32_t a) { return split_[at(a)]; };
    Grouping& into = grouping_;
    into.build(arrivals, graph.arcs, [&](int64_t a) { return int64_t{arc_arrival[at(a)]}; });
    incoming.build(arrivals, into, [&](int32_t a) { return arc_source[at(a)]; }, weight);
    Grouping& out_of = grouping_;
    out_of.build(slots(), graph.arcs, [&](int64_t a) {
      return arc_arrival[at(a)] >= 0 ? int64_t{slot_[at(graph.source(a))]} : int64_t{-1};
    });
    outgoing.build(slots(), out_of, [&](int32_t a) { return arc_arrival[at(a)]; }, weight);
  }

  void finish(const GraphView& graph) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    start_slot = useful_.state(graph.start) ? slot_[at(graph.start)] : -1;
    start_node = start_slot >= 0 ? node_of_state(graph.start) : -1;
    final_weight.assign(at(slots()), -infinity);
    final_slot.assign(at(graph.finals), -1);
    for (int64_t f = 0; f < graph.finals; f++) {
      const int32_t s = graph.final_state[f];
      if (!useful_.state(s) || !(graph.final_weight[f] > -infinity)) continue;
      const int32_t slot = final_slot[at(f)] = slot_[at(s)];
      double& sum = final_weight[at(slot)];
      const double w = graph.final_weight[f];
      const double top = std::max(sum, w);
      sum = top + std::log(std::exp(sum - top) + std::exp(w - top));
    }
    largest_final_weight = -infinity;
    for (const double w : final_weight) largest_final_weight = std::max(largest_final_weight, w);
    if (largest_final_weight == -infinity) largest_final_weight = 0;
  }

  UsefulArcs useful_;
  Index32 first_arrival_, slot_, order_;
  std::vector<SplitWeight<Real>> split_;
  Index labels_begin_;
  Index32 labels_;
  Grouping grouping_;
};

}  // namespace seqtrain
