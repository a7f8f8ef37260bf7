// Random automata as flat arrays, and what the kernels over them are compared by.
#pragma once

#include <vector>

#include "batch.h"

namespace seqtrain::sanitizers {

struct Automata {
  std::vector<int32_t> arcs, final_states, starts, states;
  std::vector<double> weights, final_weights;
  std::vector<int64_t> arc_offsets{0}, final_offsets{0};
};

template <class T>
inline Array<T> exactly(const std::vector<T>& values) {
  Array<T> copy(static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < copy.size(); i++) copy[i] = values[static_cast<std::size_t>(i)];
  return copy;
}

// Of the general kernel.
template <class Real>
struct SumResult {
  Array<double> value, arcs, finals;
  Array<int64_t> status;
  Rows gradient;
};

// Each fails where what must hold doesn't; `known` are the statuses that lengths alone tell.
void run_tangents(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                  const Array<int64_t>& known, int64_t width, const SumResult<double>& general, int threads);
template <class Real>
void run_denominator(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                     const Array<int64_t>& known, int64_t width, const SumResult<Real>& general, int threads);
void run_lattices(Random& random, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                  const Array<int64_t>& known, int threads);

}  // namespace seqtrain::sanitizers
