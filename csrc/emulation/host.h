// Launches a kernel on the host: emulated clusters of blocks, one after the other; the blocks of one run at once.
#pragma once

#include <cstdint>

namespace seqtrain {

// In which order the fibers of a block take turns; `threads` runs a thread for each instead, for ThreadSanitizer.
enum class Order : int { ascending = 0, descending = 1, shuffled = 2, threads = 3 };

// 0, or: 1 no such kernel, 2 the number of threads is no multiple of a warp, 3 a barrier that not all threads reach,
// 4 a thread has written past the end of shared memory, 5 shared memory of a block that hasn't begun or has ended, or
// what isn't shared memory, 6 blocks that don't make up clusters of at most 8.
extern "C" int seqtrain_emulate(const char* kernel, int64_t blocks, int64_t cluster, int threads, int64_t shared_bytes,
                                const void* problem, int order, uint32_t seed);

}  // namespace seqtrain
