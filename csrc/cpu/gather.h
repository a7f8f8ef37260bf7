// Scores of a frame that a recursion reads, by their labels.
#pragma once

#include "rows.h"

namespace seqtrain {

// out[m] = score of label[m] in `row`, which stands in `scores`.
template <class Real>
inline void gather_scores(const Tensor& scores, const char* row, const int32_t* __restrict label, int64_t count,
                          Real* __restrict out) {
  const int64_t stride = scores.stride_label;
  if (scores.dtype != dtype_of<Real>()) {
    for (int64_t m = 0; m < count; m++) out[m] = load<Real>(row, scores.dtype, label[m] * stride);
    return;
  }
  const Real* __restrict values = reinterpret_cast<const Real*>(row);
  // A few elements of each row are read: no hardware prefetcher sees them coming.  Past the last frame this asks for
  // what isn't there, which costs nothing.
  const int64_t ahead = 2 * scores.stride_frame;
  for (int64_t m = 0; m < count; m++) {
    __builtin_prefetch(values + ahead + label[m] * stride);
    out[m] = values[label[m] * stride];
  }
}

}  // namespace seqtrain
