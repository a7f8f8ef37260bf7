// Which of the compiled kernel modules this processor can run.  Built for the lowest level there is.

#include <nanobind/nanobind.h>

namespace {

// The architecture level as its ABI names it; "x86_64" where it's below all that are compiled, "portable" on other
// processors, which have no levels.
const char* level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "x86_64_v4";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86_64_v3";
  if (__builtin_cpu_supports("x86-64-v2")) return "x86_64_v2";
  return "x86_64";
#else
  return "portable";
#endif
}

}  // namespace

NB_MODULE(_cpu_level, module) { module.def("level", &level); }
