// Memory: pages of outputs, and scratch.
//
// Growing, cache-line aligned scratch memory.  It is kept from one utterance to the next and never shrinks, so that a
// batch pays for its page faults once, and a few megabytes are kept for the next batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

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

// Blocks of memory that a thread's scratch has left behind, for its next call: to give a few megabytes back to the
// system and to map them anew would take as long as the arithmetic of a small batch.
class KeptBlocks {
 public:
  struct Block {
    void* data;
    std::size_t bytes;
  };

  static KeptBlocks& of_this_thread() {
    static thread_local KeptBlocks blocks;
    return blocks;
  }

  KeptBlocks() = default;
  KeptBlocks(const KeptBlocks&) = delete;
  KeptBlocks& operator=(const KeptBlocks&) = delete;
  ~KeptBlocks() {
    for (const Block& block : blocks_) std::free(block.data);
  }

  // The smallest one of at least `bytes` that isn't more than twice as large, or null.
  Block take(std::size_t bytes) {
    std::size_t found = blocks_.size();
    for (std::size_t i = 0; i < blocks_.size(); i++)
      if (blocks_[i].bytes >= bytes && blocks_[i].bytes / 2 <= bytes &&
          (found == blocks_.size() || blocks_[i].bytes < blocks_[found].bytes))
        found = i;
    if (found == blocks_.size()) return {nullptr, 0};
    const Block block = blocks_[found];
    blocks_[found] = blocks_.back();
    blocks_.pop_back();
    kept_bytes_ -= block.bytes;
    return block;
  }

  void keep(Block block) noexcept {
    if (block.data == nullptr) return;
    if (kept_bytes_ + block.bytes > most_bytes) {
      std::free(block.data);
      return;
    }
    try {
      blocks_.push_back(block);
      kept_bytes_ += block.bytes;
    } catch (const std::bad_alloc&) {
      std::free(block.data);
    }
  }

 private:
  static constexpr std::size_t most_bytes = 2 * huge_page;

  std::vector<Block> blocks_;
  std::size_t kept_bytes_ = 0;
};

template <class T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Scratch(Scratch&& other) noexcept : block_(other.block_) { other.block_ = {nullptr, 0}; }
  Scratch& operator=(Scratch&&) = delete;
  ~Scratch() { KeptBlocks::of_this_thread().keep(block_); }

  // At least `size` elements; what they hold is undefined after a call that had to grow.
  T* reserve(std::size_t size) {
    const std::size_t needed = size * sizeof(T);
    if (needed > block_.bytes) {
      std::free(block_.data);
      block_ = KeptBlocks::of_this_thread().take(needed);
      if (block_.data == nullptr) block_ = new_block(needed);
    }
    return static_cast<T*>(block_.data);
  }

 private:
  static KeptBlocks::Block new_block(std::size_t needed) {
    const std::size_t alignment = needed >= 2 * huge_page ? huge_page : 64;
    const std::size_t bytes = (needed + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(alignment, bytes);
    if (data == nullptr) throw std::bad_alloc();
    if (alignment == huge_page) prefer_huge_pages(data, bytes);
    return {data, bytes};
  }

  KeptBlocks::Block block_{nullptr, 0};
};

}  // namespace seqtrain
