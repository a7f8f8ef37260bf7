// One graph of all utterances.

#include <cmath>
#include <utility>

#include "automata.h"

namespace seqtrain::sanitizers {

// The kernel for one graph of all utterances, plain and leaky.
template <class Real>
void run_denominator(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                     const Array<int64_t>& status, int64_t width, const SumResult<Real>& general, int threads) {
  const int64_t frames = Rows::packed(shape.layout) ? 0 : shape.frames, states = graphs.states[0];
  const Array<int32_t> layout = exactly(lay_out_denominator(graphs));
  const Array<double> distribution(states, 1.0 / static_cast<double>(states));
  for (const double leak : {0.0, 0.1}) {
    Array<double> first_value(0), first_arcs(0), first_finals(0);
    Array<Real> first_occupancies(0);
    for (const int used : {1, threads}) {
      Array<double> value(shape.batch), arcs(shape.batch * graphs.arc_offsets[1]),
          finals(shape.batch * graphs.final_offsets[1]);
      Array<Real> occupancies(rows_of(shape, lengths) * width);
      Array<int64_t> found(shape.batch);
      for (int64_t b = 0; b < shape.batch; b++) found[b] = status[b];
      denominator(Denominator<Real>{{scores.tensor, shape.batch, frames, lengths.data(), graphs, width, value.data(),
                                     occupancies.data(), nullptr, arcs.data(), finals.data(), found.data(), used},
                                    layout.data(),
                                    leak,
                                    distribution.data()});
      for (int64_t b = 0; b < shape.batch; b++) {
        if (leak == 0) {
          check(found[b] == general.status[b], "both kernels find the same utterances usable");
          const double error = std::abs(value[b] - general.value[b]);
          check(found[b] != status_ok || error <= 1e-3 * (1 + std::abs(value[b])), "both kernels find the same sum");
        }
        for (int64_t t = 0; found[b] == status_ok && t < lengths[b]; t++) {
          double total = 0;
          for (int64_t k = 0; k < width; k++)
            total += static_cast<double>(occupancies[(scores.tensor.first_row(b, frames) + t) * width + k]);
          check(std::abs(total - 1) <= 1e-4, "occupancies of a frame sum to one");
        }
      }
      if (used == threads && used != 1) {
        check(value == first_value && arcs == first_arcs && finals == first_finals && occupancies == first_occupancies,
              "sums side by side don't depend on the number of threads");
      }
      first_value = std::move(value);
      first_arcs = std::move(arcs);
      first_finals = std::move(finals);
      first_occupancies = std::move(occupancies);
    }
  }
}

template void run_denominator<float>(const Shape&, const Rows&, const Array<int64_t>&, const Graphs&,
                                     const Array<int64_t>&, int64_t, const SumResult<float>&, int);
template void run_denominator<double>(const Shape&, const Rows&, const Array<int64_t>&, const Graphs&,
                                      const Array<int64_t>&, int64_t, const SumResult<double>&, int);

}  // namespace seqtrain::sanitizers
