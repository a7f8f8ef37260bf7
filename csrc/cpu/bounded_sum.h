// The full sum of one utterance in plain doubles, with a power of two for each frame instead of one for each number,
// and a proof that this loses nothing (equations: seqtrain/reference.py, `full_sum`).
//
// A double reaches 2^-1022 below a frame's largest value.  What falls below is rounded down to zero going forward, and
// up to a floor going backward.  So the forward sum α̃ of every state is no more than the true one, and the backward sum
// β̂ no less, whatever happened before, and with the start s₀
//
//     Z̃ = Σ_s α̃_T(s) · final(s)  ≤  Z  ≤  Ẑ = β̂_0(s₀)
//
// Of a frame's occupancies, Σ_s |α̃ β̂ - α β| / Z is at most 2 (Ẑ - Z̃) / Z: Σ α β̂ ≤ Ẑ, since floors only add, and Σ α̃ β̂ ≥
// Σ α̃ β ≥ Z̃.  Where the two bounds meet, all is as exact as with an exponent for each number; where they don't, as with
// scores that lead paths far astray, the caller computes with those.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../recursion/emission.h"
#include "../recursion/full_sum.h"
#include "../recursion/vector.h"
#include "gather.h"
#include "graph_view.h"
#include "kernels.h"
#include "memory.h"
#include "segments.h"

namespace seqtrain {

namespace bounded {

constexpr int64_t smallest_weight = -500, largest_weight = 60;  // of an arc, as powers of two
// Of an emission relative to the frame's largest, which stands in the scores' type.
template <class Real>
constexpr int64_t smallest_emission = sizeof(Real) == 8 ? -400 : -125;
constexpr double low = 0x1p-20, high = 0x1p10;  // a frame whose largest value lies outside is scaled
// Forward sums below are zero, backward sums are no less: products of the two are no subnormal numbers, which are slow.
constexpr double smallest = 0x1p-480;
constexpr double agreement = 0x1p-48;  // of the bounds, in log2 a frame: rounding, which is less
// Occupancies below are zero: floors leave some where no path is, and slow conversions.
template <class Real>
constexpr double dust = sizeof(Real) == 8 ? 0x1p-400 : 0x1p-125;

using Doubles = Vector<double>;
constexpr int64_t wide = vector_size<double>;
constexpr int64_t parts = lanes / wide;

template <class Real>
inline Doubles load_doubles(const Real* source) {
  typedef Real Some __attribute__((vector_size(wide * sizeof(Real))));
  Some values;
  std::memcpy(&values, source, sizeof values);
  return __builtin_convertvector(values, Doubles);
}

// output[i] = round(Σ over arcs into i of weight · input, i), a vector at a time; returns the largest of them.  Writes
// whole slices.
template <class Real, class Round>
inline double apply(const Slices<Real>& slices, const double* weights, const double* input, const Round& round,
                    double* output) {
  Doubles largest{};
  for (int64_t slice = 0; slice < slices.count; slice++) {
    Doubles sum[parts] = {};
    for (int64_t row = slices.begin[at(slice)]; row < slices.begin[at(slice + 1)]; row++) {
      const double* weight = weights + row * lanes;
      const double* source = input + slices.base[at(row)];
      alignas(64) double gathered[lanes];
      if (slices.base[at(row)] == scattered) {
        const int32_t* index = slices.input.data() + row * lanes;
        for (int64_t i = 0; i < lanes; i++) gathered[i] = input[index[i]];
        source = gathered;
      }
      for (int64_t p = 0; p < parts; p++) sum[p] += load_vector(weight + p * wide) * load_vector(source + p * wide);
    }
    for (int64_t p = 0; p < parts; p++) {
      const Doubles value = round(sum[p], slice * lanes + p * wide);
      largest = value > largest ? value : largest;
      store_vector(output + slice * lanes + p * wide, value);
    }
  }
  double all = 0;
  for (int64_t i = 0; i < wide; i++) all = largest[i] > all ? largest[i] : all;
  return all;
}

}  // namespace bounded

template <class Real>
class BoundedSum {
  using Exponent = ExponentOf<Real>;

 public:
  // False where the bounds don't meet or the utterance is out of the ordinary in another way (no frames, no path,
  // scores that aren't finite): what is written then is to be overwritten.
  bool run(const FullSum<Real>& problem, int64_t b, const GraphLayout<Real>& graph) {
    const int64_t frames = problem.lengths[b];
    if (graph.start_slot < 0 || frames == 0) return false;
    graph_ = &graph;
    if (!take_weights(graph.incoming, incoming_) || !take_weights(graph.outgoing, outgoing_)) return false;
    // A frame's zeros on the left are those on the right of the frame before.
    node_width_ = whole_slices(graph.nodes()) + lanes;
    arrival_width_ = whole_slices(graph.arrivals);
    const Segments segments(frames, node_width_ * static_cast<int64_t>(sizeof(double)) +
                                        arrival_width_ * static_cast<int64_t>(sizeof(Real)));
    allocate(segments, frames);

    alpha(0)[graph.start_node] = 1;
    Taken taken;
    for (int64_t segment = 0; segment < segments.count; segment++) {
      if (segment > 0) copy(alpha(0), alpha(segments.length));
      copy(checkpoint(segment), alpha(0));
      if (!sweep_forward(problem, b, segments.begin(segment), segments.end(segment, frames), taken)) return false;
    }
    const double* last = alpha(segments.end(segments.count - 1, frames) - segments.begin(segments.count - 1));
    beta_.assign(at(padded(graph.slots())), 0.0);
    double ended = 0;
    for (int64_t s = 0; s < graph.slots(); s++) {
      beta_[at(s)] = std::exp(graph.final_weight[at(s)] - graph.largest_final_weight);
      ended += last[node_of_slot(s)] * beta_[at(s)];
      beta_[at(s)] = std::max(beta_[at(s)], bounded::smallest);
    }
    if (!(ended > bounded::smallest)) return false;
    problem.value[b] = taken.offset + graph.largest_final_weight + static_cast<double>(frames) * graph.largest_weight +
                       (std::log2(ended) + taken.exponent + taken.shift) * 0.69314718055994530942;
    if (problem.final_occupancies != nullptr) occupy_finals(problem, b, last, ended);
    double upper, upper_exponent;
    if (!sweep_back(problem, b, frames, segments, upper, upper_exponent)) return false;
    const double apart = std::log2(upper / ended) + (upper_exponent - taken.exponent);
    return std::abs(apart) <= static_cast<double>(frames + 100) * bounded::agreement;
  }

 private:
  // What was taken out of the forward sums: of emissions, natural and as a power of two, and of the sums.
  struct Taken {
    double offset = 0, shift = 0, exponent = 0;
  };

  static bool take_weights(const Slices<Real>& slices, std::vector<double>& weights) {
    weights.resize(slices.mantissa.size());
    bool ordinary = true;
    for (std::size_t i = 0; i < weights.size(); i++) {
      const int64_t e = slices.exponent[i];
      const bool none = slices.mantissa[i] == 0;
      ordinary &= none || (e >= bounded::smallest_weight && e <= bounded::largest_weight);
      weights[i] = none ? 0.0 : std::ldexp(static_cast<double>(slices.mantissa[i]), static_cast<int>(e));
    }
    return ordinary;
  }

  void allocate(const Segments& segments, int64_t frames) {
    const std::size_t size = at((segments.length + 1) * node_width_ + lanes);
    alpha_ = alpha_memory_.reserve(size);
    checkpoint_ = checkpoint_memory_.reserve(at(segments.count * node_width_));
    emission_ = emission_memory_.reserve(at(segments.length * arrival_width_));
    mantissa_ = mantissa_memory_.reserve(at(arrival_width_));
    exponent_ = exponent_memory_.reserve(at(arrival_width_));
    occupancy_ = occupancy_memory_.reserve(at(arrival_width_));
    rescaled_ = rescaled_memory_.reserve(at(frames));
    product_.assign(at(arrival_width_ + 2 * lanes), 0.0);
    std::fill(alpha_, alpha_ + node_width_, 0.0);
    // Slices read, and multiply by zero, what stands beside the nodes.
    for (int64_t slot = 1; slot <= segments.length; slot++) {
      double* values = alpha_ + slot * node_width_;
      std::fill(values, values + lanes, 0.0);
      std::fill(values + lanes + graph_->arrivals, values + node_width_, 0.0);
    }
    std::fill(alpha_ + size - lanes, alpha_ + size, 0.0);
  }

  static int64_t whole_slices(int64_t count) { return (count + lanes - 1) / lanes * lanes; }
  double* alpha(int64_t slot) { return alpha_ + slot * node_width_ + lanes; }
  double* checkpoint(int64_t segment) { return checkpoint_ + segment * node_width_ + lanes; }
  Real* emission(int64_t slot) { return emission_ + slot * arrival_width_; }
  void copy(double* to, const double* from) const {
    std::memcpy(to - lanes, from - lanes, at(node_width_) * sizeof(double));
  }
  int64_t node_of_slot(int64_t slot) const {
    return slot < graph_->single ? slot : graph_->arrivals + slot - graph_->single;
  }

  // Scales the values where the largest is far from one; returns the exponent that was taken out.
  static int rescale(double* values, int64_t count, double largest) {
    if (largest >= bounded::low && largest <= bounded::high) return 0;
    const int exponent = std::ilogb(largest);
    const double factor = std::ldexp(1.0, -exponent);
    for (int64_t i = 0; i < count; i++) values[i] *= factor;
    return exponent;
  }

  // Frames [begin, end), from slot 0 on: frame t goes from slot t - begin to the next.
  bool sweep_forward(const FullSum<Real>& problem, int64_t b, int64_t begin, int64_t end, Taken& taken) {
    const GraphLayout<Real>& graph = *graph_;
    const double smallest = std::ldexp(1.0, static_cast<int>(bounded::smallest_emission<Real>));
    for (int64_t t = begin; t < end; t++) {
      const auto gather = [&](Real* out) {
        gather_scores(problem.scores, problem.scores.row(b, t), graph.label.data(), graph.arrivals, out);
      };
      Exponent shift;
      double offset;
      if (!emit_frame<Real>(gather, mantissa_, exponent_, graph.arrivals, shift, offset)) return false;
      Real* const y = emission(t - begin);
      join_emission(y);
      double* const now = alpha(t - begin + 1);
      const double largest = bounded::apply(
          graph.incoming, incoming_.data(), alpha(t - begin),
          [y, smallest](bounded::Doubles sum, int64_t m) {
            const bounded::Doubles factor = bounded::load_doubles(y + m);
            const bounded::Doubles value = factor >= smallest ? sum * factor : bounded::Doubles{};
            return value >= bounded::smallest ? value : bounded::Doubles{};
          },
          now);
      if (!(largest > 0)) return false;
      for (int64_t q = 0; q < graph.aggregates; q++) {
        double sum = 0;
        for (int64_t m = graph.aggregate_begin[at(q)]; m < graph.aggregate_begin[at(q + 1)]; m++) sum += now[m];
        now[graph.arrivals + q] = sum;
      }
      rescaled_[t] = rescale(now, graph.nodes(), largest);
      taken.offset += offset;
      taken.shift += static_cast<double>(shift);
      taken.exponent += rescaled_[t];
    }
    return true;
  }

  // Upper bounds: an emission too small to stand here is a little less than the smallest, which going forward is zero.
  void join_emission(Real* __restrict y) const {
    constexpr Exponent bias = Format<Real>::bias;
    constexpr Exponent below = static_cast<Exponent>(bounded::smallest_emission<Real>) - 1;
    const int64_t count = graph_->arrivals;
    const Real* __restrict mantissa = mantissa_;
    const Exponent* __restrict exponent = exponent_;
#pragma omp simd
    for (int64_t m = 0; m < count; m++) {
      const bool small = exponent[m] <= below;
      const Real joined = small ? Real{1} : mantissa[m];
      const Real factor = from_bits<Real>(((small ? below : exponent[m]) + bias) << Format<Real>::mantissa_bits);
      y[m] = mantissa[m] > 0 ? joined * factor : Real{0};
    }
    for (int64_t m = count; m < whole_slices(count); m++) y[m] = 0;
  }

  bool sweep_back(const FullSum<Real>& problem, int64_t b, int64_t frames, const Segments& segments, double& upper,
                  double& exponent) {
    const GraphLayout<Real>& graph = *graph_;
    double* const beta = beta_.data();
    double* const product = product_.data() + lanes;
    exponent = 0;
    for (int64_t segment = segments.count - 1; segment >= 0; segment--) {
      const int64_t begin = segments.begin(segment), end = segments.end(segment, frames);
      if (segment < segments.count - 1) {
        copy(alpha(0), checkpoint(segment));
        Taken again;
        sweep_forward(problem, b, begin, end, again);
      }
      for (int64_t t = end - 1; t >= begin; t--) {
        const Real* const y = emission(t - begin);
        if (problem.occupancies != nullptr || problem.arc_occupancies != nullptr) {
          const double sum = occupancies(alpha(t - begin + 1), beta);
          if (!(sum >= bounded::smallest)) return false;
          if (problem.occupancies != nullptr) put_occupancies(problem, b, t, 1.0 / sum);
          emit(beta, y, product);
          if (problem.arc_occupancies != nullptr)
            add_arc_occupancies(problem, b, alpha(t - begin), std::ldexp(1.0 / sum, -rescaled_[t]));
        } else {
          emit(beta, y, product);
        }
        const double largest = bounded::apply(
            graph.outgoing, outgoing_.data(), product,
            [](bounded::Doubles sum, int64_t) {
              return sum > bounded::smallest ? sum : bounded::Doubles{} + bounded::smallest;
            },
            beta);
        exponent += rescale(beta, graph.slots(), largest);
      }
    }
    upper = beta[graph.start_slot];
    return true;
  }

  // product[m] = beta[slot of m] · emission[m]
  void emit(const double* __restrict beta, const Real* __restrict y, double* __restrict product) const {
    const GraphLayout<Real>& graph = *graph_;
#pragma omp simd
    for (int64_t m = 0; m < graph.single; m++) product[m] = beta[m] * static_cast<double>(y[m]);
    for (int64_t m = graph.single; m < graph.arrivals; m++) {
      const double factor = y[m];
      product[m] = beta[graph.slot_of_arrival[at(m)]] * factor;
    }
  }

  // Of arrivals, times their sum, which is returned.
  double occupancies(const double* __restrict alpha, const double* __restrict beta) const {
    const GraphLayout<Real>& graph = *graph_;
    double* __restrict occupancy = occupancy_;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t m = 0; m < graph.single; m++) {
      occupancy[m] = alpha[m] * beta[m];
      sum += occupancy[m];
    }
    for (int64_t m = graph.single; m < graph.arrivals; m++) {
      occupancy[m] = alpha[m] * beta[graph.slot_of_arrival[at(m)]];
      sum += occupancy[m];
    }
    return sum;
  }

  void put_occupancies(const FullSum<Real>& problem, int64_t b, int64_t t, double inverse) const {
    Real* __restrict out = problem.occupancies + (problem.scores.first_row(b, problem.max_frames) + t) * problem.width;
    const int32_t* __restrict column = graph_->column.data();
    double* __restrict occupancy = occupancy_;
#pragma omp simd
    for (int64_t m = 0; m < graph_->arrivals; m++) {
      const double share = occupancy[m] * inverse;
      occupancy[m] = share < bounded::dust<Real> ? 0.0 : share;
    }
    for (int64_t k = 0; k < problem.width; k++) out[k] = 0;
    for (int64_t m = 0; m < graph_->arrivals; m++) out[column[m]] += static_cast<Real>(occupancy[m]);
  }

  void add_arc_occupancies(const FullSum<Real>& problem, int64_t b, const double* before, double inverse) const {
    const int64_t g = problem.graphs.graphs > 1 ? b : 0;
    const GraphView arcs = view(problem.graphs, g);
    double* out = problem.arc_occupancies + (problem.graphs.graphs > 1 ? problem.graphs.arc_offsets[g] : b * arcs.arcs);
    for (int64_t a = 0; a < arcs.arcs; a++) {
      const int32_t m = graph_->arc_arrival[at(a)];
      if (m < 0) continue;
      const double mass = before[graph_->arc_source[at(a)]] * product_[at(lanes + m)] * inverse;
      if (mass >= bounded::dust<Real>) out[a] += mass * std::exp(arcs.weight[a] - graph_->largest_weight);
    }
  }

  void occupy_finals(const FullSum<Real>& problem, int64_t b, const double* last, double ended) const {
    const int64_t g = problem.graphs.graphs > 1 ? b : 0;
    const GraphView graph = view(problem.graphs, g);
    double* out =
        problem.final_occupancies + (problem.graphs.graphs > 1 ? problem.graphs.final_offsets[g] : b * graph.finals);
    for (int64_t f = 0; f < graph.finals; f++) {
      const int32_t slot = graph_->final_slot[at(f)];
      if (slot < 0) continue;
      const double weight = std::exp(graph.final_weight[f] - graph_->largest_final_weight);
      out[f] = last[node_of_slot(slot)] * weight / ended;
    }
  }

  const GraphLayout<Real>* graph_ = nullptr;
  int64_t node_width_ = 0, arrival_width_ = 0;
  double *alpha_ = nullptr, *checkpoint_ = nullptr, *occupancy_ = nullptr;
  Real *emission_ = nullptr, *mantissa_ = nullptr;
  Exponent* exponent_ = nullptr;
  int* rescaled_ = nullptr;
  std::vector<double> incoming_, outgoing_, beta_, product_;
  Scratch<double> alpha_memory_, checkpoint_memory_, occupancy_memory_;
  Scratch<Real> emission_memory_, mantissa_memory_;
  Scratch<Exponent> exponent_memory_;
  Scratch<int> rescaled_memory_;
};

}  // namespace seqtrain
