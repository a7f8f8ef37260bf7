// What the bindings call on lattices: one function per operation, over raw memory.  Arguments are checked by the
// caller.
#pragma once

#include <cstdint>
#include <vector>

#include "../recursion/graph.h"
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

// Structure of a batch's lattices, to be copied to a device as it is: tables, then integers.
struct LatticeLayout {
  std::vector<char> bytes;
  int64_t integers;      // where they begin
  int64_t states, arcs;  // the most of a lattice
  int64_t widest;        // states of a level
};

// Reads no weights.  Writes to `fault` (B,) 1 + the first arc, or -1 - the first final state, that is out of order; 0.
LatticeLayout lay_out_lattices(const Lattices& lattices, int64_t* fault, int threads);

// For each state the score of the best path from the start to it, and from it to the end; -inf where there is none.
struct LatticeBestScores {
  Lattices lattices;
  double* from_start;  // (ΣS,)
  double* to_end;      // (ΣS,)
  int threads;
};

void lattice_best_scores(const LatticeBestScores& problem);

// Takes out of a choice of arcs and final states what lies on no path of the rest, and says which states remain.
struct LatticeTrim {
  Lattices lattices;
  uint8_t* arcs;    // (ΣA,) read and written: kept
  uint8_t* finals;  // (ΣF,) read and written
  uint8_t* states;  // (ΣS,) written
  int threads;
};

void lattice_trim(const LatticeTrim& problem);

// Paths through the lattices of a batch; how many there are is known only when they have been found.
struct PathSet {
  struct Utterance {
    Index arcs;     // of all paths, one after the other, as indices into this lattice's arcs
    Index lengths;  // arcs of each path
    Index finals;   // final state of each path, as an index into this lattice's
  };
  std::vector<Utterance> utterances;
};

// The `count` best paths of each lattice, best first; among equal ones, the one whose last differing arc is lower. With
// `tokens`, (ΣA,), -1 where an arc has none: the best path of each of the `count` best token sequences.
PathSet lattice_best_paths(const Lattices& lattices, int64_t count, const int32_t* tokens, int threads);

// `count` paths of each lattice, drawn from its distribution.
PathSet lattice_sample(const Lattices& lattices, int64_t count, uint64_t seed, int threads);

constexpr int64_t status_beam = -3;  // a path there may be, but the beam or the limit of states dropped it

// Pruned product of scores and graphs.
struct Intersect {
  Tensor scores;
  int64_t batch;
  const int64_t* lengths;
  Graphs graphs;
  double beam;
  int64_t max_active;  // states of a frame
  int64_t* truncated;  // (B,) states dropped
  int64_t* status;     // (B,)
  int threads;
};

struct ProductSet {
  struct Utterance {
    Index32 arcs, frames, final_states;  // (A, 3), (S,), (F,)
    Index graph_arcs, graph_finals;      // (A,), (F,): indices into this graph's arcs and final states
  };
  std::vector<Utterance> utterances;
};

ProductSet intersect(const Intersect& problem);

}  // namespace seqtrain
