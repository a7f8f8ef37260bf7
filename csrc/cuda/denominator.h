// The full sum over one automaton that all utterances share, also with a leak (equations: seqtrain/reference.py,
// `full_sum` and `leaky_full_sum`; division of the work: sweep.h; layout: csrc/recursion/denominator_layout.h).
//
// Rows of arcs are those into an arrival or out of a slot.  Each sum has a fixed order: that of the arcs in a lane,
// then that of a row's lanes.  Values that arcs are multiplied with are brought to one level where they fit
// (sliced_arcs.h).
//
// Few frames are kept: each direction goes over its half in segments, keeps what every segment begins with and all
// frames of the last one, which is where the other direction comes first.  That one then makes the segments again, one
// by one, as it needs them.  Where one segment holds the half, nothing is computed twice.
#pragma once

#include "rows.h"
#include "sliced_arcs.h"

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
  void* emission;
  int32_t* emission_exponent;
  int64_t emissions_in_shared_memory;  // two frames of them, behind the states
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
  const int32_t* incoming_share;
  const int32_t* incoming_column;
  const int32_t* incoming_begin;
  const void* incoming_node;
  const void* incoming_mantissa;
  const int32_t* incoming_exponent;
  int64_t outgoing_slices;
  const int32_t* outgoing_row;
  const int32_t* outgoing_share;
  const int32_t* outgoing_begin;
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

// A frame's values may exceed those of the frame before, or of what they are made of, by this power of two and still be
// level.
constexpr int32_t headroom_of_frame = 24, headroom_of_sum = 4;

// What one cluster works on.  A frame's values are those of the nodes and, behind them, their sum, or those of the
// slots.
template <class Real>
struct DenominatorSweep {
  using Exponent = ExponentOf<Real>;

  const DenominatorProblem& problem;
  Cluster cluster;
  int64_t first;
  int utterance, frames, frames_of_segment;
  int arrivals, nodes, slots, columns, width;
  SlicedArcs<Real> incoming, outgoing;
  States<Real> now, other;
  Level level;  // of `now`

  SEQTRAIN_DEVICE DenominatorSweep(const Team& block, const DenominatorProblem& all, int64_t worker)
      : problem(all),
        cluster(block, all.workspace == nullptr),
        first(first_row(all.offsets, worker / 2, all.max_frames)),
        utterance(static_cast<int>(worker / 2)),
        frames(static_cast<int>(all.lengths[utterance])),
        frames_of_segment(static_cast<int>(all.segment)),
        arrivals(static_cast<int>(all.arrivals)),
        nodes(arrivals + static_cast<int>(all.aggregates)),
        slots(static_cast<int>(all.slots)),
        columns(static_cast<int>(all.columns)),
        width(nodes + 1),
        incoming{all.incoming_row,      all.incoming_share,
                 all.incoming_begin,    all.incoming_node,
                 all.narrow != 0,       static_cast<const Real*>(all.incoming_mantissa),
                 all.incoming_exponent, static_cast<int>(all.incoming_slices) * warp},
        outgoing{all.outgoing_row,      all.outgoing_share,
                 all.outgoing_begin,    all.outgoing_arrival,
                 all.narrow != 0,       static_cast<const Real*>(all.outgoing_mantissa),
                 all.outgoing_exponent, static_cast<int>(all.outgoing_slices) * warp},
        now(states_of<Real>(block, all.workspace, worker, width, 2, 0)),
        other(states_of<Real>(block, all.workspace, worker, width, 2, 1)) {}

  SEQTRAIN_DEVICE bool leaks() const { return problem.leak_mantissa != nullptr; }
  SEQTRAIN_DEVICE int half(bool forward) const { return forward ? (frames + 1) / 2 : frames / 2; }
  SEQTRAIN_DEVICE int segment_end(int segment, bool forward) const {
    const int end = (segment + 1) * frames_of_segment;
    return end < half(forward) ? end : half(forward);
  }

  SEQTRAIN_DEVICE States<Real> at(void* mantissa, int32_t* exponent, int64_t index) const {
    return {static_cast<Real*>(mantissa) + index * width, exponent + index * width};
  }
  SEQTRAIN_DEVICE int64_t worker_of(bool forward) const { return int64_t{2} * utterance + (forward ? 0 : 1); }
  // Frame number `i` of a direction, counted in the order in which it comes to them.
  SEQTRAIN_DEVICE States<Real> stored(bool forward, int i) const {
    return at(problem.store, problem.store_exponent, worker_of(forward) * frames_of_segment + i % frames_of_segment);
  }
  // What a segment of a direction begins with.
  SEQTRAIN_DEVICE States<Real> checkpoint(bool forward, int segment) const {
    return at(problem.checkpoint, problem.checkpoint_exponent, worker_of(forward) * problem.segments + segment);
  }
  SEQTRAIN_DEVICE States<Real> carry(bool forward) const {
    return at(problem.carry, problem.carry_exponent, worker_of(forward));
  }
  // The frame into global memory, normalized: of its own copy, each block does its share.
  SEQTRAIN_DEVICE void store(States<Real> to) const {
    for (int n = cluster.begin(); n < width; n += cluster.step())
      put_state<Real>(to, n, now.mantissa[n], now.exponent[n]);
  }
  // Likewise for the other direction to combine with: those of the slots in the order of the arrivals there.
  SEQTRAIN_DEVICE void store_frame(bool forward, int i) const {
    if (forward) return store(stored(true, i));
    const States<Real> to = stored(false, i);
    for_batches(
        cluster.begin(), arrivals, cluster.step(), [&](int m) { return problem.arrival_slot[m]; },
        [&](int m, int32_t slot) {
          to.mantissa[m] = now.mantissa[slot];
          to.exponent[m] = now.exponent[slot];
        });
  }
  // A frame of `count` values and their sum that all blocks have stored, before a barrier.  Behind this one what else
  // they have stored may be read.
  SEQTRAIN_DEVICE void load(States<Real> from, int count) {
    Seen seen{zero_exponent, 1};
    for_batches(
        cluster.own_begin(), width, cluster.own_step(),
        [&](int n) { return Loose<Real>{from.mantissa[n], from.exponent[n]}; },
        [&](int n, const Loose<Real>& value) {
          now.mantissa[n] = value.mantissa;
          now.exponent[n] = static_cast<int32_t>(value.exponent);
          if (n < count && value.exponent > seen.top) seen.top = static_cast<int32_t>(value.exponent);
        });
    level = Level::of(cluster, seen, 0);
  }
  // Makes a value known to all blocks, at the level of `exponent` where it fits.
  SEQTRAIN_DEVICE void put(States<Real> values, int n, Real m, Exponent e, int32_t exponent, Seen& seen) const {
    normalize(m, e);
    bring_to<Real>(exponent, m, e, seen);
    cluster.put(values, n, m, e);
  }
  // Likewise to those that write the same values alone.
  SEQTRAIN_DEVICE void put_own(int n, Real m, Exponent e, int32_t exponent, Seen& seen) const {
    normalize(m, e);
    bring_to<Real>(exponent, m, e, seen);
    now.mantissa[n] = m;
    now.exponent[n] = static_cast<int32_t>(e);
  }

  // Emissions of a frame.
  struct Emissions {
    Real* mantissa;
    int32_t* exponent;

    SEQTRAIN_DEVICE Loose<Real> of(int32_t column) const { return {mantissa[column], exponent[column]}; }
  };
  SEQTRAIN_DEVICE Emissions emissions_of(int t) const {
    if (problem.emissions_in_shared_memory != 0) return fetched(t);
    return given(t);
  }
  SEQTRAIN_DEVICE Emissions given(int t) const {
    const int64_t place = (first + t) * problem.columns;
    return {static_cast<Real*>(problem.emission) + place, problem.emission_exponent + place};
  }
  SEQTRAIN_DEVICE Emissions fetched(int t) const {
    auto* mantissa = reinterpret_cast<Real*>(cluster.team.shared(reduction_bytes + 2 * state_bytes<Real>(width)));
    auto* exponent = reinterpret_cast<int32_t*>(mantissa + 2 * columns);
    const int frame = t % 2 * columns;
    return {mantissa + frame, exponent + frame};
  }
  // Emissions of a frame into the block's shared memory, where there is room: a step fetches the next one's, which so
  // waits for none.
  SEQTRAIN_DEVICE void fetch(int t) const {
    if (problem.emissions_in_shared_memory == 0 || t < 0 || t >= frames) return;
    const Team& team = cluster.team;
    const Emissions from = given(t), to = fetched(t);
    for (int k = team.thread(); k < columns; k += team.threads()) {
      team.copy(to.mantissa + k, from.mantissa + k);
      team.copy(to.exponent + k, from.exponent + k);
    }
    team.end_of_copies();
  }
  // Before a barrier, behind which all may read what was fetched.
  SEQTRAIN_DEVICE void wait_for_emissions() const { cluster.team.template wait_for_copies<0>(); }
  SEQTRAIN_DEVICE static Loose<Real> normalized(States<Real> values, int64_t n) {
    Loose<Real> value{values.mantissa[n], values.exponent[n]};
    normalize(value.mantissa, value.exponent);
    return value;
  }
  SEQTRAIN_DEVICE void leak(int32_t node, Real& m, Exponent& e) const {
    m = static_cast<const Real*>(problem.leak_mantissa)[node];
    e = problem.leak_exponent[node];
  }
  // A node's value with what leaks to it; `values` hold none yet.
  SEQTRAIN_DEVICE Loose<Real> with_leak(States<Real> values, int node) const {
    Loose<Real> sum{values.mantissa[node], values.exponent[node]};
    if (!leaks()) return sum;
    Real m;
    Exponent e;
    leak(node, m, e);
    sum.add(m * values.mantissa[nodes], e + values.exponent[nodes]);
    return sum;
  }

  SEQTRAIN_DEVICE void begin_forward() {
    for (int n = cluster.own_begin(); n < width; n += cluster.own_step()) {
      now.mantissa[n] = 0;
      now.exponent[n] = zero_exponent;
    }
    cluster.sync_own();
    if (cluster.leads_own()) {
      put_state<Real>(now, problem.start_node, 1, 0);
      put_state<Real>(now, nodes, 1, 0);
    }
    cluster.sync_own();
    level = {0, 0, true};
  }

  // From the frame before, with what leaked, to frame t, without.
  SEQTRAIN_DEVICE void advance_forward(int t) {
    const States<Real> source = now;
    now = other;
    other = source;
    const int32_t exponent = level.top + headroom_of_frame - highest_level;
    const Emissions emissions = emissions_of(t);
    fetch(t + 1);
    Seen seen;
    incoming.each_lane(cluster, [&](int i, const typename SlicedArcs<Real>::Lane& lane) {
      const int32_t column = problem.incoming_column[i];
      const Loose<Real> sum = incoming.sum(cluster, lane, source, level);
      if (lane.row < 0 || !lane.leads) return;
      const Loose<Real> y = emissions.of(column);
      put(now, lane.row, sum.mantissa * y.mantissa, sum.exponent + y.exponent, exponent, seen);
    });
    if (problem.aggregates > 0 || leaks()) cluster.end_of_frame();
    for (int q = cluster.own_begin(); q < problem.aggregates; q += cluster.own_step()) {
      Loose<Real> sum;
      for (int64_t i = problem.aggregate_begin[q]; i < problem.aggregate_begin[q + 1]; i++) {
        const int32_t arrival = problem.aggregate_arrival[i];
        sum.add(now.mantissa[arrival], now.exponent[arrival]);
      }
      put_own(arrivals + q, sum.mantissa, sum.exponent, exponent, seen);
    }
    wait_for_emissions();
    if (!leaks()) {
      level = Level::of(cluster, seen, exponent);
      return;
    }
    const States<Real> values = now;
    double sum;
    const int64_t top = sum_of_products<Real>(
        cluster, arrivals,
        [&](int64_t m, double& mantissa, int64_t& e) {
          const Loose<Real> value = normalized(values, m);
          mantissa = static_cast<double>(value.mantissa);
          e = value.exponent;
        },
        sum);
    if (cluster.leads_own()) put_state<Real>(now, nodes, static_cast<Real>(sum), static_cast<Exponent>(top));
    cluster.sync_own();
  }

  SEQTRAIN_DEVICE void spread_leak() {
    if (!leaks()) return;
    cluster.sync_own();  // others have looked at the frame without it
    // No node has more than all have together, and what leaks to it.
    const int32_t exponent = now.exponent[nodes] + headroom_of_sum - highest_level;
    Seen seen;
    for (int n = cluster.own_begin(); n < nodes; n += cluster.own_step()) {
      const Loose<Real> sum = with_leak(now, n);
      put_own(n, sum.mantissa, sum.exponent, exponent, seen);
    }
    level = Level::of(cluster, seen, exponent);
  }

  // The slots behind frame t, from those behind frame t + 1; both with the leak, and normalized.
  SEQTRAIN_DEVICE void advance_backward(int t) {
    Seen seen;
    fetch(t);
    if (t == frames - 1) {
      for (int s = cluster.begin(); s < slots; s += cluster.step()) {
        Loose<Real> sum;
        for (int64_t i = problem.final_begin[s]; i < problem.final_begin[s + 1]; i++) {
          const int64_t f = problem.final_order[i];
          sum.add(static_cast<const Real*>(problem.final_mantissa)[f], problem.final_exponent[f]);
        }
        put_slot(s, sum, seen);
      }
    } else {
      const int32_t exponent = level.top + headroom_of_sum - highest_level;
      const Emissions emissions = emissions_of(t + 1);
      Seen products;
      for_batches(
          cluster.begin(), arrivals, cluster.step(),
          [&](int m) {
            const int32_t slot = problem.arrival_slot[m];
            const Loose<Real> y = emissions.of(problem.arrival_column[m]);
            return Loose<Real>{now.mantissa[slot] * y.mantissa, now.exponent[slot] + y.exponent};
          },
          [&](int m, const Loose<Real>& product) {
            put(other, m, product.mantissa, product.exponent, exponent, products);
          });
#if !defined(SEQTRAIN_PLANT_BARRIER)
      const Level of_products = Level::of(cluster, products, exponent);
#else  // the test of the test leaves this barrier out, of a cluster's all but the block's
      const Level of_products;
      cluster.end_of_frame();
#endif
      outgoing.each_lane(cluster, [&](int, const typename SlicedArcs<Real>::Lane& lane) {
        const Loose<Real> sum = outgoing.sum(cluster, lane, other, of_products);
        if (lane.row >= 0 && lane.leads) put_slot(lane.row, sum, seen);
      });
    }
    wait_for_emissions();
    level = Level::of(cluster, seen, 0);
    if (!leaks()) return;
    double sum;
    const int64_t top = sum_of_products<Real>(
        cluster, slots,
        [&](int64_t s, double& mantissa, int64_t& exponent) {
          Real m;
          Exponent e;
          leak(problem.slot_node[s], m, e);
          mantissa = static_cast<double>(m) * static_cast<double>(now.mantissa[s]);
          exponent = int64_t{now.exponent[s]} + e;
        },
        sum);
    for (int s = cluster.own_begin(); s < slots; s += cluster.own_step()) {
      Loose<Real> value{now.mantissa[s], now.exponent[s]};
      value.add(static_cast<Real>(sum), static_cast<Exponent>(top));
      put_state<Real>(now, s, value.mantissa, value.exponent);
    }
    level.top = 1 + (level.top > top ? level.top : static_cast<int32_t>(top));
    cluster.sync_own();
  }
  SEQTRAIN_DEVICE void put_slot(int s, Loose<Real> sum, Seen& seen) const {
    normalize(sum.mantissa, sum.exponent);
    if (sum.exponent > seen.top) seen.top = static_cast<int32_t>(sum.exponent);
    cluster.put(now, s, sum.mantissa, sum.exponent);
  }

  // From what the weights sum up to, relative to the largest.
  SEQTRAIN_DEVICE void put_likelihood(double sum, int64_t top) const {
    if (cluster.leads())
      problem.log_likelihood[utterance] =
          log_of(sum, top) + static_cast<double>(frames) * problem.largest_weight + problem.largest_final_weight;
  }

  // What has come to a final state; `now` with what leaked.
  SEQTRAIN_DEVICE void end_product(int64_t f, double& m, int64_t& e) const {
    m = 0;
    e = 2 * zero_exponent;
    const int32_t slot = problem.final_slot[f];
    if (slot < 0) return;
    const int32_t node = problem.slot_node[slot];
    const Loose<Real> value = normalized(now, node);
    m = static_cast<double>(static_cast<const Real*>(problem.final_mantissa)[f]) * static_cast<double>(value.mantissa);
    e = int64_t{problem.final_exponent[f]} + value.exponent;
  }
  // Occupancies of frame t, number `i` of the other direction; 2^top is about the likelihood.
  SEQTRAIN_DEVICE void combine(bool forward, int i, int t, bool begins, int32_t& top) {
    const States<Real> found = stored(!forward, i);
    const auto alpha = [&](int64_t m) {
      return forward ? normalized(now, m) : Loose<Real>{found.mantissa[m], found.exponent[m]};
    };
    const auto beta = [&](int64_t m) {
      const int64_t n = forward ? m : problem.arrival_slot[m];
      const States<Real> values = forward ? found : now;
      return Loose<Real>{values.mantissa[n], values.exponent[n]};
    };
    if (begins) {
      double sum;
      top = static_cast<int32_t>(sum_of_products<Real>(
          cluster, arrivals,
          [&](int64_t m, double& mantissa, int64_t& e) {
            const Loose<Real> x = alpha(m), y = beta(m);
            mantissa = static_cast<double>(x.mantissa) * static_cast<double>(y.mantissa);
            e = int64_t{x.exponent} + y.exponent;
          },
          sum));
      if (!forward) put_likelihood(sum, top);
    }
    if (problem.with_gradient == 0) return;
    const auto product = [&](int32_t m) {
      const Loose<Real> x = alpha(m), y = beta(m);
      return product_below(x.mantissa, static_cast<int32_t>(x.exponent), y.mantissa, static_cast<int32_t>(y.exponent),
                           top);
    };
    struct Column {
      int32_t first, end;
      Real product;  // of the first arrival
    };
    Real* out = static_cast<Real*>(problem.occupancies) + (first + t) * columns;
    OrderlessSum<Real, sizeof(Real) == sizeof(double)> all(columns);
    for_batches(
        cluster.begin(), columns, cluster.step(),
        [&](int k) {
          const int32_t m = problem.column_begin[k];
          return Column{m, problem.column_begin[k + 1], product(m)};
        },
        [&](int k, const Column& column) {
          Real sum = column.product;
          for (int32_t m = column.first + 1; m < column.end; m++) sum += product(m);
          out[k] = sum;
          all.add(sum);
        });
    const Real together = static_cast<Real>(all.over(cluster));
    const Real inverse = together > 0 ? Real{1} / together : Real{0};
    if (cluster.leads()) lose_row(problem.row_status, first + t, together > 0);
    for_batches(
        cluster.begin(), columns, cluster.step(), [&](int k) { return out[k]; },
        [&](int k, Real sum) { out[k] = sum * inverse; });
    if (problem.arc_occupancies != nullptr) occupy_arcs(forward, t, beta, top, static_cast<double>(inverse));
  }

  // Each direction adds up arcs of its own half of the frames, an arc always in the same thread.
  template <class Beta>
  SEQTRAIN_DEVICE void occupy_arcs(bool forward, int t, const Beta& beta, int32_t top, double inverse) const {
    double* sums = problem.arc_occupancies + worker_of(forward) * problem.arc_places;
    const Emissions emissions = emissions_of(t);
    const bool kept = t % frames_of_segment > 0;
    const States<Real> before = forward ? other : kept ? stored(true, t - 1) : checkpoint(true, t / frames_of_segment);
    for (int i = cluster.begin(); i < incoming.lanes; i += cluster.step()) {
      const int32_t arrival = incoming.row[i];
      if (arrival < 0) continue;
      const Loose<Real> y = emissions.of(problem.incoming_column[i]), behind = beta(arrival);
      const double rest = static_cast<double>(y.mantissa) * static_cast<double>(behind.mantissa) * inverse;
      const int64_t rest_exponent = int64_t{behind.exponent} + y.exponent - top;
      incoming.each(i, [&](int64_t place) {
        const int32_t node = incoming.source(place);
        const Loose<Real> source =
            forward ? Loose<Real>{before.mantissa[node], before.exponent[node]} : with_leak(before, node);
        // Weights and values that have no exponents of their own leave theirs to the others.
        constexpr int64_t most = 8 - 2 * lowest_level;
        const int64_t e = rest_exponent + incoming.exponent_of(place) + source.exponent;
        sums[place] += static_cast<double>(incoming.mantissa[place]) * static_cast<double>(source.mantissa) * rest *
                       power_of_two<double>(e > most ? most : e);
      });
    }
  }

  // What a direction does in a launch, in stretches of frames, all of which one loop goes over: this keeps the code
  // small. The first launch stores what is found.  In the second each of the other direction's segments is combined
  // with, and made again before that (`again`), unless it's the one that was left.
  SEQTRAIN_DEVICE void run(bool forward) {
    const bool storing = problem.phase == 0, whole = problem.with_gradient != 0;
    if (forward && !storing && !whole) return;
    int segment = storing ? 0 : (half(!forward) + frames_of_segment - 1) / frames_of_segment - 1;
    int32_t top = 0;
    bool again = false, begins = true;
    for (;;) {
      const bool ahead = again ? !forward : forward;
      // Number i of one direction is number frames - 1 - i of the other.
      int begin = 0, end = half(forward);
      if (again) {
        begin = segment * frames_of_segment;
        end = segment_end(segment, ahead);
      } else if (!storing) {
        begin = frames - segment_end(segment, !forward);
        end = segment < 0 ? begin : whole ? frames - segment * frames_of_segment : begin + 1;  // < 0: one frame in all
      }
      enter(forward, storing, again, segment, ahead ? begin : frames - 1 - begin);
      for (int i = begin; i < end; i++) {
        const int t = ahead ? i : frames - 1 - i;
        if (ahead) {
          spread_leak();
          advance_forward(t);
        } else {
          advance_backward(t);
        }
        if (storing || again) {
          store_frame(ahead, i);
          if (storing && (i + 1) % frames_of_segment == 0 && i + 1 < end)
            store(checkpoint(ahead, (i + 1) / frames_of_segment));
        } else {
          combine(forward, frames - 1 - i, t, begins, top);
          begins = false;
        }
        // `combine` has read `other`, which the next step writes in all blocks.
        if (ahead && problem.arc_occupancies != nullptr) cluster.sync();
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
    if (storing) store(carry(forward));
  }

  // `now` before a stretch whose first frame is t.
  SEQTRAIN_DEVICE void enter(bool forward, bool storing, bool again, int segment, int t) {
    const bool ahead = again ? !forward : forward;
    if (again) store(carry(forward));
    // The states are written again, emissions are fetched again, and what is stored of the segment before.
    cluster.sync();
    fetch(ahead ? t : t + 1);
    wait_for_emissions();
    if (storing) {
      if (!forward) return cluster.sync_own();
      begin_forward();
      store(checkpoint(true, 0));
    } else if (again ? !forward || segment > 0 : half(forward) > 0) {
      load(again ? checkpoint(!forward, segment) : carry(forward), ahead ? nodes : slots);
    } else {
      cluster.sync_own();
    }
  }

  // What the forward direction does behind the last frame: the occupancies of the final states, and the likelihood
  // where there are no frames to find it in.
  SEQTRAIN_DEVICE void finish() {
    spread_leak();
    double sum;
    const int64_t top = sum_of_products<Real>(
        cluster, problem.finals, [&](int64_t f, double& m, int64_t& e) { end_product(f, m, e); }, sum);
    if (frames == 0) put_likelihood(sum, top);
    if (problem.final_occupancies == nullptr) return;
    for (int f = cluster.begin(); f < problem.finals; f += cluster.step()) {
      double m;
      int64_t e;
      end_product(f, m, e);
      problem.final_occupancies[utterance * problem.finals + f] = m > 0 ? m * power_of_two<double>(e - top) / sum : 0.0;
    }
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
  const bool storing = problem.phase == 0;
  if (sweep.frames > 0) {
    sweep.run(forward);
  } else if (forward && storing) {
    sweep.begin_forward();
  }
  if (forward && (sweep.frames > 0 ? !storing && problem.final_occupancies != nullptr : storing)) sweep.finish();
  sweep.cluster.sync();  // nor those that have ended: though a barrier stands behind all that is written now
}

}  // namespace seqtrain
