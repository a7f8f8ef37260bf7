// The sums over the paths of random lattices.

#include "lattices.h"

namespace seqtrain {
namespace {

class TotalCase : public LatticeCase {
 public:
  explicit TotalCase(Random& random) : LatticeCase(random, 0) {}

  uint64_t run(Order order, uint32_t seed) override {
    *last_ = run_lattices(lattices_, "lattice_total", next(order, seed, largest_lattice_weight));
    return last_->hash();
  }

  double difference() override {
    LatticeResult exact(lattices_);
    lattice_total({lattices_.view(), exact.value.data(), with_gradient_, exact.arc_posteriors.data(),
                   exact.final_posteriors.data(), exact.status.data(), 1});
    return last_->difference(exact);
  }
};

const Kind kind("lattice", [](Random& random) -> std::unique_ptr<Case> { return std::make_unique<TotalCase>(random); });

}  // namespace
}  // namespace seqtrain
