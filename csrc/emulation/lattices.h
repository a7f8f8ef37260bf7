// Random lattices for the checks, in the flat arrays that the kernels of the CPU take, and what a device needs of them.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "../cpu/lattice_kernels.h"
#include "../cuda/lattice.h"
#include "check.h"

namespace seqtrain {

// Few levels and many, wide ones and narrow ones, states in any topological order; parallel and forbidden arcs, dead
// ends, lattices without states or without a path.
struct RandomLattices {
  std::vector<int32_t> arcs, final_states;
  std::vector<double> weights, final_weights;
  std::vector<int64_t> arc_offsets{0}, state_offsets{0}, final_offsets{0};

  // Another lattice, of at least so many states, 0 or 1.
  void add(Random& random, int64_t fewest) {
    const double infinity = std::numeric_limits<double>::infinity();
    const int64_t kind = random.below(8);
    const int64_t states = kind == 0  ? fewest + random.below(2 - fewest)
                           : kind < 4 ? 2 + random.below(9)
                                      : 40 + random.below(200);
    const int64_t reach = 1 + random.below(kind % 2 == 0 ? 12 : states + 1);  // how far arcs lead
    const int64_t fan = 1 + random.below(kind == 7 ? 40 : 6);
    const float scale = random.below(3) == 0 ? 3000.0f : 3.0f;
    for (int64_t s = 0; s + 1 < states; s++)
      for (int64_t i = random.below(20) == 0 ? 0 : 1 + random.below(fan); i > 0; i--) {
        arcs.push_back(static_cast<int32_t>(s));
        arcs.push_back(static_cast<int32_t>(s + 1 + random.below(std::min(reach, states - 1 - s))));
        arcs.push_back(0);
        weights.push_back(random.below(20) == 0 ? -infinity : static_cast<double>(random.number(scale)));
      }
    for (int64_t s = 0; s < states; s++)
      if (s + 1 == states ? random.below(8) != 0 : random.below(20) == 0) {
        final_states.push_back(static_cast<int32_t>(s));
        final_weights.push_back(random.below(10) == 0 ? -infinity : static_cast<double>(random.number(scale)));
      }
    arc_offsets.push_back(static_cast<int64_t>(weights.size()));
    state_offsets.push_back(state_offsets.back() + states);
    final_offsets.push_back(static_cast<int64_t>(final_weights.size()));
  }

  int64_t batch() const { return static_cast<int64_t>(arc_offsets.size()) - 1; }
  int64_t all_arcs() const { return arc_offsets.back(); }
  int64_t all_states() const { return state_offsets.back(); }
  int64_t all_finals() const { return final_offsets.back(); }

  Lattices view() const {
    return {batch(),
            arcs.data(),
            weights.data(),
            arc_offsets.data(),
            state_offsets.data(),
            final_states.data(),
            final_weights.data(),
            final_offsets.data()};
  }
};

// What the launches over lattices leave.
struct LatticeResult {
  std::vector<double> value, arc_posteriors, final_posteriors, risk, arc_gradients, final_gradients;
  std::vector<int64_t> status;

  explicit LatticeResult(const RandomLattices& in)
      : value(size(in.batch())),
        arc_posteriors(size(in.all_arcs())),
        final_posteriors(size(in.all_finals())),
        risk(value),
        arc_gradients(arc_posteriors),
        final_gradients(final_posteriors),
        status(size(in.batch())) {}

  uint64_t hash() const {
    Hash all;
    for (const std::vector<double>* each :
         {&value, &arc_posteriors, &final_posteriors, &risk, &arc_gradients, &final_gradients})
      all.add(*each);
    all.add(status);
    return all.value;
  }

  double difference(const LatticeResult& exact) const {
    double worst = 0;
    for (const auto each : {&LatticeResult::arc_posteriors, &LatticeResult::final_posteriors, &LatticeResult::risk,
                            &LatticeResult::arc_gradients, &LatticeResult::final_gradients})
      worst = std::max(worst, largest_difference_of(this->*each, exact.*each));
    for (std::size_t b = 0; b < status.size(); b++) {
      if (status[b] != exact.status[b]) return std::numeric_limits<double>::infinity();
      if (status[b] == status_ok) worst = std::max(worst, relative_difference(value[b], exact.value[b]));
    }
    return worst;
  }
};

// How the launches go; risks and starts may be null.
struct LatticeRun {
  Order order;
  uint32_t seed;
  int threads;  // of a block of the sweep
  bool with_gradient, in_shared;
  double largest_weight;
  const int32_t* starts = nullptr;
  const double* risks = nullptr;
  const double* final_risks = nullptr;
};

// The launches of a batch, by kernels whose names begin with `kind`.
inline LatticeResult run_lattices(const RandomLattices& in, const std::string& kind, const LatticeRun& how) {
  LatticeResult out(in);
  std::vector<int64_t> fault(size(in.batch())), faults = scratch<int64_t>(3 * in.batch());
  const LatticeLayout layout = lay_out_lattices(in.view(), fault.data(), 1);
  const auto wide = [](int64_t count) { return scratch<Wide>(count); };
  std::vector<Wide> leaving = wide(in.all_arcs()), entering = leaving, finals = wide(in.all_finals()),
                    ahead = wide(in.all_states()), behind = ahead;
  std::vector<int32_t> entering_source = scratch<int32_t>(in.all_arcs());
  std::vector<double> entering_risk = scratch<double>(in.all_arcs()), risk_ahead = scratch<double>(in.all_states()),
                      risk_behind = risk_ahead;
  LatticeProblem problem{};
  problem.batch = in.batch();
  problem.directions = how.with_gradient ? 2 : 1;
  problem.chunks = 3;
  problem.in_shared = how.in_shared ? 1 : 0;
  problem.most_states = layout.states;
  problem.tables = layout.bytes.data();
  problem.integers = reinterpret_cast<const int32_t*>(layout.bytes.data() + layout.integers);
  problem.starts = how.starts;
  problem.arcs = in.arcs.data();
  problem.weights = in.weights.data();
  problem.final_weights = in.final_weights.data();
  problem.largest_weight = how.largest_weight;
  problem.smallest_weight = -how.largest_weight;
  problem.leaving = leaving.data();
  problem.entering = entering.data();
  problem.entering_source = entering_source.data();
  problem.finals = finals.data();
  problem.ahead = ahead.data();
  problem.behind = behind.data();
  problem.value = out.value.data();
  problem.status = out.status.data();
  problem.faults = faults.data();
  problem.arc_posteriors = out.arc_posteriors.data();
  problem.final_posteriors = out.final_posteriors.data();
  problem.risks = how.risks;
  problem.final_risks = how.final_risks;
  problem.entering_risk = entering_risk.data();
  problem.risk_ahead = risk_ahead.data();
  problem.risk_behind = risk_behind.data();
  problem.risk = out.risk.data();
  problem.arc_gradients = out.arc_gradients.data();
  problem.final_gradients = out.final_gradients.data();
  const int64_t of_state = how.risks != nullptr ? 24 : 16, chunks = problem.chunks * in.batch();
  launch((kind + "_weights").c_str(), chunks, 32, reduction_bytes, &problem, how.order, how.seed);
  launch((kind + "_sweep").c_str(), problem.directions * in.batch(), how.threads,
         reduction_bytes + (how.in_shared ? of_state * layout.states : 0), &problem, how.order, how.seed);
  if (how.with_gradient)
    launch((kind + "_posteriors").c_str(), chunks, 32, reduction_bytes, &problem, how.order, how.seed);
  return out;
}

// A batch and how it is run: in turn by blocks of several sizes, which must leave the same bits.
class LatticeCase : public Case {
 protected:
  LatticeCase(Random& random, int64_t fewest_states)
      : with_gradient_(random.below(4) != 0), in_shared_(random.below(2) == 0) {
    for (int b = 0; b < 3; b++) lattices_.add(random, fewest_states);
    last_ = std::make_unique<LatticeResult>(lattices_);
  }

  LatticeRun next(Order order, uint32_t seed, double largest_weight) {
    constexpr int sizes[] = {32, 64, 160};
    return {order, seed, sizes[runs_++ % 3], with_gradient_, in_shared_, largest_weight};
  }

  RandomLattices lattices_;
  std::unique_ptr<LatticeResult> last_;
  bool with_gradient_;

 private:
  std::size_t runs_ = 0;
  bool in_shared_;
};

}  // namespace seqtrain
