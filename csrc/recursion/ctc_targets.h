// What CTC asks of an utterance's targets, for the host and for the device.
#pragma once

// The name by which the compiler for CUDA, which has no folders, knows it too.
#include "../recursion/number.h"

namespace seqtrain {

enum class TargetFault : int { none = 0, length = 1, label = 2, blank = 3 };

SEQTRAIN_DEVICE TargetFault fault_of_target(int64_t label, int64_t labels, int64_t blank) {
  if (label < 0 || label >= labels) return TargetFault::label;
  return label == blank ? TargetFault::blank : TargetFault::none;
}

// Frames that target u adds to what the utterance needs: its own, and a blank's between two equal neighbours.
SEQTRAIN_DEVICE int64_t frames_of_target(const int64_t* target, int64_t u) {
  return u > 0 && target[u] == target[u - 1] ? 2 : 1;
}

}  // namespace seqtrain
