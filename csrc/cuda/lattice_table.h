// One lattice as the kernels find it: sizes, and where its parts stand in the integers of its batch, which
// csrc/cpu/lattice_layout.cpp fills.  Arcs, states and final states are counted from the lattice's own first.
//
// The level of a state is the number of arcs on the longest path to it, so that states of one level depend on those of
// others alone.
#pragma once

#include "integers.h"

namespace seqtrain {

struct LatticeTable {
  int64_t states, arcs, finals, levels;
  int64_t first_state, first_arc, first_final;  // in the batch
  int64_t order;                                // (states,) by level
  int64_t level_begin;                          // (levels + 1,) first of each in `order`
  int64_t leaving_begin;                        // (states + 1,) arcs of each, which are sorted by source
  int64_t entering_begin;                       // (states + 1,) in `entering`
  int64_t entering;                             // (arcs,) by destination
  int64_t final_begin;                          // (states + 1,) in `final_item`
  int64_t final_item;                           // (finals,) by state
};

}  // namespace seqtrain
