// Pruned product of scores and an automaton, frame by frame: the states that stay in the beam, then, backwards, those
// of them that reach the end.
//
// A state's partial score is that of the best path to it, in double.  After each frame those further than `beam` below
// the best are dropped, and then all but the `max_active` best (of equal ones the lower numbers stay).  Every arc
// between states that stayed is kept, whatever its own score, so that with an infinite beam no path is missing.

#include <algorithm>
#include <limits>

#include "graph_view.h"
#include "lattice_kernels.h"
#include "memory.h"
#include "parallel.h"

namespace seqtrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

class IntersectUtterance {
 public:
  UsefulArcs useful;

  void run(const Intersect& problem, int64_t b, const GraphView& graph, const UsefulArcs& usable,
           ProductSet::Utterance& result) {
    if (!search(problem, b, graph, usable)) return;
    if (!reach_back(problem, b, graph, usable)) {
      problem.status[b] = problem.truncated[b] > 0 ? status_beam : status_no_path;
      return;
    }
    emit(problem, b, graph, usable, result);
  }

 private:
  // Calls visit(arc, score) for the usable arcs out of a state.
  template <class Visit>
  void leave(const Intersect& problem, const char* row, const GraphView& graph, const UsefulArcs& usable, int32_t state,
             const Visit& visit) const {
    const int64_t end = usable.by_source.begin[at(state + 1)];
    for (int64_t k = usable.by_source.begin[at(state)]; k < end; k++) {
      const int64_t a = usable.by_source.order[at(k)];
      if (!usable.state(graph.destination(a))) continue;
      visit(a, load<double>(row, problem.scores.dtype, graph.label(a) * problem.scores.stride_label));
    }
  }

  // Fills `active_` with the states of each frame, in rising order.
  bool search(const Intersect& problem, int64_t b, const GraphView& graph, const UsefulArcs& usable) {
    const int64_t frames = problem.lengths[b];
    active_.clear();
    begin_.assign(1, 0);
    before_.assign(at(graph.states), -infinity);
    now_.assign(at(graph.states), -infinity);
    if (usable.state(graph.start)) {
      active_.push_back(graph.start);
      before_[at(graph.start)] = 0;
    }
    begin_.push_back(static_cast<int64_t>(active_.size()));
    for (int64_t t = 0; t < frames; t++) {
      const char* row = problem.scores.row(b, t);
      bool bad = false;
      reached_.clear();
      for (int64_t i = begin_[at(t)]; i < begin_[at(t + 1)]; i++) {
        const int32_t s = active_[at(i)];
        const double here = before_[at(s)];
        before_[at(s)] = -infinity;
        leave(problem, row, graph, usable, s, [&](int64_t a, double score) {
          bad |= !(score < infinity);
          const double total = here + graph.weight[a] + score;
          double& best = now_[at(graph.destination(a))];
          if (!(total > best)) return;
          if (best == -infinity) reached_.push_back(graph.destination(a));
          best = total;
        });
      }
      if (bad) {
        problem.status[b] = 1 + t;
        return false;
      }
      problem.truncated[b] += prune(problem.beam, problem.max_active);
      std::sort(reached_.begin(), reached_.end());
      active_.insert(active_.end(), reached_.begin(), reached_.end());
      begin_.push_back(static_cast<int64_t>(active_.size()));
      std::swap(before_, now_);
    }
    return true;
  }

  // Drops states from `reached_`; returns how many.
  int64_t prune(double beam, int64_t max_active) {
    double best = -infinity;
    for (const int32_t s : reached_) best = std::max(best, now_[at(s)]);
    const double least = best - beam;
    const auto all = static_cast<int64_t>(reached_.size());
    auto end = std::partition(reached_.begin(), reached_.end(), [&](int32_t s) { return now_[at(s)] >= least; });
    if (end - reached_.begin() > max_active) {
      const auto limit = reached_.begin() + max_active;
      std::nth_element(reached_.begin(), limit, end, [&](int32_t p, int32_t q) {
        return now_[at(p)] > now_[at(q)] || (now_[at(p)] == now_[at(q)] && p < q);
      });
      end = limit;
    }
    for (auto dropped = end; dropped != reached_.end(); ++dropped) now_[at(*dropped)] = -infinity;
    reached_.erase(end, reached_.end());
    return all - static_cast<int64_t>(reached_.size());
  }

  // Place in `active_` of a state that is alive at the frame whose places `place_` holds, or -1.
  int64_t alive_at(int64_t frame, int32_t state) const {
    const int64_t i = place_[at(state)];
    return i >= begin_[at(frame)] && i < begin_[at(frame + 1)] && alive_[at(i)] != 0 ? i : -1;
  }

  void hold_places(int64_t frame) {
    for (int64_t i = begin_[at(frame)]; i < begin_[at(frame + 1)]; i++) place_[at(active_[at(i)])] = i;
  }

  // Marks what reaches a final state at the end; false where the start doesn't.
  bool reach_back(const Intersect& problem, int64_t b, const GraphView& graph, const UsefulArcs& usable) {
    const int64_t frames = problem.lengths[b];
    alive_.assign(active_.size(), 0);
    place_.assign(at(graph.states), -1);
    hold_places(frames);
    for (int64_t f = 0; f < graph.finals; f++) {
      const int64_t i = place_[at(graph.final_state[f])];
      if (i >= 0 && graph.final_weight[f] > -infinity) alive_[at(i)] = 1;
    }
    for (int64_t t = frames - 1; t >= 0; t--) {
      const char* row = problem.scores.row(b, t);
      for (int64_t i = begin_[at(t)]; i < begin_[at(t + 1)]; i++) {
        bool alive = false;
        leave(problem, row, graph, usable, active_[at(i)], [&](int64_t a, double score) {
          alive |= score > -infinity && alive_at(t + 1, graph.destination(a)) >= 0;
        });
        alive_[at(i)] = alive ? 1 : 0;
      }
      hold_places(t);
    }
    return !alive_.empty() && alive_[0] != 0;
  }

  void emit(const Intersect& problem, int64_t b, const GraphView& graph, const UsefulArcs& usable,
            ProductSet::Utterance& result) {
    const int64_t frames = problem.lengths[b];
    number_.assign(active_.size(), -1);
    for (int64_t t = 0; t <= frames; t++)
      for (int64_t i = begin_[at(t)]; i < begin_[at(t + 1)]; i++) {
        if (alive_[at(i)] == 0) continue;
        number_[at(i)] = static_cast<int32_t>(result.frames.size());
        result.frames.push_back(static_cast<int32_t>(t));
      }
    for (int64_t t = 0; t < frames; t++) {
      const char* row = problem.scores.row(b, t);
      hold_places(t + 1);
      for (int64_t i = begin_[at(t)]; i < begin_[at(t + 1)]; i++) {
        if (alive_[at(i)] == 0) continue;
        leave(problem, row, graph, usable, active_[at(i)], [&](int64_t a, double score) {
          const int64_t next = score > -infinity ? alive_at(t + 1, graph.destination(a)) : -1;
          if (next < 0) return;
          result.arcs.insert(result.arcs.end(), {number_[at(i)], number_[at(next)], graph.label(a)});
          result.graph_arcs.push_back(a);
        });
      }
    }
    hold_places(frames);
    for (int64_t f = 0; f < graph.finals; f++) {
      const int64_t i = alive_at(frames, graph.final_state[f]);
      if (i < 0 || !(graph.final_weight[f] > -infinity)) continue;
      result.final_states.push_back(number_[at(i)]);
      result.graph_finals.push_back(f);
    }
  }

  std::vector<double> before_, now_;
  Index32 active_, reached_, number_;
  Index begin_, place_;
  std::vector<char> alive_;
};

}  // namespace

ProductSet intersect(const Intersect& problem) {
  const bool shared = problem.graphs.graphs == 1;
  UsefulArcs common;
  if (shared) common.build(view(problem.graphs, 0));
  std::vector<double> work(at(problem.batch));
  for (int64_t b = 0; b < problem.batch; b++) {
    const int64_t g = shared ? 0 : b;
    work[at(b)] = static_cast<double>(problem.graphs.arc_offsets[g + 1] - problem.graphs.arc_offsets[g]) *
                  static_cast<double>(problem.lengths[b]);
  }
  ProductSet result;
  result.utterances.resize(at(problem.batch));
  for_each_utterance<IntersectUtterance>(work, problem.threads, [&](int64_t b, IntersectUtterance& utterance) {
    if (problem.status[b] != status_ok) return;
    const GraphView graph = view(problem.graphs, shared ? 0 : b);
    if (!shared) utterance.useful.build(graph);
    utterance.run(problem, b, graph, shared ? common : utterance.useful, result.utterances[at(b)]);
  });
  return result;
}

}  // namespace seqtrain
