#include "host.h"

#include <ucontext.h>

#include <algorithm>
#include <barrier>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "team.h"

namespace seqtrain {
namespace {

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

constexpr int warp_threads = 32;
constexpr std::size_t stack_bytes = std::size_t{64} << 10;
constexpr std::size_t guard_bytes = 256;
constexpr char poison = static_cast<char>(0xff);  // a NaN in both formats, an exponent of -1

enum class State { runs, waits_for_block, waits_for_warp, done };

}  // namespace

class Block {
 public:
  Block(Kernel kernel, const void* problem, int64_t index, int64_t blocks, int threads, int64_t shared_bytes)
      : kernel_(kernel),
        problem_(problem),
        index_(index),
        blocks_(blocks),
        threads_(threads),
        shared_bytes_(static_cast<std::size_t>(shared_bytes)),
        shared_(shared_bytes_ + guard_bytes, poison),
        exchanged_(static_cast<std::size_t>(threads)) {}

  int threads() const { return threads_; }
  int64_t index() const { return index_; }
  int64_t blocks() const { return blocks_; }
  char* shared() { return shared_.data(); }
  bool intact() const {
    return std::all_of(shared_.begin() + static_cast<std::ptrdiff_t>(shared_bytes_), shared_.end(),
                       [](char c) { return c == poison; });
  }

  void sync(int thread) {
    if (barrier_) {
      barrier_->arrive_and_wait();
    } else {
      wait(thread, State::waits_for_block);
    }
  }

  uint64_t exchange(int thread, uint64_t bits, int mask) {
    exchanged_[static_cast<std::size_t>(thread)] = bits;
    sync_warp(thread);
    const uint64_t result = exchanged_[static_cast<std::size_t>(thread ^ mask)];
    sync_warp(thread);
    return result;
  }

  void run_threads() {
    barrier_ = std::make_unique<std::barrier<>>(threads_);
    for (int w = 0; w < threads_ / warp_threads; w++)
      warp_barriers_.push_back(std::make_unique<std::barrier<>>(warp_threads));
    std::vector<std::thread> running;
    for (int t = 0; t < threads_; t++) running.emplace_back([this, t] { kernel_(Team(this, t), problem_); });
    for (std::thread& thread : running) thread.join();
  }

  // False where some threads wait for a barrier that others never reach.
  bool run_fibers(Order order, std::mt19937& random) {
    const auto count = static_cast<std::size_t>(threads_);
    // Not initialized: pages that no fiber touches cost nothing.
    const std::unique_ptr<char[]> stacks(new char[stack_bytes * count]);
    fibers_.resize(count);
    states_.assign(count, State::runs);
    std::vector<Entry> entries(count);
    std::vector<int> turns(count);
    for (int t = 0; t < threads_; t++) {
      const auto i = static_cast<std::size_t>(t);
      entries[i] = {this, t};
      turns[i] = order == Order::descending ? threads_ - 1 - t : t;
      getcontext(&fibers_[i]);
      fibers_[i].uc_stack.ss_sp = stacks.get() + stack_bytes * i;
      fibers_[i].uc_stack.ss_size = stack_bytes;
      fibers_[i].uc_link = &scheduler_;
      const auto address = reinterpret_cast<uintptr_t>(&entries[i]);
      makecontext(&fibers_[i], reinterpret_cast<void (*)()>(&enter), 2, static_cast<unsigned>(address),
                  static_cast<unsigned>(address >> 32));
    }
    for (;;) {
      if (order == Order::shuffled) std::shuffle(turns.begin(), turns.end(), random);
      bool moved = false;
      for (const int t : turns)
        if (states_[static_cast<std::size_t>(t)] == State::runs) {
          moved = true;
          swapcontext(&scheduler_, &fibers_[static_cast<std::size_t>(t)]);
        }
      for (int first = 0; first < threads_; first += warp_threads)
        moved |= release(first, first + warp_threads, State::waits_for_warp);
      moved |= release(0, threads_, State::waits_for_block);
      if (moved) continue;
      return std::all_of(states_.begin(), states_.end(), [](State s) { return s == State::done; });
    }
  }

 private:
  struct Entry {
    Block* block;
    int thread;
  };

  static void enter(unsigned low, unsigned high) {
    const auto* entry =
        reinterpret_cast<const Entry*>(static_cast<uintptr_t>(low) | (static_cast<uintptr_t>(high) << 32));
    entry->block->kernel_(Team(entry->block, entry->thread), entry->block->problem_);
    entry->block->states_[static_cast<std::size_t>(entry->thread)] = State::done;
  }

  // A barrier opens where all have come to it; a thread that has ended doesn't count as having come.
  bool release(int begin, int end, State waiting) {
    const auto first = states_.begin() + begin, last = states_.begin() + end;
    if (!std::all_of(first, last, [&](State s) { return s == waiting; })) return false;
    std::fill(first, last, State::runs);
    return true;
  }

  void wait(int thread, State state) {
    states_[static_cast<std::size_t>(thread)] = state;
    swapcontext(&fibers_[static_cast<std::size_t>(thread)], &scheduler_);
  }

  void sync_warp(int thread) {
    if (barrier_) {
      warp_barriers_[static_cast<std::size_t>(thread / warp_threads)]->arrive_and_wait();
    } else {
      wait(thread, State::waits_for_warp);
    }
  }

  Kernel kernel_;
  const void* problem_;
  int64_t index_, blocks_;
  int threads_;
  std::size_t shared_bytes_;
  std::vector<char> shared_;
  std::vector<uint64_t> exchanged_;
  std::vector<ucontext_t> fibers_;
  std::vector<State> states_;
  ucontext_t scheduler_{};
  std::unique_ptr<std::barrier<>> barrier_;
  std::vector<std::unique_ptr<std::barrier<>>> warp_barriers_;
};

int Team::threads() const { return block_->threads(); }
int64_t Team::block() const { return block_->index(); }
int64_t Team::blocks() const { return block_->blocks(); }
void Team::sync() const { block_->sync(thread_); }
char* Team::shared(int64_t offset) const { return block_->shared() + offset; }
uint64_t Team::exchange_bits(uint64_t bits, int mask) const { return block_->exchange(thread_, bits, mask); }

Registration::Registration(const char* name, Kernel kernel) { kernels()[name] = kernel; }

extern "C" int seqtrain_emulate(const char* kernel, int64_t blocks, int threads, int64_t shared_bytes,
                                const void* problem, int order, uint32_t seed) {
  const auto found = kernels().find(kernel);
  if (found == kernels().end()) return 1;
  if (threads <= 0 || threads % warp_threads != 0) return 2;
  std::mt19937 random(seed);
  std::vector<int64_t> turns(static_cast<std::size_t>(blocks));
  for (int64_t i = 0; i < blocks; i++) turns[static_cast<std::size_t>(i)] = i;
  if (order == static_cast<int>(Order::descending)) std::reverse(turns.begin(), turns.end());
  if (order == static_cast<int>(Order::shuffled)) std::shuffle(turns.begin(), turns.end(), random);
  for (const int64_t index : turns) {
    Block block(found->second, problem, index, blocks, threads, shared_bytes);
    if (order == static_cast<int>(Order::threads)) {
      block.run_threads();
    } else if (!block.run_fibers(static_cast<Order>(order), random)) {
      return 3;
    }
    if (!block.intact()) return 4;
  }
  return 0;
}

}  // namespace seqtrain
