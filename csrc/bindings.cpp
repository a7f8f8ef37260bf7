// Python's way in: addresses, sizes and strides, nothing of torch.  Shapes and types are checked in seqtrain/ops.

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>

#include <tuple>

#include "bindings_arguments.h"
#include "bindings_lattice.h"
#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace nb = nanobind;

namespace seqtrain {
namespace {

// → (writable bytes, as torch takes them without a copy, place of the reals, place of the integers, the most nodes of a
// graph)
std::tuple<nb::bytearray, int64_t, int64_t, int64_t> device_layout(const DeviceLayout& layout) {
  return {nb::bytearray(layout.bytes.data(), layout.bytes.size()), layout.reals, layout.integers, layout.nodes};
}

template <class Real>
void bind_real(nb::module_& module, const char* suffix) {
  const auto name = [&](const char* stem) { return std::string(stem) + suffix; };
  module.def(name("ctc_forward").c_str(),
             [](const TensorArgument& scores, int64_t batch, int64_t labels, int64_t max_frames, int64_t max_targets,
                uintptr_t targets, uintptr_t lengths, uintptr_t target_lengths, int64_t blank, bool normalize,
                uintptr_t loss, uintptr_t occupancies, uintptr_t normalizer, uintptr_t status, int threads) {
               const CtcForward<Real> problem{tensor(scores),
                                              batch,
                                              labels,
                                              max_frames,
                                              max_targets,
                                              pointer<const int64_t>(targets),
                                              pointer<const int64_t>(lengths),
                                              pointer<const int64_t>(target_lengths),
                                              blank,
                                              normalize,
                                              pointer<double>(loss),
                                              pointer<Real>(occupancies),
                                              pointer<Real>(normalizer),
                                              pointer<int64_t>(status),
                                              threads};
               nb::gil_scoped_release release;
               ctc_forward(problem);
             });
  module.def(name("ctc_backward").c_str(),
             [](const TensorArgument& scores, const TensorArgument& gradient, int64_t batch, int64_t labels,
                int64_t max_frames, int64_t max_targets, uintptr_t targets, uintptr_t lengths, uintptr_t target_lengths,
                int64_t blank, bool normalize, uintptr_t weight, uintptr_t occupancies, uintptr_t normalizer,
                uintptr_t status, int threads) {
               const CtcBackward<Real> problem{tensor(scores),
                                               tensor(gradient),
                                               {batch, labels, max_frames, max_targets},
                                               pointer<const int64_t>(targets),
                                               pointer<const int64_t>(lengths),
                                               pointer<const int64_t>(target_lengths),
                                               blank,
                                               normalize,
                                               pointer<const double>(weight),
                                               pointer<const Real>(occupancies),
                                               pointer<const Real>(normalizer),
                                               pointer<const int64_t>(status),
                                               threads};
               nb::gil_scoped_release release;
               ctc_backward(problem);
             });
  module.def(
      name("full_sum").c_str(),
      [](const TensorArgument& scores, int64_t batch, int64_t max_frames, uintptr_t lengths,
         const GraphsArgument& automata, int64_t width, uintptr_t value, uintptr_t occupancies, uintptr_t column_labels,
         uintptr_t arc_occupancies, uintptr_t final_occupancies, uintptr_t status, int threads) {
        const FullSum<Real> problem{tensor(scores),
                                    batch,
                                    max_frames,
                                    pointer<const int64_t>(lengths),
                                    graphs(automata),
                                    width,
                                    pointer<double>(value),
                                    pointer<Real>(occupancies),
                                    pointer<int64_t>(column_labels),
                                    pointer<double>(arc_occupancies),
                                    pointer<double>(final_occupancies),
                                    pointer<int64_t>(status),
                                    threads};
        nb::gil_scoped_release release;
        full_sum(problem);
      });
  module.def(name("denominator").c_str(),
             [](const TensorArgument& scores, int64_t batch, int64_t max_frames, uintptr_t lengths,
                const GraphsArgument& automata, int64_t width, uintptr_t value, uintptr_t occupancies,
                uintptr_t arc_occupancies, uintptr_t final_occupancies, uintptr_t status, uintptr_t layout, double leak,
                uintptr_t distribution, int threads) {
               const Denominator<Real> problem{
                   {tensor(scores), batch, max_frames, pointer<const int64_t>(lengths), graphs(automata), width,
                    pointer<double>(value), pointer<Real>(occupancies), nullptr, pointer<double>(arc_occupancies),
                    pointer<double>(final_occupancies), pointer<int64_t>(status), threads},
                   pointer<const int32_t>(layout),
                   leak,
                   pointer<const double>(distribution)};
               nb::gil_scoped_release release;
               denominator(problem);
             });
  module.def(name("lay_out_for_device").c_str(), [](const GraphsArgument& automata, bool with_weights, int64_t width,
                                                    uintptr_t column_labels, int threads) {
    DeviceLayout found;
    {
      nb::gil_scoped_release release;
      found = lay_out_for_device<Real>(graphs(automata), with_weights, width, pointer<int64_t>(column_labels), threads);
    }
    return device_layout(found);
  });
  module.def(name("scatter_occupancies").c_str(),
             [](const TensorArgument& gradient, int64_t batch, int64_t labels, int64_t max_frames, int64_t width,
                uintptr_t lengths, uintptr_t occupancies, uintptr_t column_labels, bool shared_columns,
                uintptr_t weight, uintptr_t status, int threads) {
               const Scatter<Real> problem{tensor(gradient),
                                           batch,
                                           labels,
                                           max_frames,
                                           width,
                                           pointer<const int64_t>(lengths),
                                           pointer<const Real>(occupancies),
                                           pointer<const int64_t>(column_labels),
                                           shared_columns,
                                           pointer<const double>(weight),
                                           pointer<const int64_t>(status),
                                           threads};
               nb::gil_scoped_release release;
               scatter_occupancies(problem);
             });
}

}  // namespace

NB_MODULE(SEQTRAIN_MODULE, module) {
  bind_real<float>(module, "_float32");
  bind_real<double>(module, "_float64");
  module.def(
      "full_sum_tangents",
      [](const TensorArgument& scores, const TensorArgument& tangent_scores, uintptr_t tangent_weights,
         uintptr_t tangent_final_weights, int64_t batch, int64_t max_frames, uintptr_t lengths,
         const GraphsArgument& automata, int64_t width, uintptr_t slope, uintptr_t occupancies, uintptr_t column_labels,
         uintptr_t arc_occupancies, uintptr_t final_occupancies, uintptr_t status, int threads) {
        const FullSumTangents problem{tensor(scores),
                                      tensor(tangent_scores),
                                      pointer<const double>(tangent_weights),
                                      pointer<const double>(tangent_final_weights),
                                      batch,
                                      max_frames,
                                      pointer<const int64_t>(lengths),
                                      graphs(automata),
                                      width,
                                      pointer<double>(slope),
                                      pointer<double>(occupancies),
                                      pointer<int64_t>(column_labels),
                                      pointer<double>(arc_occupancies),
                                      pointer<double>(final_occupancies),
                                      pointer<int64_t>(status),
                                      threads};
        nb::gil_scoped_release release;
        full_sum_tangents(problem);
      });
  module.def("best_path", [](const TensorArgument& scores, int64_t batch, int64_t max_frames, uintptr_t lengths,
                             const GraphsArgument& automata, uintptr_t value, uintptr_t labels, uintptr_t states,
                             uintptr_t arcs, uintptr_t status, int threads) {
    const BestPath problem{tensor(scores),
                           batch,
                           max_frames,
                           pointer<const int64_t>(lengths),
                           graphs(automata),
                           pointer<double>(value),
                           pointer<int64_t>(labels),
                           pointer<int64_t>(states),
                           pointer<int64_t>(arcs),
                           pointer<int64_t>(status),
                           threads};
    nb::gil_scoped_release release;
    best_path(problem);
  });
  module.def("lay_out_best_path", [](const GraphsArgument& automata) {
    DeviceLayout found;
    {
      nb::gil_scoped_release release;
      found = lay_out_best_path(graphs(automata));
    }
    return device_layout(found);
  });
  module.def("lattice_risk",
             [](const GraphsArgument& lattices, uintptr_t risks, uintptr_t final_risks, uintptr_t risk, uintptr_t total,
                uintptr_t arc_posteriors, uintptr_t arc_gradients, uintptr_t final_posteriors,
                uintptr_t final_gradients, uintptr_t status, uintptr_t fault, int threads) {
               const LatticeRisk problem{graphs(lattices),
                                         pointer<const double>(risks),
                                         pointer<const double>(final_risks),
                                         pointer<double>(risk),
                                         pointer<double>(total),
                                         pointer<double>(arc_posteriors),
                                         pointer<double>(arc_gradients),
                                         pointer<double>(final_posteriors),
                                         pointer<double>(final_gradients),
                                         pointer<int64_t>(status),
                                         pointer<int64_t>(fault),
                                         threads};
               nb::gil_scoped_release release;
               lattice_risk(problem);
             });
  // → the layout as bytes of int32
  module.def("lay_out_denominator", [](const GraphsArgument& automata) {
    std::vector<int32_t> block;
    {
      nb::gil_scoped_release release;
      block = lay_out_denominator(graphs(automata));
    }
    return nb::bytes(block.data(), block.size() * sizeof(int32_t));
  });
  // → (bytes, {array: (place, items)}, {count: number})
  module.def("lay_out_denominator_for_device", [](uintptr_t layout) {
    NamedArrays found;
    {
      nb::gil_scoped_release release;
      found = lay_out_denominator_for_device(pointer<const int32_t>(layout));
    }
    nb::dict arrays, counts;
    for (const NamedArrays::Array& array : found.arrays) arrays[array.name] = nb::make_tuple(array.place, array.items);
    for (const auto& [name, count] : found.counts) counts[name] = count;
    return nb::make_tuple(nb::bytes(found.bytes.data(), found.bytes.size()), arrays, counts);
  });
  // → (fault, utterance, position); fault 0: none
  module.def("check_ctc_targets", [](int64_t batch, int64_t labels, int64_t max_targets, uintptr_t targets,
                                     uintptr_t target_lengths, int64_t blank, uintptr_t needed) {
    const TargetCheck found =
        check_ctc_targets({batch, labels, max_targets, pointer<const int64_t>(targets),
                           pointer<const int64_t>(target_lengths), blank, pointer<int64_t>(needed)});
    return std::tuple(static_cast<int>(found.fault), found.utterance, found.position);
  });
  module.def("prefer_huge_pages", [](uintptr_t data, size_t bytes) { prefer_huge_pages(pointer<void>(data), bytes); });
  module.def("summarize",
             [](const GraphsArgument& automata, uintptr_t fewest, uintptr_t most, uintptr_t labels, int threads) {
               const Graphs all = graphs(automata);
               nb::gil_scoped_release release;
               summarize(all, pointer<int64_t>(fewest), pointer<int64_t>(most), pointer<int64_t>(labels), threads);
             });
  bind_lattices(module);
}

}  // namespace seqtrain
