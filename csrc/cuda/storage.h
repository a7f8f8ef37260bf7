// Rows of scores and of gradients in memory: any float type, any stride, 16 bytes at a time where they lie side by
// side.
#pragma once

#include "arithmetic.h"

namespace seqtrain {

constexpr int64_t float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3;  // of seqtrain/ops/arguments.py

struct Half {};
struct BrainFloat {};

// `get` and `put` are of one number, `unpack` and `pack` of as many as 16 bytes have; `none` is -inf as it is stored.
template <class Storage>
struct Stored;
template <>
struct Stored<Half> {
  using Bits = uint16_t;
  SEQTRAIN_DEVICE static Bits none() { return 0xfc00; }
  SEQTRAIN_DEVICE static float get(Bits bits) { return half_to_float(bits); }
  SEQTRAIN_DEVICE static Bits put(float value) { return float_to_half(value); }
  SEQTRAIN_DEVICE static void unpack(const Words& words, float (&values)[8]) {
    SEQTRAIN_UNROLLED
    for (int w = 0; w < 4; w++) halves_to_floats(words.word[w], values[2 * w], values[2 * w + 1]);
  }
  SEQTRAIN_DEVICE static Words pack(const float (&values)[8]) {
    Words words;
    SEQTRAIN_UNROLLED
    for (int w = 0; w < 4; w++) words.word[w] = floats_to_halves(values[2 * w], values[2 * w + 1]);
    return words;
  }
};
template <>
struct Stored<BrainFloat> {
  using Bits = uint16_t;
  SEQTRAIN_DEVICE static Bits none() { return 0xff80; }
  SEQTRAIN_DEVICE static float get(Bits bits) { return of_word(static_cast<uint32_t>(bits) << 16); }
  SEQTRAIN_DEVICE static Bits put(float value) { return float_to_bfloat(value); }
  SEQTRAIN_DEVICE static void unpack(const Words& words, float (&values)[8]) {
    SEQTRAIN_UNROLLED
    for (int w = 0; w < 4; w++) {
      values[2 * w] = of_word(words.word[w] << 16);
      values[2 * w + 1] = of_word(words.word[w] & 0xffff0000u);
    }
  }
  SEQTRAIN_DEVICE static Words pack(const float (&values)[8]) {
    Words words;
    SEQTRAIN_UNROLLED
    for (int w = 0; w < 4; w++) words.word[w] = floats_to_bfloats(values[2 * w], values[2 * w + 1]);
    return words;
  }

 private:
  SEQTRAIN_DEVICE static float of_word(uint32_t word) { return from_bits<float>(static_cast<int32_t>(word)); }
};
template <>
struct Stored<float> {
  using Bits = float;
  SEQTRAIN_DEVICE static Bits none() { return -infinity_of<float>(); }
  SEQTRAIN_DEVICE static float get(Bits value) { return value; }
  SEQTRAIN_DEVICE static Bits put(float value) { return value; }
  SEQTRAIN_DEVICE static void unpack(const Words& words, float (&values)[4]) {
    SEQTRAIN_UNROLLED
    for (int w = 0; w < 4; w++) values[w] = from_bits<float>(static_cast<int32_t>(words.word[w]));
  }
  SEQTRAIN_DEVICE static Words pack(const float (&values)[4]) {
    Words words;
    SEQTRAIN_UNROLLED
    for (int w = 0; w < 4; w++) words.word[w] = static_cast<uint32_t>(to_bits(values[w]));
    return words;
  }
};
template <>
struct Stored<double> {
  using Bits = double;
  SEQTRAIN_DEVICE static Bits none() { return -infinity_of<double>(); }
  SEQTRAIN_DEVICE static double get(Bits value) { return value; }
  SEQTRAIN_DEVICE static Bits put(double value) { return value; }
  SEQTRAIN_DEVICE static void unpack(const Words& words, double (&values)[2]) {
    SEQTRAIN_UNROLLED
    for (int i = 0; i < 2; i++)
      values[i] = from_bits<double>(
          static_cast<int64_t>(static_cast<uint64_t>(words.word[2 * i + 1]) << 32 | words.word[2 * i]));
  }
  SEQTRAIN_DEVICE static Words pack(const double (&values)[2]) {
    Words words;
    SEQTRAIN_UNROLLED
    for (int i = 0; i < 2; i++) {
      const auto bits = static_cast<uint64_t>(to_bits(values[i]));
      words.word[2 * i] = static_cast<uint32_t>(bits);
      words.word[2 * i + 1] = static_cast<uint32_t>(bits >> 32);
    }
    return words;
  }
};

// Calls with the storage type that `dtype` names; float64 goes with double arithmetic alone, the others with float.
template <class Real, class Function>
SEQTRAIN_DEVICE void with_storage(int64_t dtype, const Function& function) {
  if constexpr (sizeof(Real) == 8) {
    function(Stored<double>{});
  } else {
    if (dtype == float16) {
      function(Stored<Half>{});
    } else if (dtype == bfloat16) {
      function(Stored<BrainFloat>{});
    } else {
      function(Stored<float>{});
    }
  }
}

// That 16 bytes have.
template <class Storage>
constexpr int numbers_of = 16 / static_cast<int>(sizeof(typename Storage::Bits));

// 16 bytes' worth of numbers as they are stored.
SEQTRAIN_DEVICE Words words_of(const uint16_t (&bits)[8]) {
  Words words;
  SEQTRAIN_UNROLLED
  for (int w = 0; w < 4; w++) words.word[w] = bits[2 * w] | static_cast<uint32_t>(bits[2 * w + 1]) << 16;
  return words;
}
SEQTRAIN_DEVICE Words words_of(const float (&values)[4]) { return Stored<float>::pack(values); }
SEQTRAIN_DEVICE Words words_of(const double (&values)[2]) { return Stored<double>::pack(values); }

// A row of numbers in memory, whatever their type and strides.
template <class Real>
struct Row {
  int64_t dtype;
  char* data;
  int64_t step;
  int64_t labels;

  // From the number at `offset` on.
  SEQTRAIN_DEVICE Row(int64_t type, char* all, int64_t offset, int64_t label_step, int64_t row_labels)
      : dtype(type), data(all + offset * bytes_of(type)), step(label_step), labels(row_labels) {}

  SEQTRAIN_DEVICE Real operator[](int64_t label) const {
    Real value = 0;
    with_storage<Real>(dtype, [&](auto storage) { value = storage.get(*typed(storage, label * step)); });
    return value;
  }
  SEQTRAIN_DEVICE void put(int64_t label, Real value) const {
    with_storage<Real>(dtype, [&](auto storage) { *typed(storage, label * step) = storage.put(value); });
  }

  template <class Storage>
  SEQTRAIN_DEVICE auto* typed(Storage, int64_t offset) const {
    return reinterpret_cast<typename Storage::Bits*>(data) + offset;
  }

 private:
  SEQTRAIN_DEVICE static int64_t bytes_of(int64_t type) { return type == float64 ? 8 : type == float32 ? 4 : 2; }
};

// A row of numbers in pieces of 16 bytes' worth, whatever its strides, on which the order of its sums doesn't depend
// so. `whole` are rows whose pieces lie side by side, each at a multiple of 16 bytes. Rows have fewer than 2^31 pieces.
template <class Real, class Storage, bool whole>
struct Pieces {
  using Bits = typename Storage::Bits;
  static constexpr int size = numbers_of<Storage>;

  Bits* first;
  int64_t step;
  int64_t labels;

  SEQTRAIN_DEVICE explicit Pieces(const Row<Real>& row)
      : first(row.typed(Storage{}, 0)), step(row.step), labels(row.labels) {}
  SEQTRAIN_DEVICE int count() const { return static_cast<int>((labels + size - 1) / size); }

  // -inf past the end.
  SEQTRAIN_DEVICE Words load(int piece) const {
    const int64_t begin = static_cast<int64_t>(piece) * size;
    if constexpr (whole) return load_words(first + begin);
    const Bits* from = first + begin * step;
    Bits bits[size];
    SEQTRAIN_UNROLLED
    for (int i = 0; i < size; i++, from += step) bits[i] = begin + i < labels ? *from : Storage::none();
    return words_of(bits);
  }
  SEQTRAIN_DEVICE void store(int piece, const Real (&values)[size]) const {
    const int64_t begin = static_cast<int64_t>(piece) * size;
    if constexpr (whole) {
      store_words(first + begin, Storage::pack(values));
    } else {
      Bits* to = first + begin * step;
      SEQTRAIN_UNROLLED
      for (int i = 0; i < size; i++, to += step)
        if (begin + i < labels) *to = Storage::put(values[i]);
    }
  }
  SEQTRAIN_DEVICE static Words nothing() {
    Bits bits[size];
    SEQTRAIN_UNROLLED
    for (int i = 0; i < size; i++) bits[i] = Storage::none();
    return words_of(bits);
  }
};

template <class Real, class Storage>
SEQTRAIN_DEVICE bool in_whole_pieces(const Row<Real>& row) {
  return row.step == 1 && row.labels % numbers_of<Storage> == 0 && reinterpret_cast<uint64_t>(row.data) % 16 == 0;
}

}  // namespace seqtrain
