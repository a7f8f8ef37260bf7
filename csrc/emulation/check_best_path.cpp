// The search for the best path on random automata: the paths must be those of the CPU, ties and all.

#include "../cpu/kernels.h"
#include "../cuda/best_path.h"
#include "automata.h"
#include "check.h"

namespace seqtrain {
namespace {

struct Result {
  std::vector<double> value;
  std::vector<int64_t> labels, states, arcs, status;

  explicit Result(const AutomataBatch& in)
      : value(size(in.batch)),
        labels(size(in.batch * in.frames), -1),
        states(labels),
        arcs(labels),
        status(in.status) {}

  uint64_t hash() const {
    Hash all;
    all.add(value);
    all.add(labels);
    all.add(states);
    all.add(arcs);
    all.add(status);
    return all.value;
  }
};

Result run_cuda(AutomataBatch& in, Order order, uint32_t seed) {
  Result out(in);
  const DeviceLayout layout = lay_out_best_path(in.automata.view());
  std::vector<int32_t> back = scratch<int32_t>(in.batch * in.frames * layout.nodes);
  BestPathProblem problem{};
  problem.batch = in.batch;
  problem.scores = reinterpret_cast<const char*>(in.scores.data());
  problem.dtype = float32;
  problem.stride_utterance = in.frames * in.labels;
  problem.stride_frame = in.labels;
  problem.stride_label = 1;
  problem.lengths = in.lengths.data();
  problem.padded_frames = problem.max_frames = in.frames;
  problem.shared_graph = in.shared() ? 1 : 0;
  problem.graphs = layout.bytes.data();
  problem.reals = reinterpret_cast<const double*>(layout.bytes.data() + layout.reals);
  problem.integers = reinterpret_cast<const int32_t*>(layout.bytes.data() + layout.integers);
  problem.states = layout.nodes;
  problem.back = back.data();
  problem.value = out.value.data();
  problem.path_labels = out.labels.data();
  problem.path_states = out.states.data();
  problem.path_arcs = out.arcs.data();
  problem.status = out.status.data();
  launch("best_path_float32", in.batch, 64, reduction_bytes + 16 * layout.nodes, &problem, order, seed);
  return out;
}

Result run_cpu(AutomataBatch& in) {
  Result out(in);
  const Tensor scores{in.scores.data(), Dtype::float32, in.frames * in.labels, in.labels, 1, nullptr};
  best_path(BestPath{scores, in.batch, in.frames, in.lengths.data(), in.automata.view(), out.value.data(),
                     out.labels.data(), out.states.data(), out.arcs.data(), out.status.data(), 1});
  return out;
}

// Some scores are made equal, so that paths tie.
class BestPathCase : public Case {
 public:
  explicit BestPathCase(Random& random) : batch_(random), last_(batch_) {
    if (random.below(2) == 0) return;
    for (float& score : batch_.scores) score = std::floor(score);
    for (double& weight : batch_.automata.weights) weight = std::floor(weight);
    for (double& weight : batch_.automata.final_weights) weight = std::floor(weight);
  }
  uint64_t run(Order order, uint32_t seed) override {
    last_ = run_cuda(batch_, order, seed);
    return last_.hash();
  }
  double difference() override {
    return run_cpu(batch_).hash() == last_.hash() ? 0.0 : std::numeric_limits<double>::infinity();
  }

 private:
  AutomataBatch batch_;
  Result last_;
};

const Kind kind("best_path",
                [](Random& random) -> std::unique_ptr<Case> { return std::make_unique<BestPathCase>(random); });

}  // namespace
}  // namespace seqtrain
