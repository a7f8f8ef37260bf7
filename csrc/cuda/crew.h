// The threads that work on a row together: a block or, where rows are narrow, one of its warps, which needs no barrier
// of the block.
#pragma once

#include "arithmetic.h"

namespace seqtrain {

struct Crew {
  const Team& team;
  bool alone;  // a warp
  int thread, threads;
  int lane;              // in the warp
  int64_t index, count;  // of the crew, among those of the launch

  SEQTRAIN_DEVICE Crew(const Team& block, bool warp_alone)
      : team(block),
        alone(warp_alone || block.threads() == warp),
        thread(alone ? block.thread() % warp : block.thread()),
        threads(alone ? warp : block.threads()),
        lane(block.thread() % warp) {
    const int warps = block.threads() / warp;
    index = alone ? block.block() * warps + block.thread() / warp : block.block();
    count = alone ? block.blocks() * warps : block.blocks();
  }

  SEQTRAIN_DEVICE void sync() const {
    if (alone) {
      team.sync_warp();
    } else {
      team.sync();
    }
  }
  // Of the items that each thread takes four at a time, a warp's side by side: the first of a thread; the other three
  // follow by `warp`, its next four by 4 · threads.
  SEQTRAIN_DEVICE int first_of_four() const { return (thread - lane) * 4 + lane; }
  // Among the crews of its block.
  SEQTRAIN_DEVICE int rank() const { return alone ? team.thread() / warp : 0; }
};

}  // namespace seqtrain
