// The sums over the paths of random lattices, in blocks of several sizes, which must leave the same bits.

#include "lattices.h"

namespace seqtrain {
namespace {

class LatticeCase : public Case {
 public:
  explicit LatticeCase(Random& random) : with_gradient_(random.below(4) != 0), in_shared_(random.below(2) == 0) {
    for (int b = 0; b < 3; b++) lattices_.add(random);
    // With each order another size.
    for (const int threads : {32, 64, 160}) sizes_.push_back(threads);
    last_ = std::make_unique<LatticeResult>(lattices_);
  }

  uint64_t run(Order order, uint32_t seed) override {
    const int threads = sizes_[runs_++ % sizes_.size()];
    *last_ = run_lattices(lattices_, nullptr, nullptr, "lattice_total", largest_lattice_weight, with_gradient_,
                          in_shared_, threads, order, seed);
    return last_->hash();
  }

  double difference() override {
    LatticeResult exact(lattices_);
    lattice_total({lattices_.view(), exact.value.data(), with_gradient_, exact.arc_posteriors.data(),
                   exact.final_posteriors.data(), exact.status.data(), 1});
    double worst = largest_difference_of(last_->arc_posteriors, exact.arc_posteriors);
    worst = std::max(worst, largest_difference_of(last_->final_posteriors, exact.final_posteriors));
    for (std::size_t b = 0; b < exact.value.size(); b++) {
      if (last_->status[b] != exact.status[b]) return std::numeric_limits<double>::infinity();
      if (exact.status[b] == status_ok) worst = std::max(worst, relative_difference(last_->value[b], exact.value[b]));
    }
    return worst;
  }

 private:
  RandomLattices lattices_;
  std::unique_ptr<LatticeResult> last_;
  std::vector<int> sizes_;
  std::size_t runs_ = 0;
  bool with_gradient_, in_shared_;
};

const Kind kind("lattice",
                [](Random& random) -> std::unique_ptr<Case> { return std::make_unique<LatticeCase>(random); });

}  // namespace
}  // namespace seqtrain
