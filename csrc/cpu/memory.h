// Growing, cache-line aligned scratch memory.  It is kept from one utterance to the next and never shrinks, so that a
// batch pays for its page faults once.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace seqtrain {

template <class T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Scratch(Scratch&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr;
    other.size_ = 0;
  }
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch() { std::free(data_); }

  // At least `size` elements; what they hold is undefined after a call that had to grow.
  T* reserve(std::size_t size) {
    if (size > size_) {
      std::free(data_);
      data_ = nullptr;
      size_ = 0;
      const std::size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
      data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace seqtrain
