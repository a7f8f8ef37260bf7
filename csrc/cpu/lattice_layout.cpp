// The structure of a batch's lattices for kernels that run on a device (csrc/cuda/lattice_table.h).

#include <algorithm>

#include "../cuda/lattice_table.h"
#include "../recursion/graph.h"
#include "device_arrays.h"
#include "lattice_view.h"
#include "parallel.h"

namespace seqtrain {
namespace {

// 1 + the first arc, or -1 - the first final state, that breaks what the sweeps count on; 0: none does.
int64_t fault_of(const LatticeView& lattice) {
  int32_t previous = 0;
  for (int64_t a = 0; a < lattice.arcs; a++) {
    const int32_t p = lattice.source(a), q = lattice.destination(a);
    if (p < previous || q <= p || q >= lattice.states) return 1 + a;
    previous = p;
  }
  for (int64_t f = 0; f < lattice.finals; f++)
    if (lattice.final_state[f] < 0 || lattice.final_state[f] >= lattice.states) return -1 - f;
  return 0;
}

struct FlatLattice {
  LatticeTable table{};
  std::vector<int32_t> integers;
  int64_t widest = 0;

  void build(const LatticeView& lattice) {
    Index32 level(at(lattice.states), 0);
    int64_t levels = lattice.states > 0 ? 1 : 0;
    for (int64_t a = 0; a < lattice.arcs; a++) {
      int32_t& of_destination = level[at(lattice.destination(a))];
      of_destination = std::max(of_destination, level[at(lattice.source(a))] + 1);
      levels = std::max(levels, int64_t{of_destination} + 1);
    }
    Grouping by_level, by_source, by_destination, by_state;
    by_level.build(levels, lattice.states, [&](int64_t s) { return int64_t{level[at(s)]}; });
    by_source.build(lattice.states, lattice.arcs, [&](int64_t a) { return int64_t{lattice.source(a)}; });
    by_destination.build(lattice.states, lattice.arcs, [&](int64_t a) { return int64_t{lattice.destination(a)}; });
    by_state.build(lattice.states, lattice.finals, [&](int64_t f) { return int64_t{lattice.final_state[f]}; });
    table.states = lattice.states;
    table.arcs = lattice.arcs;
    table.finals = lattice.finals;
    table.levels = levels;
    table.order = put(integers, by_level.order);
    table.level_begin = put(integers, by_level.begin);
    table.leaving_begin = put(integers, by_source.begin);
    table.entering_begin = put(integers, by_destination.begin);
    table.entering = put(integers, by_destination.order);
    table.final_begin = put(integers, by_state.begin);
    table.final_item = put(integers, by_state.order);
    for (int64_t l = 0; l < levels; l++) widest = std::max(widest, by_level.begin[at(l + 1)] - by_level.begin[at(l)]);
  }

  void shift(int64_t places) {
    for (int64_t* place : {&table.order, &table.level_begin, &table.leaving_begin, &table.entering_begin,
                           &table.entering, &table.final_begin, &table.final_item})
      *place += places;
  }
};

struct Nothing {};

}  // namespace

LatticeLayout lay_out_lattices(const Lattices& lattices, int64_t* fault, int threads) {
  std::vector<FlatLattice> flat(at(lattices.batch));
  for_each_utterance<Nothing>(lattice_work(lattices), threads, [&](int64_t b, Nothing&) {
    const LatticeView lattice = view(lattices, b);
    fault[b] = fault_of(lattice);
    if (fault[b] == 0) flat[at(b)].build(lattice);
  });
  LatticeLayout out{};
  std::vector<LatticeTable> tables;
  std::vector<int32_t> integers;
  for (int64_t b = 0; b < lattices.batch; b++) {
    FlatLattice& one = flat[at(b)];
    one.shift(put(integers, one.integers));
    one.table.first_state = lattices.state_offsets[b];
    one.table.first_arc = lattices.arc_offsets[b];
    one.table.first_final = lattices.final_offsets[b];
    tables.push_back(one.table);
    out.states = std::max(out.states, one.table.states);
    out.arcs = std::max(out.arcs, one.table.arcs);
    out.widest = std::max(out.widest, one.widest);
  }
  append(out.bytes, tables);
  out.integers = append(out.bytes, integers);
  return out;
}

}  // namespace seqtrain
