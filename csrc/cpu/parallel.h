// Threads over utterances.  Each utterance is computed by one thread from start to end and writes to places of its own,
// so the result has the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace seqtrain {

// Subnormals cost a hundred cycles each and carry nothing here: they are flushed while a kernel runs, and the calling
// thread gets its own mode back.
class FlushSubnormals {
 public:
#if defined(__SSE2__)
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  unsigned saved_;
#endif
};

// Calls body(utterance, workspace) for each utterance, the longest first; `work` estimates the cost of each in
// arc-frames.  A thread has one workspace, so scratch memory is reused from one utterance to the next.  A body that
// takes a third argument is told which utterance comes next on this thread, or -1 where that isn't known.
template <class Workspace, class Body>
void for_each_utterance(const std::vector<double>& work, int threads, const Body& body) {
  const int64_t count = static_cast<int64_t>(work.size());
  std::vector<int64_t> order(work.size());
  double total = 0;
  for (int64_t i = 0; i < count; i++) {
    order[static_cast<std::size_t>(i)] = i;
    total += work[static_cast<std::size_t>(i)];
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return work[static_cast<std::size_t>(a)] > work[static_cast<std::size_t>(b)];
  });
  // Starting a thread costs about as much as this many arc-frames.
  constexpr double work_of_a_thread = 30000;
  const int64_t useful = static_cast<int64_t>(total / work_of_a_thread) + 1;
  const int64_t used = std::max<int64_t>(1, std::min<int64_t>({static_cast<int64_t>(threads), count, useful}));

  std::atomic<int64_t> next{0};
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(used));
  const auto run = [&](int64_t thread) {
    try {
      const FlushSubnormals flush;
      Workspace workspace;
      for (;;) {
        const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
        if (i >= count) break;
        if constexpr (std::is_invocable_v<const Body&, int64_t, Workspace&, int64_t>) {
          const bool known = used == 1 && i + 1 < count;
          body(order[static_cast<std::size_t>(i)], workspace, known ? order[static_cast<std::size_t>(i + 1)] : -1);
        } else {
          body(order[static_cast<std::size_t>(i)], workspace);
        }
      }
    } catch (...) {
      failures[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  };
  std::vector<std::thread> pool;
  pool.reserve(static_cast<std::size_t>(used));
  try {
    for (int64_t i = 1; i < used; i++) pool.emplace_back(run, i);
  } catch (const std::system_error&) {
    // No more threads to be had: those that started do the work, with the same result.
  }
  run(0);
  for (std::thread& thread : pool) thread.join();
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace seqtrain
