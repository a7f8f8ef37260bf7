#include "bindings_lattice.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "bindings_arguments.h"
#include "cpu/lattice_kernels.h"

namespace nb = nanobind;

namespace seqtrain {
namespace {

// (batch, arcs, weights, arc offsets, state offsets, final states, final weights, final offsets)
using LatticesArgument =
    std::tuple<int64_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t>;

Lattices lattices(const LatticesArgument& a) {
  return {std::get<0>(a),
          pointer<const int32_t>(std::get<1>(a)),
          pointer<const double>(std::get<2>(a)),
          pointer<const int64_t>(std::get<3>(a)),
          pointer<const int64_t>(std::get<4>(a)),
          pointer<const int32_t>(std::get<5>(a)),
          pointer<const double>(std::get<6>(a)),
          pointer<const int64_t>(std::get<7>(a))};
}

template <class T>
void copy(const std::vector<T>& from, T*& to) {
  to = std::copy(from.begin(), from.end(), to);
}

// Sizes first, so that the caller can make the tensors, and then the contents.
void bind_results(nb::module_& module) {
  nb::class_<PathSet>(module, "PathSet")
      // → (paths, arcs)
      .def("sizes",
           [](const PathSet& set) {
             int64_t paths = 0, arcs = 0;
             for (const PathSet::Utterance& u : set.utterances) {
               paths += static_cast<int64_t>(u.lengths.size());
               arcs += static_cast<int64_t>(u.arcs.size());
             }
             return std::tuple(paths, arcs);
           })
      // paths of each utterance (B,), arcs of each path (N,), their arcs, their final states (N,)
      .def("copy", [](const PathSet& set, uintptr_t counts, uintptr_t lengths, uintptr_t arcs, uintptr_t finals) {
        auto *count = pointer<int64_t>(counts), *length = pointer<int64_t>(lengths), *arc = pointer<int64_t>(arcs),
             *final = pointer<int64_t>(finals);
        for (const PathSet::Utterance& u : set.utterances) {
          *count++ = static_cast<int64_t>(u.lengths.size());
          copy(u.lengths, length);
          copy(u.arcs, arc);
          copy(u.finals, final);
        }
      });
  nb::class_<ProductSet>(module, "ProductSet")
      // → (arcs, states, final states)
      .def("sizes",
           [](const ProductSet& set) {
             int64_t arcs = 0, states = 0, finals = 0;
             for (const ProductSet::Utterance& u : set.utterances) {
               arcs += static_cast<int64_t>(u.graph_arcs.size());
               states += static_cast<int64_t>(u.frames.size());
               finals += static_cast<int64_t>(u.final_states.size());
             }
             return std::tuple(arcs, states, finals);
           })
      // counts (B, 3) of arcs, states, final states; then the flat arrays
      .def("copy", [](const ProductSet& set, uintptr_t counts, uintptr_t arcs, uintptr_t graph_arcs, uintptr_t frames,
                      uintptr_t final_states, uintptr_t graph_finals) {
        auto *count = pointer<int64_t>(counts), *graph_arc = pointer<int64_t>(graph_arcs),
             *graph_final = pointer<int64_t>(graph_finals);
        auto *arc = pointer<int32_t>(arcs), *frame = pointer<int32_t>(frames),
             *final_state = pointer<int32_t>(final_states);
        for (const ProductSet::Utterance& u : set.utterances) {
          *count++ = static_cast<int64_t>(u.graph_arcs.size());
          *count++ = static_cast<int64_t>(u.frames.size());
          *count++ = static_cast<int64_t>(u.final_states.size());
          copy(u.arcs, arc);
          copy(u.graph_arcs, graph_arc);
          copy(u.frames, frame);
          copy(u.final_states, final_state);
          copy(u.graph_finals, graph_final);
        }
      });
}

}  // namespace

void bind_lattices(nb::module_& module) {
  module.def("lattice_total", [](const LatticesArgument& all, uintptr_t value, bool with_posteriors,
                                 uintptr_t arc_posteriors, uintptr_t final_posteriors, uintptr_t status, int threads) {
    const LatticeTotal problem{lattices(all),
                               pointer<double>(value),
                               with_posteriors,
                               pointer<double>(arc_posteriors),
                               pointer<double>(final_posteriors),
                               pointer<int64_t>(status),
                               threads};
    nb::gil_scoped_release release;
    lattice_total(problem);
  });
  // → (bytes, place of the integers, the most states and arcs of a lattice, the most states of a level)
  module.def("lay_out_lattices", [](const LatticesArgument& all, uintptr_t fault, int threads) {
    LatticeLayout found;
    {
      nb::gil_scoped_release release;
      found = lay_out_lattices(lattices(all), pointer<int64_t>(fault), threads);
    }
    return std::tuple(nb::bytes(found.bytes.data(), found.bytes.size()), found.integers, found.states, found.arcs,
                      found.widest);
  });
  module.def(
      "lattice_best_scores", [](const LatticesArgument& all, uintptr_t from_start, uintptr_t to_end, int threads) {
        const LatticeBestScores problem{lattices(all), pointer<double>(from_start), pointer<double>(to_end), threads};
        nb::gil_scoped_release release;
        lattice_best_scores(problem);
      });
  module.def("lattice_trim",
             [](const LatticesArgument& all, uintptr_t arcs, uintptr_t finals, uintptr_t states, int threads) {
               const LatticeTrim problem{lattices(all), pointer<uint8_t>(arcs), pointer<uint8_t>(finals),
                                         pointer<uint8_t>(states), threads};
               nb::gil_scoped_release release;
               lattice_trim(problem);
             });
  bind_results(module);
  module.def("lattice_best_paths", [](const LatticesArgument& all, int64_t count, uintptr_t tokens, int threads) {
    nb::gil_scoped_release release;
    return lattice_best_paths(lattices(all), count, pointer<const int32_t>(tokens), threads);
  });
  module.def("lattice_sample", [](const LatticesArgument& all, int64_t count, int64_t seed, int threads) {
    nb::gil_scoped_release release;
    return lattice_sample(lattices(all), count, static_cast<uint64_t>(seed), threads);
  });
  module.def(
      "intersect", [](const TensorArgument& scores, int64_t batch, uintptr_t lengths, const GraphsArgument& automata,
                      double beam, int64_t max_active, uintptr_t truncated, uintptr_t status, int threads) {
        const Intersect problem{tensor(scores), batch,      pointer<const int64_t>(lengths), graphs(automata),
                                beam,           max_active, pointer<int64_t>(truncated),     pointer<int64_t>(status),
                                threads};
        nb::gil_scoped_release release;
        return intersect(problem);
      });
}

}  // namespace seqtrain
