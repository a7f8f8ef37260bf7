// Expected risk over lattices, and its gradients to weights and risks.
//
// All in double whatever the caller's type: a lattice is sparse, and the conversion of its weights costs less than what
// a long sum of risks would lose in float.

#include "../recursion/risk.h"

#include <vector>

#include "graph_view.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"

namespace seqtrain {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

class RiskUtterance {
 public:
  void run(const LatticeRisk& problem, int64_t b) {
    const GraphView lattice = view(problem.lattices, b);
    const int64_t first = problem.lattices.arc_offsets[b], first_final = problem.lattices.final_offsets[b];
    const double* risk = problem.risks + first;
    const double* final_risk = problem.final_risks + first_final;
    problem.fault[b] = fault_of(lattice, risk, final_risk);
    if (problem.fault[b] != 0) return;
    split(lattice);
    group_finals(lattice);
    const int64_t start = lattice.start;
    backward(lattice, risk, final_risk);
    const Ahead& whole = ahead_[start];
    if (!(whole.mantissa > 0)) {
      problem.status[b] = status_no_path;
      return;
    }
    problem.risk[b] = whole.risk;
    problem.total[b] = std::log(whole.mantissa) + static_cast<double>(whole.exponent) * 0.69314718055994530942;
    if (problem.arc_posteriors == nullptr) return;
    forward(lattice, risk, final_risk, whole.risk, problem.arc_posteriors + first, problem.arc_gradients + first,
            problem.final_posteriors + first_final, problem.final_gradients + first_final);
  }

 private:
  static bool usable(double weight, double risk) {
    return weight < largest_weight && risk > -infinity && risk < infinity;
  }

  // 1 + the first arc, or -1 - the first final state, that breaks what the sweeps count on; 0: none does.
  static int64_t fault_of(const GraphView& lattice, const double* risk, const double* final_risk) {
    int32_t previous = 0;
    for (int64_t a = 0; a < lattice.arcs; a++) {
      const int32_t p = lattice.source(a), q = lattice.destination(a);
      if (p < previous || q <= p || q >= lattice.states || !usable(lattice.weight[a], risk[a])) return 1 + a;
      previous = p;
    }
    for (int64_t f = 0; f < lattice.finals; f++) {
      const int32_t q = lattice.final_state[f];
      if (q < 0 || q >= lattice.states || !usable(lattice.final_weight[f], final_risk[f])) return -1 - f;
    }
    return 0;
  }

  static void split(const double* __restrict weight, double* __restrict mantissa, int64_t* __restrict exponent,
                    int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) split_exponential(weight[i], mantissa[i], exponent[i]);
  }

  void split(const GraphView& lattice) {
    product_ = product_memory_.reserve(at(lattice.arcs));
    exponent_ = exponent_memory_.reserve(at(lattice.arcs));
    split(lattice.weight, product_, exponent_, lattice.arcs);
    final_product_ = final_product_memory_.reserve(at(lattice.finals));
    final_exponent_ = final_exponent_memory_.reserve(at(lattice.finals));
    split(lattice.final_weight, final_product_, final_exponent_, lattice.finals);
  }

  // Chains the final weights of each state, in their order.
  void group_finals(const GraphView& lattice) {
    first_final_ = first_final_memory_.reserve(at(lattice.states));
    next_final_ = next_final_memory_.reserve(at(lattice.finals));
    std::fill(first_final_, first_final_ + lattice.states, -1);
    for (int64_t f = lattice.finals - 1; f >= 0; f--) {
      const int32_t q = lattice.final_state[f];
      next_final_[f] = first_final_[q];
      first_final_[q] = static_cast<int32_t>(f);
    }
  }

  // Leaves the probability of each arc and final weight, given its state, in product_ and final_product_.
  void backward(const GraphView& lattice, const double* risk, const double* final_risk) {
    constexpr Ahead end{1, 0, 0};
    ahead_ = ahead_memory_.reserve(at(lattice.states));
    int64_t last = lattice.arcs;
    for (int64_t p = lattice.states - 1; p >= 0; p--) {
      int64_t begin = last;
      while (begin > 0 && lattice.source(begin - 1) == p) begin--;
      Leaving leaving;
      for (int64_t a = begin; a < last; a++)
        leaving.look(product_[a], exponent_[a], ahead_[lattice.destination(a)], product_[a], exponent_[a]);
      for (int64_t f = first_final_[p]; f >= 0; f = next_final_[f])
        leaving.look(final_product_[f], final_exponent_[f], end, final_product_[f], final_exponent_[f]);
      if (leaving.alive()) {
        for (int64_t a = begin; a < last; a++)
          leaving.add(product_[a], exponent_[a], risk[a] + ahead_[lattice.destination(a)].risk);
        for (int64_t f = first_final_[p]; f >= 0; f = next_final_[f])
          leaving.add(final_product_[f], final_exponent_[f], final_risk[f]);
        double scale;
        ahead_[p] = leaving.total(scale);
        for (int64_t a = begin; a < last; a++) product_[a] *= scale;
        for (int64_t f = first_final_[p]; f >= 0; f = next_final_[f]) final_product_[f] *= scale;
      } else {
        ahead_[p] = {0, 0, 0};
      }
      last = begin;
    }
  }

  void forward(const GraphView& lattice, const double* risk, const double* final_risk, double expected,
               double* arc_posterior, double* arc_gradient, double* final_posterior, double* final_gradient) {
    Behind* behind = behind_memory_.reserve(at(lattice.states));
    std::fill(behind, behind + lattice.states, Behind{0, 0});
    behind[lattice.start] = {1, 0};
    int64_t a = 0;
    for (int64_t p = 0; p < lattice.states; p++) {
      const double occupancy = behind[p].occupancy;
      if (!(occupancy > 0) || !(ahead_[p].mantissa > 0)) {
        for (; a < lattice.arcs && lattice.source(a) == p; a++) arc_posterior[a] = arc_gradient[a] = 0;
        for (int64_t f = first_final_[p]; f >= 0; f = next_final_[f]) final_posterior[f] = final_gradient[f] = 0;
        continue;
      }
      const double before = behind[p].risk / occupancy;
      for (; a < lattice.arcs && lattice.source(a) == p; a++) {
        const int32_t q = lattice.destination(a);
        const double posterior = occupancy * product_[a];
        const double so_far = before + risk[a];
        arc_posterior[a] = posterior;
        arc_gradient[a] = posterior * (so_far + ahead_[q].risk - expected);
        behind[q].occupancy += posterior;
        behind[q].risk += posterior * so_far;
      }
      for (int64_t f = first_final_[p]; f >= 0; f = next_final_[f]) {
        const double posterior = occupancy * final_product_[f];
        final_posterior[f] = posterior;
        final_gradient[f] = posterior * (before + final_risk[f] - expected);
      }
    }
  }

  double *product_ = nullptr, *final_product_ = nullptr;
  int64_t *exponent_ = nullptr, *final_exponent_ = nullptr;
  int32_t *first_final_ = nullptr, *next_final_ = nullptr;
  Ahead* ahead_ = nullptr;
  Scratch<double> product_memory_, final_product_memory_;
  Scratch<int64_t> exponent_memory_, final_exponent_memory_;
  Scratch<int32_t> first_final_memory_, next_final_memory_;
  Scratch<Ahead> ahead_memory_;
  Scratch<Behind> behind_memory_;
};

}  // namespace

void lattice_risk(const LatticeRisk& problem) {
  std::vector<double> work(at(problem.lattices.graphs));
  for (int64_t b = 0; b < problem.lattices.graphs; b++)
    work[at(b)] = static_cast<double>(problem.lattices.arc_offsets[b + 1] - problem.lattices.arc_offsets[b]);
  for_each_utterance<RiskUtterance>(work, problem.threads,
                                    [&](int64_t b, RiskUtterance& utterance) { utterance.run(problem, b); });
}

}  // namespace seqtrain
