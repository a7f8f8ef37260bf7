// Rows of scores and of gradients in memory: any float type, any stride, read and written without a copy of the tensor.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__F16C__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../recursion/vector.h"

namespace seqtrain {

enum class Dtype : int { float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3 };

inline std::size_t item_size(Dtype dtype) { return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2; }

// Three-dimensional tensor (B, T, V), or (ΣT, V) with the first row of each utterance in `offsets`.
// Strides count elements.
struct Tensor {
  void* data;
  Dtype dtype;
  int64_t stride_utterance;
  int64_t stride_frame;
  int64_t stride_label;
  const int64_t* offsets;  // (B,) first row of each utterance of a packed tensor, or null

  // Row of the utterance's first frame in arrays that have one row a frame: padded to `frames` or packed as this is.
  int64_t first_row(int64_t utterance, int64_t frames) const {
    return offsets != nullptr ? offsets[utterance] : utterance * frames;
  }

  // Rows of a batch in memory.
  int64_t rows(int64_t batch, int64_t frames) const { return offsets != nullptr ? offsets[batch] : batch * frames; }

  char* row(int64_t utterance, int64_t frame) const {
    const int64_t first = offsets != nullptr ? offsets[utterance] * stride_frame : utterance * stride_utterance;
    return static_cast<char*>(data) + (first + frame * stride_frame) * static_cast<int64_t>(item_size(dtype));
  }
};

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t fraction = half & 0x3ffu;
  float magnitude;
  if (exponent == 0) {
    magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // subnormal: fraction · 2^-24
  } else {
    const uint32_t bits =
        exponent == 0x1fu ? 0x7f800000u | (fraction << 13) : ((exponent + 112u) << 23) | (fraction << 13);
    std::memcpy(&magnitude, &bits, 4);
  }
  uint32_t bits;
  std::memcpy(&bits, &magnitude, 4);
  bits |= sign;
  std::memcpy(&magnitude, &bits, 4);
  return magnitude;
}

// Round to nearest, ties to even.
inline uint16_t float_to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (bits < 0x38800000u) {  // subnormal half: adding 0.5 rounds at the right bit
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  bits += 0xc8000fffu + ((bits >> 13) & 1u);
  return static_cast<uint16_t>(sign | (bits >> 13));
}

inline float bfloat_to_float(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

inline uint16_t float_to_bfloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class Real>
inline Real load(const char* row, Dtype dtype, int64_t element) {
  if (dtype == Dtype::float32) {
    float value;
    std::memcpy(&value, row + element * 4, 4);
    return static_cast<Real>(value);
  }
  if (dtype == Dtype::float64) {
    double value;
    std::memcpy(&value, row + element * 8, 8);
    return static_cast<Real>(value);
  }
  uint16_t value;
  std::memcpy(&value, row + element * 2, 2);
  return static_cast<Real>(dtype == Dtype::float16 ? half_to_float(value) : bfloat_to_float(value));
}

template <class Real>
inline void store(char* row, Dtype dtype, int64_t element, Real value) {
  if (dtype == Dtype::float32) {
    const float narrow = static_cast<float>(value);
    std::memcpy(row + element * 4, &narrow, 4);
  } else if (dtype == Dtype::float64) {
    const double wide = static_cast<double>(value);
    std::memcpy(row + element * 8, &wide, 8);
  } else {
    const float narrow = static_cast<float>(value);
    const uint16_t bits = dtype == Dtype::float16 ? float_to_half(narrow) : float_to_bfloat(narrow);
    std::memcpy(row + element * 2, &bits, 2);
  }
}

template <class Real>
constexpr Dtype dtype_of() {
  return sizeof(Real) == 8 ? Dtype::float64 : Dtype::float32;
}

// The row's `size` elements as contiguous Real: the tensor's own memory where it is that already, else `buffer`,
// filled.
template <class Real>
inline const Real* contiguous_row(const Tensor& tensor, const char* row, int64_t size, Real* __restrict buffer) {
  const int64_t stride = tensor.stride_label;
  if (tensor.dtype == dtype_of<Real>() && stride == 1) return reinterpret_cast<const Real*>(row);
  int64_t v = 0;
  if (stride == 1 && tensor.dtype == Dtype::bfloat16) {
    const uint16_t* source = reinterpret_cast<const uint16_t*>(row);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) buffer[i] = static_cast<Real>(bfloat_to_float(source[i]));
    return buffer;
  }
#if defined(__F16C__)
  if (stride == 1 && tensor.dtype == Dtype::float16) {
    for (; v + 8 <= size; v += 8) {
      alignas(32) float values[8];
      _mm256_store_ps(values, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + v * 2))));
      for (int i = 0; i < 8; i++) buffer[v + i] = static_cast<Real>(values[i]);
    }
  }
#endif
  for (; v < size; v++) buffer[v] = load<Real>(row, tensor.dtype, v * stride);
  return buffer;
}

// Outputs from this size on are written past the caches.
constexpr int64_t streaming_bytes = int64_t{32} << 20;

// Writes a vector past the caches, to an address that is a multiple of its size.
template <class Real>
inline void stream_vector(Real* target, Vector<Real> value) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(target), (__m512i)value);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(target), (__m256i)value);
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(target), (__m128i)value);
#else
  store_vector(target, value);
#endif
}

// Writes past the caches: for outputs larger than they are, whose lines would be fetched only to be overwritten.
template <class Real>
inline void stream_row(Real* __restrict target, const Real* __restrict source, int64_t size) {
  int64_t v = 0;
  while (v < size && reinterpret_cast<uintptr_t>(target + v) % static_cast<uintptr_t>(vector_bytes) != 0) {
    target[v] = source[v];
    v++;
  }
  for (; v + vector_size<Real> <= size; v += vector_size<Real>) stream_vector(target + v, load_vector(source + v));
  for (; v < size; v++) target[v] = source[v];
}

// Makes streamed rows visible to other threads before this one reports that it is done.
inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class Real>
inline void write_row(const Tensor& tensor, char* row, const Real* source, int64_t size, bool stream) {
  if (tensor.dtype == dtype_of<Real>() && tensor.stride_label == 1) {
    if (stream) {
      stream_row(reinterpret_cast<Real*>(row), source, size);
    } else {
      std::memcpy(row, source, static_cast<std::size_t>(size) * sizeof(Real));
    }
    return;
  }
  for (int64_t v = 0; v < size; v++) store<Real>(row, tensor.dtype, v * tensor.stride_label, source[v]);
}

inline void zero_row(const Tensor& tensor, char* row, int64_t size) {
  if (tensor.stride_label == 1) {
    std::memset(row, 0, static_cast<std::size_t>(size) * item_size(tensor.dtype));
    return;
  }
  for (int64_t v = 0; v < size; v++)
    std::memset(row + v * tensor.stride_label * static_cast<int64_t>(item_size(tensor.dtype)), 0,
                item_size(tensor.dtype));
}

}  // namespace seqtrain
