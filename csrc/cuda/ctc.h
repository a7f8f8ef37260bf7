// CTC's kernels (equations: seqtrain/reference.py, `ctc_loss`).  Columns of a row: blank, then the targets.
#pragma once

// clang-format off: the targets' check needs what the team defines
#include "ctc_sweep.h"
#include "../recursion/ctc_targets.h"
// clang-format on

namespace seqtrain {

// What is checked on the device where the host can't look at it.
struct CtcTargetsProblem {
  int64_t labels;
  int64_t max_targets;
  int64_t blank;
  const int64_t* lengths;
  const int64_t* targets;
  const int64_t* target_lengths;
  int64_t* status;
};

// One block an utterance: what is wrong with its targets, or whether they don't fit into its frames.
SEQTRAIN_DEVICE void ctc_targets(const Team& team, const CtcTargetsProblem& problem) {
  const int64_t b = team.block(), count = problem.target_lengths[b];
  const int64_t* target = problem.targets + b * problem.max_targets;
  int32_t bad = count < 0 || count > problem.max_targets ? 1 : 0;
  int64_t needed = 0;
  for (int64_t u = team.thread(); bad == 0 && u < count; u += team.threads()) {
    bad = fault_of_target(target[u], problem.labels, problem.blank) != TargetFault::none ? 1 : 0;
    needed += frames_of_target(target, u);
  }
  bad = reduce(team, bad, Largest{});
  needed = reduce(team, needed, Sum{});
  if (team.thread() != 0 || problem.status[b] != status_ok) return;
  if (bad != 0) {
    problem.status[b] = status_bad_input;
  } else if (problem.lengths[b] < needed) {
    problem.status[b] = status_infeasible;
  }
}

// Blocks 2b and 2b + 1 are the two directions of utterance b.
template <class Real>
SEQTRAIN_DEVICE void ctc_sweep(const Team& team, const CtcProblem& problem) {
  const int64_t b = team.block() / 2;
  const bool forward = team.block() % 2 == 0;
  if (problem.status[b] != 0) return;
  if (problem.lengths[b] == 0) {  // the caller has seen to it that there are no targets either
    if (team.thread() == 0) problem.log_likelihood[b] = 0;
    return;
  }
  CtcSweep<Real> sweep(team, problem, b, forward);
  if (problem.phase == 0) {
    sweep.template run<false>();
  } else {
    sweep.template run<true>();
  }
}

// One block a row at a time: products → occupancies of the columns, divided by their own sum, as on the CPU.
template <class Real>
SEQTRAIN_DEVICE void ctc_occupancies(const Team& team, const CtcProblem& problem) {
  for (int64_t item = team.block(); item < problem.batch * problem.max_frames; item += team.blocks()) {
    const int64_t b = item / problem.max_frames, t = item % problem.max_frames;
    if (t >= problem.lengths[b] || problem.status[b] != 0) continue;
    const int64_t row = first_row(problem.offsets, b, problem.max_frames) + t;
    const int64_t columns = problem.max_targets + 1, targets = problem.target_lengths[b];
    const auto* product = static_cast<const CtcProducts<Real>*>(problem.store) + 2 * row * columns;
    // The way back has the other blank beside a label.
    const int64_t beside = t < middle_of(problem.lengths[b]) ? 1 : 0;
    Real blanks = 0, labels = 0;
    for (int64_t u = team.thread(); u <= targets; u += team.threads()) {
      blanks += product[u].blank;
      if (u < targets) labels += product[u + beside].label;
    }
    blanks = reduce(team, blanks, Sum{});
    const Real sum = blanks + reduce(team, labels, Sum{});
    const Real inverse = sum > 0 ? Real{1} / sum : Real{0};
    if (team.thread() == 0) lose_row(problem.row_status, row, sum > 0);
    Real* out = static_cast<Real*>(problem.occupancies) + row * columns;
    for (int64_t k = team.thread(); k < columns; k += team.threads())
      out[k] = k == 0 ? blanks * inverse : k <= targets ? product[k - 1 + beside].label * inverse : Real{0};
  }
}

}  // namespace seqtrain
