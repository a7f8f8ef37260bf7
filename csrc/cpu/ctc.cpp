// CTC over a batch: row passes over the scores, the recursion on the targets' columns alone, and the dense gradient.

#include "../recursion/ctc.h"

#include <limits>

#include "../recursion/emission.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "prefetch.h"
#include "segments.h"
#include "softmax.h"

namespace seqtrain {
namespace {

template <class Real>
class CtcUtterance {
  using Exponent = ExponentOf<Real>;

 public:
  void run(const CtcForward<Real>& problem, int64_t b) {
    const int64_t frames = problem.lengths[b];
    prepare(problem, b, frames);
    if (frames == 0) {  // the caller has seen to it that there are no targets either
      problem.loss[b] = 0;
      return;
    }
    const Segments segments(frames, 6 * width_ * static_cast<int64_t>(sizeof(Real)));
    allocate(segments, problem.labels);

    double normalizer = 0;
    for (int64_t segment = 0; segment < segments.count; segment++) {
      for (int64_t t = segments.begin(segment); t < segments.end(segment, frames); t++) {
        const char* row = problem.scores.row(b, t);
        if (problem.normalize && !normalize_row(problem, b, t, row, normalizer)) return;
        if (!emit(problem, row, t, t - segments.begin(segment))) {
          problem.status[b] = 1 + t;
          return;
        }
        step(t, t - segments.begin(segment));
      }
      save_checkpoint(segment, segments.end(segment, frames) - 1 - segments.begin(segment));
    }

    const CtcFrame<Real> last = alpha(frames - 1 - segments.begin(segments.count - 1));
    const double likelihood = log2_likelihood(last);
    if (!(likelihood > -std::numeric_limits<double>::infinity())) {
      problem.status[b] = status_no_path;
      return;
    }
    double shift = 0;
    for (int64_t t = 0; t < frames; t++) shift += static_cast<double>(shift_[t]);
    problem.loss[b] = normalizer - offset_ - (likelihood + shift) * 0.69314718055994530942;
    if (problem.occupancies != nullptr) sweep_back(problem, b, frames, segments, std::floor(likelihood));
  }

 private:
  void prepare(const CtcForward<Real>& problem, int64_t b, int64_t frames) {
    targets_ = problem.target_lengths[b];
    offset_ = largest_ = 0;
    width_ = ctc_width(targets_);
    const int64_t* targets = problem.targets + b * problem.max_targets;
    target_ = target_memory_.reserve(static_cast<std::size_t>(width_));
    skip_ = skip_memory_.reserve(static_cast<std::size_t>(width_));  // one more than the states
    shift_ = shift_memory_.reserve(static_cast<std::size_t>(frames + 1));
    states_ = ctc_states(targets_);
    for (int64_t u = 0; u < width_; u++) {
      skip_[u] = u > 0 && u < targets_ && targets[u] != targets[u - 1] ? 0 : zero_exponent;
      target_[u] = (u < targets_ ? targets[u] : problem.blank) * problem.scores.stride_label;
    }
  }

  void allocate(const Segments& segments, int64_t labels) {
    const auto frame = static_cast<std::size_t>(2 * width_);
    const auto length = static_cast<std::size_t>(segments.length), count = static_cast<std::size_t>(segments.count);
    alpha_ = alpha_memory_.reserve(length * frame);
    alpha_exponent_ = alpha_exponent_memory_.reserve(length * frame);
    emission_ = emission_memory_.reserve(length * static_cast<std::size_t>(width_));
    emission_exponent_ = emission_exponent_memory_.reserve(length * static_cast<std::size_t>(width_));
    checkpoint_ = checkpoint_memory_.reserve(count * frame);
    checkpoint_exponent_ = checkpoint_exponent_memory_.reserve(count * frame);
    // Beta, the products, and one vector of zeros behind them.
    beta_ = beta_memory_.reserve(2 * frame + ctc_padding);
    beta_exponent_ = beta_exponent_memory_.reserve(2 * frame + ctc_padding);
    std::fill(beta_, beta_ + 2 * frame + ctc_padding, Real{0});
    std::fill(beta_exponent_, beta_exponent_ + 2 * frame + ctc_padding, Exponent{zero_exponent});
    occupancy_ = occupancy_memory_.reserve(static_cast<std::size_t>(states_));
    row_ = row_memory_.reserve(static_cast<std::size_t>(labels));
  }

  CtcFrame<Real> alpha(int64_t slot) {
    return CtcFrame<Real>(alpha_ + slot * 2 * width_, alpha_exponent_ + slot * 2 * width_, width_);
  }

  CtcFrame<Real> checkpoint(int64_t segment) {
    return CtcFrame<Real>(checkpoint_ + segment * 2 * width_, checkpoint_exponent_ + segment * 2 * width_, width_);
  }

  // The blank's emission stands in front of the targets'.
  CtcEmission<Real> emission(int64_t slot) const {
    const Real* label = emission_ + slot * width_ + ctc_padding;
    const Exponent* exponent = emission_exponent_ + slot * width_ + ctc_padding;
    return {label, exponent, label[-ctc_padding], exponent[-ctc_padding]};
  }

  bool normalize_row(const CtcForward<Real>& problem, int64_t b, int64_t t, const char* row, double& normalizer) {
    const Real* scores = contiguous_row<Real>(problem.scores, row, problem.labels, row_);
    const Real* ahead = scores == row_ ? row_ : scores + problem.scores.stride_frame;
    const RowNormalizer<Real> found = row_normalizer(scores, problem.labels, ahead);
    Real* out = problem.normalizer + (problem.scores.first_row(b, problem.max_frames) + t) * 2;
    out[0] = found.largest;
    out[1] = found.inverse_sum;
    if (!found.finite) {
      problem.status[b] = 1 + t;
      return false;
    }
    largest_ = static_cast<double>(found.largest);
    normalizer -= std::log(static_cast<double>(found.inverse_sum));
    return true;
  }

  // Gathers the targets' scores and splits their exponentials.  The frame's largest exponent is taken out, so that
  // scores of any offset stay in range; it comes back in the loss, and posteriors don't depend on it.
  bool emit(const CtcForward<Real>& problem, const char* row, int64_t t, int64_t slot) {
    Real* mantissa = emission_ + slot * width_ + ctc_padding;
    Exponent* exponent = emission_exponent_ + slot * width_ + ctc_padding;
    // Blank's score is split with the others, in the first place behind the targets, and then moved.
    const auto gather = [&](Real* __restrict out) {
      const int64_t* __restrict target = target_;
      if (problem.scores.dtype == dtype_of<Real>()) {
        const Real* __restrict scores = reinterpret_cast<const Real*>(row);
        // Normalizing has just read the row.  Else no hardware prefetcher sees these few elements coming; past the last
        // frame this asks for what isn't there, which costs nothing.
        if (!problem.normalize) {
          const int64_t ahead = frames_ahead * problem.scores.stride_frame;
          for (int64_t u = 0; u < targets_ + 1; u++) __builtin_prefetch(scores + ahead + target[u], 0, second_cache);
        }
        for (int64_t u = 0; u < targets_ + 1; u++) out[u] = scores[target[u]];
      } else {
        for (int64_t u = 0; u < targets_ + 1; u++) out[u] = load<Real>(row, problem.scores.dtype, target[u]);
      }
      for (int64_t u = targets_ + 1; u < states_; u++) out[u] = -std::numeric_limits<Real>::infinity();
    };
    double offset;
    if (!emit_frame<Real>(gather, mantissa, exponent, states_, shift_[t], offset)) return false;
    offset_ += offset - largest_;  // these two may be huge, and nearly equal
    mantissa[-ctc_padding] = mantissa[targets_];
    exponent[-ctc_padding] = exponent[targets_];
    mantissa[targets_] = 0;
    exponent[targets_] = zero_exponent;
    return true;
  }

  void step(int64_t t, int64_t slot) {
    if (t == 0) {
      ctc_start(emission(slot), alpha(slot), targets_, width_);
    } else {
      // The first frame of a segment follows the checkpoint of the segment before.
      const CtcFrame<Real> before = slot > 0 ? alpha(slot - 1) : checkpoint(saved_);
      ctc_forward(emission(slot), before, alpha(slot), skip_, states_);
    }
  }

  void save_checkpoint(int64_t segment, int64_t slot) {
    const auto frame = static_cast<std::size_t>(2 * width_);
    std::memcpy(checkpoint_ + segment * 2 * width_, alpha_ + slot * 2 * width_, frame * sizeof(Real));
    std::memcpy(checkpoint_exponent_ + segment * 2 * width_, alpha_exponent_ + slot * 2 * width_,
                frame * sizeof(Exponent));
    saved_ = segment;
  }

  double log2_likelihood(const CtcFrame<Real>& last) const {
    const double blank = static_cast<double>(last.blank[targets_]);
    const double label = targets_ > 0 ? static_cast<double>(last.label[targets_ - 1]) : 0.0;
    const double blank_exponent = static_cast<double>(last.blank_exponent[targets_]);
    const double label_exponent = targets_ > 0 ? static_cast<double>(last.label_exponent[targets_ - 1]) : zero_exponent;
    const double top = std::max(blank_exponent, label_exponent);
    return top + std::log2(blank * std::exp2(blank_exponent - top) + label * std::exp2(label_exponent - top));
  }

  void sweep_back(const CtcForward<Real>& problem, int64_t b, int64_t frames, const Segments& segments, double floor) {
    const auto exponent = static_cast<Exponent>(floor);
    const int64_t columns = 1 + problem.max_targets;
    CtcFrame<Real> beta(beta_, beta_exponent_, width_);
    CtcFrame<Real> product(beta_ + 2 * width_, beta_exponent_ + 2 * width_, width_);
    ctc_finish(beta, targets_, width_);
    for (int64_t segment = segments.count - 1; segment >= 0; segment--) {
      const int64_t begin = segments.begin(segment), end = segments.end(segment, frames);
      if (segment < segments.count - 1) {  // beta has just passed the first frame of the segment behind
        saved_ = segment - 1;
        for (int64_t t = begin; t < end; t++) {
          emit(problem, problem.scores.row(b, t), t, t - begin);
          step(t, t - begin);
        }
      }
      for (int64_t t = end - 1; t >= begin; t--) {
        Real* out = problem.occupancies + (problem.scores.first_row(b, problem.max_frames) + t) * columns;
        if (!ctc_occupancies(alpha(t - begin), beta, exponent, targets_, occupancy_, out)) {
          problem.status[b] = status_no_path;
          return;
        }
        for (int64_t u = 1 + targets_; u < columns; u++) out[u] = 0;
        if (t > 0) ctc_backward(emission(t - begin), product, beta, skip_, states_);
      }
    }
  }

  double offset_ = 0, largest_ = 0;  // of all frames; of the frame that is being normalized
  int64_t targets_ = 0, states_ = 0, width_ = 0, saved_ = 0;
  int64_t* target_ = nullptr;
  Exponent* skip_ = nullptr;
  Exponent* shift_ = nullptr;
  Real *alpha_ = nullptr, *emission_ = nullptr, *checkpoint_ = nullptr, *beta_ = nullptr, *row_ = nullptr,
       *occupancy_ = nullptr;
  Exponent *alpha_exponent_ = nullptr, *emission_exponent_ = nullptr, *checkpoint_exponent_ = nullptr,
           *beta_exponent_ = nullptr;
  Scratch<int64_t> target_memory_;
  Scratch<Exponent> skip_memory_, shift_memory_, alpha_exponent_memory_, emission_exponent_memory_,
      checkpoint_exponent_memory_, beta_exponent_memory_;
  Scratch<Real> alpha_memory_, emission_memory_, checkpoint_memory_, beta_memory_, row_memory_, occupancy_memory_;
};

template <class Real>
struct RowScratch {
  Scratch<Real> input, output;
};

}  // namespace

TargetCheck check_ctc_targets(const CtcTargets& problem) {
  for (int64_t b = 0; b < problem.batch; b++) {
    const int64_t length = problem.target_lengths[b];
    if (length < 0 || length > problem.max_targets) return {TargetFault::length, b, 0};
    const int64_t* target = problem.targets + b * problem.max_targets;
    int64_t needed = 0;
    for (int64_t u = 0; u < length; u++) {
      const TargetFault fault = fault_of_target(target[u], problem.labels, problem.blank);
      if (fault != TargetFault::none) return {fault, b, u};
      needed += frames_of_target(target, u);
    }
    problem.needed[b] = needed;
  }
  return {TargetFault::none, 0, 0};
}

template <class Real>
void ctc_forward(const CtcForward<Real>& problem) {
  std::vector<double> work(static_cast<std::size_t>(problem.batch));
  for (int64_t b = 0; b < problem.batch; b++) {
    const double columns = 4.0 * static_cast<double>(problem.target_lengths[b] + 8);
    const double row = problem.normalize ? static_cast<double>(problem.labels) / 4.0 : 0.0;
    work[static_cast<std::size_t>(b)] = static_cast<double>(problem.lengths[b]) * (columns + row);
  }
  for_each_utterance<CtcUtterance<Real>>(work, problem.threads, [&](int64_t b, CtcUtterance<Real>& utterance) {
    if (problem.status[b] == status_ok) utterance.run(problem, b);
  });
}

template <class Real>
void ctc_backward(const CtcBackward<Real>& problem) {
  const int64_t labels = problem.shape.labels, frames = problem.shape.max_frames;
  const int64_t columns = 1 + problem.shape.max_targets;
  const int64_t total_rows = problem.gradient.rows(problem.shape.batch, frames);
  // Past the caches where the gradient is larger than they are; in place, the row is in a cache already.
  const bool stream = total_rows * labels * static_cast<int64_t>(sizeof(Real)) > streaming_bytes &&
                      problem.scores.data != problem.gradient.data;
  const bool direct = problem.gradient.dtype == dtype_of<Real>() && problem.gradient.stride_label == 1 && !stream;
  const double average = static_cast<double>(total_rows * labels) / static_cast<double>(problem.shape.batch);
  std::vector<double> work(static_cast<std::size_t>(problem.shape.batch), average / 4.0);
  for_each_utterance<RowScratch<Real>>(work, problem.threads, [&](int64_t b, RowScratch<Real>& scratch) {
    Real* input = scratch.input.reserve(static_cast<std::size_t>(labels));
    Real* output = scratch.output.reserve(static_cast<std::size_t>(labels));
    const bool alive = problem.status[b] == status_ok;
    const int64_t length = problem.lengths[b], targets = problem.target_lengths[b];
    const int64_t rows = problem.gradient.offsets != nullptr ? length : frames;
    const int64_t* target = problem.targets + b * problem.shape.max_targets;
    const auto weight = static_cast<Real>(problem.weight[b]);
    const int64_t first_row = problem.gradient.first_row(b, frames);
    for (int64_t t = 0; t < rows; t++) {
      char* out = problem.gradient.row(b, t);
      if (!alive || t >= length) {
        zero_row(problem.gradient, out, labels);
        continue;
      }
      const Real* occupancy = problem.occupancies + (first_row + t) * columns;
      // Rows are made in place where nothing has to be converted or streamed.
      Real* made = direct ? reinterpret_cast<Real*>(out) : output;
      if (problem.normalize) {
        const Real* scores = contiguous_row<Real>(problem.scores, problem.scores.row(b, t), labels, input);
        const Real* normalizer = problem.normalizer + (first_row + t) * 2;
        const Real* ahead = scores == input ? input : scores + problem.scores.stride_frame;
        scaled_softmax(scores, labels, normalizer[0], normalizer[1], weight, made, ahead);
      } else {
        std::memset(made, 0, static_cast<std::size_t>(labels) * sizeof(Real));
      }
      made[problem.blank] -= weight * occupancy[0];
      for (int64_t u = 0; u < targets; u++) made[target[u]] -= weight * occupancy[1 + u];
      if (!direct) write_row(problem.gradient, out, output, labels, stream);
    }
    finish_streaming();
  });
}

template void ctc_forward<float>(const CtcForward<float>&);
template void ctc_forward<double>(const CtcForward<double>&);
template void ctc_backward<float>(const CtcBackward<float>&);
template void ctc_backward<double>(const CtcBackward<double>&);

}  // namespace seqtrain
