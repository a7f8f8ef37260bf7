// One automaton as the search for the best path finds it: the useful arcs into each state, in their own order.  Places
// count from the arrays of the batch, which csrc/cpu/best_path.cpp fills.
#pragma once

#include "integers.h"

namespace seqtrain {

struct PathTable {
  int64_t states, start, finals;
  int64_t begin;  // (states + 1,) integers; the others of arcs
  int64_t arc, source, label;
  int64_t weight;  // reals
  int64_t final_state;
  int64_t final_weight;  // reals
};

}  // namespace seqtrain
