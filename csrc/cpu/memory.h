// Memory: pages of outputs, and scratch.
//
// Growing, cache-line aligned scratch memory.  It is kept from one utterance to the next and never shrinks, so that a
// batch pays for its page faults once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace seqtrain {

constexpr std::size_t huge_page = std::size_t{2} << 20;

// Asks for huge pages in memory that is about to be written for the first time: a large output costs less in arithmetic
// than in page faults.  Only whole huge pages inside are touched; where the system declines, nothing changes.
inline void prefer_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto first = (reinterpret_cast<std::uintptr_t>(data) + huge_page - 1) / huge_page * huge_page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / huge_page * huge_page;
  if (end > first) static_cast<void>(madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE));
#endif
}

// Maps pages of memory that is about to be written, many at once: one by one, as they are touched, costs half as much
// again.  Memory that was written before (the page in the middle tells) is left alone: to walk through what is mapped
// costs a third as much as writing to it.  Where the system can't, nothing changes.
inline void map_pages([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
  constexpr int populate_for_writing = 23;  // MADV_POPULATE_WRITE, which headers before Linux 5.14 lack
  constexpr std::size_t page = 4096;
  const auto first = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (end <= first) return;
  unsigned char mapped = 0;
  void* middle = reinterpret_cast<void*>(first + (end - first) / page / 2 * page);
  if (mincore(middle, page, &mapped) == 0 && (mapped & 1) != 0) return;
  static_cast<void>(madvise(reinterpret_cast<void*>(first), end - first, populate_for_writing));
#endif
}

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
      const std::size_t alignment = size * sizeof(T) >= 2 * huge_page ? huge_page : 64;
      const std::size_t bytes = (size * sizeof(T) + alignment - 1) / alignment * alignment;
      data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      if (alignment == huge_page) prefer_huge_pages(data_, bytes);
      size_ = size;
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace seqtrain
