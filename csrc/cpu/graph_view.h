// One graph of a batch's flat arrays.
#pragma once

#include "../recursion/graph.h"
#include "kernels.h"

namespace seqtrain {

inline GraphView view(const Graphs& graphs, int64_t g) {
  const int64_t first = graphs.arc_offsets[g], first_final = graphs.final_offsets[g];
  return {graphs.arc_offsets[g + 1] - first,
          graphs.arcs + 3 * first,
          graphs.weights + first,
          graphs.final_offsets[g + 1] - first_final,
          graphs.final_states + first_final,
          graphs.final_weights + first_final,
          graphs.starts[g],
          graphs.states[g]};
}

}  // namespace seqtrain
