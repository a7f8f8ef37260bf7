// What a block reads of the frames to come: copied to shared memory some frames ahead, so that the way from global
// memory is hidden behind the frames between.  (Registers won't do: a thread that waits for one of its loads waits for
// those that it has begun since, too.)
#pragma once

#include "cell.h"

namespace seqtrain {

constexpr int slots_ahead = 6;  // frames that have a place in shared memory

// The block's part of a row of global memory that a thread begins to copy; `most` elements a thread.
template <int most, class T>
SEQTRAIN_DEVICE void copy_row(const Team& team, T* shared, const T* global, int32_t count) {
  SEQTRAIN_UNROLLED
  for (int k = 0; k < most; k++) {
    const int32_t i = team.thread() + k * team.threads();
    if (i < count) team.copy(shared + i, global + i);
  }
}

// Emissions, which become cells.
template <int most, class Real>
SEQTRAIN_DEVICE void copy_emissions(const Team& team, Cell<Real>* shared, const Real* mantissa, const int32_t* exponent,
                                    int32_t count) {
  SEQTRAIN_UNROLLED
  for (int k = 0; k < most; k++) {
    const int32_t i = team.thread() + k * team.threads();
    if (i >= count) continue;
    team.copy(&shared[i].mantissa, mantissa + i);
    team.copy(&shared[i].exponent, exponent + i);
  }
}

struct ReadAhead {
  const Team& team;
  char* slots;
  int32_t bytes;  // of a frame's slot, a multiple of 16
  int32_t frames;

  // Before the first frame: `copy(slot)` begins to copy the next one.
  template <class Copy>
  SEQTRAIN_DEVICE void begin(const Copy& copy) const {
    for (int32_t t = 0; t + 1 < slots_ahead; t++) {
      if (t < frames) copy(slots + t * bytes);
      team.end_of_copies();
    }
    team.template wait_for_copies<slots_ahead - 2>();
    team.sync();
  }

  // Calls step(slot, go_on) for each frame, in which step calls go_on() behind its last look at the slot, and then
  // end(): the barrier between frames.
  template <class Copy, class Step, class End>
  SEQTRAIN_DEVICE void for_each(const Copy& copy, const Step& step, const End& end) const {
    char *now = slots, *free = slots + (slots_ahead - 1) * bytes;
    SEQTRAIN_ROLLED
    for (int32_t t = 0; t < frames; t++) {
      step(now, [&] {
        if (t + slots_ahead - 1 < frames) copy(free);
        team.end_of_copies();
      });
      free = now;
      now = now == slots + (slots_ahead - 1) * bytes ? slots : now + bytes;
      team.template wait_for_copies<slots_ahead - 2>();
      end();
    }
  }
};

}  // namespace seqtrain
