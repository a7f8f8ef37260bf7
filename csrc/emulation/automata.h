// Random automata for the checks, in the flat arrays that the kernels of the CPU take.
#pragma once

#include <algorithm>
#include <vector>

#include "../cpu/kernels.h"
#include "check.h"

namespace seqtrain {

// Parallel arcs, several labels into a state, dead and unreachable states, forbidden arcs, cycles; some have several
// warps of states.
struct RandomAutomata {
  std::vector<int32_t> arcs, final_states, starts, states;
  std::vector<double> weights, final_weights;
  std::vector<int64_t> arc_offsets{0}, final_offsets{0};

  void add(Random& random, int64_t labels) {
    const double infinity = std::numeric_limits<double>::infinity();
    const int64_t count = random.below(2) == 0 ? 3 + random.below(9) : 70 + random.below(40);
    const bool chain = random.below(2) == 0;  // one label a state, as in a topology
    const int64_t fan = chain ? 2 + random.below(2) : 3, number = fan * count;
    for (int64_t a = 0; a < number; a++) {
      const int64_t from = chain ? a / fan : random.below(count);
      const int64_t to = chain ? std::min(from + a % fan, count - 1) : random.below(count);
      arcs.push_back(static_cast<int32_t>(from));
      arcs.push_back(static_cast<int32_t>(to));
      arcs.push_back(static_cast<int32_t>(chain ? to % labels : random.below(labels)));
      const bool beyond = chain && from + a % fan >= count;
      weights.push_back(beyond || random.below(20) == 0 ? -infinity : static_cast<double>(random.number(2.0f)));
    }
    for (int64_t s = 0; s < count; s++)
      if (chain ? s % 4 == 3 || s == count - 1 : random.below(3) == 0) {
        final_states.push_back(static_cast<int32_t>(s));
        final_weights.push_back(random.below(10) == 0 ? -infinity : static_cast<double>(random.number(1.0f)));
      }
    starts.push_back(static_cast<int32_t>(chain ? 0 : random.below(count)));
    states.push_back(static_cast<int32_t>(count));
    arc_offsets.push_back(static_cast<int64_t>(weights.size()));
    final_offsets.push_back(static_cast<int64_t>(final_weights.size()));
  }

  Graphs view() const {
    return {static_cast<int64_t>(starts.size()),
            arcs.data(),
            weights.data(),
            arc_offsets.data(),
            final_states.data(),
            final_weights.data(),
            final_offsets.data(),
            starts.data(),
            states.data()};
  }
};

// A batch of scores, flat, peaky and partly forbidden, each utterance with an automaton of its own or all with one.
struct AutomataBatch {
  int64_t batch = 3, frames, labels = 6;
  RandomAutomata automata;
  std::vector<float> scores;
  std::vector<int64_t> lengths, status, fewest, most, used;
  int64_t width;

  explicit AutomataBatch(Random& random) : frames(6 + random.below(20)) {
    const int64_t graphs = random.below(4) == 0 ? 1 : batch;
    for (int64_t g = 0; g < graphs; g++) automata.add(random, labels);
    const float scale = random.below(3) == 0 ? 60.0f : 3.0f;
    for (int64_t i = 0; i < batch * frames * labels; i++) scores.push_back(random.number(scale));
    for (int64_t i = 0; i < frames; i++) scores[size(i * labels + 1)] = -std::numeric_limits<float>::infinity();
    for (int64_t b = 0; b < batch; b++) lengths.push_back(b == 1 ? random.below(4) : random.below(frames + 1));
    fewest.resize(size(graphs));
    most.resize(size(graphs));
    used.resize(size(graphs));
    summarize(automata.view(), fewest.data(), most.data(), used.data(), 1);
    width = *std::max_element(used.begin(), used.end());
    for (int64_t b = 0; b < batch; b++)
      status.push_back(fewest[size(graphs == 1 ? 0 : b)] < 0 ? status_infeasible : status_ok);
  }

  bool shared() const { return automata.starts.size() == 1; }
  int64_t arc_places() const { return static_cast<int64_t>(automata.weights.size()) * (shared() ? batch : 1); }
  int64_t final_places() const { return static_cast<int64_t>(automata.final_weights.size()) * (shared() ? batch : 1); }
};

}  // namespace seqtrain
