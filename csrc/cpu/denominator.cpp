// Full sum over one automaton that all utterances share: several utterances side by side, forward sweep with
// checkpoints, backward sweep with occupancies.  Utterances that scaled floats can't hold are done again in doubles,
// and then by the general kernel, whose states have exponents of their own.

#include "../recursion/denominator.h"

#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "graph_view.h"
#include "interleave.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "segments.h"

namespace seqtrain {
namespace {

constexpr double log_two = 0.69314718055994530942;
constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Real, class Out>
struct Prepared {
  const Denominator<Out>& problem;
  const DenominatorLayout& layout;
  DenominatorWeights<Real> weights;
  std::vector<char>& done;  // (B,) whether an utterance has its result
};

// Up to `Width` utterances.  All arrays have rows of `Width` numbers, one an utterance.
template <class Real, class Out, int64_t Width>
class DenominatorGroup {
  using Values = Row<Real, Width>;
  using Exponent = ExponentOf<Real>;

 public:
  void run(const Prepared<Real, Out>& prepared, const int64_t* utterances, int64_t count) {
    prepared_ = &prepared;
    graph_ = &prepared.layout;
    utterances_ = utterances;
    count_ = count;
    frames_ = 0;
    for (int64_t l = 0; l < count; l++) frames_ = std::max(frames_, length(l));
    const int64_t nodes = graph_->nodes() * Width, columns = tile();
    const Segments segments =
        Segments::filling(frames_, (nodes + columns) * static_cast<int64_t>(sizeof(Real)), budget);
    allocate(segments);
    sweep_forward_all(segments);
    sweep_back(segments);
    for (int64_t l = 0; l < count_; l++) conclude(l);
  }

 private:
  // Of forward scores and emissions, a thread: they are slower computed twice than fetched.
  static constexpr int64_t budget = int64_t{64} << 20;

  const FullSum<Out>& sum() const { return prepared_->problem.sum; }
  int64_t length(int64_t l) const { return sum().lengths[utterances_[l]]; }
  int64_t& status(int64_t l) const { return sum().status[utterances_[l]]; }
  int64_t tile() const { return graph_->columns * Width; }  // numbers in a frame's emissions
  const Real* leak() const { return prepared_->weights.leak.empty() ? nullptr : prepared_->weights.leak.data(); }

  void allocate(const Segments& segments) {
    const int64_t nodes = graph_->nodes() * Width, rows = (frames_ + 1) * Width;
    const std::array<std::pair<Real**, int64_t>, 8> parts{{{&alpha_, (segments.length + 1) * nodes},
                                                           {&emission_, segments.length * tile()},
                                                           {&checkpoint_, segments.count * nodes},
                                                           {&source_, leak() == nullptr ? 0 : nodes},
                                                           {&beta_, graph_->slots * Width},
                                                           {&product_, graph_->arrivals * Width},
                                                           {&occupancy_, tile()},
                                                           {&total_, rows}}};
    // In one piece: memory of this size gets huge pages, and the arcs jump about in it.
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(Real));
    int64_t size = 0;
    for (const auto& [start, numbers] : parts) size += (numbers + line - 1) / line * line;
    Real* next = memory_.reserve(at(size));
    for (const auto& [start, numbers] : parts) {
      *start = next;
      next += (numbers + line - 1) / line * line;
    }
    exponent_.assign(at(rows), 0);
    std::fill(beta_, beta_ + graph_->slots * Width, Real{0});
    for (int64_t l = 0; l < Width; l++) {
      offset_[l] = 0;
      likelihood_[l] = -infinity;
      doubt_[l] = 0;
      alive_[l] = l < count_;
    }
    if (sum().arc_occupancies == nullptr) return;
    arcs_ = arcs_memory_.reserve(at(graph_->arcs * Width));
    std::fill(arcs_, arcs_ + graph_->arcs * Width, 0.0);
  }

  Real* alpha(int64_t slot) const { return alpha_ + slot * graph_->nodes() * Width; }
  Real* checkpoint(int64_t segment) const { return checkpoint_ + segment * graph_->nodes() * Width; }
  Real* emission(int64_t slot) const { return emission_ + slot * tile(); }
  Values total(int64_t t) const { return Values::load(total_ + t * Width); }
  void copy(Real* to, const Real* from) const { std::memcpy(to, from, at(graph_->nodes() * Width) * sizeof(Real)); }

  // Values before frame t, times 2^exponent_[t], are the true ones.
  int64_t& exponent(int64_t t, int64_t l) { return exponent_[at(t * Width + l)]; }

  // Nodes of the frame before, with what leaks.
  const Real* source(const Real* nodes, int64_t t) const {
    if (leak() == nullptr) return nodes;
    leak_forward<Real, Width>(*graph_, leak(), nodes, total(t), source_);
    return source_;
  }

  void sweep_forward_all(const Segments& segments) {
    std::fill(alpha(0), alpha(1), Real{0});
    const Real one = std::ldexp(Real{1}, Scaling<Real>::target);
    const int64_t start = graph_->slot_node[graph_->start_slot];
    for (int64_t l = 0; l < Width; l++) {
      alpha(0)[start * Width + l] = one;
      total_[l] = one;
      exponent(0, l) = -Scaling<Real>::target;
    }
    finish_lanes(alpha(0), 0);
    for (int64_t segment = 0; segment < segments.count; segment++) {
      if (segment > 0) copy(alpha(0), alpha(segments.length));
      copy(checkpoint(segment), alpha(0));
      for (int64_t t = segments.begin(segment); t < segments.end(segment, frames_); t++)
        step_forward(t, t - segments.begin(segment), true);
    }
  }

  // Emission of frame t into `slot`, its alpha into the slot behind.
  void step_forward(int64_t t, int64_t slot, bool first) {
    emit(t, slot, first);
    alignas(64) Real factor[Width];
    for (int64_t l = 0; l < Width; l++) {
      if (first) exponent(t + 1, l) = exponent(t, l) - scaling_exponent(total_[t * Width + l]);
      factor[l] = std::ldexp(Real{1}, static_cast<int>(exponent(t, l) - exponent(t + 1, l)));
    }
    const Real* before = source(alpha(slot), t);
    const Values found = advance<Real, Width>(*graph_, prepared_->weights.incoming.data(), before, emission(slot),
                                              Values::load(factor), alpha(slot + 1));
    if (!first) return;
    found.store(total_ + (t + 1) * Width);
    finish_lanes(alpha(slot + 1), t + 1);
  }

  // Likelihoods of the utterances that end before frame t.
  void finish_lanes(const Real* nodes, int64_t t) {
    bool any = false;
    for (int64_t l = 0; l < count_; l++) any = any || length(l) == t;
    if (!any) return;
    const Real* ends = source(nodes, t);
    for (int64_t l = 0; l < count_; l++) {
      if (length(l) != t || !alive_[l]) continue;
      double mass = 0;
      for (int64_t s = 0; s < graph_->slots; s++)
        mass += static_cast<double>(ends[graph_->slot_node[s] * Width + l]) * prepared_->weights.final_weight[at(s)];
      likelihood_[l] = std::log2(mass) + static_cast<double>(exponent(t, l));
      if (sum().final_occupancies == nullptr || !(mass > 0)) continue;
      double* out = sum().final_occupancies + utterances_[l] * graph_->finals;
      const GraphView graph = view(sum().graphs, 0);
      for (int64_t f = 0; f < graph_->finals; f++) {
        const int32_t s = graph_->final_slot[f];
        if (s < 0) continue;
        const double share = std::exp(graph.final_weight[f] - prepared_->weights.largest_final) / mass;
        out[f] = static_cast<double>(ends[graph_->slot_node[s] * Width + l]) * share;
      }
    }
  }

  // exp of the frame's scores relative to each utterance's largest; 0 past an utterance's end.
  void emit(int64_t t, int64_t slot, bool first) {
    constexpr Real infinite = std::numeric_limits<Real>::infinity();
    Real* out = emission(slot);
    const Seen<Real, Width> seen = gather(t, out);
    const int64_t columns = graph_->columns;
    alignas(64) Real largest[Width], usable[Width];
    alignas(64) Exponent top[Width];
    seen.largest.store(largest);
    seen.usable.store(usable);
    for (int64_t l = 0; l < Width; l++) {
      if (l < count_ && usable[l] == 0 && alive_[l]) {
        alive_[l] = false;
        if (t < length(l)) status(l) = 1 + t;
        for (int64_t k = 0; k < columns; k++) out[k * Width + l] = -infinite;
        largest[l] = -infinite;
      }
      if (!(largest[l] > -infinite)) largest[l] = 0;
      top[l] = 0;
      double taken;
      if (std::abs(largest[l]) < Real(1 << 14)) {
        // A power of two: exp keeps all digits of the score.
        top[l] = static_cast<Exponent>(std::rint(largest[l] * LogTwo<Real>::inverse));
        taken = static_cast<double>(top[l]) * log_two;
      } else {
        taken = static_cast<double>(largest[l]);
        for (int64_t k = 0; k < columns; k++)
          out[k * Width + l] = static_cast<Real>(static_cast<double>(out[k * Width + l]) - taken);
      }
      if (first && t < (l < count_ ? length(l) : 0)) offset_[l] += taken;
    }
    exponential_of_rows<Real, Width>(top, columns, out);
  }

  // The scores of the frame's columns, utterances side by side; -inf where there are none.
  Seen<Real, Width> gather(int64_t t, Real* out) {
    const int64_t columns = graph_->columns;
    const int32_t* label = graph_->column_label;
    const Tensor& scores = sum().scores;
    const Real* rows[Width];
    int64_t stride[Width];
    const int64_t labels = columns > 0 ? label[columns - 1] + 1 : 0;
    for (int64_t l = 0; l < Width; l++) {
      rows[l] = nullptr;
      if (l >= count_ || !alive_[l] || t >= length(l)) continue;
      const char* row = scores.row(utterances_[l], t);
      stride[l] = 1;
      if (scores.dtype == dtype_of<Real>()) {
        rows[l] = reinterpret_cast<const Real*>(row);
        stride[l] = scores.stride_label;
      } else {
        rows[l] = contiguous_row(scores, row, labels, wide_memory_[l].reserve(at(labels)));
      }
    }
    return interleave_columns<Real, Width>(rows, stride, label, columns, out);
  }

  // Behind an utterance's last frame stand its final weights.
  void start_back(int64_t t, int64_t* exponents) {
    for (int64_t l = 0; l < count_; l++) {
      if (length(l) != t) continue;
      double leaking = 0;
      for (int64_t s = 0; s < graph_->slots; s++) {
        const double weight = std::ldexp(prepared_->weights.final_weight[at(s)], Scaling<Real>::target);
        const Real kept = std::max(static_cast<Real>(weight), scaled_floor<Real>());
        beta_[s * Width + l] = weight > 0 ? kept : Real{0};
        if (leak() != nullptr) leaking += weight * static_cast<double>(leak()[s]);
      }
      if (leak() != nullptr)
        for (int64_t s = 0; s < graph_->slots; s++) beta_[s * Width + l] += static_cast<Real>(leaking);
      exponents[l] = -Scaling<Real>::target;
      Real sum_of_slots = 0;
      for (int64_t s = 0; s < graph_->slots; s++) sum_of_slots += beta_[s * Width + l];
      beta_total_[l] = sum_of_slots;
    }
  }

  void sweep_back(const Segments& segments) {
    int64_t exponents[Width] = {};
    for (int64_t l = 0; l < Width; l++) beta_total_[l] = 0;
    for (int64_t segment = segments.count - 1; segment >= 0; segment--) {
      const int64_t begin = segments.begin(segment), end = segments.end(segment, frames_);
      if (segment < segments.count - 1) {
        copy(alpha(0), checkpoint(segment));
        for (int64_t t = begin; t < end; t++) step_forward(t, t - begin, false);
      }
      map_occupancies(begin, end);
      for (int64_t t = end - 1; t >= begin; t--) {
        start_back(t + 1, exponents);
        step_back(t, t - begin, exponents);
      }
    }
  }

  void step_back(int64_t t, int64_t slot, int64_t* exponents) {
    alignas(64) Real half[Width], other_half[Width], factor[Width];
    for (int64_t l = 0; l < Width; l++) {
      half[l] = other_half[l] = 0;
      const int power = scaling_exponent(beta_total_[l]);
      factor[l] = std::ldexp(Real{1}, power);
      if (here(l, t)) {
        // log2 of the likelihood in the units of alpha · beta.
        const double scaled = likelihood_[l] - static_cast<double>(exponent(t + 1, l) + exponents[l]);
        if (!(scaled > Scaling<Real>::lowest_likelihood)) {
          doubt_[l] = infinity;
        } else {
          half[l] = static_cast<Real>(std::exp2(-scaled / 2));
          other_half[l] = half[l];
        }
      }
      exponents[l] -= power;
    }
    const Occupied<Real, Width> found =
        occupy<Real, Width>(*graph_, alpha(slot + 1), beta_, emission(slot), Values::load(half),
                            Values::load(other_half), Values::load(factor), product_, occupancy_);
    alignas(64) Real sums[Width], doubtful[Width];
    found.total.store(sums);
    found.doubtful.store(doubtful);
    for (int64_t l = 0; l < count_; l++) {
      if (!here(l, t)) continue;
      doubt_[l] += static_cast<double>(doubtful[l]);
      // Forward and backward sums meet in the same likelihood.
      if (!(std::abs(static_cast<double>(sums[l]) - 1) < 0.01)) doubt_[l] = infinity;
    }
    if (sum().occupancies != nullptr) write_occupancies(t, sums);
    if (sum().arc_occupancies != nullptr) add_arc_occupancies(t, slot, exponents, sums);
    if (t == 0) return;
    const Retreated<Real, Width> back =
        retreat<Real, Width>(*graph_, prepared_->weights.outgoing.data(), leak(), product_, beta_);
    alignas(64) Real leaking[Width];
    back.total.store(beta_total_);
    back.leaking.store(leaking);
    if (leak() == nullptr) return;
    const Real least = std::ldexp(Real{1}, Scaling<Real>::lowest_leak);
    for (int64_t l = 0; l < count_; l++) {
      beta_total_[l] += leaking[l] * static_cast<Real>(graph_->slots);
      if (here(l, t) && !(leaking[l] > least)) doubt_[l] = infinity;
    }
  }

  bool here(int64_t l, int64_t t) const { return l < count_ && alive_[l] && t < length(l); }

  Out* occupancies(int64_t l, int64_t t) const {
    const FullSum<Out>& problem = sum();
    return problem.occupancies + (problem.scores.first_row(utterances_[l], problem.max_frames) + t) * problem.width;
  }

  // A segment's output, where all of it is so large that its memory is fresh.
  void map_occupancies(int64_t begin, int64_t end) const {
    const FullSum<Out>& problem = sum();
    if (problem.occupancies == nullptr) return;
    const int64_t row = problem.width * static_cast<int64_t>(sizeof(Out));
    if (problem.scores.rows(problem.batch, problem.max_frames) * row <= streaming_bytes) return;
    for (int64_t l = 0; l < count_; l++) {
      const int64_t rows = std::min(end, length(l)) - begin;
      if (rows > 0) map_pages(occupancies(l, begin), at(rows * row));
    }
  }

  void write_occupancies(int64_t t, const Real* sums) {
    const FullSum<Out>& problem = sum();
    Out* rows[Width];
    alignas(64) Real inverse[Width] = {};
    for (int64_t l = 0; l < Width; l++) {
      rows[l] = nullptr;
      if (!here(l, t)) continue;
      rows[l] = occupancies(l, t);
      inverse[l] = sums[l] > 0 ? Real{1} / sums[l] : Real{0};
    }
    separate_columns<Real, Out, Width>(occupancy_, inverse, graph_->columns, rows);
    for (int64_t l = 0; l < Width; l++)
      if (rows[l] != nullptr)
        for (int64_t k = graph_->columns; k < problem.width; k++) rows[l][k] = 0;
  }

  // `exponents` are those of the products.
  void add_arc_occupancies(int64_t t, int64_t slot, const int64_t* exponents, const Real* sums) {
    const Real* before = source(alpha(slot), t);
    alignas(64) double scale[Width];
    for (int64_t l = 0; l < Width; l++) {
      scale[l] = 0;
      if (!here(l, t) || !(sums[l] > 0)) continue;
      const double scaled = likelihood_[l] - static_cast<double>(exponent(t, l) + exponents[l]);
      scale[l] = std::exp2(-scaled) / static_cast<double>(sums[l]);
    }
    const Real* weight = prepared_->weights.incoming.data();
    for (int64_t m = 0; m < graph_->arrivals; m++) {
      const Real* __restrict product = product_ + m * Width;
      for (int64_t i = graph_->incoming_begin[m]; i < graph_->incoming_begin[m + 1]; i++) {
        const Real* __restrict from = before + graph_->incoming_node[i] * Width;
        double* __restrict out = arcs_ + i * Width;
        const auto w = static_cast<double>(weight[i]);
#pragma omp simd
        for (int64_t l = 0; l < Width; l++)
          out[l] += static_cast<double>(from[l]) * static_cast<double>(product[l]) * (w * scale[l]);
      }
    }
  }

  void conclude(int64_t l) {
    const int64_t b = utterances_[l];
    if (!alive_[l]) {
      prepared_->done[at(b)] = 1;
      return;
    }
    const bool sure = doubt_[l] <= Scaling<Real>::tolerance;
    if (likelihood_[l] == -infinity && sure) {
      status(l) = status_no_path;
      prepared_->done[at(b)] = 1;
      return;
    }
    if (!sure || !(likelihood_[l] < infinity)) return;
    prepared_->done[at(b)] = 1;
    sum().value[b] = offset_[l] + prepared_->weights.largest_final +
                     static_cast<double>(length(l)) * prepared_->weights.largest + likelihood_[l] * log_two;
    if (sum().arc_occupancies == nullptr) return;
    double* out = sum().arc_occupancies + b * (sum().graphs.arc_offsets[1] - sum().graphs.arc_offsets[0]);
    for (int64_t i = 0; i < graph_->arcs; i++) out[graph_->incoming_arc[i]] = arcs_[i * Width + l];
  }

  const Prepared<Real, Out>* prepared_ = nullptr;
  const DenominatorLayout* graph_ = nullptr;
  const int64_t* utterances_ = nullptr;
  int64_t count_ = 0, frames_ = 0;
  double offset_[Width], likelihood_[Width], doubt_[Width];
  bool alive_[Width];
  alignas(64) Real beta_total_[Width];
  std::vector<int64_t> exponent_;
  Real *alpha_ = nullptr, *checkpoint_ = nullptr, *source_ = nullptr, *emission_ = nullptr, *beta_ = nullptr,
       *product_ = nullptr, *occupancy_ = nullptr, *total_ = nullptr;
  double* arcs_ = nullptr;
  Scratch<Real> memory_, wide_memory_[Width];
  Scratch<double> arcs_memory_;
};

// The utterances that have no result yet, the longest side by side.
template <class Real, class Out, int64_t Width>
void run_groups(const Prepared<Real, Out>& prepared, const std::vector<int64_t>& order) {
  const FullSum<Out>& problem = prepared.problem.sum;
  const auto count = static_cast<int64_t>(order.size());
  std::vector<double> work;
  for (int64_t first = 0; first < count; first += Width)
    work.push_back(static_cast<double>(prepared.layout.arcs + 16) *
                   static_cast<double>(problem.lengths[order[at(first)]] + 1) * 4.0);
  for_each_utterance<DenominatorGroup<Real, Out, Width>>(
      work, problem.threads, [&](int64_t g, DenominatorGroup<Real, Out, Width>& group) {
        group.run(prepared, order.data() + g * Width, std::min(Width, count - g * Width));
      });
}

template <class Real, class Out>
void run_pending(const Denominator<Out>& problem, const DenominatorLayout& layout, std::vector<char>& done) {
  std::vector<int64_t> order;
  for (int64_t b = 0; b < problem.sum.batch; b++)
    if (done[at(b)] == 0) order.push_back(b);
  if (order.empty()) return;
  Prepared<Real, Out> prepared{problem, layout, {}, done};
  prepared.weights.build(view(problem.sum.graphs, 0), layout, problem.leak, problem.distribution);
  if (!prepared.weights.in_range) return;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return problem.sum.lengths[a] > problem.sum.lengths[b]; });
  const auto count = static_cast<int64_t>(order.size());
  if constexpr (sizeof(Real) == sizeof(float)) {
    // Half-empty rows, and threads without a row, cost more than narrow rows do.
    const int64_t wide = 16;
    if (count > wide / 2 && (count + wide - 1) / wide >= std::min<int64_t>(problem.sum.threads, (count + 7) / 8)) {
      run_groups<Real, Out, 16>(prepared, order);
      return;
    }
  }
  run_groups<Real, Out, 8>(prepared, order);
}

// The general kernel, for the utterances that have no result yet.
template <class Real>
void run_general(const FullSum<Real>& problem, const std::vector<char>& done) {
  std::vector<int64_t> status(problem.status, problem.status + problem.batch);
  bool any = false;
  for (int64_t b = 0; b < problem.batch; b++) {
    if (done[at(b)] != 0) problem.status[b] = status_infeasible;
    any = any || done[at(b)] == 0;
    if (done[at(b)] != 0 || problem.final_occupancies == nullptr) continue;
    const int64_t finals = problem.graphs.final_offsets[1];
    std::fill(problem.final_occupancies + b * finals, problem.final_occupancies + (b + 1) * finals, 0.0);
  }
  if (any) full_sum(problem);
  for (int64_t b = 0; b < problem.batch; b++)
    if (done[at(b)] != 0) problem.status[b] = status[at(b)];
}

}  // namespace

std::vector<int32_t> lay_out_denominator(const Graphs& graphs) { return lay_out_denominator(view(graphs, 0)); }

template <class Real>
void denominator(const Denominator<Real>& problem) {
  const DenominatorLayout layout(problem.layout);
  std::vector<char> done(at(problem.sum.batch));
  for (int64_t b = 0; b < problem.sum.batch; b++) done[at(b)] = problem.sum.status[b] != status_ok;
  if (layout.start_slot < 0) {
    for (int64_t b = 0; b < problem.sum.batch; b++)
      if (done[at(b)] == 0) problem.sum.status[b] = status_no_path;
    return;
  }
  run_pending<Real>(problem, layout, done);
  if constexpr (sizeof(Real) == sizeof(float)) run_pending<double>(problem, layout, done);
  if (problem.leak == 0) {
    run_general(problem.sum, done);
    return;
  }
  for (int64_t b = 0; b < problem.sum.batch; b++)
    if (done[at(b)] == 0) problem.sum.status[b] = status_no_path;
}

template void denominator<float>(const Denominator<float>&);
template void denominator<double>(const Denominator<double>&);

}  // namespace seqtrain
