// Viterbi over an automaton for each utterance (equation and order of ties: seqtrain/reference.py, `best_path`).
//
// One block an utterance, one thread a state.  Sums run in double, in the order of csrc/cpu/best_path.cpp, so that both
// choose the same path where two score alike.
#pragma once

#include "path_table.h"
#include "rows.h"
#include "sweep.h"

namespace seqtrain {

struct BestPathProblem {
  int64_t batch;
  const char* scores;
  int64_t dtype;
  int64_t stride_utterance;
  int64_t stride_frame;
  int64_t stride_label;
  const int64_t* offsets;
  const int64_t* lengths;
  int64_t padded_frames;
  int64_t shared_graph;
  const void* graphs;
  const double* reals;
  const int32_t* integers;
  int64_t states;
  int32_t* back;
  char* workspace;
  int64_t max_frames;
  double* value;
  int64_t* path_labels;
  int64_t* path_states;
  int64_t* path_arcs;
  int64_t* status;
};

// Ends where the last frame's scores are in `now`; 1 + the first frame with an unusable score, or 0.
template <class Storage>
SEQTRAIN_DEVICE int64_t search(const Team& team, const BestPathProblem& problem, const PathTable& graph, int64_t b,
                               double*& before, double*& now) {
  using Bits = typename Storage::Bits;
  const int64_t frames = problem.lengths[b], first = first_row(problem.offsets, b, problem.padded_frames);
  const int32_t* begin = problem.integers + graph.begin;
  const int32_t* source = problem.integers + graph.source;
  const int32_t* label = problem.integers + graph.label;
  const double* weight = problem.reals + graph.weight;
  const double infinity = infinity_of<double>();
  int64_t bad = 0;
  for (int64_t t = 0; t < frames; t++) {
    double* const swap = before;
    before = now;
    now = swap;
    const Bits* row = reinterpret_cast<const Bits*>(problem.scores) +
                      (problem.offsets != nullptr ? (first + t) * problem.stride_frame
                                                  : b * problem.stride_utterance + t * problem.stride_frame);
    int32_t* rank = problem.back + (first + t) * problem.states;
    for (int64_t s = team.thread(); s < graph.states; s += team.threads()) {
      double best = -infinity;
      int32_t choice = 0;
      const int32_t from = begin[s], end = begin[s + 1];
      for (int32_t k = from; k < end; k++) {
        const auto score = static_cast<double>(Storage::get(row[label[k] * problem.stride_label]));
        if (!(score < infinity) && bad == 0) bad = frames - t;
        const double total = before[source[k]] + weight[k] + score;
        if (total > best) {
          best = total;
          choice = k - from;
        }
      }
      now[s] = best;
      rank[s] = choice;
    }
    end_of_frame(team);
  }
  bad = reduce(team, bad, Largest{});
  return bad > 0 ? 1 + frames - bad : 0;
}

template <class Real>
SEQTRAIN_DEVICE void best_path(const Team& team, const BestPathProblem& problem) {
  const int64_t b = team.block();
  if (problem.status[b] != 0) return;
  const PathTable& graph = static_cast<const PathTable*>(problem.graphs)[problem.shared_graph != 0 ? 0 : b];
  const double infinity = infinity_of<double>();
  double* now = problem.workspace != nullptr ? reinterpret_cast<double*>(problem.workspace) + 2 * b * problem.states
                                             : reinterpret_cast<double*>(team.shared(reduction_bytes));
  double* before = now + problem.states;
  for (int64_t s = team.thread(); s < graph.states; s += team.threads()) now[s] = s == graph.start ? 0.0 : -infinity;
  team.sync();
  int64_t bad = 0;
  with_storage<Real>(problem.dtype,
                     [&](auto storage) { bad = search<decltype(storage)>(team, problem, graph, b, before, now); });

  // The best end, of several the state with the lowest number.
  const int32_t* final_state = problem.integers + graph.final_state;
  const double* final_weight = problem.reals + graph.final_weight;
  double best = -infinity;
  for (int64_t f = team.thread(); f < graph.finals; f += team.threads())
    best = Largest{}(now[final_state[f]] + final_weight[f], best);
  best = reduce(team, best, Largest{});
  int64_t lowest = -graph.states;
  for (int64_t f = team.thread(); f < graph.finals; f += team.threads())
    if (best > -infinity && now[final_state[f]] + final_weight[f] == best && -final_state[f] > lowest)
      lowest = -final_state[f];
  int64_t state = -reduce(team, lowest, Largest{});
  if (team.thread() != 0) return;
  if (bad != 0 || state == graph.states) {
    problem.status[b] = bad != 0 ? bad : -2;  // no path
    return;
  }
  problem.value[b] = best;
  const int64_t first = first_row(problem.offsets, b, problem.padded_frames);
  for (int64_t t = problem.lengths[b] - 1; t >= 0; t--) {
    const int64_t k = problem.integers[graph.begin + state] + problem.back[(first + t) * problem.states + state];
    const int64_t place = b * problem.max_frames + t;
    problem.path_labels[place] = problem.integers[graph.label + k];
    problem.path_states[place] = state;
    problem.path_arcs[place] = problem.integers[graph.arc + k];
    state = problem.integers[graph.source + k];
  }
}

}  // namespace seqtrain
