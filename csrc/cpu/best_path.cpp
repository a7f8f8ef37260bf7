// Viterbi over a batch of automata (equation and order of ties: seqtrain/reference.py, `best_path`).
//
// Sums run in double whatever the scores' type: in float the sum over a long utterance loses the digits that decide
// between two paths.  A step back is the rank of the arc among those into its state, in two bytes where that fits.

#include <limits>

#include "../cuda/path_table.h"
#include "device_arrays.h"
#include "graph_view.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"

namespace seqtrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Incoming {
  Index begin;  // (states + 1,)
  Index32 arc, source, label;
  std::vector<double> weight;
  int64_t widest = 0;

  void build(const GraphView& graph, UsefulArcs& useful) {
    useful.build(graph);
    Grouping into;
    into.build(graph.states, graph.arcs,
               [&](int64_t a) { return useful.arc(graph, a) ? int64_t{graph.destination(a)} : int64_t{-1}; });
    begin = into.begin;
    arc = into.order;
    source.resize(arc.size());
    label.resize(arc.size());
    weight.resize(arc.size());
    for (std::size_t k = 0; k < arc.size(); k++) {
      source[k] = graph.source(arc[k]);
      label[k] = graph.label(arc[k]);
      weight[k] = graph.weight[arc[k]];
    }
    widest = 0;
    for (int64_t s = 0; s < graph.states; s++) widest = std::max(widest, begin[at(s + 1)] - begin[at(s)]);
  }
};

class BestPathUtterance {
 public:
  UsefulArcs useful;
  Incoming incoming;

  void run(const BestPath& problem, int64_t b, const GraphView& graph, const Incoming& arcs) {
    if (arcs.widest <= std::numeric_limits<uint16_t>::max()) {
      search(problem, b, graph, arcs, narrow_);
    } else {
      search(problem, b, graph, arcs, wide_);
    }
  }

 private:
  template <class Rank>
  void search(const BestPath& problem, int64_t b, const GraphView& graph, const Incoming& arcs, Scratch<Rank>& memory) {
    const int64_t frames = problem.lengths[b], states = graph.states;
    Rank* back = memory.reserve(at(frames * states + 1));
    double* before = before_.reserve(at(states));
    double* now = now_.reserve(at(states));
    std::fill(before, before + states, -infinity);
    before[graph.start] = 0;
    for (int64_t t = 0; t < frames; t++) {
      const char* row = problem.scores.row(b, t);
      Rank* rank = back + t * states;
      bool bad = false;
      for (int64_t s = 0; s < states; s++) {
        double best = -infinity;
        int64_t choice = 0;
        const int64_t first = arcs.begin[at(s)], end = arcs.begin[at(s + 1)];
        for (int64_t k = first; k < end; k++) {
          const double score = load<double>(row, problem.scores.dtype, arcs.label[at(k)] * problem.scores.stride_label);
          bad |= !(score < infinity);
          const double total = before[arcs.source[at(k)]] + arcs.weight[at(k)] + score;
          if (total > best) {
            best = total;
            choice = k - first;
          }
        }
        now[s] = best;
        rank[s] = static_cast<Rank>(choice);
      }
      if (bad) {
        problem.status[b] = 1 + t;
        return;
      }
      std::swap(before, now);
    }
    double best = -infinity;
    int32_t state = -1;
    for (int64_t f = 0; f < graph.finals; f++) {
      const int32_t s = graph.final_state[f];
      const double total = before[s] + graph.final_weight[f];
      if (total > best || (total == best && total > -infinity && s < state)) {
        best = total;
        state = s;
      }
    }
    if (state < 0) {
      problem.status[b] = status_no_path;
      return;
    }
    problem.value[b] = best;
    for (int64_t t = frames - 1; t >= 0; t--) {
      const auto k = at(arcs.begin[at(state)] + back[t * states + state]);
      const int64_t place = b * problem.max_frames + t;
      problem.labels[place] = arcs.label[k];
      problem.states[place] = state;
      problem.arcs[place] = arcs.arc[k];
      state = arcs.source[k];
    }
  }

  Scratch<uint16_t> narrow_;
  Scratch<uint32_t> wide_;
  Scratch<double> before_, now_;
};

}  // namespace

void best_path(const BestPath& problem) {
  const bool shared = problem.graphs.graphs == 1;
  Incoming common;
  if (shared) {
    UsefulArcs useful;
    common.build(view(problem.graphs, 0), useful);
  }
  std::vector<double> work(at(problem.batch));
  for (int64_t b = 0; b < problem.batch; b++) {
    const int64_t g = shared ? 0 : b;
    work[at(b)] = static_cast<double>(problem.graphs.arc_offsets[g + 1] - problem.graphs.arc_offsets[g]) *
                  static_cast<double>(problem.lengths[b]);
  }
  for_each_utterance<BestPathUtterance>(work, problem.threads, [&](int64_t b, BestPathUtterance& utterance) {
    if (problem.status[b] != status_ok) return;
    const GraphView graph = view(problem.graphs, shared ? 0 : b);
    if (!shared) utterance.incoming.build(graph, utterance.useful);
    utterance.run(problem, b, graph, shared ? common : utterance.incoming);
  });
}

DeviceLayout lay_out_best_path(const Graphs& graphs) {
  DeviceLayout out{};
  std::vector<PathTable> tables;
  std::vector<double> reals;
  std::vector<int32_t> integers;
  UsefulArcs useful;
  Incoming incoming;
  for (int64_t g = 0; g < graphs.graphs; g++) {
    const GraphView graph = view(graphs, g);
    incoming.build(graph, useful);
    PathTable table{};
    table.states = graph.states;
    table.start = graph.start;
    table.finals = graph.finals;
    table.begin = put(integers, incoming.begin);
    table.arc = put(integers, incoming.arc);
    table.source = put(integers, incoming.source);
    table.label = put(integers, incoming.label);
    table.weight = put(reals, incoming.weight);
    table.final_state = put(integers, std::vector<int32_t>(graph.final_state, graph.final_state + graph.finals));
    table.final_weight = put(reals, std::vector<double>(graph.final_weight, graph.final_weight + graph.finals));
    tables.push_back(table);
    out.nodes = std::max(out.nodes, table.states);
  }
  append(out.bytes, tables);
  out.reals = append(out.bytes, reals);
  out.integers = append(out.bytes, integers);
  return out;
}

}  // namespace seqtrain
