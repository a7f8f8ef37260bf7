// Integers of a fixed size, without the standard library where there is none.
#pragma once

#if defined(__CUDACC_RTC__)
using int32_t = int;
using uint32_t = unsigned int;
using uint16_t = unsigned short;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif
