// The full sum over the paths of an automaton for each utterance (equations: seqtrain/reference.py, `full_sum`;
// division of the work: sweep.h).
//
// Here is what works for all automata; those whose states have few arcs go through narrow_sweep.h.
//
// The store has a row of nodes a frame: the forward half leaves alphas there, the backward half the beta of each
// arrival's slot; the other direction then puts the arrivals' products in their place.
#pragma once

#include "narrow_sweep.h"

namespace seqtrain {

// What one block works on.
template <class Real>
struct FullSumSweep {
  using Exponent = ExponentOf<Real>;

  const Team& team;
  const FullSumProblem& problem;
  int64_t utterance, frames, first;
  Graph<Real> graph;

  SEQTRAIN_DEVICE FullSumSweep(const Team& block, const FullSumProblem& all, int64_t b)
      : team(block),
        problem(all),
        utterance(b),
        frames(all.lengths[b]),
        first(first_row(all.offsets, b, all.max_frames)),
        graph{static_cast<const GraphTable*>(all.graphs)[all.shared_graph != 0 ? 0 : b],
              static_cast<const Real*>(all.reals), all.integers} {}

  SEQTRAIN_DEVICE void emission(int64_t t, int64_t m, Real& y, Exponent& e) const {
    const int64_t place = (first + t) * problem.columns + graph.column(m);
    y = static_cast<const Real*>(problem.emission)[place];
    e = problem.emission_exponent[place];
  }
  SEQTRAIN_DEVICE States<Real> stored(int64_t t) const {
    const int64_t place = (first + t) * problem.nodes;
    return {static_cast<Real*>(problem.store) + place, problem.store_exponent + place};
  }
  SEQTRAIN_DEVICE States<Real> carry() const {
    const int64_t place = team.block() * problem.nodes;
    return {static_cast<Real*>(problem.carry) + place, problem.carry_exponent + place};
  }
  SEQTRAIN_DEVICE States<Real> array(int64_t index) const {
    return states_of<Real>(team, problem.workspace, problem.nodes, 2, index);
  }
  SEQTRAIN_DEVICE void copy(States<Real> to, States<Real> from, int64_t count) const {
    for (int64_t i = team.thread(); i < count; i += team.threads()) {
      to.mantissa[i] = from.mantissa[i];
      to.exponent[i] = from.exponent[i];
    }
  }

  // Which occupancies of arcs, or of final states, are this utterance's.
  SEQTRAIN_DEVICE int64_t first_place(int64_t first_in_batch, int64_t count) const {
    return problem.shared_graph != 0 ? utterance * count : first_in_batch;
  }

  SEQTRAIN_DEVICE void forward_frame(int64_t t, States<Real> before, States<Real> now) const {
    for (int64_t m = team.thread(); m < graph.table.arrivals; m += team.threads()) {
      Real y, sum;
      Exponent y_exponent, top;
      emission(t, m, y, y_exponent);
      graph.weighted_sum(graph.table.incoming, m, before, sum, top);
      put_state<Real>(now, m, sum * y, top + y_exponent);
    }
    if (graph.table.aggregates == 0) return;
    end_of_frame(team);
    for (int64_t q = team.thread(); q < graph.table.aggregates; q += team.threads()) graph.aggregate(q, now);
  }

  // product[m] = beta[slot of m] · emission[m]
  SEQTRAIN_DEVICE void emit_backward(int64_t t, States<Real> beta, States<Real> product) const {
    for (int64_t m = team.thread(); m < graph.table.arrivals; m += team.threads()) {
      Real y;
      Exponent y_exponent;
      emission(t, m, y, y_exponent);
      const int64_t s = graph.slot_of(m);
      put_state<Real>(product, m, beta.mantissa[s] * y, beta.exponent[s] + y_exponent);
    }
  }

  SEQTRAIN_DEVICE void put_final_weight(States<Real> beta, int64_t s) const {
    beta.mantissa[s] = graph.reals[graph.table.slot_mantissa + s];
    beta.exponent[s] = graph.integers[graph.table.slot_exponent + s];
  }

  // Adds to each arc its part of the products; `mass` gives mantissa and exponent of what stands beside the weight.
  template <class Mass>
  SEQTRAIN_DEVICE void add_arcs(bool forward, int64_t top, double inverse, const Mass& mass) const {
    const GraphTable& table = graph.table;
    double* out =
        problem.arc_occupancies + (forward ? 0 : problem.arc_places) + first_place(table.first_arc, table.arcs);
    for (int64_t a = team.thread(); a < table.arcs; a += team.threads()) {
      const int64_t m = graph.integers[table.arc_arrival + a];
      if (m < 0) continue;
      double p = static_cast<double>(graph.reals[table.arc_mantissa + a]);
      int64_t e = int64_t{graph.integers[table.arc_exponent + a]} - top;
      mass(graph.integers[table.arc_source + a], m, p, e);
      if (p > 0) out[a] += inverse * p * power_of_two<double>(e < 8 ? e : 8);
    }
  }

  // Behind the last frame, with its alphas in `now`.
  SEQTRAIN_DEVICE void final_occupancies(States<Real> now) const {
    const GraphTable& table = graph.table;
    double sum;
    const int64_t top = sum_of_products<Real>(
        team, graph.slots(),
        [&](int64_t s, double& m, int64_t& e) {
          const int64_t node = graph.node_of_slot(s);
          m = static_cast<double>(now.mantissa[node]) * static_cast<double>(graph.reals[table.slot_mantissa + s]);
          e = int64_t{now.exponent[node]} + graph.integers[table.slot_exponent + s];
        },
        sum);
    if (!(sum > 0)) return;
    double* out = problem.final_occupancies + first_place(table.first_final, table.finals);
    for (int64_t f = team.thread(); f < table.finals; f += team.threads()) {
      const int64_t s = graph.integers[table.final_slot + f];
      if (s < 0) continue;
      const int64_t node = graph.node_of_slot(s);
      const double p =
          static_cast<double>(now.mantissa[node]) * static_cast<double>(graph.reals[table.final_mantissa + f]);
      const int64_t e = int64_t{now.exponent[node]} + graph.integers[table.final_exponent + f] - top;
      out[f] = p / sum * power_of_two<double>(e < 8 ? e : 8);
    }
  }

  // In a frame's row of the store: what this direction has found, `place` telling where, times what stands there.
  template <class At>
  SEQTRAIN_DEVICE double sum_of_frame(States<Real> now, States<Real> row, const At& place, int64_t& top) const {
    double sum;
    top = sum_of_products<Real>(
        team, graph.table.arrivals,
        [&](int64_t m, double& p, int64_t& e) {
          p = static_cast<double>(now.mantissa[place(m)]) * static_cast<double>(row.mantissa[m]);
          e = int64_t{now.exponent[place(m)]} + row.exponent[m];
        },
        sum);
    return sum;
  }
  template <class At>
  SEQTRAIN_DEVICE double inverse_of_frame(int64_t t, States<Real> now, States<Real> row, const At& place,
                                          int64_t top) const {
    double sum = 0;
    for (int64_t m = team.thread(); m < graph.table.arrivals; m += team.threads())
      sum += static_cast<double>(
          product_below(now.mantissa[place(m)], now.exponent[place(m)], row.mantissa[m], row.exponent[m], top));
    sum = reduce(team, sum, Sum{});
    if (team.thread() == 0) lose_row(problem.row_status, first + t, sum > 0);
    return sum > 0 ? 1.0 / sum : 0.0;
  }
  template <class At>
  SEQTRAIN_DEVICE void put_products(States<Real> now, States<Real> row, const At& place, int64_t top) const {
    for (int64_t m = team.thread(); m < graph.table.arrivals; m += team.threads())
      row.mantissa[m] =
          product_below(now.mantissa[place(m)], now.exponent[place(m)], row.mantissa[m], row.exponent[m], top);
  }

  SEQTRAIN_DEVICE void run_forward() const {
    const GraphTable& table = graph.table;
    const bool arcs = problem.arc_occupancies != nullptr;
    const int64_t middle = middle_of(frames);
    States<Real> now = array(0), before = array(1);
    clear_states(team, now, problem.nodes);
    clear_states(team, before, problem.nodes);
    team.sync();
    if (problem.phase == 1 && frames > 0) {
      copy(now, carry(), graph.nodes());
    } else if (team.thread() == 0) {
      now.mantissa[table.start_node] = 1;
      now.exponent[table.start_node] = 0;
    }
    team.sync();
    const auto at = [](int64_t m) { return m; };
    int64_t top = 0;
    const int64_t begin = problem.phase == 0 ? 0 : middle, end = problem.phase == 0 ? middle : frames;
    for (int64_t t = begin; t < end; t++) {
      const States<Real> swap = before;
      before = now;
      now = swap;
      forward_frame(t, before, now);
      end_of_frame(team);
      const States<Real> row = stored(t);
      if (problem.phase == 0) {
        copy(row, now, graph.nodes());
        continue;
      }
      if (t == begin) sum_of_frame(now, row, at, top);
      if (arcs) {
        const double inverse = inverse_of_frame(t, now, row, at, top);
        add_arcs(true, top, inverse, [&](int64_t source, int64_t m, double& p, int64_t& e) {
          Real y;
          Exponent y_exponent;
          emission(t, m, y, y_exponent);
          p *= static_cast<double>(before.mantissa[source]) * static_cast<double>(y) *
               static_cast<double>(row.mantissa[m]);
          e += int64_t{before.exponent[source]} + y_exponent + row.exponent[m];
        });
        team.sync();  // the row's betas have been read
      }
      put_products(now, row, at, top);
    }
    if (problem.phase == 0) copy(carry(), now, graph.nodes());
    if (problem.phase == 1 && arcs) final_occupancies(now);
  }

  SEQTRAIN_DEVICE void run_backward() const {
    const bool arcs = problem.arc_occupancies != nullptr;
    const int64_t middle = middle_of(frames);
    const States<Real> beta = array(0), product = array(1);
    clear_states(team, beta, problem.nodes);
    clear_states(team, product, problem.nodes);
    team.sync();
    if (problem.phase == 1) copy(beta, carry(), graph.slots());
    team.sync();
    const auto at = [&](int64_t m) { return graph.slot_of(m); };
    int64_t top = 0;
    double inverse = 0;
    const auto add_arcs_into = [&](int64_t t) {  // with the frame's beta · emission in `product`
      const States<Real> row = stored(t - 1);
      add_arcs(false, top, inverse, [&](int64_t source, int64_t m, double& p, int64_t& e) {
        p *= static_cast<double>(product.mantissa[m]);
        e += product.exponent[m];
        if (t > 0) {
          p *= static_cast<double>(row.mantissa[source]);
          e += row.exponent[source];
        } else if (source != graph.table.start_node) {
          p = 0;
        }
      });
    };
    const int64_t begin = problem.phase == 0 ? frames - 1 : middle - 1;
    const int64_t end = problem.phase == 0 ? middle : problem.with_gradient != 0 ? 0 : middle - 1;
    for (int64_t t = begin; t >= end; t--) {
      if (t == frames - 1) {
        for (int64_t s = team.thread(); s < graph.slots(); s += team.threads()) put_final_weight(beta, s);
      } else {
        emit_backward(t + 1, beta, product);
        team.sync();
        if (arcs && t < begin && problem.phase == 1) add_arcs_into(t + 1);
        for (int64_t s = team.thread(); s < graph.slots(); s += team.threads()) {
          Real sum;
          Exponent exponent;
          graph.weighted_sum(graph.table.outgoing, s, product, sum, exponent);
          put_state<Real>(beta, s, sum, exponent);
        }
      }
      end_of_frame(team);
      const States<Real> row = stored(t);
      if (problem.phase == 0) {
        for (int64_t m = team.thread(); m < graph.table.arrivals; m += team.threads()) {
          row.mantissa[m] = beta.mantissa[at(m)];
          row.exponent[m] = beta.exponent[at(m)];
        }
        continue;
      }
      if (t == begin) {
        const double sum = sum_of_frame(beta, row, at, top);
        if (team.thread() == 0) problem.log_likelihood[utterance] = likelihood_of(graph.table, frames, sum, top);
      }
      if (arcs) inverse = inverse_of_frame(t, beta, row, at, top);
      if (problem.with_gradient != 0) put_products(beta, row, at, top);
    }
    if (problem.phase == 0) copy(carry(), beta, graph.slots());
    if (problem.phase == 0 || !arcs) return;
    emit_backward(0, beta, product);
    team.sync();
    add_arcs_into(0);
  }
};

// Blocks 2b and 2b + 1 are the two directions of utterance b.
template <class Real>
SEQTRAIN_DEVICE void full_sum_sweep(const Team& team, const FullSumProblem& problem) {
  const int64_t b = team.block() / 2;
  const bool forward = team.block() % 2 == 0;
  if (problem.status[b] != 0) return;
  if (sweep_narrow_graph<Real>(team, problem, b, forward)) return;
  const FullSumSweep<Real> sweep(team, problem, b);
  if (sweep.frames == 0 && team.thread() == 0) problem.log_likelihood[b] = sweep.graph.table.empty;
  if (forward) {
    if (problem.phase == 0 || problem.with_gradient != 0) sweep.run_forward();
  } else if (sweep.frames > 0) {
    sweep.run_backward();
  }
}

// One block a row at a time: products → occupancies of the columns, divided by their own sum, as on the CPU.
template <class Real>
SEQTRAIN_DEVICE void full_sum_occupancies(const Team& team, const FullSumProblem& problem) {
  for (int64_t item = team.block(); item < problem.batch * problem.max_frames; item += team.blocks()) {
    const int64_t b = item / problem.max_frames, t = item % problem.max_frames;
    if (t >= problem.lengths[b] || problem.status[b] != 0) continue;
    const FullSumSweep<Real> sweep(team, problem, b);
    const GraphTable& table = sweep.graph.table;
    const Real* product = sweep.stored(t).mantissa;
    const int32_t* begin = sweep.graph.integers + table.column_begin;
    const int32_t* arrival = sweep.graph.integers + table.column_arrival;
    Real* out = static_cast<Real*>(problem.occupancies) + (sweep.first + t) * problem.columns;
    Real all = 0;
    for (int64_t k = team.thread(); k < problem.columns; k += team.threads()) {
      Real sum = 0;
      if (k < table.columns)
        for (int64_t i = begin[k]; i < begin[k + 1]; i++) sum += product[arrival[i]];
      out[k] = sum;
      all += sum;
    }
    all = reduce(team, all, Sum{});
    const Real inverse = all > 0 ? Real{1} / all : Real{0};
    if (team.thread() == 0) lose_row(problem.row_status, sweep.first + t, all > 0);
    for (int64_t k = team.thread(); k < problem.columns; k += team.threads()) out[k] *= inverse;
  }
}

}  // namespace seqtrain
