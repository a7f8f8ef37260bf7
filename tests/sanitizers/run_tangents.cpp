// The full sum's tangents.

#include <cmath>
#include <utility>

#include "automata.h"

namespace seqtrain::sanitizers {

// One more on each arc is one more a frame, and changes no occupancy; the scores themselves are a direction, too.
void run_tangents(const Shape& shape, const Rows& scores, const Array<int64_t>& lengths, const Graphs& graphs,
                  const Array<int64_t>& status, int64_t width, const SumResult<double>& general, int threads) {
  const int64_t frames = Rows::packed(shape.layout) ? 0 : shape.frames, rows = rows_of(shape, lengths);
  const int64_t copies = graphs.graphs == 1 ? shape.batch : 1;
  const int64_t all_arcs = graphs.arc_offsets[graphs.graphs], all_finals = graphs.final_offsets[graphs.graphs];
  const Array<double> one(all_arcs, 1.0), nothing(all_finals, 0.0);
  Tensor none = scores.tensor;
  none.data = nullptr;
  Array<double> first_slope(0), first_arcs(0);
  for (const int used : {1, threads}) {
    Array<double> slope(shape.batch), arcs(copies * all_arcs), finals(copies * all_finals), occupancies(rows * width);
    Array<int64_t> columns(graphs.graphs * width, -1), found(shape.batch);
    for (int64_t b = 0; b < shape.batch; b++) found[b] = status[b];
    full_sum_tangents({scores.tensor, none, one.data(), nothing.data(), shape.batch, frames, lengths.data(), graphs,
                       width, slope.data(), occupancies.data(), columns.data(), arcs.data(), finals.data(),
                       found.data(), used});
    for (int64_t b = 0; b < shape.batch; b++) {
      check(found[b] == general.status[b], "sums and their tangents find the same utterances usable");
      if (found[b] != status_ok) continue;
      const auto length = static_cast<double>(lengths[b]);
      check(std::abs(slope[b] - length) <= 1e-9 * (1 + length), "an arc a frame");
      for (int64_t t = 0; t < lengths[b]; t++)
        for (int64_t k = 0; k < width; k++)
          check(std::abs(occupancies[(scores.tensor.first_row(b, frames) + t) * width + k]) <= 1e-9 * (1 + length),
                "what moves all paths alike moves no occupancy");
    }
    if (used == threads && used != 1)
      check(slope == first_slope && arcs == first_arcs, "tangents don't depend on the number of threads");
    first_slope = std::move(slope);
    first_arcs = std::move(arcs);
  }
  Array<double> slope(shape.batch), occupancies(rows * width);
  Array<int64_t> columns(graphs.graphs * width, -1), found(shape.batch);
  for (int64_t b = 0; b < shape.batch; b++) found[b] = status[b];
  full_sum_tangents({scores.tensor, scores.tensor, nullptr, nullptr, shape.batch, frames, lengths.data(), graphs, width,
                     slope.data(), occupancies.data(), columns.data(), nullptr, nullptr, found.data(), threads});
}

}  // namespace seqtrain::sanitizers
