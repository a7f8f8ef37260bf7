// The expected risk over random lattices.

#include "lattices.h"

namespace seqtrain {
namespace {

constexpr double largest_weight = 4e7;  // of recursion/risk.h, which doesn't go with a device's arithmetic in one unit

class RiskCase : public LatticeCase {
 public:
  explicit RiskCase(Random& random) : LatticeCase(random, 1) {
    const float scale = random.below(3) == 0 ? 1000.0f : 2.0f;
    for (int64_t a = 0; a < lattices_.all_arcs(); a++) risks_.push_back(static_cast<double>(random.number(scale)));
    for (int64_t f = 0; f < lattices_.all_finals(); f++)
      final_risks_.push_back(static_cast<double>(random.number(scale)));
    for (int64_t b = 0; b < lattices_.batch(); b++) {
      const int64_t count = lattices_.state_offsets[size(b + 1)] - lattices_.state_offsets[size(b)];
      states_.push_back(static_cast<int32_t>(count));
      starts_.push_back(static_cast<int32_t>(count > 2 && random.below(3) == 0 ? 1 : 0));
    }
  }

  uint64_t run(Order order, uint32_t seed) override {
    LatticeRun how = next(order, seed, largest_weight);
    how.starts = starts_.data();
    how.risks = risks_.data();
    how.final_risks = final_risks_.data();
    *last_ = run_lattices(lattices_, "lattice_risk", how);
    return last_->hash();
  }

  double difference() override {
    LatticeResult exact(lattices_);
    std::vector<int64_t> fault(exact.status.size());
    const Graphs graphs{lattices_.batch(),
                        lattices_.arcs.data(),
                        lattices_.weights.data(),
                        lattices_.arc_offsets.data(),
                        lattices_.final_states.data(),
                        lattices_.final_weights.data(),
                        lattices_.final_offsets.data(),
                        starts_.data(),
                        states_.data()};
    lattice_risk({graphs, risks_.data(), final_risks_.data(), exact.risk.data(), exact.value.data(),
                  with_gradient_ ? exact.arc_posteriors.data() : nullptr, exact.arc_gradients.data(),
                  exact.final_posteriors.data(), exact.final_gradients.data(), exact.status.data(), fault.data(), 1});
    return last_->difference(exact);
  }

 private:
  std::vector<double> risks_, final_risks_;
  std::vector<int32_t> starts_, states_;
};

const Kind kind("risk", [](Random& random) -> std::unique_ptr<Case> { return std::make_unique<RiskCase>(random); });

}  // namespace
}  // namespace seqtrain
