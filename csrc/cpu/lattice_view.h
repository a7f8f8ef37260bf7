// One lattice of a batch's flat arrays.
#pragma once

#include "../recursion/lattice.h"
#include "lattice_kernels.h"

namespace seqtrain {

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

}  // namespace seqtrain
