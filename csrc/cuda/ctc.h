// CTC's forward-backward recursion (equations: seqtrain/reference.py, `ctc_loss`; division of the work: sweep.h).
//
// States s = 0 … 2U: blanks at even s, target (s - 1) / 2 at odd s.  Columns of a row: blank, then the targets.
#pragma once

// clang-format off: the targets' check needs what the team defines
#include "rows.h"
#include "sweep.h"
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

struct CtcProblem {
  int64_t batch;
  int64_t max_frames;
  int64_t max_targets;
  const int64_t* offsets;
  const int64_t* lengths;
  const int64_t* targets;
  const int64_t* target_lengths;
  const void* emission;
  const int32_t* emission_exponent;
  void* store;
  int32_t* store_exponent;
  void* carry;
  int32_t* carry_exponent;
  double* log_likelihood;
  int32_t* row_status;
  const int64_t* status;
  int64_t phase;
  int64_t with_gradient;
  char* workspace;
  void* occupancies;
};

// What one block works on.
template <class Real>
struct CtcSweep {
  const Team& team;
  const CtcProblem& problem;
  int64_t utterance, frames, first, states, width, columns;
  const int64_t* target;

  SEQTRAIN_DEVICE CtcSweep(const Team& block, const CtcProblem& all, int64_t b)
      : team(block),
        problem(all),
        utterance(b),
        frames(all.lengths[b]),
        first(first_row(all.offsets, b, all.max_frames)),
        states(2 * all.target_lengths[b] + 1),
        width(2 * all.max_targets + 1),
        columns(1 + all.max_targets),
        target(all.targets + b * all.max_targets) {}

  SEQTRAIN_DEVICE int64_t column(int64_t s) const { return s % 2 == 0 ? 0 : 1 + s / 2; }
  // May s be reached from s - 2?
  SEQTRAIN_DEVICE bool skips(int64_t s) const {
    return s % 2 == 1 && s >= 3 && s < states && target[s / 2] != target[s / 2 - 1];
  }
  SEQTRAIN_DEVICE void emission(int64_t t, int64_t s, Real& m, ExponentOf<Real>& e) const {
    const int64_t place = (first + t) * columns + column(s);
    m = static_cast<const Real*>(problem.emission)[place];
    e = problem.emission_exponent[place];
  }
  SEQTRAIN_DEVICE States<Real> stored(int64_t t) const {
    const int64_t place = (first + t) * width;
    return {static_cast<Real*>(problem.store) + place, problem.store_exponent + place};
  }
  SEQTRAIN_DEVICE States<Real> carry() const {
    const int64_t place = team.block() * width;
    return {static_cast<Real*>(problem.carry) + place, problem.carry_exponent + place};
  }

  SEQTRAIN_DEVICE void forward_state(int64_t t, int64_t s, Real y, ExponentOf<Real> y_exponent, States<Real> before,
                                     States<Real> now) const {
    using Exponent = ExponentOf<Real>;
    if (t == 0) {
      put_state<Real>(now, s, s < 2 ? y : Real{0}, s < 2 ? y_exponent : Exponent{zero_exponent});
      return;
    }
    const Exponent stay = before.exponent[s], step = before.exponent[s - 1];
    const Exponent skip = skips(s) ? before.exponent[s - 2] : Exponent{zero_exponent};
    // The largest exponent leaves a forbidden skip out: it would flush what is allowed.
    Exponent top = stay > step ? stay : step;
    top = skip > top ? skip : top;
    const Real sum = scaled<Real>(before.mantissa[s], stay, top) + scaled<Real>(before.mantissa[s - 1], step, top) +
                     (skips(s) ? scaled<Real>(before.mantissa[s - 2], skip, top) : Real{0});
    put_state<Real>(now, s, sum * y, top + y_exponent);
  }

  // Beta of frame t from beta of frame t + 1, which is `behind`; beta leaves the emission of its own frame out.
  SEQTRAIN_DEVICE void backward_state(int64_t t, int64_t s, States<Real> behind, States<Real> now) const {
    using Exponent = ExponentOf<Real>;
    if (t == frames - 1) {
      const bool last = s >= states - 2;
      put_state<Real>(now, s, last ? Real{1} : Real{0}, last ? Exponent{0} : Exponent{zero_exponent});
      return;
    }
    Real m[3];
    Exponent e[3];
    Exponent top = zero_exponent;
    for (int64_t i = 0; i < 3; i++) {
      const int64_t to = s + i;
      m[i] = 0;
      e[i] = zero_exponent;
      if (to >= states || (i == 2 && !skips(to))) continue;
      Real y;
      Exponent y_exponent;
      emission(t + 1, to, y, y_exponent);
      m[i] = behind.mantissa[to] * y;
      e[i] = behind.exponent[to] + y_exponent;
      top = e[i] > top ? e[i] : top;
    }
    const Real sum = scaled<Real>(m[0], e[0], top) + scaled<Real>(m[1], e[1], top) + scaled<Real>(m[2], e[2], top);
    put_state<Real>(now, s, sum, top);
  }

  // Frames [begin, end) in the direction of `step` (1 or -1, begin being the first one visited).  `visit(t, now)` is
  // called by each thread with a barrier before it and one behind, so that it may look at all states.
  template <class Visit>
  SEQTRAIN_DEVICE void run(int64_t begin, int64_t end, int64_t step, const Visit& visit) const {
    States<Real> now = states_of<Real>(team, problem.workspace, width, 2, 0);
    States<Real> before = states_of<Real>(team, problem.workspace, width, 2, 1);
    clear_states(team, now, width);
    clear_states(team, before, width);
    team.sync();
    const States<Real> saved = carry();
    if (problem.phase == 1)
      for (int64_t s = team.thread(); s < states; s += team.threads()) {
        now.mantissa[s] = saved.mantissa[s];
        now.exponent[s] = saved.exponent[s];
      }
    team.sync();
    for (int64_t t = begin; t != end; t += step) {
      const States<Real> swap = before;
      before = now;
      now = swap;
      for (int64_t s = team.thread(); s < states; s += team.threads()) {
        if (step > 0) {
          Real y;
          ExponentOf<Real> y_exponent;
          emission(t, s, y, y_exponent);
          forward_state(t, s, y, y_exponent, before, now);
        } else {
          backward_state(t, s, before, now);
        }
      }
      end_of_frame(team);
      visit(t, now);
    }
    if (problem.phase == 0)
      for (int64_t s = team.thread(); s < states; s += team.threads()) {
        saved.mantissa[s] = now.mantissa[s];
        saved.exponent[s] = now.exponent[s];
      }
  }
};

// The first half of both directions: stores what it finds.
template <class Real>
SEQTRAIN_DEVICE void store_half(const CtcSweep<Real>& sweep, bool forward) {
  const int64_t middle = middle_of(sweep.frames);
  const auto store = [&](int64_t t, States<Real> now) {
    const States<Real> row = sweep.stored(t);
    for (int64_t s = sweep.team.thread(); s < sweep.states; s += sweep.team.threads()) {
      row.mantissa[s] = now.mantissa[s];
      row.exponent[s] = now.exponent[s];
    }
  };
  if (forward) {
    sweep.run(0, middle, 1, store);
  } else {
    sweep.run(sweep.frames - 1, middle - 1, -1, store);
  }
}

// The other half: multiplies with what is stored, and leaves there products that have one factor in common in a frame.
template <class Real>
SEQTRAIN_DEVICE void combine_half(const CtcSweep<Real>& sweep, bool forward) {
  const int64_t middle = middle_of(sweep.frames);
  const int64_t begin = forward ? middle : middle - 1;
  int64_t top = 0;
  const auto combine = [&](int64_t t, States<Real> now) {
    const States<Real> row = sweep.stored(t);
    if (t == begin) {
      double sum;
      top = sum_of_products<Real>(
          sweep.team, sweep.states,
          [&](int64_t s, double& m, int64_t& e) {
            m = static_cast<double>(now.mantissa[s]) * static_cast<double>(row.mantissa[s]);
            e = int64_t{now.exponent[s]} + row.exponent[s];
          },
          sum);
      if (!forward && sweep.team.thread() == 0) sweep.problem.log_likelihood[sweep.utterance] = log_of(sum, top);
    }
    for (int64_t s = sweep.team.thread(); s < sweep.states; s += sweep.team.threads())
      row.mantissa[s] = product_below(now.mantissa[s], now.exponent[s], row.mantissa[s], row.exponent[s], top);
  };
  if (forward) {
    if (sweep.problem.with_gradient != 0) sweep.run(middle, sweep.frames, 1, combine);
  } else {
    sweep.run(middle - 1, sweep.problem.with_gradient != 0 ? -1 : middle - 2, -1, combine);
  }
}

// Blocks 2b and 2b + 1 are the two directions of utterance b.
template <class Real>
SEQTRAIN_DEVICE void ctc_sweep(const Team& team, const CtcProblem& problem) {
  const int64_t b = team.block() / 2;
  const bool forward = team.block() % 2 == 0;
  if (problem.status[b] != 0) return;
  const CtcSweep<Real> sweep(team, problem, b);
  if (sweep.frames == 0) {  // the caller has seen to it that there are no targets either
    if (team.thread() == 0) problem.log_likelihood[b] = 0;
    return;
  }
  if (problem.phase == 0) {
    store_half(sweep, forward);
  } else {
    combine_half(sweep, forward);
  }
}

// One block a row at a time: products → occupancies of the columns, divided by their own sum, as on the CPU.
template <class Real>
SEQTRAIN_DEVICE void ctc_occupancies(const Team& team, const CtcProblem& problem) {
  for (int64_t item = team.block(); item < problem.batch * problem.max_frames; item += team.blocks()) {
    const int64_t b = item / problem.max_frames, t = item % problem.max_frames;
    if (t >= problem.lengths[b] || problem.status[b] != 0) continue;
    const CtcSweep<Real> sweep(team, problem, b);
    const Real* product = sweep.stored(t).mantissa;
    Real blanks = 0, labels = 0;
    for (int64_t u = team.thread(); 2 * u < sweep.states; u += team.threads()) {
      blanks += product[2 * u];
      if (2 * u + 1 < sweep.states) labels += product[2 * u + 1];
    }
    blanks = reduce(team, blanks, Sum{});
    const Real sum = blanks + reduce(team, labels, Sum{});
    const Real inverse = sum > 0 ? Real{1} / sum : Real{0};
    if (team.thread() == 0) lose_row(problem.row_status, sweep.first + t, sum > 0);
    Real* out = static_cast<Real*>(problem.occupancies) + (sweep.first + t) * sweep.columns;
    for (int64_t k = team.thread(); k < sweep.columns; k += team.threads())
      out[k] = k == 0 ? blanks * inverse : 2 * k - 1 < sweep.states ? product[2 * k - 1] * inverse : Real{0};
  }
}

}  // namespace seqtrain
