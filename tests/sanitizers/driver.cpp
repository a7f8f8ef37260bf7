// Runs every kernel on random batches, for sanitizers to watch: all dtypes and layouts, odd sizes, packed and padded,
// one shared graph and one each, long utterances that are recomputed in segments, outputs that are written past the
// caches, and scores that hold NaN.  Arrays are allocated to the byte, so that a step past their end is found.
//
// It also checks what must hold whatever the numbers are: the same bits for one thread and for several, posteriors that
// sum to one, no value where there is no path.  Exact values are tested from Python, against the reference.
//
//     driver THREADS ROUNDS SEED long|short

#include "runs.h"

namespace {

using namespace seqtrain;
using namespace seqtrain::sanitizers;

Shape random_shape(Random& random) {
  constexpr Layout layouts[] = {Layout::contiguous, Layout::frames_first, Layout::labels_first,
                                Layout::spread,     Layout::packed,       Layout::packed_spread};
  constexpr Dtype dtypes[] = {Dtype::float16, Dtype::bfloat16, Dtype::float32, Dtype::float64};
  return {random.integer(0, 6),          random.integer(0, 40),        random.integer(1, 70),
          layouts[random.integer(0, 5)], dtypes[random.integer(0, 3)], random.chance(0.1) ? 0.001 : 0.0};
}

template <class Real>
void run_all(Random& random, const Shape& shape, int threads) {
  run_ctc<Real>(random, shape, random.integer(0, 35), threads);
  run_automata<Real>(random, shape, random.integer(1, 40), random.chance(0.3), threads);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) fail("usage: driver THREADS ROUNDS SEED long|short");
  const int threads = std::atoi(arguments[1]), rounds = std::atoi(arguments[2]);
  Random random(static_cast<uint64_t>(std::atoll(arguments[3])));
  for (int round = 0; round < rounds; round++) {
    const Shape shape = random_shape(random);
    if (shape.dtype == Dtype::float64) {
      run_all<double>(random, shape, threads);
    } else {
      run_all<float>(random, shape, threads);
    }
  }
  for (int round = 0; round < rounds; round++) run_risk(random, random.integer(1, 5), 30, threads);
  run_risk(random, 8, 9000, threads);
  // Enough work that every thread gets some of it.
  for (const Layout layout : {Layout::contiguous, Layout::packed, Layout::frames_first}) {
    const Shape busy{8, 150, 200, layout, Dtype::float32, 0};
    run_ctc<float>(random, busy, 40, threads);
    run_automata<float>(random, busy, 60, true, threads);
    run_automata<float>(random, busy, 60, false, threads);
  }
  int batches = rounds + 3;
  for (int round = 0; round < 12; round++)  // several groups of utterances side by side
    run_automata<float>(random, {random.integer(9, 40), 12, 9, Layout::contiguous, Dtype::float32, 0}, 5, false,
                        threads);
  batches += 12;
  if (std::string(arguments[4]) == "long") {
    batches += 5;
    // Recomputed in segments (csrc/cpu/segments.h).
    run_ctc<float>(random, {1, 4300, 2, Layout::packed, Dtype::float32, 0}, 1000, threads);
    run_ctc<double>(random, {1, 2200, 2, Layout::contiguous, Dtype::float64, 0}, 1000, threads);
    run_automata<float>(random, {1, 3800, 2, Layout::contiguous, Dtype::float32, 0}, 1700, true, threads);
    // Written past the caches.
    run_ctc<float>(random, {3, 30, 93'487, Layout::contiguous, Dtype::float32, 0}, 5, threads);
    run_automata<float>(random, {3, 30, 93'487, Layout::contiguous, Dtype::float32, 0}, 5, true, threads);
  }
  std::printf("%d batches with %d threads\n", batches, threads);
  return 0;
}
