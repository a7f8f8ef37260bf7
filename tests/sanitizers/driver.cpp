// Runs every kernel on random batches, for sanitizers to watch: all dtypes and layouts, odd sizes, packed and padded,
// one shared graph and one each, long utterances that are recomputed in segments, outputs that are written past the
// caches, and scores that hold NaN.  Arrays are allocated to the byte, so that a step past their end is found.
//
// It also checks what must hold whatever the numbers are: the same bits for one thread and for several, posteriors that
// sum to one, no value where there is no path.  Exact values are tested from Python, against the reference.
//
//     driver THREADS ROUNDS SEED long|short

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/cpu/kernels.h"
#include "../../csrc/cpu/lattice_kernels.h"

namespace {

using namespace seqtrain;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "wrong: %s\n", what.c_str());
  std::exit(1);
}

inline void check(bool holds, const char* what) {
  if (!holds) fail(what);
}

// splitmix64: the standard's distributions cost more than the kernels under a sanitizer.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return uniform() < probability; }
  // Around zero; the sum of uniform numbers is close enough to a normal one.
  double number(double scale) { return scale * 2 * (uniform() + uniform() + uniform() - 1.5); }

 private:
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

// Memory of just this many elements; never a null pointer.
template <class T>
class Array {
 public:
  explicit Array(int64_t size, T value = T{}) : size_(size), data_(new T[static_cast<std::size_t>(size)]) {
    for (int64_t i = 0; i < size; i++) data_[static_cast<std::size_t>(i)] = value;
  }
  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data_[static_cast<std::size_t>(i)]; }
  bool operator==(const Array& other) const {
    return size_ == other.size_ && std::memcmp(data(), other.data(), static_cast<std::size_t>(size_) * sizeof(T)) == 0;
  }

 private:
  int64_t size_;
  std::unique_ptr<T[]> data_;
};

enum class Layout { contiguous, frames_first, labels_first, spread, packed, packed_spread };

// Scores or a gradient with the memory that they stand in.
struct Rows {
  Array<char> memory;
  Array<int64_t> offsets;
  Tensor tensor;

  Rows(Dtype dtype, Layout layout, int64_t batch, int64_t frames, int64_t labels, const Array<int64_t>& lengths)
      : memory(size(dtype, layout, batch, frames, labels, lengths), '\xff'), offsets(batch + 1), tensor{} {
    for (int64_t b = 0; b < batch; b++) offsets[b + 1] = offsets[b] + lengths[b];
    tensor.data = memory.data();
    tensor.dtype = dtype;
    const int64_t step = layout == Layout::spread || layout == Layout::packed_spread ? 2 : 1;
    tensor.stride_label = step;
    tensor.stride_frame = step * labels;
    tensor.stride_utterance = step * labels * frames;
    if (layout == Layout::frames_first) {
      tensor.stride_frame = labels * batch;
      tensor.stride_utterance = labels;
    } else if (layout == Layout::labels_first) {
      tensor.stride_label = frames;
      tensor.stride_frame = 1;
    }
    if (packed(layout)) tensor.offsets = offsets.data();
  }

  static bool packed(Layout layout) { return layout == Layout::packed || layout == Layout::packed_spread; }

 private:
  static int64_t size(Dtype dtype, Layout layout, int64_t batch, int64_t frames, int64_t labels,
                      const Array<int64_t>& lengths) {
    int64_t rows = batch * frames;
    if (packed(layout)) {
      rows = 0;
      for (int64_t b = 0; b < batch; b++) rows += lengths[b];
    }
    int64_t elements = rows * labels;
    // The last element of a spread tensor has nothing behind it.
    if ((layout == Layout::spread || layout == Layout::packed_spread) && elements > 0) elements = 2 * elements - 1;
    return elements * static_cast<int64_t>(item_size(dtype));
  }
};

struct Shape {
  int64_t batch, frames, labels;
  Layout layout;
  Dtype dtype;
  double spoilt;  // share of scores that are NaN
};

void fill(Random& random, const Shape& shape, const Array<int64_t>& lengths, const Rows& rows) {
  for (int64_t b = 0; b < shape.batch; b++)
    for (int64_t t = 0; t < lengths[b]; t++)
      for (int64_t v = 0; v < shape.labels; v++) {
        double score = random.number(4);
        const double rare = random.uniform();
        if (rare < 0.02) score = -infinity;
        if (rare > 0.99) score *= 1e4;
        if (rare > 1 - shape.spoilt) score = not_a_number;
        store<double>(rows.tensor.row(b, t), shape.dtype, v * rows.tensor.stride_label, score);
      }
}

double element(const Rows& rows, int64_t b, int64_t t, int64_t v) {
  return load<double>(rows.tensor.row(b, t), rows.tensor.dtype, v * rows.tensor.stride_label);
}

int64_t rows_of(const Shape& shape, const Array<int64_t>& lengths) {
  if (!Rows::packed(shape.layout)) return shape.batch * shape.frames;
  int64_t rows = 0;
  for (int64_t b = 0; b < shape.batch; b++) rows += lengths[b];
  return rows;
}

// CTC ---------------------------------------------------------------------------------------------------------------

template <class Real>
struct CtcResult {
  Array<double> loss;
  Array<int64_t> status;
  Rows gradient;
};

template <class Real>
CtcResult<Real> ctc(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths,
                    const Array<int64_t>& targets, int64_t max_targets, const Array<int64_t>& target_lengths,
                    int64_t blank, bool normalize, bool in_place, int threads) {
  const int64_t frames = Rows::packed(shape.layout) ? 0 : shape.frames;
  const int64_t rows = rows_of(shape, lengths);
  CtcResult<Real> result{Array<double>(shape.batch), Array<int64_t>(shape.batch),
                         Rows(shape.dtype, shape.layout, shape.batch, shape.frames, shape.labels, lengths)};
  Array<int64_t> needed(shape.batch);
  const TargetCheck found = check_ctc_targets(
      {shape.batch, shape.labels, max_targets, targets.data(), target_lengths.data(), blank, needed.data()});
  check(found.fault == TargetFault::none, "targets are usable");
  for (int64_t b = 0; b < shape.batch; b++) result.status[b] = lengths[b] < needed[b] ? status_infeasible : status_ok;

  Array<Real> occupancies(rows * (1 + max_targets)), normalizer(normalize ? rows * 2 : 0);
  ctc_forward(CtcForward<Real>{scores.tensor, shape.batch, shape.labels, frames, max_targets, targets.data(),
                               lengths.data(), target_lengths.data(), blank, normalize, result.loss.data(),
                               occupancies.data(), normalizer.data(), result.status.data(), threads});
  Array<double> loss_alone(shape.batch);
  Array<int64_t> status_alone(shape.batch);
  for (int64_t b = 0; b < shape.batch; b++) status_alone[b] = lengths[b] < needed[b] ? status_infeasible : status_ok;
  ctc_forward(CtcForward<Real>{scores.tensor, shape.batch, shape.labels, frames, max_targets, targets.data(),
                               lengths.data(), target_lengths.data(), blank, normalize, loss_alone.data(), nullptr,
                               normalizer.data(), status_alone.data(), threads});
  check(loss_alone == result.loss, "the loss without a gradient is the loss with one");

  Array<double> weight(shape.batch);
  for (int64_t b = 0; b < shape.batch; b++) weight[b] = 0.5 + static_cast<double>(b);
  const auto backward = [&](const Tensor& gradient) {
    ctc_backward(CtcBackward<Real>{scores.tensor,
                                   gradient,
                                   {shape.batch, shape.labels, frames, max_targets},
                                   targets.data(),
                                   lengths.data(),
                                   target_lengths.data(),
                                   blank,
                                   normalize,
                                   weight.data(),
                                   occupancies.data(),
                                   normalizer.data(),
                                   result.status.data(),
                                   threads});
  };
  backward(result.gradient.tensor);
  if (in_place) backward(scores.tensor);
  return result;
}

template <class Real>
void run_ctc(Random& random, const Shape& shape, int64_t max_targets, int threads) {
  const int64_t blank = random.integer(0, shape.labels - 1);
  if (shape.labels == 1) max_targets = 0;
  Array<int64_t> lengths(shape.batch), target_lengths(shape.batch), targets(shape.batch * max_targets);
  for (int64_t b = 0; b < shape.batch; b++) {
    lengths[b] = random.chance(0.5) ? shape.frames : random.integer(0, shape.frames);
    target_lengths[b] = random.chance(0.5) ? max_targets : random.integer(0, max_targets);
  }
  for (int64_t i = 0; i < targets.size(); i++) {
    const int64_t label = random.integer(0, shape.labels - 2);
    targets[i] = label >= blank ? label + 1 : label;
  }
  Rows scores(shape.dtype, shape.layout, shape.batch, shape.frames, shape.labels, lengths);
  fill(random, shape, lengths, scores);
  const bool normalize = random.chance(0.5);
  const CtcResult<Real> one =
      ctc<Real>(shape, scores, lengths, targets, max_targets, target_lengths, blank, normalize, false, 1);
  const CtcResult<Real> many =
      ctc<Real>(shape, scores, lengths, targets, max_targets, target_lengths, blank, normalize, true, threads);
  check(one.loss == many.loss && one.status == many.status, "losses don't depend on the number of threads");
  check(one.gradient.memory == many.gradient.memory, "gradients of CTC don't depend on the number of threads");
  for (int64_t b = 0; b < shape.batch; b++) {
    if (one.status[b] != status_ok) continue;
    check(std::isfinite(one.loss[b]), "a loss with a path is finite");
    const int64_t rows = Rows::packed(shape.layout) ? lengths[b] : shape.frames;
    for (int64_t t = 0; t < rows; t++) {
      double sum = 0;
      for (int64_t v = 0; v < shape.labels; v++) {
        const double value = element(one.gradient, b, t, v);
        check(element(scores, b, t, v) == value, "the gradient in place of the scores is the same");
        sum += value;
      }
      const double expected = normalize || t >= lengths[b] ? 0.0 : -(0.5 + static_cast<double>(b));
      const double share = item_size(shape.dtype) == 2 ? 0.02 : 1e-4;
      check(std::abs(sum - expected) <= share * (1 + static_cast<double>(b)), "gradients of a frame sum to a constant");
    }
  }
}

// Automata ----------------------------------------------------------------------------------------------------------

struct Automata {
  std::vector<int32_t> arcs, final_states, starts, states;
  std::vector<double> weights, final_weights;
  std::vector<int64_t> arc_offsets{0}, final_offsets{0};
};

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

template <class T>
Array<T> exactly(const std::vector<T>& values) {
  Array<T> copy(static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < copy.size(); i++) copy[i] = values[static_cast<std::size_t>(i)];
  return copy;
}

template <class Real>
struct SumResult {
  Array<double> value, arcs, finals;
  Array<int64_t> status;
  Rows gradient;
};

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

// One more on each arc is one more a frame, and changes no occupancy; the scores themselves are a direction, too.
void run_tangents(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                  const Array<int64_t>& status, int64_t width, const SumResult<double>& general, int threads) {
  const int64_t frames = Rows::packed(shape.layout) ? 0 : shape.frames, rows = rows_of(shape, lengths);
  const int64_t copies = graphs.graphs == 1 ? shape.batch : 1;
  const int64_t all_arcs = graphs.arc_offsets[graphs.graphs], all_finals = graphs.final_offsets[graphs.graphs];
  const Array<double> one(all_arcs, 1.0), nothing(all_finals, 0.0);
  Tensor none = scores.tensor;
  none.data = nullptr;
  Array<double> first_slope(0), first_arcs(0);
  for (const int used : {1, threads}) {
    Array<double> slope(shape.batch), arcs(copies * all_arcs), finals(copies * all_finals), occupancies(rows * width);
    Array<int64_t> columns(graphs.graphs * width, -1), found(shape.batch);
    for (int64_t b = 0; b < shape.batch; b++) found[b] = status[b];
    full_sum_tangents({scores.tensor, none, one.data(), nothing.data(), shape.batch, frames, lengths.data(), graphs,
                       width, slope.data(), occupancies.data(), columns.data(), arcs.data(), finals.data(),
                       found.data(), used});
    for (int64_t b = 0; b < shape.batch; b++) {
      check(found[b] == general.status[b], "sums and their tangents find the same utterances usable");
      if (found[b] != status_ok) continue;
      const auto length = static_cast<double>(lengths[b]);
      check(std::abs(slope[b] - length) <= 1e-9 * (1 + length), "an arc a frame");
      for (int64_t t = 0; t < lengths[b]; t++)
        for (int64_t k = 0; k < width; k++)
          check(std::abs(occupancies[(scores.tensor.first_row(b, frames) + t) * width + k]) <= 1e-9 * (1 + length),
                "what moves all paths alike moves no occupancy");
    }
    if (used == threads && used != 1)
      check(slope == first_slope && arcs == first_arcs, "tangents don't depend on the number of threads");
    first_slope = std::move(slope);
    first_arcs = std::move(arcs);
  }
  Array<double> slope(shape.batch), occupancies(rows * width);
  Array<int64_t> columns(graphs.graphs * width, -1), found(shape.batch);
  for (int64_t b = 0; b < shape.batch; b++) found[b] = status[b];
  full_sum_tangents({scores.tensor, scores.tensor, nullptr, nullptr, shape.batch, frames, lengths.data(), graphs, width,
                     slope.data(), occupancies.data(), columns.data(), nullptr, nullptr, found.data(), threads});
}

// The kernel for one graph of all utterances, plain and leaky.
template <class Real>
void run_denominator(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                     const Array<int64_t>& status, int64_t width, const SumResult<Real>& general, int threads) {
  const int64_t frames = Rows::packed(shape.layout) ? 0 : shape.frames, states = graphs.states[0];
  const Array<int32_t> layout = exactly(lay_out_denominator(graphs));
  const Array<double> distribution(states, 1.0 / static_cast<double>(states));
  for (const double leak : {0.0, 0.1}) {
    Array<double> first_value(0), first_arcs(0), first_finals(0);
    Array<Real> first_occupancies(0);
    for (const int used : {1, threads}) {
      Array<double> value(shape.batch), arcs(shape.batch * graphs.arc_offsets[1]),
          finals(shape.batch * graphs.final_offsets[1]);
      Array<Real> occupancies(rows_of(shape, lengths) * width);
      Array<int64_t> found(shape.batch);
      for (int64_t b = 0; b < shape.batch; b++) found[b] = status[b];
      denominator(Denominator<Real>{{scores.tensor, shape.batch, frames, lengths.data(), graphs, width, value.data(),
                                     occupancies.data(), nullptr, arcs.data(), finals.data(), found.data(), used},
                                    layout.data(),
                                    leak,
                                    distribution.data()});
      for (int64_t b = 0; b < shape.batch; b++) {
        if (leak == 0) {
          check(found[b] == general.status[b], "both kernels find the same utterances usable");
          const double error = std::abs(value[b] - general.value[b]);
          check(found[b] != status_ok || error <= 1e-3 * (1 + std::abs(value[b])), "both kernels find the same sum");
        }
        for (int64_t t = 0; found[b] == status_ok && t < lengths[b]; t++) {
          double total = 0;
          for (int64_t k = 0; k < width; k++)
            total += static_cast<double>(occupancies[(scores.tensor.first_row(b, frames) + t) * width + k]);
          check(std::abs(total - 1) <= 1e-4, "occupancies of a frame sum to one");
        }
      }
      if (used == threads && used != 1) {
        check(value == first_value && arcs == first_arcs && finals == first_finals && occupancies == first_occupancies,
              "sums side by side don't depend on the number of threads");
      }
      first_value = std::move(value);
      first_arcs = std::move(arcs);
      first_finals = std::move(finals);
      first_occupancies = std::move(occupancies);
    }
  }
}

// Lattices ----------------------------------------------------------------------------------------------------------

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

// -------------------------------------------------------------------------------------------------------------------

Shape random_shape(Random& random) {
  constexpr Layout layouts[] = {Layout::contiguous, Layout::frames_first, Layout::labels_first,
                                Layout::spread,     Layout::packed,       Layout::packed_spread};
  constexpr Dtype dtypes[] = {Dtype::float16, Dtype::bfloat16, Dtype::float32, Dtype::float64};
  return {random.integer(0, 6),          random.integer(0, 40),        random.integer(1, 70),
          layouts[random.integer(0, 5)], dtypes[random.integer(0, 3)], random.chance(0.1) ? 0.001 : 0.0};
}

// One lattice: arcs in order of their sources, to higher states; dead ends, forbidden arcs, sometimes no end.
void add_lattice(Random& random, int64_t max_states, Automata& all) {
  const int64_t states = random.integer(1, max_states);
  for (int64_t p = 0; p + 1 < states; p++)
    for (int64_t k = random.integer(0, 4); k > 0; k--) {
      const int64_t q = random.integer(p + 1, states - 1);
      for (const int64_t part : {p, q, int64_t{0}}) all.arcs.push_back(static_cast<int32_t>(part));
      all.weights.push_back(random.chance(0.05) ? -infinity : random.number(random.chance(0.1) ? 1e4 : 3));
    }
  for (int64_t f = random.integer(0, 2); f > 0; f--) {
    all.final_states.push_back(static_cast<int32_t>(random.integer(0, states - 1)));
    all.final_weights.push_back(random.number(2));
  }
  all.starts.push_back(0);
  all.states.push_back(static_cast<int32_t>(states));
  all.arc_offsets.push_back(static_cast<int64_t>(all.weights.size()));
  all.final_offsets.push_back(static_cast<int64_t>(all.final_weights.size()));
}

void run_lattices(Random& random, int64_t batch, int64_t max_states, int threads) {
  Automata all;
  for (int64_t b = 0; b < batch; b++) add_lattice(random, max_states, all);
  const int64_t arcs = all.arc_offsets.back(), finals = all.final_offsets.back();
  Array<double> risks(arcs), final_risks(finals), risk(batch), total(batch);
  for (int64_t a = 0; a < arcs; a++) risks[a] = random.number(2);
  for (int64_t f = 0; f < finals; f++) final_risks[f] = random.number(2);
  Array<int32_t> rows(3 * arcs), ends(finals), starts(batch), states(batch);
  Array<double> weights(arcs), final_weights(finals);
  Array<int64_t> arc_offsets(batch + 1), final_offsets(batch + 1);
  std::copy(all.arcs.begin(), all.arcs.end(), rows.data());
  std::copy(all.final_states.begin(), all.final_states.end(), ends.data());
  std::copy(all.starts.begin(), all.starts.end(), starts.data());
  std::copy(all.states.begin(), all.states.end(), states.data());
  std::copy(all.weights.begin(), all.weights.end(), weights.data());
  std::copy(all.final_weights.begin(), all.final_weights.end(), final_weights.data());
  std::copy(all.arc_offsets.begin(), all.arc_offsets.end(), arc_offsets.data());
  std::copy(all.final_offsets.begin(), all.final_offsets.end(), final_offsets.data());
  const Graphs lattices{batch,        rows.data(),          weights.data(),       arc_offsets.data(),
                        ends.data(),  final_weights.data(), final_offsets.data(), starts.data(),
                        states.data()};
  const auto compute = [&](int workers, const Array<double>& gradients, const Array<double>& final_gradients) {
    Array<double> posteriors(arcs), final_posteriors(finals);
    Array<int64_t> status(batch), fault(batch);
    lattice_risk({lattices, risks.data(), final_risks.data(), risk.data(), total.data(), posteriors.data(),
                  gradients.data(), final_posteriors.data(), final_gradients.data(), status.data(), fault.data(),
                  workers});
    for (int64_t b = 0; b < batch; b++) {
      check(fault[b] == 0, "a lattice in order is at fault");
      double ended = 0;
      for (int64_t f = final_offsets[b]; f < final_offsets[b + 1]; f++) ended += final_posteriors[f];
      if (status[b] == status_ok) check(std::abs(ended - 1) < 1e-9, "probabilities of the ends don't sum to one");
    }
  };
  Array<double> one(arcs), final_one(finals), several(arcs), final_several(finals);
  compute(1, one, final_one);
  compute(threads, several, final_several);
  check(one == several && final_one == final_several, "lattice_risk differs with threads");
  // Out of order: found before anything is read that isn't there.
  if (arcs > 0) {
    rows[3 * random.integer(0, arcs - 1) + 1] = 1 << 30;
    Array<int64_t> status(batch), fault(batch);
    lattice_risk({lattices, risks.data(), final_risks.data(), risk.data(), total.data(), nullptr, nullptr, nullptr,
                  nullptr, status.data(), fault.data(), threads});
    int64_t faults = 0;
    for (int64_t b = 0; b < batch; b++) faults += fault[b] != 0;
    check(faults == 1, "an arc to nowhere isn't found");
  }
}

template <class Real>
void run_all(Random& random, const Shape& shape, int threads) {
  run_ctc<Real>(random, shape, random.integer(0, 35), threads);
  run_automata<Real>(random, shape, random.integer(1, 40), random.chance(0.3), threads);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) fail("usage: driver THREADS ROUNDS SEED long|short");
  const int threads = std::atoi(arguments[1]), rounds = std::atoi(arguments[2]);
  Random random(static_cast<uint64_t>(std::atoll(arguments[3])));
  for (int round = 0; round < rounds; round++) {
    const Shape shape = random_shape(random);
    if (shape.dtype == Dtype::float64) {
      run_all<double>(random, shape, threads);
    } else {
      run_all<float>(random, shape, threads);
    }
  }
  for (int round = 0; round < rounds; round++) run_lattices(random, random.integer(1, 5), 30, threads);
  run_lattices(random, 8, 9000, threads);
  // Enough work that every thread gets some of it.
  for (const Layout layout : {Layout::contiguous, Layout::packed, Layout::frames_first}) {
    const Shape busy{8, 150, 200, layout, Dtype::float32, 0};
    run_ctc<float>(random, busy, 40, threads);
    run_automata<float>(random, busy, 60, true, threads);
    run_automata<float>(random, busy, 60, false, threads);
  }
  int batches = rounds + 3;
  for (int round = 0; round < 12; round++)  // several groups of utterances side by side
    run_automata<float>(random, {random.integer(9, 40), 12, 9, Layout::contiguous, Dtype::float32, 0}, 5, false,
                        threads);
  batches += 12;
  if (std::string(arguments[4]) == "long") {
    batches += 5;
    // Recomputed in segments (csrc/cpu/segments.h).
    run_ctc<float>(random, {1, 4300, 2, Layout::packed, Dtype::float32, 0}, 1000, threads);
    run_ctc<double>(random, {1, 2200, 2, Layout::contiguous, Dtype::float64, 0}, 1000, threads);
    run_automata<float>(random, {1, 3800, 2, Layout::contiguous, Dtype::float32, 0}, 1700, true, threads);
    // Written past the caches.
    run_ctc<float>(random, {3, 30, 93'487, Layout::contiguous, Dtype::float32, 0}, 5, threads);
    run_automata<float>(random, {3, 30, 93'487, Layout::contiguous, Dtype::float32, 0}, 5, true, threads);
  }
  std::printf("%d batches with %d threads\n", batches, threads);
  return 0;
}
