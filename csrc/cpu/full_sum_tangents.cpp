// Tangents of the full sum over a batch of automata: its slope in a direction, and how its gradient changes in it
// (equations: seqtrain/reference.py, `full_sum_tangents`).
//
// Everything is computed in double, whatever the scores' type.  A tangent is the mean of a sum over frames, so it needs
// no exponent of its own, but what is wanted of it are differences to other means of that size.

#include <cmath>
#include <cstring>
#include <limits>

#include "../recursion/emission.h"
#include "../recursion/full_sum.h"
#include "graph_view.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "segments.h"

namespace seqtrain {
namespace {

using Exponent = ExponentOf<double>;

// The layout, and beside it the arcs one by one: a tangent is a mean over arcs, which each have their own.
struct TangentLayout {
  GraphLayout<double> graph;
  Grouping into, out_of;         // arcs by arrival, and by slot of their source
  std::vector<double> mantissa;  // (A,) of exp(weight), relative to the largest
  std::vector<Exponent> exponent;

  void build(const GraphView& view) {
    graph.build(view);
    const auto useful = [&](int64_t a) { return graph.arc_arrival[at(a)] >= 0; };
    into.build(graph.arrivals, view.arcs, [&](int64_t a) { return int64_t{graph.arc_arrival[at(a)]}; });
    out_of.build(graph.slots(), view.arcs,
                 [&](int64_t a) { return useful(a) ? slot_of_node(graph.arc_source[at(a)]) : int64_t{-1}; });
    mantissa.assign(at(view.arcs), 0);
    exponent.assign(at(view.arcs), zero_exponent);
    for (int64_t a = 0; a < view.arcs; a++) {
      if (!useful(a)) continue;
      const SplitWeight<double> weight(view.weight[a] - graph.largest_weight);
      mantissa[at(a)] = weight.mantissa;
      exponent[at(a)] = weight.exponent;
    }
  }

  int64_t slot_of_node(int64_t node) const { return node < graph.single ? node : node - graph.arrivals + graph.single; }
  int64_t node_of_slot(int64_t slot) const { return slot < graph.single ? slot : graph.arrivals + slot - graph.single; }
};

// Scores with a tangent each; pointers stand at item 0.
struct Dual {
  Values<double> value;
  double* tangent;  // of the value's logarithm; 0 where that is zero
};

// Weighted mean of the tangents of some terms, and their sum.
class Mean {
 public:
  explicit Mean(Exponent top) : top_(top) {}
  void add(double mantissa, Exponent exponent, double tangent) {
    const double weight = mantissa * power_of_two<double>(exponent - top_);
    if (weight == 0) return;  // the tangent of what has no part in the sum may be anything
    sum_ += weight;
    product_ += weight * tangent;
  }
  double sum() const { return sum_; }
  double tangent() const { return sum_ > 0 ? product_ / sum_ : 0.0; }

 private:
  Exponent top_;
  double sum_ = 0, product_ = 0;
};

class DualMemory {
 public:
  void reserve(int64_t rows, int64_t width) {
    width_ = width;
    mantissa_ = mantissa_memory_.reserve(at(rows * width));
    exponent_ = exponent_memory_.reserve(at(rows * width));
    tangent_ = tangent_memory_.reserve(at(rows * width));
    std::fill(mantissa_, mantissa_ + rows * width, 0.0);
    std::fill(exponent_, exponent_ + rows * width, Exponent{zero_exponent});
    std::fill(tangent_, tangent_ + rows * width, 0.0);
  }

  Dual row(int64_t index) const {
    const int64_t first = index * width_ + lanes;
    return {{mantissa_ + first, exponent_ + first}, tangent_ + first};
  }

  void copy(int64_t to, const DualMemory& from, int64_t index) {
    const auto bytes = at(width_) * sizeof(double);
    std::memcpy(mantissa_ + to * width_, from.mantissa_ + index * width_, bytes);
    std::memcpy(exponent_ + to * width_, from.exponent_ + index * width_, bytes);
    std::memcpy(tangent_ + to * width_, from.tangent_ + index * width_, bytes);
  }

 private:
  int64_t width_ = 0;
  double *mantissa_ = nullptr, *tangent_ = nullptr;
  Exponent* exponent_ = nullptr;
  Scratch<double> mantissa_memory_, tangent_memory_;
  Scratch<Exponent> exponent_memory_;
};

class TangentUtterance {
 public:
  void run(const FullSumTangents& problem, int64_t b, const TangentLayout& layout) {
    problem_ = &problem;
    layout_ = &layout;
    graph_ = &layout.graph;
    b_ = b;
    g_ = problem.graphs.graphs > 1 ? b : 0;
    frames_ = problem.lengths[b];
    const GraphView arcs = view(problem.graphs, g_);
    const int64_t first_arc = problem.graphs.arc_offsets[g_], first_final = problem.graphs.final_offsets[g_];
    arc_tangent_ = problem.tangent_weights != nullptr ? problem.tangent_weights + first_arc : nullptr;
    final_tangent_ = problem.tangent_final_weights != nullptr ? problem.tangent_final_weights + first_final : nullptr;
    const bool own = problem.graphs.graphs > 1;
    arc_out_ =
        problem.arc_occupancies != nullptr ? problem.arc_occupancies + (own ? first_arc : b * arcs.arcs) : nullptr;
    final_out_ = problem.final_occupancies != nullptr
                     ? problem.final_occupancies + (own ? first_final : b * arcs.finals)
                     : nullptr;
    if (graph_->start_slot < 0) {
      problem.status[b] = status_no_path;
      return;
    }
    const int64_t nodes = padded(graph_->nodes()), arrivals = padded(graph_->arrivals), slots = padded(graph_->slots());
    const Segments segments(frames_, 8 * (3 * nodes + 2 * arrivals));
    alpha_.reserve(segments.length + 1, nodes);
    checkpoint_.reserve(std::max<int64_t>(segments.count, 1), nodes);
    beta_.reserve(1, slots);
    product_.reserve(1, arrivals);
    emission_width_ = arrivals;
    emission_ = emission_memory_.reserve(at(segments.length * arrivals));
    emission_exponent_ = emission_exponent_memory_.reserve(at(segments.length * arrivals));
    occupancy_ = occupancy_memory_.reserve(at(arrivals));

    start(*graph_, alpha_.row(0).value);
    for (int64_t segment = 0; segment < segments.count; segment++) {
      if (segment > 0) alpha_.copy(0, alpha_, segments.length);
      checkpoint_.copy(segment, alpha_, 0);
      if (!sweep_forward(segments.begin(segment), segments.end(segment, frames_))) return;
    }
    const int64_t last =
        frames_ > 0 ? segments.end(segments.count - 1, frames_) - segments.begin(segments.count - 1) : 0;
    if (!end(alpha_.row(last), arcs)) {
      problem.status[b] = status_no_path;
      return;
    }
    if (problem.occupancies == nullptr && arc_out_ == nullptr) return;
    for (int64_t segment = segments.count - 1; segment >= 0; segment--) {
      const int64_t begin = segments.begin(segment);
      if (segment < segments.count - 1) {
        alpha_.copy(0, checkpoint_, segment);
        sweep_forward(begin, segments.end(segment, frames_));
      }
      for (int64_t t = segments.end(segment, frames_) - 1; t >= begin; t--)
        if (!step_back(t, t - begin)) return;
    }
  }

 private:
  // Tangent of the score of arrival m's label at frame t.
  double score_tangent(const char* row, int64_t m) const {
    const Tensor& tangents = problem_->tangent_scores;
    return row != nullptr ? load<double>(row, tangents.dtype, graph_->label[at(m)] * tangents.stride_label) : 0.0;
  }
  const char* tangent_row(int64_t t) const {
    return problem_->tangent_scores.data != nullptr ? problem_->tangent_scores.row(b_, t) : nullptr;
  }
  double arc_tangent(int64_t a) const { return arc_tangent_ != nullptr ? arc_tangent_[a] : 0.0; }

  // Frames [begin, end): alpha of the frame before `begin` stands in row 0, that of frame t in row t - begin + 1.
  bool sweep_forward(int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      double* y = emission_ + (t - begin) * emission_width_;
      Exponent* y_exponent = emission_exponent_ + (t - begin) * emission_width_;
      const char* row = problem_->scores.row(b_, t);
      const auto gather = [&](double* out) {
        for (int64_t m = 0; m < graph_->arrivals; m++)
          out[m] = load<double>(row, problem_->scores.dtype, graph_->label[at(m)] * problem_->scores.stride_label);
      };
      Exponent shift;
      double offset;
      if (!emit_frame<double>(gather, y, y_exponent, graph_->arrivals, shift, offset)) {
        problem_->status[b_] = 1 + t;
        return false;
      }
      step_forward(alpha_.row(t - begin), y, y_exponent, tangent_row(t), alpha_.row(t - begin + 1));
    }
    return true;
  }

  void step_forward(const Dual& before, const double* y, const Exponent* y_exponent, const char* tangents,
                    const Dual& now) const {
    const TangentLayout& layout = *layout_;
    for (int64_t m = 0; m < graph_->arrivals; m++) {
      const int64_t first = layout.into.begin[at(m)], past = layout.into.begin[at(m + 1)];
      Exponent top = zero_exponent;
      for (int64_t k = first; k < past; k++) {
        const int32_t a = layout.into.order[at(k)];
        top = std::max(top, before.value.exponent[graph_->arc_source[at(a)]] + layout.exponent[at(a)]);
      }
      Mean mean(top);
      for (int64_t k = first; k < past; k++) {
        const int32_t a = layout.into.order[at(k)], source = graph_->arc_source[at(a)];
        mean.add(before.value.mantissa[source] * layout.mantissa[at(a)],
                 before.value.exponent[source] + layout.exponent[at(a)], before.tangent[source] + arc_tangent(a));
      }
      double mantissa = mean.sum() * y[m];
      Exponent exponent = top + y_exponent[m];
      normalize(mantissa, exponent);
      now.value.mantissa[m] = mantissa;
      now.value.exponent[m] = exponent;
      now.tangent[m] = mantissa > 0 ? mean.tangent() + score_tangent(tangents, m) : 0.0;
    }
    aggregate(*graph_, now.value);
    for (int64_t q = 0; q < graph_->aggregates; q++) {
      Mean mean(now.value.exponent[graph_->arrivals + q]);
      for (int64_t m = graph_->aggregate_begin[at(q)]; m < graph_->aggregate_begin[at(q + 1)]; m++)
        mean.add(now.value.mantissa[m], now.value.exponent[m], now.tangent[m]);
      now.tangent[graph_->arrivals + q] = mean.tangent();
    }
  }

  // Behind the last frame: the slope, the tangents of the final occupancies, and where the way back starts.
  bool end(const Dual& last, const GraphView& arcs) {
    const Dual beta = beta_.row(0);
    finish(*graph_, beta.value);
    for (int64_t f = 0; f < arcs.finals; f++) {
      const int32_t slot = graph_->final_slot[at(f)];
      if (slot < 0 || final_tangent_ == nullptr) continue;
      beta.tangent[slot] += std::exp(arcs.final_weight[f] - graph_->final_weight[at(slot)]) * final_tangent_[f];
    }
    Exponent top = zero_exponent;
    for (int64_t s = 0; s < graph_->slots(); s++)
      top = std::max(top, last.value.exponent[layout_->node_of_slot(s)] + beta.value.exponent[s]);
    Mean mean(top);
    for (int64_t s = 0; s < graph_->slots(); s++) {
      const int64_t node = layout_->node_of_slot(s);
      mean.add(last.value.mantissa[node] * beta.value.mantissa[s], last.value.exponent[node] + beta.value.exponent[s],
               last.tangent[node] + beta.tangent[s]);
    }
    if (!(mean.sum() > 0)) return false;
    likelihood_exponent_ = top;
    problem_->slope[b_] = mean.tangent();
    if (final_out_ == nullptr) return true;
    for (int64_t f = 0; f < arcs.finals; f++) {
      const int32_t slot = graph_->final_slot[at(f)];
      if (slot < 0) continue;
      const int64_t node = layout_->node_of_slot(slot);
      const double share = std::exp(arcs.final_weight[f] - graph_->final_weight[at(slot)]);
      const double occupancy = share * last.value.mantissa[node] * beta.value.mantissa[slot] *
                               power_of_two<double>(last.value.exponent[node] + beta.value.exponent[slot] - top) /
                               mean.sum();
      if (occupancy > 0)
        final_out_[f] =
            occupancy * (last.tangent[node] + (final_tangent_ != nullptr ? final_tangent_[f] : 0.0) - mean.tangent());
    }
    return true;
  }

  bool step_back(int64_t t, int64_t slot) {
    const Dual now = alpha_.row(slot + 1), beta = beta_.row(0), product = product_.row(0);
    const double* emission = emission_ + slot * emission_width_;
    const BackwardFrame<double> frame{now.value,  beta.value,    emission,  emission_exponent_ + slot * emission_width_,
                                      occupancy_, product.value, now.value, emission,
                                      occupancy_};
    const double sum = frame.run(*graph_, likelihood_exponent_, [](int64_t) {});
    if (!(sum > 0)) {
      problem_->status[b_] = status_no_path;
      return false;
    }
    // The mean of this very frame, so that the tangents of its occupancies sum to zero.
    double mean = 0;
    for (int64_t m = 0; m < graph_->arrivals; m++)
      if (occupancy_[m] > 0) mean += occupancy_[m] * (now.tangent[m] + beta.tangent[graph_->slot_of_arrival[at(m)]]);
    mean /= sum;
    if (problem_->occupancies != nullptr) {
      double* out =
          problem_->occupancies + (problem_->scores.first_row(b_, problem_->max_frames) + t) * problem_->width;
      std::fill(out, out + problem_->width, 0.0);
      for (int64_t m = 0; m < graph_->arrivals; m++)
        if (occupancy_[m] > 0)
          out[graph_->column[at(m)]] +=
              occupancy_[m] / sum * (now.tangent[m] + beta.tangent[graph_->slot_of_arrival[at(m)]] - mean);
    }
    if (t == 0 && arc_out_ == nullptr) return true;
    const char* tangents = tangent_row(t);
    for (int64_t m = 0; m < graph_->arrivals; m++)
      product.tangent[m] = product.value.mantissa[m] > 0
                               ? beta.tangent[graph_->slot_of_arrival[at(m)]] + score_tangent(tangents, m)
                               : 0.0;
    if (arc_out_ != nullptr) add_arcs(alpha_.row(slot), product, mean, 1 / sum);
    pull_back(product, beta);
    return true;
  }

  void add_arcs(const Dual& before, const Dual& product, double mean, double inverse) const {
    for (int64_t m = 0; m < graph_->arrivals; m++)
      for (int64_t k = layout_->into.begin[at(m)]; k < layout_->into.begin[at(m + 1)]; k++) {
        const int32_t a = layout_->into.order[at(k)], source = graph_->arc_source[at(a)];
        const Exponent e =
            before.value.exponent[source] + layout_->exponent[at(a)] + product.value.exponent[m] - likelihood_exponent_;
        const double occupancy = before.value.mantissa[source] * layout_->mantissa[at(a)] * product.value.mantissa[m] *
                                 power_of_two<double>(e) * inverse;
        if (occupancy > 0)
          arc_out_[a] += occupancy * (before.tangent[source] + arc_tangent(a) + product.tangent[m] - mean);
      }
  }

  // beta of the frame before.
  void pull_back(const Dual& product, const Dual& beta) const {
    for (int64_t s = 0; s < graph_->slots(); s++) {
      const int64_t first = layout_->out_of.begin[at(s)], past = layout_->out_of.begin[at(s + 1)];
      Exponent top = zero_exponent;
      for (int64_t k = first; k < past; k++) {
        const int32_t a = layout_->out_of.order[at(k)];
        top = std::max(top, product.value.exponent[graph_->arc_arrival[at(a)]] + layout_->exponent[at(a)]);
      }
      Mean mean(top);
      for (int64_t k = first; k < past; k++) {
        const int32_t a = layout_->out_of.order[at(k)], m = graph_->arc_arrival[at(a)];
        mean.add(product.value.mantissa[m] * layout_->mantissa[at(a)],
                 product.value.exponent[m] + layout_->exponent[at(a)], product.tangent[m] + arc_tangent(a));
      }
      double mantissa = mean.sum();
      Exponent exponent = top;
      normalize(mantissa, exponent);
      beta.value.mantissa[s] = mantissa;
      beta.value.exponent[s] = exponent;
      beta.tangent[s] = mantissa > 0 ? mean.tangent() : 0.0;
    }
  }

  const FullSumTangents* problem_ = nullptr;
  const TangentLayout* layout_ = nullptr;
  const GraphLayout<double>* graph_ = nullptr;
  int64_t b_ = 0, g_ = 0, frames_ = 0, emission_width_ = 0;
  const double *arc_tangent_ = nullptr, *final_tangent_ = nullptr;
  double *arc_out_ = nullptr, *final_out_ = nullptr;
  Exponent likelihood_exponent_ = 0;
  DualMemory alpha_, checkpoint_, beta_, product_;
  double *emission_ = nullptr, *occupancy_ = nullptr;
  Exponent* emission_exponent_ = nullptr;
  Scratch<double> emission_memory_, occupancy_memory_;
  Scratch<Exponent> emission_exponent_memory_;
};

struct TangentWorkspace {
  TangentUtterance utterance;
  TangentLayout layout;
};

void write_columns(const FullSumTangents& problem, int64_t g, const TangentLayout& layout) {
  int64_t* out = problem.column_labels + g * problem.width;
  const auto columns = static_cast<int64_t>(layout.graph.column_label.size());
  for (int64_t k = 0; k < problem.width; k++) out[k] = k < columns ? layout.graph.column_label[at(k)] : -1;
}

}  // namespace

void full_sum_tangents(const FullSumTangents& problem) {
  const bool shared = problem.graphs.graphs == 1;
  TangentLayout common;
  if (shared) {
    common.build(view(problem.graphs, 0));
    write_columns(problem, 0, common);
  }
  std::vector<double> work(at(problem.batch));
  for (int64_t b = 0; b < problem.batch; b++) {
    const int64_t g = shared ? 0 : b;
    const auto arcs = static_cast<double>(problem.graphs.arc_offsets[g + 1] - problem.graphs.arc_offsets[g] + 16);
    work[at(b)] = 4 * arcs * static_cast<double>(problem.lengths[b] + 1);
  }
  for_each_utterance<TangentWorkspace>(work, problem.threads, [&](int64_t b, TangentWorkspace& workspace) {
    if (problem.status[b] != status_ok) return;
    if (!shared) {
      workspace.layout.build(view(problem.graphs, b));
      write_columns(problem, b, workspace.layout);
    }
    workspace.utterance.run(problem, b, shared ? common : workspace.layout);
  });
}

}  // namespace seqtrain
