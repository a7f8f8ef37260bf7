// What checks of the kernels on the emulated block have in common: each kind of recursion has a file check_<kind>.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "host.h"

namespace seqtrain {

// splitmix64
struct Random {
  uint64_t state;
  uint64_t next() {
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t end) { return static_cast<int64_t>(next() % static_cast<uint64_t>(end)); }
  float number(float scale) { return scale * (static_cast<float>(next() >> 40) * 0x1p-23f - 1.0f); }
};

inline std::size_t size(int64_t count) { return static_cast<std::size_t>(count); }

// Device memory as it comes: what nobody has written is a NaN, or -1.
template <class T>
std::vector<T> scratch(int64_t count) {
  std::vector<T> memory(size(count));
  if (count > 0) std::memset(static_cast<void*>(memory.data()), 0xff, memory.size() * sizeof(T));
  return memory;
}

// FNV-1a
struct Hash {
  uint64_t value = 1469598103934665603u;
  template <class T>
  void add(const std::vector<T>& data) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(data.data());
    for (std::size_t i = 0; i < data.size() * sizeof(T); i++) value = (value ^ bytes[i]) * 1099511628211u;
  }
};

inline double relative_difference(double a, double b) { return std::abs(a - b) / std::max(1.0, std::abs(b)); }

// NaN counts as the worst of all.
template <class T>
double largest_difference_of(const std::vector<T>& a, const std::vector<T>& b) {
  double worst = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < a.size() && i < b.size(); i++) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = difference <= worst ? worst : difference;
  }
  return worst;
}

// A kernel over emulated blocks; ends the process where the block reports a fault.
void launch(const char* kernel, int64_t blocks, int threads, int64_t shared, const void* problem, Order order,
            uint32_t seed, int64_t cluster = 1);

// A random batch for one kind of recursion.
class Case {
 public:
  virtual ~Case() = default;
  // Runs the kernels on the emulated block; the hash of all that they leave.
  virtual uint64_t run(Order order, uint32_t seed) = 0;
  // Of what the last run has left to what the CPU's kernels do.
  virtual double difference() = 0;
};

// Makes a kind of batches known by its name before main.
struct Kind {
  using Draw = std::unique_ptr<Case> (*)(Random& random);
  Kind(const char* name, Draw draw);
};

}  // namespace seqtrain
