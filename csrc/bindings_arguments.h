// How addresses, sizes and strides come from Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>

#include <tuple>

#include "cpu/kernels.h"

namespace seqtrain {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// (address, dtype, stride of utterances, of frames, of labels, address of the offsets or 0)
using TensorArgument = std::tuple<uintptr_t, int, int64_t, int64_t, int64_t, uintptr_t>;

inline Tensor tensor(const TensorArgument& a) {
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

inline Graphs graphs(const GraphsArgument& a) {
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

}  // namespace seqtrain
