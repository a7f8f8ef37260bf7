// Automata: sums, best paths, and the kernels that take the same automata.

#include <algorithm>
#include <cmath>
#include <utility>

#include "../../csrc/cpu/lattice_kernels.h"
#include "automata.h"
#include "runs.h"

namespace seqtrain::sanitizers {

namespace {

void add_random_graph(Random& random, int64_t labels, int64_t max_states, Automata& all) {
  const int64_t states = random.integer(1, max_states);
  const int64_t arcs = random.integer(0, 6 * states);
  const bool acyclic = random.chance(0.3);
  for (int64_t a = 0; a < arcs; a++) {
    int64_t source = random.integer(0, states - 1), destination = random.integer(0, states - 1);
    if (acyclic && source > destination) std::swap(source, destination);
    all.arcs.insert(all.arcs.end(), {static_cast<int32_t>(source), static_cast<int32_t>(destination),
                                     static_cast<int32_t>(random.integer(0, labels - 1))});
    all.weights.push_back(random.chance(0.1) ? -infinity : random.number(2));
  }
  for (int64_t s = 0; s < states; s++)
    if (random.chance(0.3) || s == states - 1) {
      all.final_states.push_back(static_cast<int32_t>(s));
      all.final_weights.push_back(random.chance(0.1) ? -infinity : random.number(2));
    }
  all.starts.push_back(acyclic ? 0 : static_cast<int32_t>(random.integer(0, states - 1)));
  all.states.push_back(static_cast<int32_t>(states));
  all.arc_offsets.push_back(static_cast<int64_t>(all.weights.size()));
  all.final_offsets.push_back(static_cast<int64_t>(all.final_weights.size()));
}

// A chain with loops, as of a hidden Markov model: rows of neighbours.
void add_chain(Random& random, int64_t labels, int64_t length, Automata& all) {
  for (int64_t s = 0; s < length; s++) {
    const auto label = static_cast<int32_t>(random.integer(0, labels - 1));
    const auto from = static_cast<int32_t>(s), to = static_cast<int32_t>(s + 1);
    all.arcs.insert(all.arcs.end(), {from, to, label, to, to, label});
    all.weights.insert(all.weights.end(), {-1.0, -0.5});
  }
  all.final_states.push_back(static_cast<int32_t>(length));
  all.final_weights.push_back(0);
  all.starts.push_back(0);
  all.states.push_back(static_cast<int32_t>(length + 1));
  all.arc_offsets.push_back(static_cast<int64_t>(all.weights.size()));
  all.final_offsets.push_back(static_cast<int64_t>(all.final_weights.size()));
}

template <class Real>
SumResult<Real> sum(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                    const Array<int64_t>& status, int64_t width, int threads) {
  const bool shared = graphs.graphs == 1;
  const int64_t frames = Rows::packed(shape.layout) ? 0 : shape.frames;
  const int64_t copies = shared ? shape.batch : 1;
  SumResult<Real> result{Array<double>(shape.batch), Array<double>(copies * graphs.arc_offsets[graphs.graphs]),
                         Array<double>(copies * graphs.final_offsets[graphs.graphs]), Array<int64_t>(shape.batch),
                         Rows(shape.dtype, shape.layout, shape.batch, shape.frames, shape.labels, lengths)};
  for (int64_t b = 0; b < shape.batch; b++) result.status[b] = status[b];
  Array<Real> occupancies(rows_of(shape, lengths) * width);
  Array<int64_t> columns(graphs.graphs * width, -1);
  full_sum(FullSum<Real>{scores.tensor, shape.batch, frames, lengths.data(), graphs, width, result.value.data(),
                         occupancies.data(), columns.data(), result.arcs.data(), result.finals.data(),
                         result.status.data(), threads});
  Array<double> value_alone(shape.batch);
  Array<int64_t> status_alone(shape.batch);
  for (int64_t b = 0; b < shape.batch; b++) status_alone[b] = status[b];
  full_sum(FullSum<Real>{scores.tensor, shape.batch, frames, lengths.data(), graphs, width, value_alone.data(), nullptr,
                         nullptr, nullptr, nullptr, status_alone.data(), threads});
  check(value_alone == result.value, "the value without occupancies is the value with them");
  Array<double> weight(shape.batch, 1.0);
  scatter_occupancies(Scatter<Real>{result.gradient.tensor, shape.batch, shape.labels, frames, width, lengths.data(),
                                    occupancies.data(), columns.data(), shared, weight.data(), result.status.data(),
                                    threads});
  return result;
}

}  // namespace

template <class Real>
void run_automata(Random& random, const Shape& shape, int64_t max_states, bool chains, int threads) {
  const bool shared = shape.batch == 1 || random.chance(0.3);
  const int64_t count = shared ? 1 : shape.batch;
  Automata all;
  for (int64_t g = 0; g < count; g++) {
    if (chains) {
      add_chain(random, shape.labels, max_states, all);
    } else {
      add_random_graph(random, shape.labels, max_states, all);
    }
  }
  const auto arcs = exactly(all.arcs), finals = exactly(all.final_states), starts = exactly(all.starts),
             states = exactly(all.states);
  const auto weights = exactly(all.weights), final_weights = exactly(all.final_weights);
  const auto arc_offsets = exactly(all.arc_offsets), final_offsets = exactly(all.final_offsets);
  const Graphs graphs{count,         arcs.data(),          weights.data(),       arc_offsets.data(),
                      finals.data(), final_weights.data(), final_offsets.data(), starts.data(),
                      states.data()};
  Array<int64_t> lengths(shape.batch), status(shape.batch), fewest(count), most(count), labels(count);
  for (int64_t b = 0; b < shape.batch; b++)
    lengths[b] = random.chance(0.5) ? shape.frames : random.integer(0, shape.frames);
  summarize(graphs, fewest.data(), most.data(), labels.data(), threads);
  int64_t width = 0;
  for (int64_t g = 0; g < count; g++) width = std::max(width, labels[g]);
  for (int64_t b = 0; b < shape.batch; b++) {
    const int64_t g = shared ? 0 : b;
    if (fewest[g] < 0 || lengths[b] < fewest[g] || (most[g] >= 0 && lengths[b] > most[g]))
      status[b] = status_infeasible;
  }

  Rows scores(shape.dtype, shape.layout, shape.batch, shape.frames, shape.labels, lengths);
  fill(random, shape, lengths, scores);
  const SumResult<Real> one = sum<Real>(shape, scores, lengths, graphs, status, width, 1);
  const SumResult<Real> many = sum<Real>(shape, scores, lengths, graphs, status, width, threads);
  check(one.value == many.value && one.status == many.status, "sums don't depend on the number of threads");
  check(one.arcs == many.arcs && one.finals == many.finals, "nor do the occupancies of arcs and final states");
  check(one.gradient.memory == many.gradient.memory, "nor do the gradients");
  if constexpr (sizeof(Real) == sizeof(double))
    run_tangents(shape, scores, lengths, graphs, status, width, one, threads);
  if (shared) run_denominator<Real>(shape, scores, lengths, graphs, status, width, one, threads);
  for (int64_t b = 0; b < shape.batch; b++) {
    const int64_t rows = Rows::packed(shape.layout) ? lengths[b] : shape.frames;
    for (int64_t t = 0; t < rows; t++) {
      double total = 0;
      for (int64_t v = 0; v < shape.labels; v++) total += element(one.gradient, b, t, v);
      const bool alive = one.status[b] == status_ok && t < lengths[b];
      check(std::abs(total - (alive ? 1.0 : 0.0)) <= (item_size(shape.dtype) == 2 ? 0.02 : 1e-4),
            "posteriors of a frame sum to one");
    }
  }

  const int64_t padded = shape.batch * shape.frames;
  Array<double> best(shape.batch);
  Array<int64_t> path_labels(padded, -1), path_states(padded, -1), path_arcs(padded, -1), path_status(shape.batch);
  for (int64_t b = 0; b < shape.batch; b++) path_status[b] = status[b];
  best_path(BestPath{scores.tensor, shape.batch, shape.frames, lengths.data(), graphs, best.data(), path_labels.data(),
                     path_states.data(), path_arcs.data(), path_status.data(), threads});
  for (int64_t b = 0; b < shape.batch; b++) {
    if (one.status[b] != status_ok) continue;
    check(path_status[b] == status_ok, "where there is a sum there is a best path");
    check(best[b] <= one.value[b] + 1e-3 * (1 + std::abs(best[b])), "the best path is part of the sum");
  }
  // Long utterances are there for the sums that are recomputed in segments.
  if (shape.frames <= 200) run_lattices(random, scores, lengths, graphs, status, threads);
}

template void run_automata<float>(Random&, const Shape&, int64_t, bool, int);
template void run_automata<double>(Random&, const Shape&, int64_t, bool, int);

}  // namespace seqtrain::sanitizers
