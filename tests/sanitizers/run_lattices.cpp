// Lattices: made by intersection, and all that there is to do with them.

#include <cmath>
#include <vector>

#include "../../csrc/cpu/lattice_kernels.h"
#include "automata.h"

namespace seqtrain::sanitizers {

namespace {

struct Product {
  std::vector<int32_t> arcs, frames, final_states;
  std::vector<int64_t> graph_arcs, graph_finals, arc_offsets{0}, state_offsets{0}, final_offsets{0};
};

Product flatten(const ProductSet& set) {
  Product all;
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (const ProductSet::Utterance& u : set.utterances) {
    append(all.arcs, u.arcs);
    append(all.frames, u.frames);
    append(all.final_states, u.final_states);
    append(all.graph_arcs, u.graph_arcs);
    append(all.graph_finals, u.graph_finals);
    all.arc_offsets.push_back(static_cast<int64_t>(all.graph_arcs.size()));
    all.state_offsets.push_back(static_cast<int64_t>(all.frames.size()));
    all.final_offsets.push_back(static_cast<int64_t>(all.final_states.size()));
  }
  return all;
}

bool same(const PathSet& x, const PathSet& y) {
  for (std::size_t b = 0; b < x.utterances.size(); b++)
    if (x.utterances[b].arcs != y.utterances[b].arcs || x.utterances[b].lengths != y.utterances[b].lengths ||
        x.utterances[b].finals != y.utterances[b].finals)
      return false;
  return true;
}

}  // namespace

// Intersects, with a beam and without, and does with the lattice all that there is to do.
void run_lattices(Random& random, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                  const Array<int64_t>& known, int threads) {
  const int64_t batch = known.size();
  const double beam = random.chance(0.5) ? infinity : 8.0 * random.uniform();
  const int64_t max_active = random.chance(0.5) ? int64_t{1} << 31 : random.integer(1, 10);
  const auto search = [&](int used, const Array<int64_t>& truncated, const Array<int64_t>& status) {
    for (int64_t b = 0; b < batch; b++) status[b] = known[b];
    return flatten(intersect(Intersect{scores.tensor, batch, lengths.data(), graphs, beam, max_active, truncated.data(),
                                       status.data(), used}));
  };
  Array<int64_t> truncated(batch), status(batch), truncated_again(batch), status_again(batch);
  const Product product = search(1, truncated, status), again = search(threads, truncated_again, status_again);
  check(product.arcs == again.arcs && product.graph_arcs == again.graph_arcs && product.frames == again.frames &&
            product.final_states == again.final_states && truncated == truncated_again && status == status_again,
        "lattices don't depend on the number of threads");
  const auto arcs = exactly(product.arcs), final_states = exactly(product.final_states);
  const auto arc_offsets = exactly(product.arc_offsets), state_offsets = exactly(product.state_offsets),
             final_offsets = exactly(product.final_offsets);
  Array<double> weights(static_cast<int64_t>(product.graph_arcs.size())), final_weights(final_states.size());
  for (int64_t a = 0; a < weights.size(); a++) weights[a] = random.chance(0.05) ? -infinity : random.number(3);
  for (int64_t f = 0; f < final_weights.size(); f++) final_weights[f] = random.number(1);
  const Lattices lattices{batch,
                          arcs.data(),
                          weights.data(),
                          arc_offsets.data(),
                          state_offsets.data(),
                          final_states.data(),
                          final_weights.data(),
                          final_offsets.data()};
  const int64_t states = state_offsets[batch];
  Array<double> value(batch), value_again(batch), posteriors(weights.size()), posteriors_again(weights.size()),
      ends(final_weights.size()), from_start(states), to_end(states);
  Array<int64_t> found(batch);
  lattice_total(LatticeTotal{lattices, value.data(), true, posteriors.data(), ends.data(), found.data(), 1});
  lattice_total(
      LatticeTotal{lattices, value_again.data(), true, posteriors_again.data(), ends.data(), found.data(), threads});
  check(value == value_again && posteriors == posteriors_again, "totals don't depend on the number of threads");
  lattice_total(LatticeTotal{lattices, value_again.data(), false, nullptr, nullptr, found.data(), threads});
  check(value == value_again, "the total without posteriors is the total with them");
  for (int64_t b = 0; b < batch; b++) {
    double sum = 0;
    for (int64_t f = final_offsets[b]; f < final_offsets[b + 1]; f++) sum += ends[f];
    check(std::abs(sum - (found[b] == status_ok ? 1.0 : 0.0)) < 1e-9, "posteriors of the final states sum to one");
  }
  lattice_best_scores(LatticeBestScores{lattices, from_start.data(), to_end.data(), threads});
  Array<uint8_t> keep_arcs(weights.size()), keep_finals(final_weights.size()), keep_states(states);
  for (int64_t a = 0; a < keep_arcs.size(); a++) keep_arcs[a] = random.chance(0.8) ? 1 : 0;
  for (int64_t f = 0; f < keep_finals.size(); f++) keep_finals[f] = 1;
  lattice_trim(LatticeTrim{lattices, keep_arcs.data(), keep_finals.data(), keep_states.data(), threads});

  const int64_t count = random.integer(1, 30);
  Array<int32_t> tokens(weights.size());
  for (int64_t a = 0; a < tokens.size(); a++) tokens[a] = static_cast<int32_t>(random.integer(-1, 1));
  const PathSet best = lattice_best_paths(lattices, count, nullptr, 1);
  check(same(best, lattice_best_paths(lattices, count, nullptr, threads)), "nor do the best paths");
  check(
      same(lattice_best_paths(lattices, 3, tokens.data(), 1), lattice_best_paths(lattices, 3, tokens.data(), threads)),
      "nor do the best sequences");
  check(same(lattice_sample(lattices, count, 5, 1), lattice_sample(lattices, count, 5, threads)), "nor do samples");
  for (int64_t b = 0; b < batch; b++) {
    const PathSet::Utterance& own = best.utterances[static_cast<std::size_t>(b)];
    check(own.lengths.empty() == (found[b] != status_ok), "where there is a total there is a path");
    if (own.lengths.empty()) continue;
    double score = final_weights[final_offsets[b] + own.finals[0]];
    for (int64_t i = 0; i < own.lengths[0]; i++)
      score += weights[arc_offsets[b] + own.arcs[static_cast<std::size_t>(i)]];
    const double expected = to_end[state_offsets[b]];
    check(std::abs(score - expected) < 1e-9 * (1 + std::abs(expected)), "the best path has the best score");
    check(score <= value[b] + 1e-9 * (1 + std::abs(score)), "and is part of the total");
  }
}

}  // namespace seqtrain::sanitizers
