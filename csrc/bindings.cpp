// Python's way in: addresses, sizes and strides, nothing of torch.  Shapes and types are checked in seqtrain/ops.

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>

#include <tuple>

#include "cpu/kernels.h"
#include "cpu/memory.h"

namespace nb = nanobind;

namespace seqtrain {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// (address, dtype, stride of utterances, of frames, of labels, address of the offsets or 0)
using TensorArgument = std::tuple<uintptr_t, int, int64_t, int64_t, int64_t, uintptr_t>;

Tensor tensor(const TensorArgument& a) {
  return {pointer<void>(std::get<0>(a)),
          static_cast<Dtype>(std::get<1>(a)),
          std::get<2>(a),
          std::get<3>(a),
          std::get<4>(a),
          pointer<const int64_t>(std::get<5>(a))};
}

// (graphs, arcs, weights, arc offsets, final states, final weights, final offsets, starts, states)
using GraphsArgument =
    std::tuple<int64_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t>;

Graphs graphs(const GraphsArgument& a) {
  return {std::get<0>(a),
          pointer<const int32_t>(std::get<1>(a)),
          pointer<const double>(std::get<2>(a)),
          pointer<const int64_t>(std::get<3>(a)),
          pointer<const int32_t>(std::get<4>(a)),
          pointer<const double>(std::get<5>(a)),
          pointer<const int64_t>(std::get<6>(a)),
          pointer<const int32_t>(std::get<7>(a)),
          pointer<const int32_t>(std::get<8>(a))};
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
}

}  // namespace seqtrain
