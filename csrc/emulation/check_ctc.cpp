// CTC's kernels on random batches.

#include <algorithm>

#include "../cpu/kernels.h"
#include "../cuda/ctc.h"
#include "../cuda/ctc_columns.h"
#include "row_pass.h"

namespace seqtrain {
namespace {

struct Batch {
  int64_t batch, frames, labels, targets;
  int threads;
  bool normalize;
  std::vector<float> scores;
  std::vector<int64_t> target, lengths, target_lengths;

  // Several warps, one, two or more pairs of states a thread, zero lengths, empty targets, equal neighbours; scores
  // flat, peaky and partly forbidden; rows that are whole pieces and others, of which threads take several.
  explicit Batch(Random& random) : batch(3), frames(12 + random.below(20)), targets(random.below(8)), threads(64) {
    labels = random.below(2) == 0 ? 5 : random.below(8) == 0 ? 1100 + random.below(4) : 8;
    if (random.below(3) == 0) {
      targets = 40 + 35 * random.below(2);
      threads = 32 << random.below(2);
      frames = targets + targets / 2;  // too few for some
    }
    normalize = random.below(2) == 0;
    const float scale = random.below(3) == 0 ? 60.0f : 3.0f;
    for (int64_t i = 0; i < batch * frames * labels; i++) scores.push_back(random.number(scale));
    for (int64_t i = 0; i < frames; i++) scores[size(i * labels + 1)] = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < batch * targets; i++) target.push_back(1 + random.below(labels - 1));
    for (int64_t b = 0; b < batch; b++) {
      target_lengths.push_back(b == 1 ? 0 : b == 2 ? targets : random.below(targets + 1));
      const int64_t least = 2 * target_lengths.back();
      lengths.push_back(b == 1 && random.below(2) == 0 ? 0
                                                       : least + random.below(std::max<int64_t>(1, frames - least)));
      lengths.back() = std::min(lengths.back(), frames);
    }
  }
};

struct Result {
  std::vector<double> loss;
  std::vector<float> occupancies, gradient;
  std::vector<int64_t> status;
  std::vector<int64_t> needed;  // status of targets that get one frame each: too few where equal ones are neighbours

  uint64_t hash() const {
    Hash all;
    all.add(loss);
    all.add(occupancies);
    all.add(gradient);
    all.add(status);
    all.add(needed);
    return all.value;
  }
};

Result run_cuda(Batch& in, Order order, uint32_t seed) {
  const int64_t rows = in.batch * in.frames, width = 1 + in.targets;
  std::vector<int64_t> columns = scratch<int64_t>(in.batch * width);
  std::vector<int32_t> following = scratch<int32_t>(in.batch * width);
  CtcColumnsProblem lay_out{};
  lay_out.labels = in.labels;
  lay_out.max_targets = in.targets;
  lay_out.targets = in.target.data();
  lay_out.target_lengths = in.target_lengths.data();
  lay_out.column_labels = columns.data();
  lay_out.following = following.data();
  launch("ctc_columns", in.batch, 32, reduction_bytes, &lay_out, order, seed);

  Result out;
  out.loss.assign(size(in.batch), 0);
  out.status.assign(size(in.batch), 0);
  out.occupancies.assign(size(rows * width), 0);
  out.gradient.assign(size(rows * in.labels), 0);
  std::vector<float> normalizer = scratch<float>(2 * rows);
  std::vector<Cell<float>> store = scratch<Cell<float>>(2 * rows * width),
                           carry = scratch<Cell<float>>(2 * in.batch * 2 * width);
  const std::vector<double> weight(size(in.batch), 1.5);

  out.needed.assign(size(in.batch), status_ok);
  CtcTargetsProblem check{};
  check.labels = in.labels;
  check.max_targets = in.targets;
  check.lengths = check.target_lengths = in.target_lengths.data();
  check.targets = in.target.data();
  check.status = out.needed.data();
  launch("ctc_targets", in.batch, 32, reduction_bytes, &check, order, seed);

  RowPass pass(in, columns, width, false, -1, out.loss, out.status);
  pass.differentiate(out.gradient, weight, out.occupancies);
  pass.problem.following = following.data();
  pass.problem.normalize = in.normalize ? 1 : 0;
  pass.problem.normalizer = normalizer.data();

  CtcProblem sweep{};
  pass.hand_to(sweep);
  sweep.max_targets = in.targets;
  sweep.targets = in.target.data();
  sweep.target_lengths = in.target_lengths.data();
  sweep.store = store.data();
  sweep.carry = carry.data();
  sweep.with_gradient = 1;
  sweep.occupancies = out.occupancies.data();

  sweep.pairs_of_thread = (width + in.threads - 1) / in.threads;
  if (sweep.pairs_of_thread > most_pairs_of_thread) sweep.pairs_of_thread = 0;
  const int64_t shared = reduction_bytes + ctc_state_bytes<float>(in.targets, sweep.pairs_of_thread);
  pass.emit(order, seed);
  for (sweep.phase = 0; sweep.phase < 2; sweep.phase++)
    launch("ctc_sweep_float32", 2 * in.batch, in.threads, shared, &sweep, order, seed);
  launch("ctc_occupancies_float32", rows, in.threads, reduction_bytes, &sweep, order, seed);
  launch("values", in.batch, in.threads, reduction_bytes, &pass.problem, order, seed);
  pass.write_gradient(order, seed);
  return out;
}

Result run_cpu(Batch& in) {
  const int64_t rows = in.batch * in.frames, width = 1 + in.targets;
  Result out;
  out.loss.assign(size(in.batch), 0);
  out.status.assign(size(in.batch), 0);
  out.occupancies.assign(size(rows * width), 0);
  out.gradient.assign(size(rows * in.labels), 0);
  out.needed.resize(size(in.batch));
  check_ctc_targets(
      {in.batch, in.labels, in.targets, in.target.data(), in.target_lengths.data(), 0, out.needed.data()});
  for (int64_t b = 0; b < in.batch; b++)
    out.needed[size(b)] = in.target_lengths[size(b)] < out.needed[size(b)] ? status_infeasible : status_ok;
  std::vector<float> normalizer(size(2 * rows));
  std::vector<double> weight(size(in.batch), 1.5);
  const Tensor scores{in.scores.data(), Dtype::float32, in.frames * in.labels, in.labels, 1, nullptr};
  const Tensor gradient{out.gradient.data(), Dtype::float32, in.frames * in.labels, in.labels, 1, nullptr};
  ctc_forward(CtcForward<float>{scores, in.batch, in.labels, in.frames, in.targets, in.target.data(), in.lengths.data(),
                                in.target_lengths.data(), 0, in.normalize, out.loss.data(), out.occupancies.data(),
                                normalizer.data(), out.status.data(), 1});
  ctc_backward(CtcBackward<float>{scores,
                                  gradient,
                                  {in.batch, in.labels, in.frames, in.targets},
                                  in.target.data(),
                                  in.lengths.data(),
                                  in.target_lengths.data(),
                                  0,
                                  in.normalize,
                                  weight.data(),
                                  out.occupancies.data(),
                                  normalizer.data(),
                                  out.status.data(),
                                  1});
  return out;
}

double largest_difference(const Result& a, const Result& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.loss.size(); i++) {
    if (a.status[i] != b.status[i] || a.needed[i] != b.needed[i]) return std::numeric_limits<double>::infinity();
    if (a.status[i] == 0) worst = std::max(worst, relative_difference(a.loss[i], b.loss[i]));
  }
  return std::max(worst, largest_difference_of(a.gradient, b.gradient));
}

class Ctc : public Case {
 public:
  explicit Ctc(Random& random) : batch_(random) {}
  uint64_t run(Order order, uint32_t seed) override {
    last_ = run_cuda(batch_, order, seed);
    return last_.hash();
  }
  double difference() override { return largest_difference(last_, run_cpu(batch_)); }

 private:
  Batch batch_;
  Result last_;
};

const Kind kind("ctc", [](Random& random) -> std::unique_ptr<Case> { return std::make_unique<Ctc>(random); });

}  // namespace
}  // namespace seqtrain
