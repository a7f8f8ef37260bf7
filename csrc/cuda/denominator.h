// The full sum over one automaton that all utterances share, also with a leak (equations: seqtrain/reference.py,
// `full_sum` and `leaky_full_sum`; division of the work: sweep.h; layout: csrc/recursion/denominator_layout.h).
//
// Rows of arcs, those into an arrival or out of a slot, stand in slices of a warp's width, long ones together: entry j
// of the row in lane l of a slice stands at begin[slice] + 32 j + l, so that a warp reads neighbours, and each sum is
// one thread's, in the order of its arcs.
//
// Few frames are kept: each direction goes over its half in segments, keeps what every segment begins with and all
// frames of the last one, which is where the other direction comes first.  That one then makes the segments again, one
// by one, as it needs them.  Where one segment holds the half, nothing is computed twice.
#pragma once

#include "cluster.h"
#include "rows.h"

namespace seqtrain {

// Weights as the recursion takes them, in the order of `item` (-1: no weight; null: in their own order): exp(weight -
// largest) of logarithmic ones, else factor · weight.  Without room for exponents they stand in the mantissas, which
// hold them exactly for weights of no less than 2^-60.
struct DenominatorWeightsProblem {
  int64_t count;
  const int32_t* item;
  const double* weight;
  int64_t logarithmic;
  double largest;
  double factor;
  void* mantissa;
  int32_t* exponent;
};

struct DenominatorProblem {
  int64_t batch;
  int64_t max_frames;
  const int64_t* offsets;
  const int64_t* lengths;
  const int64_t* status;
  int64_t columns;
  const void* emission;
  const int32_t* emission_exponent;
  int32_t* row_status;
  int64_t arrivals;
  int64_t aggregates;
  int64_t slots;
  int64_t start_node;
  const int32_t* column_begin;
  const int32_t* arrival_column;
  const int32_t* arrival_slot;
  const int32_t* slot_node;
  const int32_t* aggregate_begin;
  const int32_t* aggregate_arrival;
  int64_t narrow;  // where arcs come from has 16 bits
  int64_t incoming_slices;
  const int32_t* incoming_row;
  const int64_t* incoming_begin;
  const void* incoming_node;
  const void* incoming_mantissa;
  const int32_t* incoming_exponent;
  int64_t outgoing_slices;
  const int32_t* outgoing_row;
  const int64_t* outgoing_begin;
  const void* outgoing_arrival;
  const void* outgoing_mantissa;
  const int32_t* outgoing_exponent;
  int64_t finals;
  const int32_t* final_slot;
  const int32_t* final_begin;
  const int32_t* final_order;
  const void* final_mantissa;
  const int32_t* final_exponent;
  double largest_weight;
  double largest_final_weight;
  const void* leak_mantissa;
  const int32_t* leak_exponent;
  int64_t segment;
  int64_t segments;
  void* store;
  int32_t* store_exponent;
  void* checkpoint;
  int32_t* checkpoint_exponent;
  void* carry;
  int32_t* carry_exponent;
  double* log_likelihood;
  int64_t phase;
  int64_t with_gradient;
  char* workspace;
  void* occupancies;
  double* arc_occupancies;
  int64_t arc_places;
  double* final_occupancies;
};

template <class Real>
SEQTRAIN_DEVICE void denominator_weights(const Team& team, const DenominatorWeightsProblem& problem) {
  const int64_t step = team.blocks() * team.threads();
  for (int64_t i = team.block() * team.threads() + team.thread(); i < problem.count; i += step) {
    const int64_t item = problem.item != nullptr ? problem.item[i] : i;
    double m = 0;
    int64_t e = zero_exponent;
    if (item >= 0 && problem.logarithmic != 0) {
      split_exponential(problem.weight[item] - problem.largest, m, e);
    } else if (item >= 0) {
      m = problem.factor * problem.weight[item];
      e = 0;
      normalize(m, e);
    }
    Real mantissa = static_cast<Real>(m);
    if (problem.exponent != nullptr) {
      problem.exponent[i] = static_cast<int32_t>(e);
    } else {
      mantissa *= power_of_two<Real>(static_cast<ExponentOf<Real>>(e));
    }
    static_cast<Real*>(problem.mantissa)[i] = mantissa;
  }
}

// A number that isn't normalized.
template <class Real>
struct Loose {
  Real mantissa = 0;
  ExponentOf<Real> exponent = 2 * zero_exponent;

  SEQTRAIN_DEVICE void add(Real m, ExponentOf<Real> e) {
    const ExponentOf<Real> top = e > exponent ? e : exponent;
    mantissa = scaled<Real>(mantissa, exponent, top) + scaled<Real>(m, e, top);
    exponent = top;
  }
};

// Arcs in slices.  They are read in each frame, so that their bytes are what the recursion waits for.
template <class Real>
struct SlicedArcs {
  const int32_t* row;
  const int64_t* begin;
  const void* from;  // of 16 bits if `narrow`, else of 32
  bool narrow;
  const Real* mantissa;
  const int32_t* exponent;  // null: no exponents beside the mantissas
  int64_t places;

  SEQTRAIN_DEVICE ExponentOf<Real> exponent_of(int64_t place) const {
    return exponent != nullptr ? exponent[place] : 0;
  }
  SEQTRAIN_DEVICE int32_t source(int64_t place) const {
    return narrow ? int32_t{static_cast<const uint16_t*>(from)[place]} : static_cast<const int32_t*>(from)[place];
  }

  // Calls with the place of each arc of the row that stands at `i`.
  template <class Visit>
  SEQTRAIN_DEVICE void each(int64_t i, const Visit& visit) const {
    const int64_t end = begin[i / warp + 1];
    for (int64_t place = begin[i / warp] + i % warp; place < end; place += warp) visit(place);
  }

  SEQTRAIN_DEVICE Loose<Real> sum(int64_t i, States<Real> values) const {
    return narrow ? sum_from(static_cast<const uint16_t*>(from), i, values)
                  : sum_from(static_cast<const int32_t*>(from), i, values);
  }
  template <class Index>
  SEQTRAIN_DEVICE Loose<Real> sum_from(const Index* index, int64_t i, States<Real> values) const {
    Loose<Real> all;
    each(i, [&](int64_t place) {
      const int32_t node = index[place];
      all.add(mantissa[place] * values.mantissa[node], exponent_of(place) + values.exponent[node]);
    });
    return all;
  }
};

// What one cluster works on.  A frame's values are those of the nodes and, behind them, their sum, or those of the
// slots.
template <class Real>
struct DenominatorSweep {
  using Exponent = ExponentOf<Real>;

  const DenominatorProblem& problem;
  Cluster cluster;
  int64_t utterance, frames, first, nodes, width;
  bool leaks;
  SlicedArcs<Real> incoming, outgoing;
  States<Real> now, other;

  SEQTRAIN_DEVICE DenominatorSweep(const Team& block, const DenominatorProblem& all, int64_t worker)
      : problem(all),
        cluster(block, all.workspace == nullptr),
        utterance(worker / 2),
        frames(all.lengths[utterance]),
        first(first_row(all.offsets, utterance, all.max_frames)),
        nodes(all.arrivals + all.aggregates),
        width(nodes + 1),
        leaks(all.leak_mantissa != nullptr),
        incoming{all.incoming_row,
                 all.incoming_begin,
                 all.incoming_node,
                 all.narrow != 0,
                 static_cast<const Real*>(all.incoming_mantissa),
                 all.incoming_exponent,
                 all.incoming_slices * warp},
        outgoing{all.outgoing_row,
                 all.outgoing_begin,
                 all.outgoing_arrival,
                 all.narrow != 0,
                 static_cast<const Real*>(all.outgoing_mantissa),
                 all.outgoing_exponent,
                 all.outgoing_slices * warp},
        now(states_of<Real>(block, all.workspace, worker, width, 2, 0)),
        other(states_of<Real>(block, all.workspace, worker, width, 2, 1)) {}

  SEQTRAIN_DEVICE int64_t half(bool forward) const { return forward ? middle_of(frames) : frames - middle_of(frames); }
  SEQTRAIN_DEVICE int64_t segment_end(int64_t segment, bool forward) const {
    const int64_t end = (segment + 1) * problem.segment;
    return end < half(forward) ? end : half(forward);
  }

  SEQTRAIN_DEVICE States<Real> at(void* mantissa, int32_t* exponent, int64_t index) const {
    return {static_cast<Real*>(mantissa) + index * width, exponent + index * width};
  }
  SEQTRAIN_DEVICE int64_t worker_of(bool forward) const { return 2 * utterance + (forward ? 0 : 1); }
  // Frame number `i` of a direction, counted in the order in which it comes to them.
  SEQTRAIN_DEVICE States<Real> stored(bool forward, int64_t i) const {
    return at(problem.store, problem.store_exponent, worker_of(forward) * problem.segment + i % problem.segment);
  }
  // What a segment of a direction begins with.
  SEQTRAIN_DEVICE States<Real> checkpoint(bool forward, int64_t segment) const {
    return at(problem.checkpoint, problem.checkpoint_exponent, worker_of(forward) * problem.segments + segment);
  }
  SEQTRAIN_DEVICE States<Real> carry(bool forward) const {
    return at(problem.carry, problem.carry_exponent, worker_of(forward));
  }
  SEQTRAIN_DEVICE void copy(States<Real> to, States<Real> from, int64_t n, int64_t step) const {
    for (; n < width; n += step) {
      to.mantissa[n] = from.mantissa[n];
      to.exponent[n] = from.exponent[n];
    }
  }
  // The frame into global memory: of its own copy, each block does its share.
  SEQTRAIN_DEVICE void store(States<Real> to) const { copy(to, now, cluster.begin(), cluster.step()); }
  // A frame that all blocks have stored, before a barrier.  Behind this one what else they have stored may be read.
  SEQTRAIN_DEVICE void load(States<Real> from) const {
    copy(now, from, cluster.own_begin(), cluster.own_step());
    cluster.sync();
  }

  SEQTRAIN_DEVICE void emission(int64_t t, int64_t arrival, Real& m, Exponent& e) const {
    const int64_t place = (first + t) * problem.columns + problem.arrival_column[arrival];
    m = static_cast<const Real*>(problem.emission)[place];
    e = problem.emission_exponent[place];
  }
  SEQTRAIN_DEVICE void leak(int64_t node, Real& m, Exponent& e) const {
    m = static_cast<const Real*>(problem.leak_mantissa)[node];
    e = problem.leak_exponent[node];
  }
  // A node's value with what leaks to it; `values` hold none yet.
  SEQTRAIN_DEVICE Loose<Real> with_leak(States<Real> values, int64_t node) const {
    Loose<Real> sum{values.mantissa[node], values.exponent[node]};
    if (!leaks) return sum;
    Real m;
    Exponent e;
    leak(node, m, e);
    sum.add(m * values.mantissa[nodes], e + values.exponent[nodes]);
    return sum;
  }

  SEQTRAIN_DEVICE void begin_forward() const {
    for (int64_t n = cluster.own_begin(); n < width; n += cluster.own_step()) {
      now.mantissa[n] = 0;
      now.exponent[n] = zero_exponent;
    }
    cluster.sync_own();
    if (cluster.leads_own()) {
      put_state<Real>(now, problem.start_node, 1, 0);
      put_state<Real>(now, nodes, 1, 0);
    }
    cluster.sync_own();
  }

  // From the frame before, with what leaked, to frame t, without.
  SEQTRAIN_DEVICE void advance_forward(int64_t t) {
    const States<Real> source = now;
    now = other;
    other = source;
    for (int64_t i = cluster.begin(); i < incoming.places; i += cluster.step()) {
      const int64_t arrival = incoming.row[i];
      if (arrival < 0) continue;
      const Loose<Real> sum = incoming.sum(i, source);
      Real y;
      Exponent y_exponent;
      emission(t, arrival, y, y_exponent);
      cluster.put(now, arrival, sum.mantissa * y, sum.exponent + y_exponent);
    }
    cluster.end_of_frame();
    for (int64_t q = cluster.own_begin(); q < problem.aggregates; q += cluster.own_step()) {
      Loose<Real> sum;
      for (int64_t i = problem.aggregate_begin[q]; i < problem.aggregate_begin[q + 1]; i++) {
        const int64_t arrival = problem.aggregate_arrival[i];
        sum.add(now.mantissa[arrival], now.exponent[arrival]);
      }
      put_state<Real>(now, problem.arrivals + q, sum.mantissa, sum.exponent);
    }
    if (leaks) {
      const States<Real> values = now;
      double sum;
      const int64_t top = sum_of_products<Real>(
          cluster, problem.arrivals,
          [&](int64_t m, double& mantissa, int64_t& exponent) {
            mantissa = static_cast<double>(values.mantissa[m]);
            exponent = values.exponent[m];
          },
          sum);
      if (cluster.leads_own()) put_state<Real>(now, nodes, static_cast<Real>(sum), static_cast<Exponent>(top));
    }
    cluster.sync_own();
  }

  SEQTRAIN_DEVICE void spread_leak() const {
    if (!leaks) return;
    for (int64_t n = cluster.own_begin(); n < nodes; n += cluster.own_step()) {
      const Loose<Real> sum = with_leak(now, n);
      put_state<Real>(now, n, sum.mantissa, sum.exponent);
    }
    cluster.sync_own();
  }

  // The slots behind frame t, from those behind frame t + 1; both with the leak.
  SEQTRAIN_DEVICE void advance_backward(int64_t t) {
    if (t == frames - 1) {
      for (int64_t s = cluster.begin(); s < problem.slots; s += cluster.step()) {
        Loose<Real> sum;
        for (int64_t i = problem.final_begin[s]; i < problem.final_begin[s + 1]; i++) {
          const int64_t f = problem.final_order[i];
          sum.add(static_cast<const Real*>(problem.final_mantissa)[f], problem.final_exponent[f]);
        }
        cluster.put(now, s, sum.mantissa, sum.exponent);
      }
    } else {
      for (int64_t m = cluster.begin(); m < problem.arrivals; m += cluster.step()) {
        const int64_t slot = problem.arrival_slot[m];
        Real y;
        Exponent y_exponent;
        emission(t + 1, m, y, y_exponent);
        cluster.put(other, m, now.mantissa[slot] * y, now.exponent[slot] + y_exponent);
      }
      cluster.end_of_frame();
      for (int64_t i = cluster.begin(); i < outgoing.places; i += cluster.step()) {
        const int64_t slot = outgoing.row[i];
        if (slot < 0) continue;
        const Loose<Real> sum = outgoing.sum(i, other);
        cluster.put(now, slot, sum.mantissa, sum.exponent);
      }
    }
    cluster.sync();
    if (!leaks) return;
    double sum;
    const int64_t top = sum_of_products<Real>(
        cluster, problem.slots,
        [&](int64_t s, double& mantissa, int64_t& exponent) {
          Real m;
          Exponent e;
          leak(problem.slot_node[s], m, e);
          mantissa = static_cast<double>(m) * static_cast<double>(now.mantissa[s]);
          exponent = int64_t{now.exponent[s]} + e;
        },
        sum);
    for (int64_t s = cluster.own_begin(); s < problem.slots; s += cluster.own_step()) {
      Loose<Real> value{now.mantissa[s], now.exponent[s]};
      value.add(static_cast<Real>(sum), static_cast<Exponent>(top));
      put_state<Real>(now, s, value.mantissa, value.exponent);
    }
    cluster.sync_own();
  }

  // From what the weights sum up to, relative to the largest.
  SEQTRAIN_DEVICE void put_likelihood(double sum, int64_t top) const {
    if (cluster.leads())
      problem.log_likelihood[utterance] =
          log_of(sum, top) + static_cast<double>(frames) * problem.largest_weight + problem.largest_final_weight;
  }

  // Σ over the final states of what has come there; `now` with what leaked.
  SEQTRAIN_DEVICE int64_t end_mass(double& sum) {
    return sum_of_products<Real>(
        cluster, problem.finals, [&](int64_t f, double& m, int64_t& e) { end_product(f, m, e); }, sum);
  }
  SEQTRAIN_DEVICE void end_product(int64_t f, double& m, int64_t& e) const {
    m = 0;
    e = 2 * zero_exponent;
    const int64_t slot = problem.final_slot[f];
    if (slot < 0) return;
    const int64_t node = problem.slot_node[slot];
    m = static_cast<double>(static_cast<const Real*>(problem.final_mantissa)[f]) *
        static_cast<double>(now.mantissa[node]);
    e = int64_t{problem.final_exponent[f]} + now.exponent[node];
  }
  SEQTRAIN_DEVICE void occupy_finals() {
    if (problem.final_occupancies == nullptr) return;
    double sum;
    const int64_t top = end_mass(sum);
    for (int64_t f = cluster.begin(); f < problem.finals; f += cluster.step()) {
      double m;
      int64_t e;
      end_product(f, m, e);
      problem.final_occupancies[utterance * problem.finals + f] = m > 0 ? m * power_of_two<double>(e - top) / sum : 0.0;
    }
  }

  // Occupancies of frame t, number `i` of the other direction; 2^top is about the likelihood.
  SEQTRAIN_DEVICE void combine(bool forward, int64_t i, int64_t t, bool begins, int64_t& top) {
    const States<Real> found = stored(!forward, i);
    const States<Real> alpha = forward ? now : found, beta = forward ? found : now;
    if (begins) {
      double sum;
      top = sum_of_products<Real>(
          cluster, problem.arrivals,
          [&](int64_t m, double& mantissa, int64_t& e) {
            const int64_t slot = problem.arrival_slot[m];
            mantissa = static_cast<double>(alpha.mantissa[m]) * static_cast<double>(beta.mantissa[slot]);
            e = int64_t{alpha.exponent[m]} + beta.exponent[slot];
          },
          sum);
      if (!forward) put_likelihood(sum, top);
    }
    if (problem.with_gradient == 0) return;
    Real* out = static_cast<Real*>(problem.occupancies) + (first + t) * problem.columns;
    OrderlessSum<Real, sizeof(Real) == sizeof(double)> all(problem.columns);
    for (int64_t k = cluster.begin(); k < problem.columns; k += cluster.step()) {
      Real sum = 0;
      for (int64_t m = problem.column_begin[k]; m < problem.column_begin[k + 1]; m++) {
        const int64_t slot = problem.arrival_slot[m];
        sum += product_below(alpha.mantissa[m], alpha.exponent[m], beta.mantissa[slot], beta.exponent[slot], top);
      }
      out[k] = sum;
      all.add(sum);
    }
    const Real together = static_cast<Real>(all.over(cluster));
    const Real inverse = together > 0 ? Real{1} / together : Real{0};
    if (cluster.leads()) lose_row(problem.row_status, first + t, together > 0);
    for (int64_t k = cluster.begin(); k < problem.columns; k += cluster.step()) out[k] *= inverse;
    if (problem.arc_occupancies != nullptr) occupy_arcs(forward, t, beta, top, static_cast<double>(inverse));
  }

  // Each direction adds up arcs of its own half of the frames, an arc always in the same thread.
  SEQTRAIN_DEVICE void occupy_arcs(bool forward, int64_t t, States<Real> beta, int64_t top, double inverse) const {
    double* sums = problem.arc_occupancies + worker_of(forward) * problem.arc_places;
    const bool kept = t % problem.segment > 0;
    const States<Real> before = forward ? other : kept ? stored(true, t - 1) : checkpoint(true, t / problem.segment);
    for (int64_t i = cluster.begin(); i < incoming.places; i += cluster.step()) {
      const int64_t arrival = incoming.row[i];
      if (arrival < 0) continue;
      const int64_t slot = problem.arrival_slot[arrival];
      Real y;
      Exponent y_exponent;
      emission(t, arrival, y, y_exponent);
      const double rest = static_cast<double>(y) * static_cast<double>(beta.mantissa[slot]) * inverse;
      const int64_t rest_exponent = int64_t{beta.exponent[slot]} + y_exponent - top;
      incoming.each(i, [&](int64_t place) {
        const int64_t node = incoming.source(place);
        const Loose<Real> source =
            forward ? Loose<Real>{before.mantissa[node], before.exponent[node]} : with_leak(before, node);
        // A weight without an exponent leaves its own, up to 60, to the others.
        const int64_t e = rest_exponent + incoming.exponent_of(place) + source.exponent;
        sums[place] += static_cast<double>(incoming.mantissa[place]) * static_cast<double>(source.mantissa) * rest *
                       power_of_two<double>(e > 66 ? 66 : e);
      });
    }
  }

  // What a direction does in a launch, in stretches of frames, all of which one loop goes over: this keeps the code
  // small. The first launch stores what is found.  In the second each of the other direction's segments is combined
  // with, and made again before that (`again`), unless it's the one that was left.
  SEQTRAIN_DEVICE void run(bool forward) {
    const bool storing = problem.phase == 0, whole = problem.with_gradient != 0;
    if (forward && !storing && !whole) return;
    const int64_t last = storing ? 0 : (half(!forward) + problem.segment - 1) / problem.segment - 1;
    int64_t segment = last, top = 0;
    bool again = false, begins = true;
    for (;;) {
      const bool ahead = again ? !forward : forward;
      enter(forward, storing, again, segment);
      // Number i of one direction is number frames - 1 - i of the other.
      int64_t begin = 0, end = half(forward);
      if (again) {
        begin = segment * problem.segment;
        end = segment_end(segment, ahead);
      } else if (!storing) {
        begin = frames - segment_end(segment, !forward);
        end = segment < 0 ? begin : whole ? frames - segment * problem.segment : begin + 1;  // < 0: one frame in all
      }
      for (int64_t i = begin; i < end; i++) {
        const int64_t t = ahead ? i : frames - 1 - i;
        if (ahead) {
          advance_forward(t);
        } else {
          advance_backward(t);
        }
        if (storing || again) {
          store(stored(ahead, i));
          if (storing && (i + 1) % problem.segment == 0 && i + 1 < end)
            store(checkpoint(ahead, (i + 1) / problem.segment));
        } else {
          combine(forward, frames - 1 - i, t, begins, top);
          begins = false;
        }
        if (ahead && problem.arc_occupancies != nullptr) {
          cluster.sync();  // `combine` reads `other`, which the next step writes in all blocks
        } else {
          cluster.sync_own();
        }
        if (ahead) spread_leak();
      }
      if (again) {
        again = false;
      } else if (whole && segment > 0) {
        segment--;
        again = true;
      } else {
        break;
      }
    }
    if (storing) {
      store(carry(forward));
    } else if (forward) {
      occupy_finals();
    }
  }

  // `now` before a stretch, with what leaked.
  SEQTRAIN_DEVICE void enter(bool forward, bool storing, bool again, int64_t segment) {
    if (again) {
      store(carry(forward));
      cluster.sync();  // the states are written again, and what is stored of the segment before
    }
    if (storing) {
      if (!forward) return;
      begin_forward();
      store(checkpoint(true, 0));
      cluster.sync_own();
    } else if (again ? !forward || segment > 0 : half(forward) > 0) {
      load(again ? checkpoint(!forward, segment) : carry(forward));
    }
    if (storing || (again && !forward)) spread_leak();
  }

  SEQTRAIN_DEVICE void empty_utterance() {
    begin_forward();
    spread_leak();
    double sum;
    const int64_t top = end_mass(sum);
    put_likelihood(sum, top);
    occupy_finals();
  }
};

// Clusters of blocks number 2b and 2b + 1 are the two directions of utterance b.
template <class Real>
SEQTRAIN_DEVICE void denominator_sweep(const Team& team, const DenominatorProblem& problem) {
  const int64_t worker = team.block() / team.cluster_blocks();
  const bool forward = worker % 2 == 0;
  if (problem.status[worker / 2] != 0) return;
  DenominatorSweep<Real> sweep(team, problem, worker);
  sweep.cluster.sync();  // blocks that haven't begun have no shared memory to write to
  if (sweep.frames == 0) {
    if (forward && problem.phase == 0) sweep.empty_utterance();
  } else {
    sweep.run(forward);
  }
  sweep.cluster.sync();  // nor those that have ended: though a barrier stands behind all that is written now
}

}  // namespace seqtrain
