// What the bindings call on lattices: one function per operation, over raw memory.  Arguments are checked by the
// caller.
#pragma once

#include <cstdint>
#include <vector>

#include "../recursion/lattice.h"
#include "kernels.h"

namespace seqtrain {

// The lattices of a batch (layout: seqtrain/lattice/lattice.py).
struct Lattices {
  int64_t batch;
  const int32_t* arcs;           // (ΣA, 3) source, destination, label; sorted by source, source < destination
  const double* weights;         // (ΣA,) log
  const int64_t* arc_offsets;    // (B + 1,)
  const int64_t* state_offsets;  // (B + 1,)
  const int32_t* final_states;   // (ΣF,)
  const double* final_weights;   // (ΣF,) log
  const int64_t* final_offsets;  // (B + 1,)
};

inline LatticeView view(const Lattices& all, int64_t b) {
  const int64_t arc = all.arc_offsets[b], final = all.final_offsets[b];
  return {all.state_offsets[b + 1] - all.state_offsets[b],
          all.arc_offsets[b + 1] - arc,
          all.final_offsets[b + 1] - final,
          all.arcs + 3 * arc,
          all.weights + arc,
          all.final_states + final,
          all.final_weights + final};
}

// Cost of each lattice, for the order in which threads take them.
std::vector<double> lattice_work(const Lattices& lattices);

constexpr int64_t status_bad_weight = 1;  // NaN, +inf, or beyond `largest_lattice_weight`

// The sum over the paths of each lattice, and its gradient.
struct LatticeTotal {
  Lattices lattices;
  double* value;  // (B,) log; -inf without a path
  bool with_posteriors;
  double* arc_posteriors;    // (ΣA,), written where `with_posteriors`
  double* final_posteriors;  // (ΣF,)
  int64_t* status;           // (B,) status_ok, status_no_path or status_bad_weight
  int threads;
};

void lattice_total(const LatticeTotal& problem);

}  // namespace seqtrain
