// Paths through lattices: the k best, the best of each of the k best token sequences, and samples.

#include <algorithm>
#include <limits>
#include <queue>

#include "lattice_view.h"
#include "memory.h"
#include "parallel.h"

namespace seqtrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// The k best paths by recursive enumeration (Jiménez and Marzal, "Computing the K shortest paths: a new algorithm and
// an experimental comparison", 1999).  The k-th path to a state is one of its incoming arcs behind the j-th path to
// that arc's source; a state keeps a heap of what may be its next one, and asks a source for one more path only when
// the last one it took from there is used up.  The end is a state of its own, into which final states lead.
class BestPaths {
 public:
  void run(const LatticeView& lattice, int64_t count, PathSet::Utterance& result) {
    if (lattice.states == 0) return;
    into_.build(lattice.states, lattice.arcs, [&](int64_t a) {
      return lattice.weight[a] > -infinity ? int64_t{lattice.destination(a)} : int64_t{-1};
    });
    const int64_t end = lattice.states;
    nodes_.clear();
    nodes_.resize(at(end + 1));
    for (int64_t s = 0; s <= end; s++) start_node(lattice, s);
    for (int64_t k = 0; k < count; k++) {
      Node& last = nodes_[at(end)];
      if (k >= static_cast<int64_t>(last.paths.size()) && (last.paths.empty() || !one_more(lattice, end))) break;
      trace(lattice, k, result);
    }
  }

 private:
  // A path to a state: an arc (into the end: a final state's index), and which path to its source stands before.
  struct Step {
    double score;
    int64_t arc, rank;
    // The order in which a heap of the standard library has the best on top.
    bool operator<(const Step& other) const {
      if (score != other.score) return score < other.score;
      return arc != other.arc ? arc > other.arc : rank > other.rank;
    }
  };
  struct Node {
    std::vector<Step> paths, heap;
    bool has_heap = false, exhausted = false;
  };

  int64_t source(const LatticeView& lattice, int64_t node, int64_t arc) const {
    return node == lattice.states ? lattice.final_state[arc] : lattice.source(arc);
  }

  template <class Visit>
  void incoming(const LatticeView& lattice, int64_t node, const Visit& visit) const {
    if (node == lattice.states) {
      for (int64_t f = 0; f < lattice.finals; f++)
        if (lattice.final_weight[f] > -infinity) visit(f, lattice.final_weight[f]);
      return;
    }
    for (int64_t k = into_.begin[at(node)]; k < into_.begin[at(node + 1)]; k++)
      visit(into_.order[at(k)], lattice.weight[into_.order[at(k)]]);
  }

  void start_node(const LatticeView& lattice, int64_t node) {
    Node& here = nodes_[at(node)];
    if (node == 0) {
      here.paths.push_back({0.0, -1, -1});
      here.exhausted = true;
      return;
    }
    Step best{-infinity, -1, 0};
    incoming(lattice, node, [&](int64_t arc, double weight) {
      const Node& before = nodes_[at(source(lattice, node, arc))];
      if (before.paths.empty()) return;
      const Step step{before.paths[0].score + weight, arc, 0};
      if (best.arc < 0 || best < step) best = step;
    });
    if (best.arc >= 0) here.paths.push_back(best);
  }

  // One more path to a state that has one; false where there is none.  A chain of states waits for the one before.
  bool one_more(const LatticeView& lattice, int64_t wanted) {
    waiting_.assign(1, wanted);
    while (!waiting_.empty()) {
      const int64_t node = waiting_.back();
      Node& here = nodes_[at(node)];
      if (here.exhausted) {
        waiting_.pop_back();
        continue;
      }
      const Step last = here.paths.back();
      if (!here.has_heap) {
        incoming(lattice, node, [&](int64_t arc, double weight) {
          const Node& before = nodes_[at(source(lattice, node, arc))];
          if (!before.paths.empty() && arc != last.arc) here.heap.push_back({before.paths[0].score + weight, arc, 0});
        });
        std::make_heap(here.heap.begin(), here.heap.end());
        here.has_heap = true;
      }
      const int64_t p = source(lattice, node, last.arc);
      const Node& before = nodes_[at(p)];
      const bool there = static_cast<int64_t>(before.paths.size()) > last.rank + 1;
      if (!there && !before.exhausted) {
        waiting_.push_back(p);
        continue;
      }
      if (there) {
        const double weight = node == lattice.states ? lattice.final_weight[last.arc] : lattice.weight[last.arc];
        here.heap.push_back({before.paths[at(last.rank + 1)].score + weight, last.arc, last.rank + 1});
        std::push_heap(here.heap.begin(), here.heap.end());
      }
      if (here.heap.empty()) {
        here.exhausted = true;
      } else {
        std::pop_heap(here.heap.begin(), here.heap.end());
        here.paths.push_back(here.heap.back());
        here.heap.pop_back();
      }
      waiting_.pop_back();
    }
    return !nodes_[at(wanted)].exhausted;
  }

  void trace(const LatticeView& lattice, int64_t k, PathSet::Utterance& result) const {
    Step step = nodes_[at(lattice.states)].paths[at(k)];
    result.finals.push_back(step.arc);
    int64_t node = lattice.final_state[step.arc];
    const auto first = static_cast<int64_t>(result.arcs.size());
    while (node != 0) {
      step = nodes_[at(node)].paths[at(step.rank)];
      result.arcs.push_back(step.arc);
      node = lattice.source(step.arc);
    }
    std::reverse(result.arcs.begin() + first, result.arcs.end());
    result.lengths.push_back(static_cast<int64_t>(result.arcs.size()) - first);
  }

  Grouping into_;
  std::vector<Node> nodes_;
  Index waiting_;
};

// The best path of each of the k best token sequences: best-first search over token prefixes.  A prefix stands for the
// set of states that it leads to, each with its best score; with the exact score of the best completion as estimate,
// the prefixes that are expanded are those of the sequences found.
class BestSequences {
 public:
  void run(const LatticeView& lattice, const int32_t* tokens, int64_t count, PathSet::Utterance& result) {
    if (lattice.states == 0) return;
    complete(lattice);
    leaving_.assign(at(lattice.states + 1), 0);
    for (int64_t a = 0; a < lattice.arcs; a++) leaving_[at(lattice.source(a) + 1)]++;
    for (int64_t s = 0; s < lattice.states; s++) leaving_[at(s + 1)] += leaving_[at(s)];
    score_.assign(at(lattice.states), -infinity);
    back_.assign(at(lattice.states), -1);
    prefixes_.clear();
    prefixes_.push_back({-1, -1, {{0, 0.0}}});
    std::priority_queue<Item> queue;
    if (to_end_[0] > -infinity) queue.push({to_end_[0], 0, false});
    while (!queue.empty() && static_cast<int64_t>(result.lengths.size()) < count) {
      const Item item = queue.top();
      queue.pop();
      if (item.done) {
        trace(lattice, tokens, item.prefix, result);
        continue;
      }
      expand(lattice, tokens, item.prefix, queue);
    }
  }

 private:
  struct Entry {
    int32_t state;
    double score;
  };
  struct Prefix {
    int64_t parent;
    int32_t token;
    std::vector<Entry> entries;
  };
  struct Item {
    double score;
    int64_t prefix;
    bool done;
    bool operator<(const Item& other) const {
      if (score != other.score) return score < other.score;
      return prefix != other.prefix ? prefix > other.prefix : done < other.done;
    }
  };
  struct Successor {
    int32_t token, state;
    double score;
  };

  void complete(const LatticeView& lattice) {
    to_end_.assign(at(lattice.states), -infinity);
    final_.assign(at(lattice.states), -1);
    for (int64_t f = 0; f < lattice.finals; f++) {
      to_end_[at(lattice.final_state[f])] = lattice.final_weight[f];
      final_[at(lattice.final_state[f])] = f;
    }
    for (int64_t a = lattice.arcs - 1; a >= 0; a--) {
      double& best = to_end_[at(lattice.source(a))];
      best = std::max(best, lattice.weight[a] + to_end_[at(lattice.destination(a))]);
    }
  }

  // Best scores of the states that the prefix leads to, also over arcs without a token; `closure_` lists them, rising.
  void close(const LatticeView& lattice, const int32_t* tokens, int64_t prefix) {
    closure_.clear();
    std::priority_queue<int32_t, Index32, std::greater<>> open;
    for (const Entry& entry : prefixes_[at(prefix)].entries) {
      score_[at(entry.state)] = entry.score;
      back_[at(entry.state)] = -1;
      open.push(entry.state);
    }
    while (!open.empty()) {
      const int32_t s = open.top();
      open.pop();
      closure_.push_back(s);
      for (int64_t a = leaving_[at(s)]; a < leaving_[at(s + 1)]; a++) {
        const int32_t next = lattice.destination(a);
        const double total = score_[at(s)] + lattice.weight[a];
        if (tokens[a] >= 0 || !(total > score_[at(next)]) || to_end_[at(next)] == -infinity) continue;
        if (score_[at(next)] == -infinity) open.push(next);
        score_[at(next)] = total;
        back_[at(next)] = a;
      }
    }
  }

  void forget() {
    for (const int32_t s : closure_) score_[at(s)] = -infinity;
  }

  void expand(const LatticeView& lattice, const int32_t* tokens, int64_t prefix, std::priority_queue<Item>& queue) {
    close(lattice, tokens, prefix);
    double best_end = -infinity;
    successors_.clear();
    for (const int32_t s : closure_) {
      const double here = score_[at(s)];
      if (final_[at(s)] >= 0) best_end = std::max(best_end, here + lattice.final_weight[final_[at(s)]]);
      for (int64_t a = leaving_[at(s)]; a < leaving_[at(s + 1)]; a++) {
        const double total = here + lattice.weight[a];
        if (tokens[a] >= 0 && total + to_end_[at(lattice.destination(a))] > -infinity)
          successors_.push_back({tokens[a], lattice.destination(a), total});
      }
    }
    forget();
    if (best_end > -infinity) queue.push({best_end, prefix, true});
    std::sort(successors_.begin(), successors_.end(), [](const Successor& x, const Successor& y) {
      if (x.token != y.token) return x.token < y.token;
      return x.state != y.state ? x.state < y.state : x.score > y.score;
    });
    for (std::size_t i = 0; i < successors_.size();) {
      Prefix child{prefix, successors_[i].token, {}};
      double best = -infinity;
      for (; i < successors_.size() && successors_[i].token == child.token; i++) {
        if (!child.entries.empty() && child.entries.back().state == successors_[i].state) continue;
        child.entries.push_back({successors_[i].state, successors_[i].score});
        best = std::max(best, successors_[i].score + to_end_[at(successors_[i].state)]);
      }
      queue.push({best, static_cast<int64_t>(prefixes_.size()), false});
      prefixes_.push_back(std::move(child));
    }
  }

  // The best path of a whole sequence, from its end: the sets of its prefixes are closed once more.
  void trace(const LatticeView& lattice, const int32_t* tokens, int64_t prefix, PathSet::Utterance& result) {
    const auto first = static_cast<int64_t>(result.arcs.size());
    int32_t state = -1;
    double entered = -infinity;
    int32_t token = -1;
    for (int64_t p = prefix; p >= 0; p = prefixes_[at(p)].parent) {
      close(lattice, tokens, p);
      int64_t arc = -1;
      if (p == prefix) {
        double best = -infinity;
        for (const int32_t s : closure_) {
          if (final_[at(s)] < 0) continue;
          const double total = score_[at(s)] + lattice.final_weight[final_[at(s)]];
          if (total > best) {
            best = total;
            state = s;
          }
        }
        result.finals.push_back(final_[at(state)]);
      } else {
        for (const int32_t s : closure_)
          for (int64_t a = leaving_[at(s)]; a < leaving_[at(s + 1)] && arc < 0; a++)
            if (tokens[a] == token && lattice.destination(a) == state && score_[at(s)] + lattice.weight[a] == entered)
              arc = a;
        result.arcs.push_back(arc);
        state = lattice.source(arc);
      }
      while (back_[at(state)] >= 0) {
        result.arcs.push_back(back_[at(state)]);
        state = lattice.source(back_[at(state)]);
      }
      entered = score_[at(state)];
      token = prefixes_[at(p)].token;
      forget();
    }
    std::reverse(result.arcs.begin() + first, result.arcs.end());
    result.lengths.push_back(static_cast<int64_t>(result.arcs.size()) - first);
  }

  std::vector<double> to_end_, score_;
  Index leaving_, final_, back_;
  Index32 closure_;
  std::vector<Prefix> prefixes_;
  std::vector<Successor> successors_;
};

struct Searches {
  BestPaths paths;
  BestSequences sequences;
};

// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

// A path from the start: an arc is taken with the share of its paths among those from its source.
class Sampler {
 public:
  void run(const LatticeView& lattice, int64_t count, uint64_t seed, PathSet::Utterance& result) {
    if (lattice.states == 0) return;
    Wide* arcs = arcs_.reserve(at(lattice.arcs + 1));
    Wide* finals = finals_.reserve(at(lattice.finals + 1));
    Wide* beta = beta_.reserve(at(lattice.states));
    if (!lattice_exponentials(lattice, arcs, finals)) return;
    lattice_backward(lattice, arcs, finals, beta);
    if (!(beta[0].mantissa > 0)) return;
    final_.assign(at(lattice.states), -1);
    for (int64_t f = 0; f < lattice.finals; f++) final_[at(lattice.final_state[f])] = f;
    leaving_.assign(at(lattice.states + 1), 0);
    for (int64_t a = 0; a < lattice.arcs; a++) leaving_[at(lattice.source(a) + 1)]++;
    for (int64_t s = 0; s < lattice.states; s++) leaving_[at(s + 1)] += leaving_[at(s)];
    SplitMix streams(seed);
    for (int64_t n = 0; n < count; n++) {
      SplitMix random(streams.next());
      int64_t state = 0, length = 0;
      for (;;) {
        double left = random.uniform();
        const Wide all = beta[state];
        const int64_t f = final_[at(state)];
        int64_t chosen = -1;  // an arc, or -1 for the end
        bool found = false;
        if (f >= 0 && finals[f].mantissa > 0) {
          left -= wide_share(finals[f].mantissa, finals[f].exponent, all);
          found = left < 0;
        }
        // Rounding may leave a rest behind the last one: it goes to that one.
        for (int64_t a = leaving_[at(state)]; a < leaving_[at(state + 1)] && !found; a++) {
          const Wide& next = beta[lattice.destination(a)];
          const double share = wide_share(arcs[a].mantissa * next.mantissa, arcs[a].exponent + next.exponent, all);
          if (!(share > 0)) continue;
          chosen = a;
          left -= share;
          found = left < 0;
        }
        if (chosen < 0) {
          result.finals.push_back(f);
          break;
        }
        result.arcs.push_back(chosen);
        length++;
        state = lattice.destination(chosen);
      }
      result.lengths.push_back(length);
    }
  }

 private:
  Scratch<Wide> arcs_, finals_, beta_;
  Index final_, leaving_;
};

}  // namespace

PathSet lattice_best_paths(const Lattices& lattices, int64_t count, const int32_t* tokens, int threads) {
  PathSet result;
  result.utterances.resize(at(lattices.batch));
  for_each_utterance<Searches>(lattice_work(lattices), threads, [&](int64_t b, Searches& searches) {
    PathSet::Utterance& found = result.utterances[at(b)];
    if (tokens == nullptr) {
      searches.paths.run(view(lattices, b), count, found);
    } else {
      searches.sequences.run(view(lattices, b), tokens + lattices.arc_offsets[b], count, found);
    }
  });
  return result;
}

PathSet lattice_sample(const Lattices& lattices, int64_t count, uint64_t seed, int threads) {
  PathSet result;
  result.utterances.resize(at(lattices.batch));
  std::vector<uint64_t> seeds(at(lattices.batch));
  SplitMix streams(seed);
  for (uint64_t& own : seeds) own = streams.next();
  for_each_utterance<Sampler>(lattice_work(lattices), threads, [&](int64_t b, Sampler& sampler) {
    sampler.run(view(lattices, b), count, seeds[at(b)], result.utterances[at(b)]);
  });
  return result;
}

}  // namespace seqtrain
