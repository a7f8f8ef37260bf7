// What the driver runs, one function a kernel.
#pragma once

#include "batch.h"

namespace seqtrain::sanitizers {

template <class Real>
void run_ctc(Random& random, const Shape& shape, int64_t max_targets, int threads);
// Random automata, or chains as of transcripts.
template <class Real>
void run_automata(Random& random, const Shape& shape, int64_t max_states, bool chains, int threads);
void run_risk(Random& random, int64_t batch, int64_t max_states, int threads);

}  // namespace seqtrain::sanitizers
