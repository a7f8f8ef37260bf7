// Launches a kernel on the host: emulated blocks, one after the other.
#pragma once

#include <cstdint>

namespace seqtrain {

// In which order the fibers of a block take turns; `threads` runs a thread for each instead, for ThreadSanitizer.
enum class Order : int { ascending = 0, descending = 1, shuffled = 2, threads = 3 };

// 0, or: 1 no such kernel, 2 the number of threads is no multiple of a warp, 3 a barrier that not all threads reach,
// 4 a thread has written past the end of shared memory.
extern "C" int seqtrain_emulate(const char* kernel, int64_t blocks, int threads, int64_t shared_bytes,
                                const void* problem, int order, uint32_t seed);

}  // namespace seqtrain
