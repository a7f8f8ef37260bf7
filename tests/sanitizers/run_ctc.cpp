// CTC: forward, backward, in place.

#include <cmath>

#include "batch.h"
#include "runs.h"

namespace seqtrain::sanitizers {

namespace {

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

}  // namespace

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

template void run_ctc<float>(Random&, const Shape&, int64_t, int);
template void run_ctc<double>(Random&, const Shape&, int64_t, int);

}  // namespace seqtrain::sanitizers
