// Runs the kernels on random batches in every order of threads and, with `threads`, on real threads for
// ThreadSanitizer. All orders must leave the same bits, and the same values as the CPU's kernels to 1e-5.
//
//     driver                                     the kinds of batches there are
//     driver fibers|threads ROUNDS SEED KIND

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "check.h"

namespace seqtrain {
namespace {

std::map<std::string, Kind::Draw>& kinds() {
  static std::map<std::string, Kind::Draw> all;
  return all;
}

int check(const std::string& name, Kind::Draw draw, bool threads, int64_t rounds, uint64_t seed) {
  Random random{seed};
  uint64_t together = 0;
  double worst = 0;
  for (int64_t round = 0; round < rounds; round++) {
    const std::unique_ptr<Case> batch = draw(random);
    const uint64_t first = batch->run(threads ? Order::threads : Order::ascending, 0);
    together = together * 31 + first;
    for (const Order order : {Order::descending, Order::shuffled}) {
      if (batch->run(order, static_cast<uint32_t>(round)) == first) continue;
      std::printf("%s: round %lld: order %d leaves other bits: a barrier is missing\n", name.c_str(),
                  static_cast<long long>(round), static_cast<int>(order));
      return 1;
    }
    const double difference = batch->difference();
    if (!(difference <= 1e-5)) {
      std::printf("%s: round %lld: differs from the CPU's kernels by %.3g\n", name.c_str(),
                  static_cast<long long>(round), difference);
      return 1;
    }
    worst = std::max(worst, difference);
  }
  std::printf("%s: %lld batches: the same bits in every order, hash %016llx; largest difference to the CPU's %.2g\n",
              name.c_str(), static_cast<long long>(rounds), static_cast<unsigned long long>(together), worst);
  return 0;
}

}  // namespace

Kind::Kind(const char* name, Draw draw) { kinds()[name] = draw; }

void launch(const char* kernel, int64_t blocks, int threads, int64_t shared, const void* problem, Order order,
            uint32_t seed, int64_t cluster) {
  const int code = seqtrain_emulate(kernel, blocks, cluster, threads, shared, problem, static_cast<int>(order), seed);
  if (code == 0) return;
  std::fprintf(stderr, "%s: the emulated block reports fault %d\n", kernel, code);
  std::exit(1);
}

}  // namespace seqtrain

int main(int count, char** words) {
  using namespace seqtrain;
  if (count == 1) {
    for (const auto& [name, draw] : kinds()) std::printf("%s\n", name.c_str());
    return 0;
  }
  if (count != 5 || kinds().count(words[4]) == 0) {
    std::fprintf(stderr, "usage: %s [fibers|threads ROUNDS SEED KIND]\n", words[0]);
    return 2;
  }
  return check(words[4], kinds()[words[4]], std::strcmp(words[1], "threads") == 0, std::atoll(words[2]),
               static_cast<uint64_t>(std::atoll(words[3])));
}
