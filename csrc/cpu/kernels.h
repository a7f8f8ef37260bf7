// What the bindings call: one function per operation, over raw memory.  Arguments are checked by the caller.
//
// Arrays written (B, T, …) have one row a frame; where the scores are packed, so are they: (ΣT, …).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "../recursion/ctc_targets.h"
#include "../recursion/status.h"
#include "rows.h"

namespace seqtrain {

template <class Real>
struct CtcForward {
  Tensor scores;  // (B, T, V)
  int64_t batch, labels, max_frames, max_targets;
  const int64_t* targets;         // (B, max_targets)
  const int64_t* lengths;         // (B,)
  const int64_t* target_lengths;  // (B,)
  int64_t blank;
  bool normalize;
  double* loss;       // (B,)
  Real* occupancies;  // (B, T, 1 + max_targets): blank, then each target; or null
  Real* normalizer;   // (B, T, 2) largest score, 1 / Σ exp(score - largest); written where `normalize`
  int64_t* status;    // (B,)
  int threads;
};

struct CtcBackwardShape {
  int64_t batch, labels, max_frames, max_targets;
};

template <class Real>
struct CtcBackward {
  Tensor scores;    // read where `normalize`
  Tensor gradient;  // (B, T, V), written whole
  CtcBackwardShape shape;
  const int64_t* targets;
  const int64_t* lengths;
  const int64_t* target_lengths;
  int64_t blank;
  bool normalize;
  const double* weight;  // (B,) gradient of the loss
  const Real* occupancies;
  const Real* normalizer;
  const int64_t* status;
  int threads;
};

// Graphs of a batch, or one that all utterances share (`graphs` = 1).
struct Graphs {
  int64_t graphs;
  const int32_t* arcs;           // (ΣA, 3) source, destination, label
  const double* weights;         // (ΣA,) log
  const int64_t* arc_offsets;    // (G + 1,)
  const int32_t* final_states;   // (ΣF,)
  const double* final_weights;   // (ΣF,) log
  const int64_t* final_offsets;  // (G + 1,)
  const int32_t* starts;         // (G,)
  const int32_t* states;         // (G,) number of states
};

// Of each graph: the fewest frames it accepts, the most (-1: no bound), the number of distinct labels on useful arcs.
// A graph that accepts nothing has fewest = -1.
void summarize(const Graphs& graphs, int64_t* fewest, int64_t* most, int64_t* labels, int threads);

template <class Real>
struct FullSum {
  Tensor scores;
  int64_t batch, max_frames;
  const int64_t* lengths;
  Graphs graphs;
  int64_t width;              // columns of `occupancies`: the largest number of distinct labels
  double* value;              // (B,)
  Real* occupancies;          // (B, T, width), or null
  int64_t* column_labels;     // (G, width) label of each column, -1 past the last; or null
  double* arc_occupancies;    // (ΣA,) or, for a shared graph, (B, A); or null
  double* final_occupancies;  // (ΣF,) or (B, F); null where arc_occupancies is
  int64_t* status;
  int threads;
};

// `full_sum` over one automaton that all utterances share, several of them side by side: columns are the layout's.
template <class Real>
struct Denominator {
  FullSum<Real> sum;           // one graph
  const int32_t* layout;       // lay_out_denominator's
  double leak;                 // coefficient of the leaky sum; 0: none
  const double* distribution;  // (S,) where it leaks to
};

template <class Real>
struct Scatter {
  Tensor gradient;  // (B, T, V), written whole: weight · occupancies
  int64_t batch, labels, max_frames, width;
  const int64_t* lengths;
  const Real* occupancies;
  const int64_t* column_labels;
  bool shared_columns;
  const double* weight;  // (B,)
  const int64_t* status;
  int threads;
};

// Derivative of the full sum and of its gradient in the direction of the tangents.
struct FullSumTangents {
  Tensor scores;
  Tensor tangent_scores;                // like the scores; data null: zero
  const double* tangent_weights;        // (ΣA,), or null: zero
  const double* tangent_final_weights;  // (ΣF,), or null: zero
  int64_t batch, max_frames;
  const int64_t* lengths;
  Graphs graphs;
  int64_t width;
  double* slope;              // (B,)
  double* occupancies;        // tangents, laid out as in FullSum; or null
  int64_t* column_labels;     // (G, width)
  double* arc_occupancies;    // tangents, as in FullSum; or null
  double* final_occupancies;  // likewise
  int64_t* status;
  int threads;
};

// Layouts of a batch's automata, to be copied to a device as they are: tables of the graphs, then reals, then integers.
struct DeviceLayout {
  std::vector<char> bytes;
  int64_t reals, integers;  // where they begin
  int64_t nodes;            // the most of a graph
};

// Arrays by name in one block of memory, to be copied to a device as they are, and counts that go with them.
struct NamedArrays {
  struct Array {
    const char* name;
    int64_t place, items;  // where it begins, in bytes
  };
  std::vector<char> bytes;
  std::vector<Array> arrays;
  std::vector<std::pair<const char*, int64_t>> counts;
};

struct BestPath {
  Tensor scores;
  int64_t batch, max_frames;
  const int64_t* lengths;
  Graphs graphs;
  double* value;    // (B,)
  int64_t* labels;  // (B, T), -1 past the end
  int64_t* states;  // (B, T)
  int64_t* arcs;    // (B, T)
  int64_t* status;
  int threads;
};

// Expected risk over lattices: acyclic graphs, one an utterance, states numbered in topological order and arcs sorted
// by source; labels aren't read.
struct LatticeRisk {
  Graphs lattices;
  const double* risks;        // (ΣA,)
  const double* final_risks;  // (ΣF,)
  double* risk;               // (B,)
  double* total;              // (B,) log-sum of the paths' scores
  double* arc_posteriors;     // (ΣA,) ∂risk/∂arc risk, ∂total/∂weight; or null, then the next three are too
  double* arc_gradients;      // (ΣA,) ∂risk/∂weight
  double* final_posteriors;   // (ΣF,)
  double* final_gradients;    // (ΣF,)
  int64_t* status;            // (B,)
  int64_t* fault;             // (B,) 1 + the first arc that can't be used, -1 - the first final state; 0: none
  int threads;
};

// Checks the targets and counts the frames they need: one each, and a blank between two equal neighbours.
struct CtcTargets {
  int64_t batch, labels, max_targets;
  const int64_t* targets;         // (B, max_targets)
  const int64_t* target_lengths;  // (B,)
  int64_t blank;
  int64_t* needed;  // (B,)
};

struct TargetCheck {
  TargetFault fault;  // the first one met
  int64_t utterance, position;
};

TargetCheck check_ctc_targets(const CtcTargets& problem);

template <class Real>
void ctc_forward(const CtcForward<Real>& problem);
template <class Real>
void ctc_backward(const CtcBackward<Real>& problem);
template <class Real>
void full_sum(const FullSum<Real>& problem);
template <class Real>
void denominator(const Denominator<Real>& problem);
std::vector<int32_t> lay_out_denominator(const Graphs& graphs);
// Of what `lay_out_denominator` returns; names are those of csrc/cuda/denominator.h.
NamedArrays lay_out_denominator_for_device(const int32_t* block);
template <class Real>
void scatter_occupancies(const Scatter<Real>& problem);
void full_sum_tangents(const FullSumTangents& problem);
// Writes the labels of the columns, (G, width).  `with_weights` tells that gradients of weights will be asked for.
template <class Real>
DeviceLayout lay_out_for_device(const Graphs& graphs, bool with_weights, int64_t width, int64_t* column_labels,
                                int threads);
void best_path(const BestPath& problem);
// Likewise for the search; reals are doubles, `nodes` states.
DeviceLayout lay_out_best_path(const Graphs& graphs);
void lattice_risk(const LatticeRisk& problem);

}  // namespace seqtrain
