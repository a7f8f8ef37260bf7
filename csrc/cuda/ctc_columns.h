// The columns of CTC's rows: blank, then the targets, and which of them have one label.
#pragma once

#include "rows.h"

namespace seqtrain {

struct CtcColumnsProblem {
  int64_t labels;
  int64_t max_targets;
  int64_t blank;
  const int64_t* targets;
  const int64_t* target_lengths;
  int64_t* column_labels;
  int32_t* following;
};

// One block an utterance.  In the replay of a CUDA graph targets may be no labels, and must not lead out of the scores.
SEQTRAIN_DEVICE void ctc_columns(const Team& team, const CtcColumnsProblem& problem) {
  const int64_t b = team.block(), width = 1 + problem.max_targets;
  const int64_t end = 1 + (problem.target_lengths[b] < problem.max_targets ? problem.target_lengths[b] : width - 1);
  const int64_t* target = problem.targets + b * problem.max_targets;
  const auto label_of = [&](int64_t k) {
    const int64_t label = k == 0 ? problem.blank : target[k - 1];
    return label < problem.labels ? label : problem.labels - 1;
  };
  for (int64_t k = team.thread(); k < width; k += team.threads()) {
    const bool used = k == 0 || k < end;
    const int64_t label = used ? label_of(k) : -1;
    problem.column_labels[b * width + k] = label;
    if (problem.following == nullptr) continue;
    int64_t next = k + 1, before = k - 1;
    if (label >= 0) {
      while (next < end && label_of(next) != label) next++;
      while (before >= 0 && label_of(before) != label) before--;
    }
    const auto found = static_cast<int32_t>(next < end ? next : width);
    problem.following[b * width + k] = label >= 0 && before < 0 ? found : ~found;
  }
}

}  // namespace seqtrain
