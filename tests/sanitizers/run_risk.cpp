// The expected risk of random lattices.

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/lattice_kernels.h"
#include "automata.h"
#include "runs.h"

namespace seqtrain::sanitizers {

namespace {

// One lattice: arcs in order of their sources, to higher states; dead ends, forbidden arcs, sometimes no end.
void add_lattice(Random& random, int64_t max_states, Automata& all) {
  const int64_t states = random.integer(1, max_states);
  for (int64_t p = 0; p + 1 < states; p++)
    for (int64_t k = random.integer(0, 4); k > 0; k--) {
      const int64_t q = random.integer(p + 1, states - 1);
      for (const int64_t part : {p, q, int64_t{0}}) all.arcs.push_back(static_cast<int32_t>(part));
      all.weights.push_back(random.chance(0.05) ? -infinity : random.number(random.chance(0.1) ? 1e4 : 3));
    }
  for (int64_t f = random.integer(0, 2); f > 0; f--) {
    all.final_states.push_back(static_cast<int32_t>(random.integer(0, states - 1)));
    all.final_weights.push_back(random.number(2));
  }
  all.starts.push_back(0);
  all.states.push_back(static_cast<int32_t>(states));
  all.arc_offsets.push_back(static_cast<int64_t>(all.weights.size()));
  all.final_offsets.push_back(static_cast<int64_t>(all.final_weights.size()));
}

}  // namespace

void run_risk(Random& random, int64_t batch, int64_t max_states, int threads) {
  Automata all;
  for (int64_t b = 0; b < batch; b++) add_lattice(random, max_states, all);
  const int64_t arcs = all.arc_offsets.back(), finals = all.final_offsets.back();
  Array<double> risks(arcs), final_risks(finals), risk(batch), total(batch);
  for (int64_t a = 0; a < arcs; a++) risks[a] = random.number(2);
  for (int64_t f = 0; f < finals; f++) final_risks[f] = random.number(2);
  Array<int32_t> rows(3 * arcs), ends(finals), starts(batch), states(batch);
  Array<double> weights(arcs), final_weights(finals);
  Array<int64_t> arc_offsets(batch + 1), final_offsets(batch + 1);
  std::copy(all.arcs.begin(), all.arcs.end(), rows.data());
  std::copy(all.final_states.begin(), all.final_states.end(), ends.data());
  std::copy(all.starts.begin(), all.starts.end(), starts.data());
  std::copy(all.states.begin(), all.states.end(), states.data());
  std::copy(all.weights.begin(), all.weights.end(), weights.data());
  std::copy(all.final_weights.begin(), all.final_weights.end(), final_weights.data());
  std::copy(all.arc_offsets.begin(), all.arc_offsets.end(), arc_offsets.data());
  std::copy(all.final_offsets.begin(), all.final_offsets.end(), final_offsets.data());
  const Graphs lattices{batch,        rows.data(),          weights.data(),       arc_offsets.data(),
                        ends.data(),  final_weights.data(), final_offsets.data(), starts.data(),
                        states.data()};
  const auto compute = [&](int workers, const Array<double>& gradients, const Array<double>& final_gradients) {
    Array<double> posteriors(arcs), final_posteriors(finals);
    Array<int64_t> status(batch), fault(batch);
    lattice_risk({lattices, risks.data(), final_risks.data(), risk.data(), total.data(), posteriors.data(),
                  gradients.data(), final_posteriors.data(), final_gradients.data(), status.data(), fault.data(),
                  workers});
    for (int64_t b = 0; b < batch; b++) {
      check(fault[b] == 0, "a lattice in order is at fault");
      double ended = 0;
      for (int64_t f = final_offsets[b]; f < final_offsets[b + 1]; f++) ended += final_posteriors[f];
      if (status[b] == status_ok) check(std::abs(ended - 1) < 1e-9, "probabilities of the ends don't sum to one");
    }
  };
  Array<double> one(arcs), final_one(finals), several(arcs), final_several(finals);
  compute(1, one, final_one);
  compute(threads, several, final_several);
  check(one == several && final_one == final_several, "lattice_risk differs with threads");
  // Out of order: found before anything is read that isn't there.
  if (arcs > 0) {
    rows[3 * random.integer(0, arcs - 1) + 1] = 1 << 30;
    Array<int64_t> status(batch), fault(batch);
    lattice_risk({lattices, risks.data(), final_risks.data(), risk.data(), total.data(), nullptr, nullptr, nullptr,
                  nullptr, status.data(), fault.data(), threads});
    int64_t faults = 0;
    for (int64_t b = 0; b < batch; b++) faults += fault[b] != 0;
    check(faults == 1, "an arc to nowhere isn't found");
  }
}

}  // namespace seqtrain::sanitizers
