// One direction of the full sum over half of the frames, for automata whose states have few arcs, like those of HMMs
// and of CTC (equations: seqtrain/reference.py, `full_sum`; division of the work: sweep.h).
//
// A thread owns nodes, whose arcs, column and places stay in registers:
//
//     sum  = Σ over its arcs of weight · kept(source)
//     kept = sum · emission, normalized
//
// Forward, the arcs are those into an arrival, and `kept` is alpha; backward, those out of the arrival's state, `sum`
// is beta, and `kept` what's summed in the frame before.  The nodes of a frame are in shared memory, with one barrier a
// frame, but for automata with states that have several arrivals, which forward need another one.
#pragma once

#include "graph.h"
#include "read_ahead.h"
#include "rows.h"

namespace seqtrain {

struct FullSumProblem {
  int64_t batch;
  int64_t max_frames;
  int64_t shared_graph;
  const void* graphs;
  const void* reals;
  const int32_t* integers;
  const int64_t* offsets;
  const int64_t* lengths;
  int64_t columns;
  const void* emission;
  const int32_t* emission_exponent;
  int64_t nodes;
  void* store;
  int32_t* store_exponent;
  void* carry;
  int32_t* carry_exponent;
  double* log_likelihood;
  int32_t* row_status;
  const int64_t* status;
  int64_t phase;
  int64_t with_gradient;
  int64_t nodes_of_thread;
  char* workspace;
  void* occupancies;
  double* arc_occupancies;
  int64_t arc_places;
  double* final_occupancies;
};

// Log-likelihood of an utterance from what a frame's products sum up to.
SEQTRAIN_DEVICE double likelihood_of(const GraphTable& table, int64_t frames, double sum, int64_t top) {
  return log_of(sum, top) + static_cast<double>(frames) * table.largest_weight + table.largest_final_weight;
}

// What's read ahead of a frame, in a slot of shared memory.
template <class Real>
struct NarrowSlot {
  Cell<Real>* emissions;
  Real* mantissa;  // of the other direction
  int32_t* exponent;

  SEQTRAIN_DEVICE NarrowSlot(char* slot, int32_t columns, int32_t nodes)
      : emissions(reinterpret_cast<Cell<Real>*>(slot)),
        mantissa(reinterpret_cast<Real*>(emissions + columns)),
        exponent(reinterpret_cast<int32_t*>(mantissa + nodes)) {}
  SEQTRAIN_DEVICE static int64_t bytes(int64_t columns, int64_t nodes) {
    const auto cell = static_cast<int64_t>(sizeof(Cell<Real>)), real = static_cast<int64_t>(sizeof(Real));
    return (columns * cell + nodes * (real + 4) + 15) / 16 * 16;
  }
};

constexpr int most_nodes_of_thread = 2;
constexpr int most_arcs_of_node = 4;

// Memory of a block: what's read ahead, and the nodes of two frames.
template <class Real>
SEQTRAIN_DEVICE int64_t narrow_state_bytes(int64_t columns, int64_t nodes) {
  return slots_ahead * NarrowSlot<Real>::bytes(columns, nodes) + 2 * nodes * static_cast<int64_t>(sizeof(Cell<Real>));
}

template <class Real>
class NarrowSweep {
 public:
  SEQTRAIN_DEVICE NarrowSweep(const Team& team, const FullSumProblem& problem, int64_t utterance, bool forward)
      : team_(team),
        problem_(problem),
        utterance_(utterance),
        forward_(forward),
        graph_{static_cast<const GraphTable*>(problem.graphs)[problem.shared_graph != 0 ? 0 : utterance],
               static_cast<const Real*>(problem.reals), problem.integers},
        frames_(static_cast<int32_t>(problem.lengths[utterance])),
        arrivals_(static_cast<int32_t>(graph_.table.arrivals)),
        aggregates_(static_cast<int32_t>(graph_.table.aggregates)),
        nodes_(forward ? arrivals_ + aggregates_ : arrivals_),
        columns_(static_cast<int32_t>(problem.columns)),
        row_nodes_(static_cast<int32_t>(problem.nodes)) {}

  // False where the automaton isn't narrow.
  SEQTRAIN_DEVICE bool run() {
    const int32_t most = most_arcs();
    if (most > most_arcs_of_node || arrivals_ == 0) return false;
    several_ = most_arrivals() > 1;
    const int32_t middle = static_cast<int32_t>(middle_of(frames_));
    const bool whole = problem_.with_gradient != 0;
    if (problem_.phase == 0) {
      begin_ = forward_ ? 0 : frames_ - 1;
      count_ = forward_ ? middle : frames_ - middle;
    } else {
      begin_ = forward_ ? middle : middle - 1;
      count_ = forward_ ? (whole ? frames_ - middle : 0) : whole ? middle : 1;
      if (count_ == 0) return true;
    }
    Node node[most_nodes_of_thread];
    SEQTRAIN_UNROLLED
    for (int k = 0; k < most_nodes_of_thread; k++) node[k] = node_of(team_.thread() + k * team_.threads());
    begin(node);
    if (problem_.phase == 0) {
      go_on<false>(node, most);
      save(node);
    } else {
      go_on<true>(node, most);
    }
    return true;
  }

 private:
  struct Arc {
    Real mantissa;
    int32_t exponent;
    int32_t source;
  };
  struct Node {
    Arc arcs[most_arcs_of_node];
    int32_t own, column;
    bool exists;   // else it's the last one once more, and goes nowhere
    bool arrives;  // has an emission, and a place in the store
  };
  struct Row {  // of a frame, in global memory
    const Real* emission;
    const int32_t* emission_exponent;
    Real* mantissa;
    int32_t* exponent;

    SEQTRAIN_DEVICE void advance(int32_t columns, int32_t nodes) {
      emission += columns;
      emission_exponent += columns;
      mantissa += nodes;
      exponent += nodes;
    }
  };

  template <class Visit>
  SEQTRAIN_DEVICE void for_each_arc(int32_t m, const Visit& visit) const {
    const SliceTable& slices = forward_ ? graph_.table.incoming : graph_.table.outgoing;
    graph_.for_each_arc(slices, forward_ ? m : graph_.slot_of(m), visit);
  }
  SEQTRAIN_DEVICE int32_t most_arcs() const {
    int32_t most = 0;
    for (int32_t m = team_.thread(); m < arrivals_; m += team_.threads()) {
      int32_t count = 0;
      for_each_arc(m, [&](int64_t, Real, int32_t) { count++; });
      most = larger(most, count);
    }
    return reduce(team_, most, Largest{});
  }

  SEQTRAIN_DEVICE const int32_t* arrivals_of(int32_t aggregate) const {  // [0] … [1]
    return graph_.integers + graph_.table.aggregate_begin + aggregate;
  }
  SEQTRAIN_DEVICE int32_t most_arrivals() const {
    int32_t most = 0;
    for (int32_t q = team_.thread(); q < aggregates_; q += team_.threads())
      most = larger(most, arrivals_of(q)[1] - arrivals_of(q)[0]);
    return forward_ ? reduce(team_, most, Largest{}) : 0;
  }
  // An aggregate of one arrival is that arrival.
  SEQTRAIN_DEVICE int32_t source_of(int64_t node) const {
    const auto n = static_cast<int32_t>(node);
    if (!forward_ || n < arrivals_) return n;
    const int32_t* of = arrivals_of(n - arrivals_);
    return of[1] - of[0] == 1 ? of[0] : n;
  }

  SEQTRAIN_DEVICE Node node_of(int32_t number) const {
    Node node;
    node.exists = number < nodes_;
    node.own = node.exists ? number : nodes_ - 1;
    node.arrives = node.own < arrivals_;
    node.column = node.arrives ? static_cast<int32_t>(graph_.column(node.own)) : 0;
    SEQTRAIN_UNROLLED
    for (int a = 0; a < most_arcs_of_node; a++) node.arcs[a] = {Real{0}, no_exponent, node.own};
    int32_t count = 0;
    if (node.arrives)
      for_each_arc(node.own, [&](int64_t from, Real mantissa, int32_t exponent) {
        SEQTRAIN_UNROLLED
        for (int a = 0; a < most_arcs_of_node; a++)
          if (a == count) node.arcs[a] = {mantissa, exponent, source_of(from)};
        count++;
      });
    return node;
  }

  template <int most>
  SEQTRAIN_DEVICE static Cell<Real> sum_over_arcs(const Node& node, const Cell<Real>* kept) {
    Real mantissa[most];
    int32_t exponent[most], top = 0;
    SEQTRAIN_UNROLLED
    for (int a = 0; a < most; a++) {
      const Cell<Real> from = kept[node.arcs[a].source];
      mantissa[a] = from.mantissa * node.arcs[a].mantissa;
      exponent[a] = from.exponent + node.arcs[a].exponent;
      top = a == 0 ? exponent[a] : larger(top, exponent[a]);
    }
    Real sum = 0;
    SEQTRAIN_UNROLLED
    for (int a = 0; a < most; a++) {
      const Real term = scaled<Real>(mantissa[a], exponent[a], top);
      sum = a == 0 ? term : sum + term;
    }
    return {sum, top};
  }

  // Beta of the last frame.
  SEQTRAIN_DEVICE Cell<Real> final_weight(int32_t m) const {
    if (m >= arrivals_) return zero_cell<Real>();
    const int64_t s = graph_.slot_of(m);
    return {graph_.reals[graph_.table.slot_mantissa + s], graph_.integers[graph_.table.slot_exponent + s]};
  }

  SEQTRAIN_DEVICE Row first_row_of_half() const {
    const int64_t row = first_row(problem_.offsets, utterance_, problem_.max_frames) + begin_;
    return {static_cast<const Real*>(problem_.emission) + row * columns_, problem_.emission_exponent + row * columns_,
            static_cast<Real*>(problem_.store) + row * row_nodes_, problem_.store_exponent + row * row_nodes_};
  }
  SEQTRAIN_DEVICE int32_t slot_bytes() const {
    return static_cast<int32_t>(NarrowSlot<Real>::bytes(columns_, row_nodes_));
  }
  SEQTRAIN_DEVICE int64_t carry_place(int32_t node) const { return team_.block() * row_nodes_ + node; }

  SEQTRAIN_DEVICE Cell<Real> start(const Node& node) const {
    if (problem_.phase == 1) {
      const int64_t place = carry_place(node.own);
      return {static_cast<const Real*>(problem_.carry)[place], problem_.carry_exponent[place]};
    }
    const int64_t at = graph_.table.start_node;
    const bool here = forward_ && at >= 0 && source_of(at) == node.own;
    return here ? Cell<Real>{Real{1}, 0} : zero_cell<Real>();
  }
  SEQTRAIN_DEVICE void save(const Node* node) const {
    SEQTRAIN_UNROLLED
    for (int k = 0; k < most_nodes_of_thread; k++) {
      if (!node[k].exists) continue;
      const Cell<Real> kept = before_[node[k].own];
      const int64_t place = carry_place(node[k].own);
      static_cast<Real*>(problem_.carry)[place] = kept.mantissa;
      problem_.carry_exponent[place] = kept.exponent;
    }
  }

  // The exponent that products are relative to, the same in all frames; leaves the utterance's likelihood.
  template <class Each>
  SEQTRAIN_DEVICE int32_t top_of(const Each& each) const {
    double sum;
    const int64_t top = total_of(team_, each, sum);
    if (!forward_ && team_.thread() == 0)
      problem_.log_likelihood[utterance_] = likelihood_of(graph_.table, frames_, sum, top);
    return static_cast<int32_t>(top);
  }

  // The states with several arrivals, whose own threads leave zeros there.
  SEQTRAIN_DEVICE void put_aggregates() const {
    end_of_frame(team_);
    SEQTRAIN_ROLLED
    for (int32_t q = team_.thread(); q < aggregates_; q += team_.threads()) {
      const int32_t begin = arrivals_of(q)[0], end = arrivals_of(q)[1];
      if (end - begin == 1) continue;
      Real sum = 0;
      ExponentOf<Real> top = zero_exponent;
      SEQTRAIN_ROLLED
      for (int32_t m = begin; m < end; m++)
        add_scaled<Real>(sum, top, now_[m].mantissa, static_cast<ExponentOf<Real>>(now_[m].exponent));
      normalize(sum, top);
      now_[arrivals_ + q] = {sum, static_cast<int32_t>(top)};
    }
  }

  template <bool combine>
  SEQTRAIN_DEVICE void put(const Node& node, const Cell<Real>& sum, const Cell<Real>& emission,
                           const Cell<Real>& other) const {
    const Cell<Real> kept = product(sum, emission), found = forward_ ? kept : sum;
    if (!node.exists) return;
    now_[node.own] = kept;
    if (!node.arrives) return;
    if constexpr (combine) {
      row_.mantissa[node.own] = product_below(found, other, top_);
    } else {
      row_.mantissa[node.own] = found.mantissa;
      row_.exponent[node.own] = found.exponent;
    }
  }
  SEQTRAIN_DEVICE int32_t step(int32_t width) const { return forward_ ? width : -width; }
  SEQTRAIN_DEVICE void next_frame() {
    if (several_) put_aggregates();
    Cell<Real>* const swap = before_;
    before_ = now_;
    now_ = swap;
    row_.advance(step(columns_), step(row_nodes_));
  }

  // The first frame, which reads what it needs itself.
  SEQTRAIN_DEVICE void begin(const Node* node) {
    before_ = reinterpret_cast<Cell<Real>*>(team_.shared(reduction_bytes) + slots_ahead * slot_bytes());
    now_ = before_ + row_nodes_;
    row_ = first_row_of_half();
    SEQTRAIN_UNROLLED
    for (int k = 0; k < most_nodes_of_thread; k++)
      if (node[k].exists) before_[node[k].own] = start(node[k]);
    team_.sync();
    if (count_ == 0) return;
    const bool combine = problem_.phase == 1, last_of_all = !forward_ && begin_ == frames_ - 1;
    Cell<Real> sum[most_nodes_of_thread], emission[most_nodes_of_thread], other[most_nodes_of_thread];
    SEQTRAIN_UNROLLED
    for (int k = 0; k < most_nodes_of_thread; k++) {
      const Node& at = node[k];
      sum[k] = last_of_all ? final_weight(at.own) : sum_over_arcs<most_arcs_of_node>(at, before_);
      emission[k] = {row_.emission[at.column], row_.emission_exponent[at.column]};
      other[k] = zero_cell<Real>();
      if (combine && at.arrives) other[k] = {row_.mantissa[at.own], row_.exponent[at.own]};
    }
    if (combine)
      top_ = top_of([&](const auto& visit) {
        SEQTRAIN_UNROLLED
        for (int k = 0; k < most_nodes_of_thread; k++) {
          if (!node[k].exists || !node[k].arrives) continue;
          const Cell<Real> found = forward_ ? product(sum[k], emission[k]) : sum[k];
          visit(static_cast<double>(found.mantissa) * static_cast<double>(other[k].mantissa),
                found.exponent + other[k].exponent);
        }
      });
    SEQTRAIN_UNROLLED
    for (int k = 0; k < most_nodes_of_thread; k++) {
      if (combine) {
        put<true>(node[k], sum[k], emission[k], other[k]);
      } else {
        put<false>(node[k], sum[k], emission[k], other[k]);
      }
    }
    next_frame();
  }

  template <bool combine>
  SEQTRAIN_DEVICE void go_on(const Node* node, int32_t most) {
    if (problem_.nodes_of_thread == 1) {
      most <= 2 ? go_on_with<combine, 1, 2>(node) : go_on_with<combine, 1, 4>(node);
    } else {
      most <= 2 ? go_on_with<combine, 2, 2>(node) : go_on_with<combine, 2, 4>(node);
    }
  }

  // The other frames.
  template <bool combine, int per, int most>
  SEQTRAIN_DEVICE void go_on_with(const Node* node) {
    Row next = row_;
    const ReadAhead ahead{team_, team_.shared(reduction_bytes), slot_bytes(), count_ - 1};
    const auto used_columns = static_cast<int32_t>(graph_.table.columns);
    const auto copy = [&](char* memory_of_slot) {
      const NarrowSlot<Real> slot(memory_of_slot, columns_, row_nodes_);
      copy_emissions<per>(team_, slot.emissions, next.emission, next.emission_exponent, used_columns);
      if constexpr (combine) {
        copy_row<per>(team_, slot.mantissa, next.mantissa, arrivals_);
        copy_row<per>(team_, slot.exponent, next.exponent, arrivals_);
      }
      next.advance(step(columns_), step(row_nodes_));
    };
    ahead.begin(copy);
    const auto pass = [&](char* memory_of_slot, const auto& read_on) {
      const NarrowSlot<Real> slot(memory_of_slot, columns_, row_nodes_);
      Cell<Real> sum[per], emission[per], other[per]{};
      SEQTRAIN_UNROLLED
      for (int k = 0; k < per; k++) {
        sum[k] = sum_over_arcs<most>(node[k], before_);
        emission[k] = slot.emissions[node[k].column];
        if constexpr (combine) other[k] = {slot.mantissa[node[k].own], slot.exponent[node[k].own]};
      }
      read_on();
      SEQTRAIN_UNROLLED
      for (int k = 0; k < per; k++) put<combine>(node[k], sum[k], emission[k], other[k]);
      next_frame();
    };
    ahead.for_each(copy, pass, [&] { end_of_frame(team_); });
  }

  const Team& team_;
  const FullSumProblem& problem_;
  int64_t utterance_;
  bool forward_;
  Graph<Real> graph_;
  int32_t frames_, arrivals_, aggregates_, nodes_, columns_, row_nodes_;
  int32_t begin_ = 0, count_ = 0;
  bool several_ = false;  // arrivals of a state
  int32_t top_ = 0;
  Row row_{};
  Cell<Real>*now_ = nullptr, *before_ = nullptr;
};

// False where it's not for automata like this one, or occupancies of arcs are asked for.
template <class Real>
SEQTRAIN_DEVICE bool sweep_narrow_graph(const Team& team, const FullSumProblem& problem, int64_t utterance,
                                        bool forward) {
  if (problem.nodes_of_thread == 0 || problem.arc_occupancies != nullptr || problem.lengths[utterance] == 0)
    return false;
  return NarrowSweep<Real>(team, problem, utterance, forward).run();
}

}  // namespace seqtrain
