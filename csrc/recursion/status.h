// Entries of `status`, one an utterance (seqtrain/ops/arguments.py).  A kernel leaves alone what is not `status_ok`
// when it starts.  A positive entry is 1 + the frame where the scores hold NaN or +inf (or, normalized, no finite value
// at all).
#pragma once

#if !defined(__CUDACC__)
#include <cstdint>
#endif

namespace seqtrain {

constexpr int64_t status_ok = 0;
constexpr int64_t status_infeasible = -1;  // known before the recursion: too few or too many frames
constexpr int64_t status_no_path = -2;     // the recursion found that every path has probability zero
constexpr int64_t status_bad_input = -3;   // what else is an error, in the replay of a CUDA graph, which raises none

}  // namespace seqtrain
