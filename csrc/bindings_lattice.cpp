#include "bindings_lattice.h"

#include <nanobind/stl/tuple.h>

#include <tuple>

#include "cpu/lattice_kernels.h"

namespace nb = nanobind;

namespace seqtrain {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

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
}

}  // namespace seqtrain
