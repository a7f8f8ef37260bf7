// The full sum's kernels on random automata: values, the dense gradient, occupancies of arcs and of final states.

#include "../cpu/kernels.h"
#include "../cuda/full_sum.h"
#include "automata.h"
#include "row_pass.h"

namespace seqtrain {
namespace {

struct Result {
  std::vector<double> value, arcs, finals;
  std::vector<float> gradient;
  std::vector<int64_t> status;

  explicit Result(const AutomataBatch& in)
      : value(size(in.batch)),
        arcs(size(in.arc_places())),
        finals(size(in.final_places())),
        gradient(size(in.batch * in.frames * in.labels)),
        status(in.status) {}

  uint64_t hash() const {
    Hash all;
    all.add(value);
    all.add(arcs);
    all.add(finals);
    all.add(gradient);
    all.add(status);
    return all.value;
  }
};

Result run_cuda(AutomataBatch& in, bool with_weights, Order order, uint32_t seed) {
  const int64_t rows = in.batch * in.frames;
  Result out(in);
  std::vector<int64_t> columns(in.used.size() * size(in.width));
  const DeviceLayout layout = lay_out_for_device<float>(in.automata.view(), true, in.width, columns.data(), 1);
  std::vector<float> occupancies = scratch<float>(rows * in.width), store = scratch<float>(rows * layout.nodes),
                     carry = scratch<float>(2 * in.batch * layout.nodes);
  std::vector<int32_t> store_exponent = scratch<int32_t>(rows * layout.nodes),
                       carry_exponent = scratch<int32_t>(2 * in.batch * layout.nodes);
  std::vector<double> halves(2 * out.arcs.size());
  const std::vector<double> weight(size(in.batch), 1.5);

  RowPass pass(in, columns, in.width, in.shared(), 1, out.value, out.status);
  pass.differentiate(out.gradient, weight, occupancies);

  FullSumProblem sweep{};
  pass.hand_to(sweep);
  sweep.shared_graph = in.shared() ? 1 : 0;
  sweep.graphs = layout.bytes.data();
  sweep.reals = layout.bytes.data() + layout.reals;
  sweep.integers = reinterpret_cast<const int32_t*>(layout.bytes.data() + layout.integers);
  sweep.columns = in.width;
  sweep.nodes = layout.nodes;
  sweep.store = store.data();
  sweep.store_exponent = store_exponent.data();
  sweep.carry = carry.data();
  sweep.carry_exponent = carry_exponent.data();
  sweep.with_gradient = 1;
  sweep.occupancies = occupancies.data();
  if (with_weights) {
    sweep.arc_occupancies = halves.data();
    sweep.arc_places = in.arc_places();
    sweep.final_occupancies = out.finals.data();
  }

  constexpr int threads = 64;
  sweep.nodes_of_thread = (layout.nodes + threads - 1) / threads;
  if (sweep.nodes_of_thread > most_nodes_of_thread) sweep.nodes_of_thread = 0;
  const int64_t shared = reduction_bytes + std::max(2 * state_bytes<float>(layout.nodes),
                                                    narrow_state_bytes<float>(in.width, layout.nodes));
  pass.emit(order, seed);
  for (sweep.phase = 0; sweep.phase < 2; sweep.phase++)
    launch("full_sum_sweep_float32", 2 * in.batch, threads, shared, &sweep, order, seed);
  launch("full_sum_occupancies_float32", rows, threads, reduction_bytes, &sweep, order, seed);
  launch("values", in.batch, threads, reduction_bytes, &pass.problem, order, seed);
  pass.write_gradient(order, seed);
  for (std::size_t a = 0; a < out.arcs.size(); a++) out.arcs[a] = halves[a] + halves[out.arcs.size() + a];
  return out;
}

Result run_cpu(AutomataBatch& in) {
  Result out(in);
  std::vector<int64_t> columns(in.used.size() * size(in.width), -1);
  std::vector<float> occupancies(size(in.batch * in.frames * in.width));
  std::vector<double> weight(size(in.batch), 1.5);
  const Tensor scores{in.scores.data(), Dtype::float32, in.frames * in.labels, in.labels, 1, nullptr};
  const Tensor gradient{out.gradient.data(), Dtype::float32, in.frames * in.labels, in.labels, 1, nullptr};
  full_sum(FullSum<float>{scores, in.batch, in.frames, in.lengths.data(), in.automata.view(), in.width,
                          out.value.data(), occupancies.data(), columns.data(), out.arcs.data(), out.finals.data(),
                          out.status.data(), 1});
  scatter_occupancies(Scatter<float>{gradient, in.batch, in.labels, in.frames, in.width, in.lengths.data(),
                                     occupancies.data(), columns.data(), in.shared(), weight.data(), out.status.data(),
                                     1});
  return out;
}

double largest_difference(const Result& a, const Result& b, bool with_weights) {
  double worst = 0;
  for (std::size_t i = 0; i < a.value.size(); i++) {
    if (a.status[i] != b.status[i]) return std::numeric_limits<double>::infinity();
    if (a.status[i] == 0) worst = std::max(worst, relative_difference(a.value[i], b.value[i]));
  }
  for (std::size_t i = 0; with_weights && i < a.arcs.size(); i++)
    worst = std::max(worst, relative_difference(a.arcs[i], b.arcs[i]));
  if (with_weights) worst = std::max(worst, largest_difference_of(a.finals, b.finals));
  return std::max(worst, largest_difference_of(a.gradient, b.gradient));
}

class FullSumCase : public Case {
 public:
  explicit FullSumCase(Random& random) : batch_(random), with_weights_(random.below(3) == 0), last_(batch_) {}
  uint64_t run(Order order, uint32_t seed) override {
    last_ = run_cuda(batch_, with_weights_, order, seed);
    return last_.hash();
  }
  double difference() override { return largest_difference(last_, run_cpu(batch_), with_weights_); }

 private:
  AutomataBatch batch_;
  bool with_weights_;
  Result last_;
};

const Kind kind("full_sum",
                [](Random& random) -> std::unique_ptr<Case> { return std::make_unique<FullSumCase>(random); });

}  // namespace
}  // namespace seqtrain
