// How many frames of forward scores are kept.  Short utterances keep all of them; long ones keep every √T-th and run
// the forward recursion once more, segment by segment, on the way back.  Both give the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace seqtrain {

struct Segments {
  int64_t length;  // frames of one segment
  int64_t count;

  Segments(int64_t frames, int64_t bytes_per_frame, int64_t budget = int64_t{96} << 20) {
    length = frames;
    if (frames * bytes_per_frame > budget)
      length = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(frames))));
    if (length < 1) length = 1;
    count = (frames + length - 1) / length;
  }

  // As many frames as fit the budget, where that is more than √T: the last segment isn't run once more.
  static Segments filling(int64_t frames, int64_t bytes_per_frame, int64_t budget) {
    Segments segments(frames, bytes_per_frame, budget);
    segments.length = std::max(segments.length, std::min(frames, budget / std::max<int64_t>(bytes_per_frame, 1)));
    segments.count = (frames + segments.length - 1) / segments.length;
    return segments;
  }

  int64_t begin(int64_t segment) const { return segment * length; }
  int64_t end(int64_t segment, int64_t frames) const {
    const int64_t last = (segment + 1) * length;
    return last < frames ? last : frames;
  }
};

}  // namespace seqtrain
