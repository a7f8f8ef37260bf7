// The sweeps over lattices (equations: seqtrain/reference.py, `lattice_total_score`; with risks, `expected_risk`).
//
// Blocks of one launch are the two directions of each lattice.  Either goes over the levels of states, eight lanes a
// state, and keeps of each the sum over the paths from the start to it or from it to the end and, where arcs have
// risks, the risk that is expected along them.  Neither reads what the other finds: posteriors are made of both by a
// launch behind.  Arcs of a state are summed in an order that the number of threads has no part in.
#pragma once

// clang-format off: the numbers need what the team defines
#include "lattice_table.h"
#include "sweep.h"
#include "../recursion/wide.h"
// clang-format on

namespace seqtrain {

struct LatticeProblem {
  int64_t batch;
  int64_t directions;
  int64_t chunks;
  int64_t in_shared;
  int64_t most_states;
  const void* tables;
  const int32_t* integers;
  const int32_t* starts;
  const int32_t* arcs;
  const double* weights;
  const double* final_weights;
  double largest_weight;
  double smallest_weight;
  Wide* leaving;
  Wide* entering;
  int32_t* entering_source;
  Wide* finals;
  Wide* ahead;
  Wide* behind;
  double* value;
  int64_t* status;
  int64_t* faults;
  double* arc_posteriors;
  double* final_posteriors;
  const double* risks;
  const double* final_risks;
  double* entering_risk;
  double* risk_ahead;
  double* risk_behind;
  double* risk;
  double* arc_gradients;
  double* final_gradients;
};

constexpr int64_t lanes_of_state = 8;

struct LatticeOf {
  const LatticeTable& table;
  const int32_t* integers;
  const int32_t* arcs;  // of this lattice

  SEQTRAIN_DEVICE LatticeOf(const LatticeProblem& problem, int64_t b)
      : table(static_cast<const LatticeTable*>(problem.tables)[b]),
        integers(problem.integers),
        arcs(problem.arcs + 3 * table.first_arc) {}
  SEQTRAIN_DEVICE int64_t source(int64_t a) const { return arcs[3 * a]; }
  SEQTRAIN_DEVICE int64_t destination(int64_t a) const { return arcs[3 * a + 1]; }
};

SEQTRAIN_DEVICE int64_t start_of(const LatticeProblem& problem, int64_t b) {
  return problem.starts != nullptr ? problem.starts[b] : 0;
}

// exp of a weight, zero below the smallest.  False where it can't be used.
SEQTRAIN_DEVICE bool exponential_of_weight(const LatticeProblem& problem, double weight, Wide& result) {
  const bool sound = weight < problem.largest_weight;
  if (!sound || !(weight > problem.smallest_weight)) {
    result = wide_zero();
    return sound;
  }
  const int64_t n = nearest(weight * 1.4426950408889634);
  result = {exponential_of_remainder(reduce_argument(weight, static_cast<double>(n))), n};
  return true;
}

template <bool with_risk>
SEQTRAIN_DEVICE bool usable_risk(const double* risks, int64_t item) {
  if constexpr (with_risk) {
    const double infinity = infinity_of<double>();
    return risks[item] > -infinity && risks[item] < infinity;
  }
  return true;
}

// `chunks` blocks a lattice: the exponentials of its weights, those of arcs in the orders of both directions.  Leaves
// in `faults` 1 + the first arc of the chunk, or -1 - the first final state, that can't be used; 0.
template <bool with_risk>
SEQTRAIN_DEVICE void lattice_weights(const Team& team, const LatticeProblem& problem) {
  const LatticeOf lattice(problem, team.block() / problem.chunks);
  const LatticeTable& table = lattice.table;
  const int64_t first = team.block() % problem.chunks * team.threads() + team.thread();
  const int64_t step = problem.chunks * team.threads();
  int64_t bad = 0, bad_final = 0;  // the larger, the earlier
  for (int64_t i = first; i < table.arcs; i += step) {
    const int64_t place = table.first_arc + i;
    const bool sound = exponential_of_weight(problem, problem.weights[place], problem.leaving[place]);
    if (!(sound && usable_risk<with_risk>(problem.risks, place)) && bad == 0) bad = table.arcs - i;
    const int64_t a = lattice.integers[table.entering + i];
    exponential_of_weight(problem, problem.weights[table.first_arc + a], problem.entering[place]);
    problem.entering_source[place] = static_cast<int32_t>(lattice.source(a));
    if constexpr (with_risk) problem.entering_risk[place] = problem.risks[table.first_arc + a];
  }
  for (int64_t f = first; f < table.finals; f += step) {
    const int64_t place = table.first_final + f;
    const bool sound = exponential_of_weight(problem, problem.final_weights[place], problem.finals[place]);
    if (!(sound && usable_risk<with_risk>(problem.final_risks, place)) && bad_final == 0) bad_final = table.finals - f;
  }
  bad = reduce(team, bad, Largest{});
  bad_final = reduce(team, bad_final, Largest{});
  if (team.thread() != 0) return;
  problem.faults[team.block()] = bad > 0 ? 1 + table.arcs - bad : bad_final > 0 ? -1 - (table.finals - bad_final) : 0;
}

// What a lane has found of the paths through a state: Σ of their probabilities and, relative to the same exponent, Σ of
// probability · risk.
template <bool with_risk>
struct Paths {
  Wide sum = wide_zero();
  double risk = 0;

  // Those through one arc: its weight, what lies beyond, and the risk of both.
  SEQTRAIN_DEVICE void add(const Wide& weight, const Wide& beyond, double r) {
    const double m = weight.mantissa * beyond.mantissa;
    if (!(m > 0)) return;
    const int64_t e = weight.exponent + beyond.exponent;
    const int64_t top = sum.exponent > e ? sum.exponent : e;
    const double scale = power_of_two<double>(sum.exponent - top), part = m * power_of_two<double>(e - top);
    sum = {sum.mantissa * scale + part, top};
    if constexpr (with_risk) risk = risk * scale + part * r;
  }

  // All lanes of a state get the same.
  SEQTRAIN_DEVICE void join(const Team& team) {
    int64_t top = sum.exponent;
    for (int mask = lanes_of_state / 2; mask > 0; mask /= 2) top = Largest{}(top, team.exchange(top, mask));
    const double scale = power_of_two<double>(sum.exponent - top);
    sum = {sum.mantissa * scale, top};
    for (int mask = lanes_of_state / 2; mask > 0; mask /= 2) sum.mantissa += team.exchange(sum.mantissa, mask);
    if constexpr (with_risk) {
      risk *= scale;
      for (int mask = lanes_of_state / 2; mask > 0; mask /= 2) risk += team.exchange(risk, mask);
      risk = sum.mantissa > 0 ? risk / sum.mantissa : 0.0;
    }
    wide_normalize(sum);
  }
};

template <bool with_risk>
struct LatticeSweep {
  const Team& team;
  const LatticeProblem& problem;
  LatticeOf lattice;
  int64_t start;
  bool backward;
  // Of states: what the next level reads, and what stays in global memory; the same where shared memory is too small.
  Wide *now, *stored;
  double *risk_now = nullptr, *risk_stored = nullptr;

  SEQTRAIN_DEVICE LatticeSweep(const Team& block, const LatticeProblem& all, int64_t b, bool to_start)
      : team(block), problem(all), lattice(all, b), start(start_of(all, b)), backward(to_start) {
    const int64_t first = lattice.table.first_state;
    now = stored = (backward ? problem.ahead : problem.behind) + first;
    if constexpr (with_risk) risk_now = risk_stored = (backward ? problem.risk_ahead : problem.risk_behind) + first;
    if (problem.in_shared == 0) return;
    now = reinterpret_cast<Wide*>(team.shared(reduction_bytes));
    if constexpr (with_risk) risk_now = reinterpret_cast<double*>(now + problem.most_states);
  }

  SEQTRAIN_DEVICE double risk_at(int64_t state) const {
    if constexpr (with_risk) return risk_now[state];
    return 0;
  }
  SEQTRAIN_DEVICE double risk_of(const double* risks, int64_t item) const {
    if constexpr (with_risk) return risks[item];
    return 0;
  }

  SEQTRAIN_DEVICE void put(int64_t s, const Paths<with_risk>& paths) const {
    now[s] = paths.sum;
    if constexpr (with_risk) risk_now[s] = paths.risk;
    if (now == stored || problem.directions == 1) return;
    stored[s] = paths.sum;
    if constexpr (with_risk) risk_stored[s] = paths.risk;
  }

  // From the arcs that leave the state, and its final weights.
  SEQTRAIN_DEVICE void pull_backward(int64_t s, int64_t lane, Paths<with_risk>& paths) const {
    const LatticeTable& table = lattice.table;
    const int32_t* begin = lattice.integers + table.leaving_begin + s;
    for (int64_t a = begin[0] + lane; a < begin[1]; a += lanes_of_state) {
      const int64_t q = lattice.destination(a);
      paths.add(problem.leaving[table.first_arc + a], now[q], risk_of(problem.risks, table.first_arc + a) + risk_at(q));
    }
    const int32_t* first = lattice.integers + table.final_begin + s;
    for (int64_t i = first[0] + lane; i < first[1]; i += lanes_of_state) {
      const int64_t place = table.first_final + lattice.integers[table.final_item + i];
      paths.add(problem.finals[place], {1.0, 0}, risk_of(problem.final_risks, place));
    }
  }

  // From the arcs that enter the state; paths begin in the first.
  SEQTRAIN_DEVICE void pull_forward(int64_t s, int64_t lane, Paths<with_risk>& paths) const {
    const LatticeTable& table = lattice.table;
    if (s == start && lane == 0) paths.sum = {1.0, 0};
    const int32_t* begin = lattice.integers + table.entering_begin + s;
    for (int64_t i = begin[0] + lane; i < begin[1]; i += lanes_of_state) {
      const int64_t place = table.first_arc + i, p = problem.entering_source[place];
      paths.add(problem.entering[place], now[p], risk_of(problem.entering_risk, place) + risk_at(p));
    }
  }

  SEQTRAIN_DEVICE void run() const {
    const LatticeTable& table = lattice.table;
    const int64_t lane = team.thread() % lanes_of_state;
    const int32_t* level = lattice.integers + table.level_begin;
    for (int64_t step = 0; step < table.levels; step++) {
      const int64_t l = backward ? table.levels - 1 - step : step, end = level[l + 1];
      // All threads of a warp take part in an exchange, those without a state, too.
      for (int64_t first = level[l]; first < end; first += team.threads() / lanes_of_state) {
        const int64_t i = first + team.thread() / lanes_of_state;
        const int64_t s = i < end ? lattice.integers[table.order + i] : -1;
        Paths<with_risk> paths;
        if (s >= 0) {
          if (backward) {
            pull_backward(s, lane, paths);
          } else {
            pull_forward(s, lane, paths);
          }
        }
        paths.join(team);
        if (s >= 0 && lane == 0) put(s, paths);
      }
      end_of_frame(team);
    }
  }
};

// With `directions` 2, blocks 2b and 2b + 1 are the way back and the way forth; with 1, block b is the way back, of
// which alone values are made.
template <bool with_risk>
SEQTRAIN_DEVICE void lattice_sweep(const Team& team, const LatticeProblem& problem) {
  const int64_t b = team.block() / problem.directions;
  const bool backward = team.block() % problem.directions == 0;
  const LatticeSweep<with_risk> sweep(team, problem, b, backward);
  sweep.run();
  if (!backward || team.thread() != 0) return;
  const Wide total = sweep.lattice.table.states > 0 ? sweep.now[sweep.start] : wide_zero();
  problem.value[b] = log_of(total.mantissa, total.exponent);
  problem.status[b] = total.mantissa > 0 ? 0 : -2;  // no path
  if constexpr (with_risk) problem.risk[b] = total.mantissa > 0 ? sweep.risk_now[sweep.start] : 0.0;
}

// `chunks` blocks a lattice: posteriors of arcs and final states, and the derivatives of the expected risk.
template <bool with_risk>
SEQTRAIN_DEVICE void lattice_posteriors(const Team& team, const LatticeProblem& problem) {
  const int64_t b = team.block() / problem.chunks;
  const LatticeOf lattice(problem, b);
  const LatticeTable& table = lattice.table;
  const bool alive = problem.status[b] == 0;
  const Wide* behind = problem.behind + table.first_state;
  const Wide* ahead = problem.ahead + table.first_state;
  const Wide total = alive ? ahead[start_of(problem, b)] : wide_zero();
  const double *risk_behind = nullptr, *risk_ahead = nullptr;
  double expected = 0;
  if constexpr (with_risk) {
    risk_behind = problem.risk_behind + table.first_state;
    risk_ahead = problem.risk_ahead + table.first_state;
    expected = problem.risk[b];
  }
  const int64_t first = team.block() % problem.chunks * team.threads() + team.thread();
  const int64_t step = problem.chunks * team.threads();
  for (int64_t a = first; a < table.arcs; a += step) {
    const int64_t place = table.first_arc + a, p = lattice.source(a), q = lattice.destination(a);
    double share = 0;
    if (alive) {
      const Wide from = behind[p], weight = problem.leaving[place], to = ahead[q];
      share = wide_share(from.mantissa * weight.mantissa * to.mantissa, from.exponent + weight.exponent + to.exponent,
                         total);
    }
    problem.arc_posteriors[place] = share;
    if constexpr (with_risk)
      problem.arc_gradients[place] =
          share > 0 ? share * (risk_behind[p] + problem.risks[place] + risk_ahead[q] - expected) : 0.0;
  }
  for (int64_t s = first; s < table.states; s += step) {
    const int32_t* begin = lattice.integers + table.final_begin + s;
    for (int64_t i = begin[0]; i < begin[1]; i++) {
      const int64_t place = table.first_final + lattice.integers[table.final_item + i];
      double share = 0;
      if (alive) {
        const Wide from = behind[s], weight = problem.finals[place];
        share = wide_share(from.mantissa * weight.mantissa, from.exponent + weight.exponent, total);
      }
      problem.final_posteriors[place] = share;
      if constexpr (with_risk)
        problem.final_gradients[place] =
            share > 0 ? share * (risk_behind[s] + problem.final_risks[place] - expected) : 0.0;
    }
  }
}

}  // namespace seqtrain
