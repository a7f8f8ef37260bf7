// Full sum over a batch of automata: forward sweep, backward sweep with occupancies, and their dense gradient.

#include "../recursion/full_sum.h"

#include <cstring>
#include <limits>

#include "../recursion/emission.h"
#include "graph_view.h"
#include "kernels.h"
#include "later_scores.h"
#include "memory.h"
#include "parallel.h"
#include "prefetch.h"
#include "segments.h"
#include "sparse_rows.h"

namespace seqtrain {
namespace {

template <class Real>
class FullSumUtterance {
  using Exponent = ExponentOf<Real>;

 public:
  // `next` is the utterance that comes after this one, or -1.
  void run(const FullSum<Real>& problem, int64_t b, const GraphLayout<Real>& graph, int64_t next) {
    graph_ = &graph;
    offset_ = 0;
    const int64_t frames = problem.lengths[b];
    const int64_t g = problem.graphs.graphs > 1 ? b : 0;
    if (graph.start_slot < 0) {
      problem.status[b] = status_no_path;
      return;
    }
    if (frames == 0) {
      run_empty(problem, b, g);
      return;
    }
    const int64_t nodes = padded(graph.nodes()), arrivals = padded(graph.arrivals), slots = padded(graph.slots());
    const Segments segments(frames, 2 * (nodes + arrivals) * static_cast<int64_t>(sizeof(Real)));
    node_width_ = nodes;
    arrival_width_ = arrivals;
    allocate(segments, frames, nodes, arrivals, slots,
             problem.scores.stride_label * static_cast<int64_t>(item_size(problem.scores.dtype)));

    for (int64_t segment = 0; segment < segments.count; segment++) {
      // Slot 0 of a segment holds the frame before it.
      if (segment == 0) {
        start(graph, alpha(0));
      } else {
        copy(alpha(0), alpha(segments.length));
      }
      copy(checkpoint(segment), alpha(0));
      if (!sweep_forward(problem, b, segments.begin(segment), segments.end(segment, frames))) return;
    }
    const Values<Real> last = alpha(segments.end(segments.count - 1, frames) - segments.begin(segments.count - 1));
    Values<Real> beta{beta_ + lanes, beta_exponent_ + lanes};
    finish(graph, beta);
    const double likelihood = log2_likelihood(last, beta);
    if (!(likelihood > -std::numeric_limits<double>::infinity())) {
      problem.status[b] = status_no_path;
      return;
    }
    double shift = 0;
    for (int64_t t = 0; t < frames; t++) shift += static_cast<double>(shift_[t]);
    problem.value[b] = offset_ + graph.largest_final_weight + static_cast<double>(frames) * graph.largest_weight +
                       (likelihood + shift) * 0.69314718055994530942;
    if (problem.occupancies == nullptr && problem.arc_occupancies == nullptr) return;
    if (problem.arc_occupancies != nullptr) final_occupancies(problem, b, g, last, likelihood);
    sweep_back(problem, b, g, frames, segments, static_cast<Exponent>(std::floor(likelihood)), next);
  }

 private:
  void allocate(const Segments& segments, int64_t frames, int64_t nodes, int64_t arrivals, int64_t slots,
                int64_t step) {
    const auto length = at(segments.length), count = at(segments.count);
    alpha_ = alpha_memory_.reserve((length + 1) * at(nodes));
    alpha_exponent_ = alpha_exponent_memory_.reserve((length + 1) * at(nodes));
    checkpoint_ = checkpoint_memory_.reserve(count * at(nodes));
    checkpoint_exponent_ = checkpoint_exponent_memory_.reserve(count * at(nodes));
    emission_ = emission_memory_.reserve(length * at(arrivals));
    emission_exponent_ = emission_exponent_memory_.reserve(length * at(arrivals));
    plain_ = plain_memory_.reserve(length);
    place_ = place_memory_.reserve(at(whole_vectors(graph_->arrivals)));
    beta_ = beta_memory_.reserve(at(slots));
    beta_exponent_ = beta_exponent_memory_.reserve(at(slots));
    product_ = product_memory_.reserve(at(arrivals));
    product_exponent_ = product_exponent_memory_.reserve(at(arrivals));
    occupancy_ = occupancy_memory_.reserve(at(arrivals));
    shift_ = shift_memory_.reserve(at(frames));
    std::fill(product_, product_ + arrivals, Real{0});
    std::fill(product_exponent_, product_exponent_ + arrivals, Exponent{zero_exponent});
    for (int64_t m = 0; m < whole_vectors(graph_->arrivals); m++)
      place_[m] = graph_->label[at(std::min(m, graph_->arrivals - 1))] * step;
    lines_.find(graph_->column_label, step);
  }

  Values<Real> alpha(int64_t slot) {
    return {alpha_ + slot * node_width_ + lanes, alpha_exponent_ + slot * node_width_ + lanes};
  }
  Values<Real> checkpoint(int64_t segment) {
    return {checkpoint_ + segment * node_width_ + lanes, checkpoint_exponent_ + segment * node_width_ + lanes};
  }
  Real* emission(int64_t slot) { return emission_ + slot * arrival_width_ + lanes; }
  Exponent* emission_exponent_of(int64_t slot) { return emission_exponent_ + slot * arrival_width_ + lanes; }
  const Exponent* emission_exponent(int64_t slot) { return plain_[slot] != 0 ? nullptr : emission_exponent_of(slot); }

  void copy(Values<Real> to, Values<Real> from) const {
    std::memcpy(to.mantissa - lanes, from.mantissa - lanes, at(node_width_) * sizeof(Real));
    std::memcpy(to.exponent - lanes, from.exponent - lanes, at(node_width_) * sizeof(Exponent));
  }

  // Frames [begin, end), from slot 0 on; emission of frame t in slot t - begin, its alpha in slot t - begin + 1.
  bool sweep_forward(const FullSum<Real>& problem, int64_t b, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const int64_t slot = t - begin;
      const LaterScores<Real> later(problem.scores.row(b, t + frames_ahead), lines_);
      if (!emit(problem, problem.scores.row(b, t), t, slot, later)) {
        problem.status[b] = 1 + t;
        return false;
      }
      const Values<Real> before = alpha(slot), now = alpha(slot + 1);
      clear_margins(now);
      apply(graph_->incoming, before.mantissa, before.exponent, emission(slot), emission_exponent(slot), now,
            [&](int64_t m) { later.template request<5, 8>(m); });
      aggregate(*graph_, now);
    }
    return true;
  }

  // Slices read, and multiply by zero, what stands beside the nodes.
  void clear_margins(Values<Real> nodes) const {
    const auto clear_slice = [&](int64_t first) {
      for (int64_t i = first; i < first + lanes; i += vector_size<Real>) {
        store_vector(nodes.mantissa + i, Vector<Real>{});
        store_bits<Real>(nodes.exponent + i, BitVector<Real>{} + Exponent{zero_exponent});
      }
    };
    clear_slice(-lanes);
    // `apply` writes whole slices.
    for (int64_t i = graph_->incoming.count * lanes; i < node_width_ - lanes; i += lanes) clear_slice(i);
  }

  // The frame's largest exponent is taken out, as in CTC: scores of any offset stay in range.
  bool emit(const FullSum<Real>& problem, const char* row, int64_t t, int64_t slot, const LaterScores<Real>& later) {
    const int64_t arrivals = graph_->arrivals;
    Real* mantissa = emission(slot);
    const Extent<Real> extent = read_scores(problem, row, mantissa, later);
    plain_[slot] = emit_plain(extent, mantissa, whole_vectors(arrivals), shift_[t],
                              [&](int64_t m) { later.template request<3, 5>(m); });
    if (plain_[slot] == 0) {
      const auto gather = [&](Real*) { read_scores(problem, row, mantissa, later); };
      double offset;
      if (!split_frame<Real>(gather, mantissa, emission_exponent_of(slot), arrivals, shift_[t], offset)) return false;
      offset_ += offset;
    }
    clear_rest(mantissa, plain_[slot] == 0 ? emission_exponent_of(slot) : nullptr);
    return true;
  }

  // Emissions of no arrival, up to the end of a slice.
  void clear_rest(Real* mantissa, Exponent* exponent) const {
    const int64_t arrivals = graph_->arrivals, end = (arrivals + lanes - 1) / lanes * lanes;
    for (int64_t m = arrivals / vector_size<Real> * vector_size<Real>; m < end; m += vector_size<Real>) {
      const BitVector<Real> there = first_elements<Real>(arrivals - m);
      store_vector(mantissa + m, (Vector<Real>)((BitVector<Real>)load_vector(mantissa + m) & there));
      if (exponent == nullptr) continue;
      const BitVector<Real> found = load_bits<Real>(exponent + m);
      store_bits<Real>(exponent + m, there ? found : BitVector<Real>{} + Exponent{zero_exponent});
    }
  }

  static int64_t whole_vectors(int64_t count) {
    return (count + vector_size<Real> - 1) / vector_size<Real> * vector_size<Real>;
  }

  // Writes the arrivals' scores, the last one's up to the end of a vector.
  Extent<Real> read_scores(const FullSum<Real>& problem, const char* row, Real* __restrict out,
                           const LaterScores<Real>& later) const {
    const int64_t* __restrict place = place_;
    const int64_t count = whole_vectors(graph_->arrivals);
    const Dtype dtype = problem.scores.dtype;
    ExtentOfVectors<Real> extent;
    for (int64_t m = 0; m < count; m += vector_size<Real>) {
      later.template request<0, 3>(m);
      Vector<Real> value;
      if (dtype == dtype_of<Real>()) {
        for (int64_t i = 0; i < vector_size<Real>; i++) value[i] = *reinterpret_cast<const Real*>(row + place[m + i]);
      } else {
        for (int64_t i = 0; i < vector_size<Real>; i++) value[i] = load<Real>(row + place[m + i], dtype, 0);
      }
      store_vector(out + m, value);
      extent.add(value);
    }
    return extent.found();
  }

  double log2_likelihood(Values<Real> last, Values<Real> ends) const {
    double top = -std::numeric_limits<double>::infinity();
    for (int64_t s = 0; s < graph_->slots(); s++)
      if (ends.mantissa[s] > 0 && last.mantissa[node_of_slot(s)] > 0)
        top = std::max(top, static_cast<double>(last.exponent[node_of_slot(s)] + ends.exponent[s]));
    double sum = 0;
    for (int64_t s = 0; s < graph_->slots(); s++)
      if (ends.mantissa[s] > 0 && last.mantissa[node_of_slot(s)] > 0)
        sum += static_cast<double>(last.mantissa[node_of_slot(s)]) * static_cast<double>(ends.mantissa[s]) *
               std::exp2(static_cast<double>(last.exponent[node_of_slot(s)] + ends.exponent[s]) - top);
    return sum > 0 ? top + std::log2(sum) : -std::numeric_limits<double>::infinity();
  }

  int64_t node_of_slot(int64_t slot) const {
    return slot < graph_->single ? slot : graph_->arrivals + slot - graph_->single;
  }

  void sweep_back(const FullSum<Real>& problem, int64_t b, int64_t g, int64_t frames, const Segments& segments,
                  Exponent likelihood_exponent, int64_t next) {
    const GraphLayout<Real>& graph = *graph_;
    const int64_t next_frames = find_lines_of_next(problem, next);
    const int64_t columns = static_cast<int64_t>(graph.column_label.size());
    Values<Real> beta{beta_ + lanes, beta_exponent_ + lanes}, product{product_ + lanes, product_exponent_ + lanes};
    double* arc_occupancies = nullptr;
    if (problem.arc_occupancies != nullptr) {
      const int64_t arcs = problem.graphs.arc_offsets[g + 1] - problem.graphs.arc_offsets[g];
      arc_occupancies =
          problem.arc_occupancies + (problem.graphs.graphs > 1 ? problem.graphs.arc_offsets[g] : b * arcs);
    }
    for (int64_t segment = segments.count - 1; segment >= 0; segment--) {
      const int64_t begin = segments.begin(segment), end = segments.end(segment, frames);
      if (segment < segments.count - 1) {
        copy(alpha(0), checkpoint(segment));
        sweep_forward(problem, b, begin, end);
      }
      for (int64_t t = end - 1; t >= begin; t--) {
        const int64_t slot = t - begin;
        const int64_t before = std::max<int64_t>(slot - 1, 0);
        const BackwardFrame<Real> frame{alpha(slot + 1),
                                        beta,
                                        emission(slot),
                                        emission_exponent(slot),
                                        occupancy_,
                                        product,
                                        alpha(before + 1),
                                        emission(before),
                                        occupancies_of(problem, b, std::max<int64_t>(t - 1, 0))};
        // While the way back runs, memory is idle.
        const int64_t row = frames - 1 - t;
        const LaterScores<Real> later =
            row < next_frames ? LaterScores<Real>(problem.scores.row(next, row), next_lines_) : LaterScores<Real>();
        const Real sum = frame.run(graph, likelihood_exponent, [&](int64_t m) { later.template request<0, 4>(m); });
        if (!(sum > 0)) {
          problem.status[b] = status_no_path;
          return;
        }
        const Real inverse = Real{1} / sum;
        if (problem.occupancies != nullptr) {
          Real* __restrict out = occupancies_of(problem, b, t);
          write_columns(graph, inverse, out);
          for (int64_t k = columns; k < problem.width; k++) out[k] = 0;
        }
        if (t == 0 && arc_occupancies == nullptr) break;
        if (arc_occupancies != nullptr)
          add_arc_occupancies(view(problem.graphs, g), alpha(slot), product, likelihood_exponent,
                              static_cast<double>(inverse), arc_occupancies);
        apply(graph.outgoing, product, beta, [&](int64_t m) { later.template request<4, 8>(m); });
      }
    }
  }

  static Real* occupancies_of(const FullSum<Real>& problem, int64_t b, int64_t t) {
    if (problem.occupancies == nullptr) return nullptr;
    return problem.occupancies + (problem.scores.first_row(b, problem.max_frames) + t) * problem.width;
  }

  // Where the next utterance's labels stand in a row of scores; returns of how many frames the cache may hold their
  // lines.
  int64_t find_lines_of_next(const FullSum<Real>& problem, int64_t next) {
    next_label_.clear();
    if (next < 0) return 0;
    const GraphView graph = view(problem.graphs, problem.graphs.graphs > 1 ? next : 0);
    // Neighbouring arcs often have one label.
    for (int64_t a = 0; a < graph.arcs; a++)
      if (a == 0 || graph.label(a) != graph.label(a - 1)) next_label_.push_back(graph.label(a));
    if (next_label_.empty()) return 0;
    std::sort(next_label_.begin(), next_label_.end());
    next_lines_.find(next_label_, problem.scores.stride_label * static_cast<int64_t>(item_size(problem.scores.dtype)));
    constexpr int64_t bytes_ahead = int64_t{4} << 20;
    return std::min(problem.lengths[next], bytes_ahead / (cache_line * next_lines_.count()));
  }

  void write_columns(const GraphLayout<Real>& graph, Real inverse, Real* __restrict out) const {
    for (const auto& repetition : graph.repetitions) occupancy_[repetition.first] += occupancy_[repetition.arrival];
    const int32_t* __restrict first = graph.first_arrival.data();
    const Real* __restrict occupancy = occupancy_;
    const auto columns = static_cast<int64_t>(graph.first_arrival.size());
    for (int64_t k = 0; k < columns; k++) out[k] = occupancy[first[k]] * inverse;
  }

  void add_arc_occupancies(const GraphView& arcs, Values<Real> before, Values<Real> product,
                           Exponent likelihood_exponent, double inverse, double* out) const {
    for (int64_t a = 0; a < arcs.arcs; a++) {
      const int32_t m = graph_->arc_arrival[at(a)];
      if (m < 0) continue;
      const int32_t source = graph_->arc_source[at(a)];
      const double mass = static_cast<double>(before.mantissa[source]) * static_cast<double>(product.mantissa[m]);
      if (mass == 0) continue;
      const Exponent e = before.exponent[source] + product.exponent[m] - likelihood_exponent;
      const double weight = arcs.weight[a] - graph_->largest_weight;
      out[a] += inverse * mass * std::exp(weight + 0.69314718055994530942 * static_cast<double>(e));
    }
  }

  void final_occupancies(const FullSum<Real>& problem, int64_t b, int64_t g, Values<Real> last,
                         double likelihood) const {
    const GraphView graph = view(problem.graphs, g);
    double* out =
        problem.final_occupancies + (problem.graphs.graphs > 1 ? problem.graphs.final_offsets[g] : b * graph.finals);
    for (int64_t f = 0; f < graph.finals; f++) {
      const int32_t slot = graph_->final_slot[at(f)];
      if (slot < 0) continue;
      const int64_t node = node_of_slot(slot);
      const double weight = graph.final_weight[f] - graph_->largest_final_weight;
      out[f] = static_cast<double>(last.mantissa[node]) *
               std::exp2(static_cast<double>(last.exponent[node]) + weight * 1.4426950408889634 - likelihood);
    }
  }

  // No frames: the one path is the empty one, from the start to itself.
  void run_empty(const FullSum<Real>& problem, int64_t b, int64_t g) const {
    const double weight = graph_->final_weight[at(graph_->start_slot)];
    if (!(weight > -std::numeric_limits<double>::infinity())) {
      problem.status[b] = status_no_path;
      return;
    }
    problem.value[b] = weight;
    if (problem.final_occupancies == nullptr) return;  // arcs there may be none
    const GraphView graph = view(problem.graphs, g);
    double* out =
        problem.final_occupancies + (problem.graphs.graphs > 1 ? problem.graphs.final_offsets[g] : b * graph.finals);
    for (int64_t f = 0; f < graph.finals; f++)
      if (graph_->final_slot[at(f)] == graph_->start_slot) out[f] = std::exp(graph.final_weight[f] - weight);
  }

  const GraphLayout<Real>* graph_ = nullptr;
  Lines lines_, next_lines_;  // with this utterance's labels in a row of scores, and with the next one's
  Index32 next_label_;
  double offset_ = 0;
  int64_t node_width_ = 0, arrival_width_ = 0;
  Real *alpha_ = nullptr, *checkpoint_ = nullptr, *emission_ = nullptr, *beta_ = nullptr, *product_ = nullptr,
       *occupancy_ = nullptr;
  Exponent *alpha_exponent_ = nullptr, *checkpoint_exponent_ = nullptr, *emission_exponent_ = nullptr,
           *beta_exponent_ = nullptr, *product_exponent_ = nullptr, *shift_ = nullptr;
  char* plain_ = nullptr;     // (slots,) whether a frame's emissions are without exponents
  int64_t* place_ = nullptr;  // of each arrival's label in a row of scores, in bytes
  Scratch<Real> alpha_memory_, checkpoint_memory_, emission_memory_, beta_memory_, product_memory_, occupancy_memory_;
  Scratch<Exponent> alpha_exponent_memory_, checkpoint_exponent_memory_, emission_exponent_memory_,
      beta_exponent_memory_, product_exponent_memory_, shift_memory_;
  Scratch<char> plain_memory_;
  Scratch<int64_t> place_memory_;
};

template <class Real>
struct FullSumWorkspace {
  FullSumUtterance<Real> utterance;
  GraphLayout<Real> layout;
};

template <class Real>
void write_columns(const FullSum<Real>& problem, int64_t g, const GraphLayout<Real>& layout) {
  if (problem.column_labels == nullptr) return;
  int64_t* out = problem.column_labels + g * problem.width;
  const auto columns = static_cast<int64_t>(layout.column_label.size());
  for (int64_t k = 0; k < problem.width; k++) out[k] = k < columns ? layout.column_label[at(k)] : -1;
}

// Rows of an utterance's gradient, of which the first `used` aren't zero.
struct GradientRows {
  int64_t utterance, first, used, count;
};

template <class Real>
struct ScatterWorkspace {
  SparseRows<Real> sparse;
  Scratch<Real> row;
};

template <class Real, bool stream>
void scatter_vectors(const Scatter<Real>& problem, const GradientRows& rows, Real weight, SparseRows<Real>& out) {
  for (int64_t t = 0; t < rows.count; t++)
    out.template write<stream>(problem.occupancies + (rows.first + t) * problem.width, weight, t < rows.used);
  out.finish();
}

// Where rows don't follow one another, are of another type, or have next to no elements.
template <class Real>
void scatter_elements(const Scatter<Real>& problem, const GradientRows& rows, Real weight, const int64_t* label,
                      int64_t columns, bool stream, Scratch<Real>& scratch) {
  Real* row = scratch.reserve(at(problem.labels));
  std::memset(row, 0, at(problem.labels) * sizeof(Real));
  for (int64_t t = 0; t < rows.count; t++) {
    const Real* occupancy = problem.occupancies + (rows.first + t) * problem.width;
    // Columns are distinct labels, so the row in scratch is zero everywhere else, from one frame to the next.
    for (int64_t k = 0; k < columns; k++) row[label[k]] = t < rows.used ? weight * occupancy[k] : Real{0};
    write_row(problem.gradient, problem.gradient.row(rows.utterance, t), row, problem.labels, stream);
  }
}

}  // namespace

template <class Real>
void full_sum(const FullSum<Real>& problem) {
  const bool shared = problem.graphs.graphs == 1;
  GraphLayout<Real> common;
  if (shared) {
    common.build(view(problem.graphs, 0));
    write_columns(problem, 0, common);
  }
  std::vector<double> work(at(problem.batch));
  for (int64_t b = 0; b < problem.batch; b++) {
    const int64_t g = shared ? 0 : b;
    const auto arcs = static_cast<double>(problem.graphs.arc_offsets[g + 1] - problem.graphs.arc_offsets[g] + 16);
    work[at(b)] = arcs * static_cast<double>(problem.lengths[b] + 1);
  }
  using Workspace = FullSumWorkspace<Real>;
  for_each_utterance<Workspace>(work, problem.threads, [&](int64_t b, Workspace& workspace, int64_t next) {
    if (problem.status[b] != status_ok) return;
    if (!shared) {
      workspace.layout.build(view(problem.graphs, b));
      write_columns(problem, b, workspace.layout);
    }
    workspace.utterance.run(problem, b, shared ? common : workspace.layout, next);
  });
}

template <class Real>
void scatter_occupancies(const Scatter<Real>& problem) {
  const Tensor& gradient = problem.gradient;
  const int64_t total_rows = gradient.rows(problem.batch, problem.max_frames);
  const bool stream = total_rows * problem.labels * static_cast<int64_t>(sizeof(Real)) > streaming_bytes;
  const bool by_vectors = SparseRows<Real>::possible(gradient, problem.labels, problem.width);
  const double average = static_cast<double>(total_rows * problem.labels) / static_cast<double>(problem.batch);
  std::vector<double> work(at(problem.batch), average / 8.0);
  using Workspace = ScatterWorkspace<Real>;
  for_each_utterance<Workspace>(work, problem.threads, [&](int64_t b, Workspace& workspace) {
    const int64_t length = problem.lengths[b];
    const GradientRows rows{b, gradient.first_row(b, problem.max_frames), problem.status[b] == status_ok ? length : 0,
                            gradient.offsets != nullptr ? length : problem.max_frames};
    const int64_t* label = problem.column_labels + (problem.shared_columns ? 0 : b * problem.width);
    int64_t columns = 0;
    while (columns < problem.width && label[columns] >= 0) columns++;
    const auto weight = static_cast<Real>(problem.weight[b]);
    if (stream && rows.count > 0 && gradient.stride_label == 1 && gradient.stride_frame == problem.labels)
      map_pages(gradient.row(b, 0), at(rows.count * problem.labels) * item_size(gradient.dtype));
    if (by_vectors) {
      SparseRows<Real>& out = workspace.sparse;
      out.begin(reinterpret_cast<Real*>(gradient.row(b, 0)), problem.labels, label, columns, problem.width);
      if (stream) {
        scatter_vectors<Real, true>(problem, rows, weight, out);
      } else {
        scatter_vectors<Real, false>(problem, rows, weight, out);
      }
    } else {
      scatter_elements(problem, rows, weight, label, columns, stream, workspace.row);
    }
    finish_streaming();
  });
}

template void full_sum<float>(const FullSum<float>&);
template void full_sum<double>(const FullSum<double>&);
template void scatter_occupancies<float>(const Scatter<float>&);
template void scatter_occupancies<double>(const Scatter<double>&);

}  // namespace seqtrain
