// A block of the host: what csrc/cuda/team.h promises to kernels, by a fiber or a thread for each thread of the block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "../cpu/rows.h"

#define SEQTRAIN_DEVICE inline
#define SEQTRAIN_ROLLED
#define SEQTRAIN_UNROLLED

namespace seqtrain {

inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }

template <class T, std::size_t count>
inline void read_here(const T* from, T (&to)[count]) {
  std::copy(from, from + count, to);
}
inline uint32_t lower_half(uint32_t bits) { return bits & 0xffff; }
inline uint32_t upper_half(uint32_t bits) { return bits >> 16; }
inline void halves_to_floats(uint32_t pair, float& low, float& high) {
  low = half_to_float(static_cast<uint16_t>(pair));
  high = half_to_float(static_cast<uint16_t>(pair >> 16));
}
inline uint32_t floats_to_halves(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}
inline uint32_t floats_to_bfloats(float low, float high) {
  return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
}

template <class Real>
inline Real larger(Real a, Real b) {
  if (a == b) return std::signbit(a) ? b : a;
  return a > b || std::isnan(b) ? a : b;
}
template <class Real>
inline Real larger_or_nan(Real a, Real b) {
  return std::isnan(a) || std::isnan(b) ? a + b : larger(a, b);
}

struct Words {
  uint32_t word[4];
};
// Like the device, refuses addresses that aren't multiples of 16.
inline Words load_words(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) std::abort();
  Words words;
  std::memcpy(&words, address, sizeof words);
  return words;
}
inline void store_words(void* address, const Words& words) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) std::abort();
  std::memcpy(address, &words, sizeof words);
}

class Block;

class Team {
 public:
  Team(Block* block, int thread) : block_(block), thread_(thread) {}
  int thread() const { return thread_; }
  int threads() const;
  int64_t block() const;
  int64_t blocks() const;
  void sync() const;
  void sync_warp() const { exchange_bits(0, 0); }
  template <class T>
  T exchange(T value, int mask) const {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = exchange_bits(bits, mask);
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  int32_t largest_in_warp(int32_t value) const {
    for (int mask = 16; mask > 0; mask /= 2) value = std::max(value, exchange(value, mask));
    return value;
  }
  char* shared(int64_t offset) const;
  template <class T>
  void copy(T* shared, const T* global) const {
    *shared = *global;
  }
  void end_of_copies() const {}
  template <int groups>
  void wait_for_copies() const {}
  int cluster_blocks() const;
  int rank_in_cluster() const;
  void sync_cluster() const;
  template <class T>
  T* peer(T* address, int rank) const {
    return reinterpret_cast<T*>(peer_address(address, rank));
  }

 private:
  char* peer_address(const void* address, int rank) const;
  uint64_t exchange_bits(uint64_t bits, int mask) const;

  Block* block_;
  int thread_;
};

using Kernel = void (*)(const Team& team, const void* problem);

// Makes a kernel known by its name before main.
struct Registration {
  Registration(const char* name, Kernel kernel);
};

}  // namespace seqtrain

#define SEQTRAIN_KERNEL(name, Problem, function)                                                                   \
  static const seqtrain::Registration register_##name(#name, [](const seqtrain::Team& team, const void* problem) { \
    seqtrain::function(team, *static_cast<const seqtrain::Problem*>(problem));                                     \
  });
#define SEQTRAIN_LARGE_KERNEL(name, Problem, function) SEQTRAIN_KERNEL(name, Problem, function)
#define SEQTRAIN_STREAMING_KERNEL(name, Problem, function) SEQTRAIN_KERNEL(name, Problem, function)
