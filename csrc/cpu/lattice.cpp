// Sum over the paths of lattices, and its gradient: the posteriors of arcs and final states.

#include <algorithm>
#include <limits>

#include "lattice_view.h"
#include "memory.h"
#include "parallel.h"

namespace seqtrain {
namespace {

class LatticeUtterance {
 public:
  void run(const LatticeTotal& problem, int64_t b) {
    const LatticeView lattice = view(problem.lattices, b);
    problem.value[b] = -std::numeric_limits<double>::infinity();
    problem.status[b] = status_no_path;
    double *arc_posterior = nullptr, *final_posterior = nullptr;
    if (problem.with_posteriors) {
      arc_posterior = problem.arc_posteriors + problem.lattices.arc_offsets[b];
      final_posterior = problem.final_posteriors + problem.lattices.final_offsets[b];
      std::fill(arc_posterior, arc_posterior + lattice.arcs, 0.0);
      std::fill(final_posterior, final_posterior + lattice.finals, 0.0);
    }
    if (lattice.states == 0) return;
    Wide* arcs = arcs_.reserve(at(lattice.arcs + 1));
    Wide* finals = finals_.reserve(at(lattice.finals + 1));
    Wide* alpha = alpha_.reserve(at(lattice.states));
    if (!lattice_exponentials(lattice, arcs, finals)) {
      problem.status[b] = status_bad_weight;
      return;
    }
    lattice_forward(lattice, arcs, alpha);
    const Wide total = seqtrain::lattice_total(lattice, finals, alpha);
    if (!(total.mantissa > 0)) return;
    problem.value[b] = wide_log(total);
    problem.status[b] = status_ok;
    if (!problem.with_posteriors) return;
    Wide* beta = beta_.reserve(at(lattice.states));
    lattice_backward(lattice, arcs, finals, beta);
    for (int64_t a = 0; a < lattice.arcs; a++) {
      const Wide& from = alpha[lattice.source(a)];
      const Wide& to = beta[lattice.destination(a)];
      arc_posterior[a] = wide_share(from.mantissa * arcs[a].mantissa * to.mantissa,
                                    from.exponent + arcs[a].exponent + to.exponent, total);
    }
    for (int64_t f = 0; f < lattice.finals; f++) {
      const Wide& end = alpha[lattice.final_state[f]];
      final_posterior[f] = wide_share(end.mantissa * finals[f].mantissa, end.exponent + finals[f].exponent, total);
    }
  }

 private:
  Scratch<Wide> arcs_, finals_, alpha_, beta_;
};

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Nothing {};

void best_scores(const LatticeView& lattice, double* from_start, double* to_end) {
  if (lattice.states == 0) return;
  std::fill(from_start, from_start + lattice.states, -infinity);
  std::fill(to_end, to_end + lattice.states, -infinity);
  from_start[0] = 0;
  for (int64_t a = 0; a < lattice.arcs; a++) {
    double& best = from_start[lattice.destination(a)];
    best = std::max(best, from_start[lattice.source(a)] + lattice.weight[a]);
  }
  for (int64_t f = 0; f < lattice.finals; f++) to_end[lattice.final_state[f]] = lattice.final_weight[f];
  for (int64_t a = lattice.arcs - 1; a >= 0; a--) {
    double& best = to_end[lattice.source(a)];
    best = std::max(best, lattice.weight[a] + to_end[lattice.destination(a)]);
  }
}

struct Reach {
  std::vector<char> forward, backward;

  void trim(const LatticeView& lattice, uint8_t* arcs, uint8_t* finals, uint8_t* states) {
    if (lattice.states == 0) return;
    forward.assign(at(lattice.states), 0);
    backward.assign(at(lattice.states), 0);
    forward[0] = 1;
    for (int64_t a = 0; a < lattice.arcs; a++) {
      if (!(lattice.weight[a] > -infinity)) arcs[a] = 0;
      if (arcs[a] != 0 && forward[at(lattice.source(a))] != 0) forward[at(lattice.destination(a))] = 1;
    }
    for (int64_t f = 0; f < lattice.finals; f++) {
      if (!(lattice.final_weight[f] > -infinity) || forward[at(lattice.final_state[f])] == 0) finals[f] = 0;
      if (finals[f] != 0) backward[at(lattice.final_state[f])] = 1;
    }
    for (int64_t a = lattice.arcs - 1; a >= 0; a--) {
      if (forward[at(lattice.source(a))] == 0 || backward[at(lattice.destination(a))] == 0) arcs[a] = 0;
      if (arcs[a] != 0) backward[at(lattice.source(a))] = 1;
    }
    for (int64_t s = 0; s < lattice.states; s++) states[s] = forward[at(s)] != 0 && backward[at(s)] != 0 ? 1 : 0;
  }
};

}  // namespace

std::vector<double> lattice_work(const Lattices& lattices) {
  std::vector<double> work(at(lattices.batch));
  for (int64_t b = 0; b < lattices.batch; b++)
    work[at(b)] = 4.0 * static_cast<double>(lattices.arc_offsets[b + 1] - lattices.arc_offsets[b]);
  return work;
}

void lattice_total(const LatticeTotal& problem) {
  for_each_utterance<LatticeUtterance>(lattice_work(problem.lattices), problem.threads,
                                       [&](int64_t b, LatticeUtterance& utterance) { utterance.run(problem, b); });
}

void lattice_best_scores(const LatticeBestScores& problem) {
  const Lattices& all = problem.lattices;
  for_each_utterance<Nothing>(lattice_work(all), problem.threads, [&](int64_t b, Nothing&) {
    best_scores(view(all, b), problem.from_start + all.state_offsets[b], problem.to_end + all.state_offsets[b]);
  });
}

void lattice_trim(const LatticeTrim& problem) {
  const Lattices& all = problem.lattices;
  for_each_utterance<Reach>(lattice_work(all), problem.threads, [&](int64_t b, Reach& reach) {
    reach.trim(view(all, b), problem.arcs + all.arc_offsets[b], problem.finals + all.final_offsets[b],
               problem.states + all.state_offsets[b]);
  });
}

}  // namespace seqtrain
