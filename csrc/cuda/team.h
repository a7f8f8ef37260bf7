// What a kernel may use of its block: one source for the device and for the host, where csrc/emulation runs a block on
// fibers or threads.  No header of CUDA or of the standard library is needed on the device.
//
// Kernels are compiled without contraction of multiply and add (NVRTC: --fmad=false, host: -ffp-contract=off), so that
// each float operation rounds once, as written, on both sides: their results are the same bits.
#pragma once

#include "integers.h"

#if defined(__CUDACC__)

#define SEQTRAIN_DEVICE __device__ __forceinline__
#define SEQTRAIN_ROLLED _Pragma("unroll 1")  // before a loop that isn't worth its code several times
#define SEQTRAIN_UNROLLED _Pragma("unroll")  // before a loop whose arrays belong into registers

namespace seqtrain {

SEQTRAIN_DEVICE int32_t bits_of(float value) { return __float_as_int(value); }
SEQTRAIN_DEVICE int64_t bits_of(double value) { return __double_as_longlong(value); }
SEQTRAIN_DEVICE float real_of(int32_t bits) { return __int_as_float(bits); }
SEQTRAIN_DEVICE double real_of(int64_t bits) { return __longlong_as_double(bits); }

SEQTRAIN_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SEQTRAIN_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

// Neighbours, aligned to their size, of what no kernel writes to; read here, since the compiler puts off what is read
// well before it is used.
SEQTRAIN_DEVICE void read_here(const uint32_t* from, uint32_t (&to)[2]) {
  asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "l"(from));
}
SEQTRAIN_DEVICE void read_here(const int32_t* from, int32_t (&to)[4]) {
  asm volatile("ld.global.nc.v4.s32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "l"(from));
}
SEQTRAIN_DEVICE void read_here(const float* from, float (&to)[4]) {
  asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(to[0]), "=f"(to[1]), "=f"(to[2]), "=f"(to[3])
               : "l"(from));
}
SEQTRAIN_DEVICE void read_here(const double* from, double (&to)[4]) {
  asm volatile("ld.global.nc.v2.f64 {%0, %1}, [%2];" : "=d"(to[0]), "=d"(to[1]) : "l"(from));
  asm volatile("ld.global.nc.v2.f64 {%0, %1}, [%2];" : "=d"(to[2]), "=d"(to[3]) : "l"(from + 2));
}
SEQTRAIN_DEVICE uint32_t lower_half(uint32_t bits) {
  uint32_t half;
  asm("prmt.b32 %0, %1, 0, 0x4410;" : "=r"(half) : "r"(bits));
  return half;
}
SEQTRAIN_DEVICE uint32_t upper_half(uint32_t bits) {
  uint32_t half;
  asm("prmt.b32 %0, %1, 0, 0x4432;" : "=r"(half) : "r"(bits));
  return half;
}

SEQTRAIN_DEVICE float half_to_float(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

SEQTRAIN_DEVICE uint16_t float_to_half(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

SEQTRAIN_DEVICE uint16_t float_to_bfloat(float value) {  // to nearest, ties to even
  const uint32_t bits = static_cast<uint32_t>(bits_of(value));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Two of 16 bits in a word, the first in the low half.
SEQTRAIN_DEVICE void halves_to_floats(uint32_t pair, float& low, float& high) {
  asm("{\n\t.reg .b16 l, h;\n\tmov.b32 {l, h}, %2;\n\tcvt.f32.f16 %0, l;\n\tcvt.f32.f16 %1, h;\n\t}"
      : "=f"(low), "=f"(high)
      : "r"(pair));
}

#if __CUDA_ARCH__ >= 800
SEQTRAIN_DEVICE uint32_t floats_to_halves(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
SEQTRAIN_DEVICE uint32_t floats_to_bfloats(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
SEQTRAIN_DEVICE uint32_t floats_to_halves(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}
SEQTRAIN_DEVICE uint32_t floats_to_bfloats(float low, float high) {
  return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
}
#endif

// The larger of two; 0 is larger than -0. Where one is NaN: the other, or for `larger_or_nan` NaN.
SEQTRAIN_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
SEQTRAIN_DEVICE double larger(double a, double b) { return fmax(a, b); }
SEQTRAIN_DEVICE double larger_or_nan(double a, double b) { return a != a || b != b ? a + b : fmax(a, b); }
#if __CUDA_ARCH__ >= 800
SEQTRAIN_DEVICE float larger_or_nan(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
#else
SEQTRAIN_DEVICE float larger_or_nan(float a, float b) { return a != a || b != b ? a + b : fmaxf(a, b); }
#endif

// 16 bytes, read and written at once where the address is a multiple of 16.
struct Words {
  uint32_t word[4];
};
SEQTRAIN_DEVICE Words load_words(const void* address) {
  const uint4 found = *static_cast<const uint4*>(address);
  return {{found.x, found.y, found.z, found.w}};
}
SEQTRAIN_DEVICE void store_words(void* address, const Words& words) {
  *static_cast<uint4*>(address) = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
}

class Team {
 public:
  SEQTRAIN_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  SEQTRAIN_DEVICE int threads() const { return static_cast<int>(blockDim.x); }
  SEQTRAIN_DEVICE int64_t block() const { return blockIdx.x; }
  SEQTRAIN_DEVICE int64_t blocks() const { return gridDim.x; }
  SEQTRAIN_DEVICE void sync() const { __syncthreads(); }
  SEQTRAIN_DEVICE void sync_warp() const { __syncwarp(); }
  template <class T>
  SEQTRAIN_DEVICE T exchange(T value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  // The largest of a warp's values, on all its threads.
  SEQTRAIN_DEVICE int32_t largest_in_warp(int32_t value) const {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(0xffffffffu, value);
#else
    for (int mask = 16; mask > 0; mask /= 2) {
      const int32_t other = exchange(value, mask);
      value = other > value ? other : value;
    }
    return value;
#endif
  }
  // Dynamic shared memory, from this many bytes on.
  SEQTRAIN_DEVICE char* shared(int64_t offset) const {
    extern __shared__ __align__(16) char seqtrain_shared[];
    return seqtrain_shared + offset;
  }

  // A copy from global to shared memory that may go on while the thread does other things, until it waits for it; other
  // threads see it behind a barrier after that.  Copies up to here are a group; `wait_for_copies<n>` doesn't wait for
  // the last n groups.
#if __CUDA_ARCH__ >= 800
  template <class T>
  SEQTRAIN_DEVICE void copy(T* shared, const T* global) const {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                 :
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(global), "n"(sizeof(T)));
  }
  SEQTRAIN_DEVICE void end_of_copies() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int groups>
  SEQTRAIN_DEVICE void wait_for_copies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
  }
#else
  template <class T>
  SEQTRAIN_DEVICE void copy(T* shared, const T* global) const {
    *shared = *global;
  }
  SEQTRAIN_DEVICE void end_of_copies() const {}
  template <int groups>
  SEQTRAIN_DEVICE void wait_for_copies() const {}
#endif

  // Blocks of a cluster, up to 8, run at once and reach each other's shared memory; a block of its own is one, too.
#if __CUDA_ARCH__ >= 900
  SEQTRAIN_DEVICE int cluster_blocks() const {
    int blocks;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
  }
  SEQTRAIN_DEVICE int rank_in_cluster() const {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
  }
  // A barrier of all threads of the cluster; what they wrote before, to whatever memory, all of them see behind it.
  SEQTRAIN_DEVICE void sync_cluster() const {
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
  }
  // Where `address` of this block's shared memory lies in that of another block, which must have begun and not ended.
  template <class T>
  SEQTRAIN_DEVICE T* peer(T* address, int rank) const {
    T* there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(address), "r"(rank));
    return there;
  }
#else
  SEQTRAIN_DEVICE static constexpr int cluster_blocks() { return 1; }
  SEQTRAIN_DEVICE static constexpr int rank_in_cluster() { return 0; }
  SEQTRAIN_DEVICE void sync_cluster() const { sync(); }
  template <class T>
  SEQTRAIN_DEVICE T* peer(T* address, int) const {
    return address;
  }
#endif
};

}  // namespace seqtrain

// Kernels take one structure of 64-bit fields.
#define SEQTRAIN_KERNEL_WITH(bounds, name, Problem, function)               \
  extern "C" __global__ void bounds name(const seqtrain::Problem problem) { \
    const seqtrain::Team team;                                              \
    seqtrain::function(team, problem);                                      \
  }
#define SEQTRAIN_KERNEL(name, Problem, function) SEQTRAIN_KERNEL_WITH(, name, Problem, function)
// One that the compiler must be told to fit into the registers of the largest block; told so, it unrolls others until
// they spill.
#define SEQTRAIN_LARGE_KERNEL(name, Problem, function) \
  SEQTRAIN_KERNEL_WITH(__launch_bounds__(seqtrain::largest_block, 1), name, Problem, function)

// One that waits for memory, so that two of the largest blocks have to fit onto a processor. Code for older ones would
// have to spill for it.
#if __CUDA_ARCH__ >= 800
#define SEQTRAIN_STREAMING_KERNEL(name, Problem, function) \
  SEQTRAIN_KERNEL_WITH(__launch_bounds__(seqtrain::largest_block, 2), name, Problem, function)
#else
#define SEQTRAIN_STREAMING_KERNEL(name, Problem, function) SEQTRAIN_KERNEL(name, Problem, function)
#endif

#else

#include "../emulation/team.h"

#endif
