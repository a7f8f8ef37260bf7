// What is asked for before it is read.
#pragma once

#include <cstdint>

namespace seqtrain {

constexpr int64_t cache_line = 64;  // bytes

// The last argument of `__builtin_prefetch`, for what memory has and is read a while later: into the second cache.  A
// request into the first holds one of its few buffers until memory answers, and all that is read meanwhile waits for
// one.
constexpr int second_cache = 2;

// How many frames before the recursion reads its scores they are asked for.
constexpr int64_t frames_ahead = 4;

}  // namespace seqtrain
