// The sweeps over a lattice: arcs of an acyclic graph in the order of their sources, states numbered so that every arc
// leads upwards (equations: seqtrain/reference.py, `lattice_total_score`).
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "exponential.h"
#include "graph.h"
#include "number.h"
#include "wide.h"

namespace seqtrain {

// One lattice of a batch's flat arrays.
struct LatticeView {
  int64_t states, arcs, finals;
  const int32_t* arc;    // (A, 3) source, destination, label
  const double* weight;  // (A,) log
  const int32_t* final_state;
  const double* final_weight;

  int32_t source(int64_t a) const { return arc[3 * a]; }
  int32_t destination(int64_t a) const { return arc[3 * a + 1]; }
  int32_t label(int64_t a) const { return arc[3 * a + 2]; }
};

inline Wide wide_exponential(double x) {
  if (!(x > -largest_lattice_weight)) return wide_zero();
  const double n = std::rint(x * LogTwo<double>::inverse);
  return {Remainder<double>::exponential(remainder_of<double>(x, n)), static_cast<int64_t>(n)};
}

// Natural log; -inf of zero.
inline double wide_log(Wide value) {
  if (!(value.mantissa > 0)) return -std::numeric_limits<double>::infinity();
  return std::log(value.mantissa) + static_cast<double>(value.exponent) * 0.69314718055994530942;
}

// exp of every weight of the lattice.  False where one can't be used: NaN, or too large to be a log weight.
inline bool lattice_exponentials(const LatticeView& lattice, Wide* arcs, Wide* finals) {
  bool usable = true;
  for (int64_t a = 0; a < lattice.arcs; a++) {
    usable &= lattice.weight[a] < largest_lattice_weight;
    arcs[a] = wide_exponential(lattice.weight[a]);
  }
  for (int64_t f = 0; f < lattice.finals; f++) {
    usable &= lattice.final_weight[f] < largest_lattice_weight;
    finals[f] = wide_exponential(lattice.final_weight[f]);
  }
  return usable;
}

// alpha[s] = sum over the paths from state 0 to s.
inline void lattice_forward(const LatticeView& lattice, const Wide* arcs, Wide* alpha) {
  for (int64_t s = 0; s < lattice.states; s++) alpha[s] = wide_zero();
  alpha[0] = {1.0, 0};
  int64_t a = 0;
  for (int64_t s = 0; s < lattice.states; s++) {
    wide_normalize(alpha[s]);
    const Wide here = alpha[s];
    for (; a < lattice.arcs && lattice.source(a) == s; a++)
      wide_add(alpha[lattice.destination(a)], here.mantissa * arcs[a].mantissa, here.exponent + arcs[a].exponent);
  }
}

// beta[s] = sum over the paths from s to the end.
inline void lattice_backward(const LatticeView& lattice, const Wide* arcs, const Wide* finals, Wide* beta) {
  for (int64_t s = 0; s < lattice.states; s++) beta[s] = wide_zero();
  for (int64_t f = 0; f < lattice.finals; f++) beta[lattice.final_state[f]] = finals[f];
  int64_t a = lattice.arcs - 1;
  for (int64_t s = lattice.states - 1; s >= 0; s--) {
    Wide sum = beta[s];
    for (; a >= 0 && lattice.source(a) == s; a--) {
      const Wide& next = beta[lattice.destination(a)];
      wide_add(sum, next.mantissa * arcs[a].mantissa, next.exponent + arcs[a].exponent);
    }
    wide_normalize(sum);
    beta[s] = sum;
  }
}

// The sum over all paths: Σ over final states of alpha · final weight.
inline Wide lattice_total(const LatticeView& lattice, const Wide* finals, const Wide* alpha) {
  Wide total = wide_zero();
  for (int64_t f = 0; f < lattice.finals; f++) {
    const Wide& end = alpha[lattice.final_state[f]];
    wide_add(total, end.mantissa * finals[f].mantissa, end.exponent + finals[f].exponent);
  }
  wide_normalize(total);
  return total;
}

}  // namespace seqtrain
