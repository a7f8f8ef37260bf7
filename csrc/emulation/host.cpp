#include "host.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
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

enum class State { runs, waits_for_block, waits_for_cluster, waits_for_warp, done };

// `swapcontext` calls the system each time, for the mask of signals, which takes longer than most fibers run between
// two barriers: so those that have begun go on by jumps.  Sanitizers follow contexts alone.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool by_jumps = false;
#else
constexpr bool by_jumps = true;
#endif

// Where a fiber or the scheduler goes on.
struct Place {
  ucontext_t context{};
  jmp_buf registers;
};

class Fiber {
 public:
  Fiber() : stack_(take_stack()) {}
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() { spare_stacks().push_back(std::move(stack_)); }

  // Calls body with the halves of `argument`; behind that, the body must `end`.
  void prepare(void (*body)(unsigned, unsigned), const void* argument, Place& scheduler) {
    const auto address = reinterpret_cast<uintptr_t>(argument);
    getcontext(&place_.context);
    place_.context.uc_stack.ss_sp = stack_.get();
    place_.context.uc_stack.ss_size = stack_bytes;
    place_.context.uc_link = &scheduler.context;
    makecontext(&place_.context, reinterpret_cast<void (*)()>(body), 2, static_cast<unsigned>(address),
                static_cast<unsigned>(address >> 32));
  }
  // Until it leaves.
  void run(Place& scheduler) {
    if constexpr (by_jumps) {
      if (_setjmp(scheduler.registers) != 0) return;
      if (begun_) _longjmp(place_.registers, 1);
      begun_ = true;
      setcontext(&place_.context);
    } else {
      swapcontext(&scheduler.context, &place_.context);
    }
  }
  void leave_for(Place& scheduler) {
    if constexpr (by_jumps) {
      if (_setjmp(place_.registers) == 0) _longjmp(scheduler.registers, 1);
    } else {
      swapcontext(&place_.context, &scheduler.context);
    }
  }
  static void end(Place& scheduler) {
    if constexpr (by_jumps) _longjmp(scheduler.registers, 1);  // else its context has an end that sanitizers see
  }

 private:
  using Stack = std::unique_ptr<char[]>;

  // From one block to the next: the pages of new ones would have to be mapped anew.
  static std::vector<Stack>& spare_stacks() {
    static thread_local std::vector<Stack> stacks;
    return stacks;
  }
  static Stack take_stack() {
    std::vector<Stack>& spare = spare_stacks();
    if (spare.empty()) return Stack(new char[stack_bytes]);  // not initialized: pages that nobody touches cost nothing
    Stack stack = std::move(spare.back());
    spare.pop_back();
    return stack;
  }

  Stack stack_;
  Place place_;
  bool begun_ = false;
};

}  // namespace

class Cluster;

// One block: its shared memory, and how far its threads have come.
class Block {
 public:
  Block(Cluster& cluster, int64_t index, int threads, int64_t shared_bytes)
      : cluster_(cluster),
        index_(index),
        threads_(threads),
        shared_bytes_(static_cast<std::size_t>(shared_bytes)),
        shared_(shared_bytes_ + guard_bytes, poison),
        exchanged_(static_cast<std::size_t>(threads)) {}

  Cluster& cluster() { return cluster_; }
  int threads() const { return threads_; }
  int64_t index() const { return index_; }
  char* shared() { return shared_.data(); }
  bool holds(std::ptrdiff_t offset) const { return offset >= 0 && offset < static_cast<std::ptrdiff_t>(shared_bytes_); }
  bool intact() const {
    return std::all_of(shared_.begin() + static_cast<std::ptrdiff_t>(shared_bytes_), shared_.end(),
                       [](char c) { return c == poison; });
  }
  // Others may use its shared memory from when its first thread begins until its last one ends.
  bool present() const {
    return begun_.load(std::memory_order_relaxed) > 0 && ended_.load(std::memory_order_relaxed) < threads_;
  }

  void run(int thread);
  void sync(int thread) {
    if (barrier_) {
      barrier_->arrive_and_wait();
    } else {
      wait(thread, State::waits_for_block);
    }
  }
  void wait(int thread, State state);

  uint64_t exchange(int thread, uint64_t bits, int mask) {
    exchanged_[static_cast<std::size_t>(thread)] = bits;
    sync_warp(thread);
    const uint64_t result = exchanged_[static_cast<std::size_t>(thread ^ mask)];
    sync_warp(thread);
    return result;
  }

  void begin_threads(std::vector<std::thread>& running) {
    barrier_ = std::make_unique<std::barrier<>>(threads_);
    for (int w = 0; w < threads_ / warp_threads; w++)
      warp_barriers_.push_back(std::make_unique<std::barrier<>>(warp_threads));
    for (int t = 0; t < threads_; t++) running.emplace_back([this, t] { run(t); });
  }

  void begin_fibers(Order order);
  // Lets each fiber go on to its next barrier; false where none can.
  bool pass(Order order, std::mt19937& random);
  bool all_are(State state) const {
    return std::all_of(states_.begin(), states_.end(), [&](State s) { return s == state; });
  }
  void release_all() { std::fill(states_.begin(), states_.end(), State::runs); }

 private:
  struct Entry {
    Block* block;
    int thread;
  };

  static void enter(unsigned low, unsigned high) {
    const auto* entry =
        reinterpret_cast<const Entry*>(static_cast<uintptr_t>(low) | (static_cast<uintptr_t>(high) << 32));
    entry->block->run(entry->thread);
    entry->block->states_[static_cast<std::size_t>(entry->thread)] = State::done;
    entry->block->end();
  }
  void end() const;

  // A barrier opens where all have come to it; a thread that has ended doesn't count as having come.
  bool release(int begin, int end, State waiting) {
    const auto first = states_.begin() + begin, last = states_.begin() + end;
    if (!std::all_of(first, last, [&](State s) { return s == waiting; })) return false;
    std::fill(first, last, State::runs);
    return true;
  }

  void sync_warp(int thread) {
    if (barrier_) {
      warp_barriers_[static_cast<std::size_t>(thread / warp_threads)]->arrive_and_wait();
    } else {
      wait(thread, State::waits_for_warp);
    }
  }

  Cluster& cluster_;
  int64_t index_;
  int threads_;
  std::size_t shared_bytes_;
  std::vector<char> shared_;
  std::vector<uint64_t> exchanged_;
  std::atomic<int> begun_{0}, ended_{0};
  std::vector<Entry> entries_;
  std::unique_ptr<Fiber[]> fibers_;
  std::vector<State> states_;
  std::vector<int> turns_;
  std::unique_ptr<std::barrier<>> barrier_;
  std::vector<std::unique_ptr<std::barrier<>>> warp_barriers_;
};

// Blocks that run at the same time and see each other's shared memory.
class Cluster {
 public:
  Cluster(Kernel kernel, const void* problem, int64_t first, int64_t size, int64_t blocks, int threads,
          int64_t shared_bytes)
      : kernel_(kernel), problem_(problem), blocks_(blocks) {
    for (int64_t i = 0; i < size; i++)
      members_.push_back(std::make_unique<Block>(*this, first + i, threads, shared_bytes));
  }

  int size() const { return static_cast<int>(members_.size()); }
  int64_t blocks() const { return blocks_; }
  int fault() const { return fault_.load(std::memory_order_relaxed); }
  Place& scheduler() { return scheduler_; }
  void run(const Team& team) const { kernel_(team, problem_); }
  bool intact() const {
    return std::all_of(members_.begin(), members_.end(), [](const auto& block) { return block->intact(); });
  }

  void sync(Block& block, int thread) {
    if (barrier_) {
      barrier_->arrive_and_wait();
    } else {
      block.wait(thread, State::waits_for_cluster);
    }
  }

  char* peer(Block& own, const void* address, int rank) {
    const std::ptrdiff_t offset = static_cast<const char*>(address) - own.shared();
    Block& other = *members_[static_cast<std::size_t>(rank)];
    if (!other.present() || !own.holds(offset)) fault_.store(5, std::memory_order_relaxed);
    return own.holds(offset) ? other.shared() + offset : own.shared();
  }

  void run_threads() {
    barrier_ = std::make_unique<std::barrier<>>(static_cast<std::ptrdiff_t>(members_.size()) * members_[0]->threads());
    std::vector<std::thread> running;
    for (const auto& block : members_) block->begin_threads(running);
    for (std::thread& thread : running) thread.join();
  }

  // False where some threads wait for a barrier that others never reach.  A block goes on as far as it can before
  // another one does, in the shuffled order sometimes: blocks that went from barrier to barrier together would hide
  // that a barrier is none of the cluster's.
  bool run_fibers(Order order, std::mt19937& random) {
    for (const auto& block : members_) block->begin_fibers(order);
    std::vector<Block*> turns;
    for (const auto& block : members_) turns.push_back(block.get());
    if (order == Order::descending) std::reverse(turns.begin(), turns.end());
    const auto all_are = [&](State state) {
      return std::all_of(turns.begin(), turns.end(), [&](const Block* block) { return block->all_are(state); });
    };
    for (;;) {
      if (order == Order::shuffled) std::shuffle(turns.begin(), turns.end(), random);
      bool moved = false;
      for (Block* block : turns) {
        uint64_t passes = order == Order::shuffled && random() % 2 == 0 ? 1 + random() % 4 : ~uint64_t{0};
        while (passes-- > 0 && block->pass(order, random)) moved = true;
      }
      if (all_are(State::waits_for_cluster)) {
        for (Block* block : turns) block->release_all();
        moved = true;
      }
      if (!moved) return all_are(State::done);
    }
  }

 private:
  Kernel kernel_;
  const void* problem_;
  int64_t blocks_;
  std::vector<std::unique_ptr<Block>> members_;
  std::atomic<int> fault_{0};
  Place scheduler_;
  std::unique_ptr<std::barrier<>> barrier_;
};

void Block::run(int thread) {
  begun_.fetch_add(1, std::memory_order_relaxed);
  cluster_.run(Team(this, thread));
  ended_.fetch_add(1, std::memory_order_relaxed);
}

void Block::wait(int thread, State state) {
  states_[static_cast<std::size_t>(thread)] = state;
  fibers_[static_cast<std::size_t>(thread)].leave_for(cluster_.scheduler());
}

void Block::end() const { Fiber::end(cluster_.scheduler()); }

void Block::begin_fibers(Order order) {
  const auto count = static_cast<std::size_t>(threads_);
  fibers_ = std::make_unique<Fiber[]>(count);
  states_.assign(count, State::runs);
  entries_.resize(count);
  turns_.resize(count);
  for (int t = 0; t < threads_; t++) {
    const auto i = static_cast<std::size_t>(t);
    entries_[i] = {this, t};
    turns_[i] = order == Order::descending ? threads_ - 1 - t : t;
    fibers_[i].prepare(&enter, &entries_[i], cluster_.scheduler());
  }
}

bool Block::pass(Order order, std::mt19937& random) {
  if (order == Order::shuffled) std::shuffle(turns_.begin(), turns_.end(), random);
  bool moved = false;
  for (const int t : turns_)
    if (states_[static_cast<std::size_t>(t)] == State::runs) {
      moved = true;
      fibers_[static_cast<std::size_t>(t)].run(cluster_.scheduler());
    }
  for (int first = 0; first < threads_; first += warp_threads)
    moved |= release(first, first + warp_threads, State::waits_for_warp);
  moved |= release(0, threads_, State::waits_for_block);
  return moved;
}

int Team::threads() const { return block_->threads(); }
int64_t Team::block() const { return block_->index(); }
int64_t Team::blocks() const { return block_->cluster().blocks(); }
void Team::sync() const { block_->sync(thread_); }
int Team::cluster_blocks() const { return block_->cluster().size(); }
int Team::rank_in_cluster() const { return static_cast<int>(block_->index() % block_->cluster().size()); }
void Team::sync_cluster() const { block_->cluster().sync(*block_, thread_); }
char* Team::shared(int64_t offset) const { return block_->shared() + offset; }
char* Team::peer_address(const void* address, int rank) const { return block_->cluster().peer(*block_, address, rank); }
uint64_t Team::exchange_bits(uint64_t bits, int mask) const { return block_->exchange(thread_, bits, mask); }

Registration::Registration(const char* name, Kernel kernel) { kernels()[name] = kernel; }

extern "C" int seqtrain_emulate(const char* kernel, int64_t blocks, int64_t cluster, int threads, int64_t shared_bytes,
                                const void* problem, int order, uint32_t seed) {
  const auto found = kernels().find(kernel);
  if (found == kernels().end()) return 1;
  if (threads <= 0 || threads % warp_threads != 0) return 2;
  if (cluster < 1 || cluster > 8 || blocks % cluster != 0) return 6;
  std::mt19937 random(seed);
  std::vector<int64_t> turns(static_cast<std::size_t>(blocks / cluster));
  for (std::size_t i = 0; i < turns.size(); i++) turns[i] = static_cast<int64_t>(i) * cluster;
  if (order == static_cast<int>(Order::descending)) std::reverse(turns.begin(), turns.end());
  if (order == static_cast<int>(Order::shuffled)) std::shuffle(turns.begin(), turns.end(), random);
  for (const int64_t first : turns) {
    Cluster together(found->second, problem, first, cluster, blocks, threads, shared_bytes);
    if (order == static_cast<int>(Order::threads)) {
      together.run_threads();
    } else if (!together.run_fibers(static_cast<Order>(order), random)) {
      return 3;
    }
    if (!together.intact()) return 4;
    if (together.fault() != 0) return together.fault();
  }
  return 0;
}

}  // namespace seqtrain
