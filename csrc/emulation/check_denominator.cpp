// The shared denominator's kernels on random automata, with and without a leak.

#include <algorithm>

#include "../cpu/kernels.h"
#include "../cuda/denominator.h"
#include "../recursion/denominator_slices.h"
#include "row_pass.h"

namespace seqtrain {
namespace {

struct Batch {
  int64_t batch, frames, labels, states;
  double leak;
  int64_t segment;
  bool narrow, alone;  // how an arc is stored: its source in 16 bits, its weight without an exponent
  std::vector<float> scores;
  std::vector<int64_t> lengths;
  std::vector<int32_t> arcs, final_states;
  std::vector<double> weights, final_weights, distribution;
  int32_t start;
  std::vector<int64_t> arc_offsets, final_offsets;
  std::vector<int32_t> starts, num_states, block;
  int64_t cluster;
  bool in_shared_memory, fetching;  // where states stand, and whether emissions are fetched to them

  // States entered by one arc and by many, by one label and by several; one final state or all; scores flat and peaky.
  Batch(Random& random, int64_t blocks)
      : batch(3),
        frames(blocks > 1 ? 4 + random.below(8) : 6 + random.below(30)),
        labels(3 + random.below(9)),
        states(2 + random.below(60)),
        leak(random.below(2) == 0 ? 0.0 : 0.1),
        segment(1 + random.below(8)),
        narrow(random.below(2) == 0),
        alone(random.below(2) == 0) {
    const float scale = random.below(3) == 0 ? 40.0f : 3.0f;
    for (int64_t i = 0; i < batch * frames * labels; i++) scores.push_back(random.number(scale));
    const bool all_final = random.below(2) == 0, label_on_state = random.below(2) == 0, crowded = random.below(3) == 0;
    for (int64_t s = 0; s < states; s++) {
      const int64_t degree = 1 + random.below(s == 0 ? 30 : 6);
      for (int64_t i = 0; i < degree; i++) {
        const int64_t to = i == 0 ? (s + 1) % states : crowded && i % 2 == 0 ? 0 : random.below(states);
        arcs.push_back(static_cast<int32_t>(s));
        arcs.push_back(static_cast<int32_t>(to));
        arcs.push_back(static_cast<int32_t>(label_on_state ? to * 7 % labels : random.below(labels)));
        weights.push_back(static_cast<double>(random.number(alone ? 20.0f : i > 0 ? 200.0f : 3.0f)));
      }
      distribution.push_back(1.0 / static_cast<double>(states));
      if (!all_final && s != states - 1) continue;
      final_states.push_back(static_cast<int32_t>(s));
      final_weights.push_back(static_cast<double>(random.number(1.0f)));
    }
    start = static_cast<int32_t>(random.below(states));
    arc_offsets = {0, static_cast<int64_t>(weights.size())};
    final_offsets = {0, static_cast<int64_t>(final_weights.size())};
    starts = {start};
    num_states = {static_cast<int32_t>(states)};
    for (int64_t b = 0; b < batch; b++) lengths.push_back(b == 1 ? random.below(3) : random.below(frames + 1));
    block = lay_out_denominator(graphs());
    cluster = blocks;
    in_shared_memory = random.below(3) > 0;
    fetching = random.below(2) == 0;
  }

  Graphs graphs() const {
    return {1,
            arcs.data(),
            weights.data(),
            arc_offsets.data(),
            final_states.data(),
            final_weights.data(),
            final_offsets.data(),
            starts.data(),
            num_states.data()};
  }
  int64_t num_arcs() const { return static_cast<int64_t>(weights.size()); }
  int64_t num_finals() const { return static_cast<int64_t>(final_weights.size()); }
};

struct Result {
  std::vector<double> value, arcs, finals;
  std::vector<float> occupancies;
  std::vector<int64_t> status;

  Result(const Batch& in, int64_t columns)
      : value(size(in.batch)),
        arcs(size(in.batch * in.num_arcs())),
        finals(size(in.batch * in.num_finals())),
        occupancies(size(in.batch * in.frames * columns)),
        status(size(in.batch)) {}

  uint64_t hash() const {
    Hash all;
    all.add(value);
    all.add(arcs);
    all.add(finals);
    all.add(occupancies);
    all.add(status);
    return all.value;
  }
};

struct Weights {
  std::vector<float> mantissa;
  std::vector<int32_t> exponent;

  Weights(int64_t count, const int32_t* item, const std::vector<double>& weight, bool logarithmic, double number,
          bool alone, Order order, uint32_t seed)
      : mantissa(size(count)), exponent(size(alone ? 0 : count)) {
    DenominatorWeightsProblem problem{};
    problem.count = count;
    problem.item = item;
    problem.weight = weight.data();
    problem.logarithmic = logarithmic ? 1 : 0;
    problem.largest = logarithmic ? number : 0;
    problem.factor = logarithmic ? 0 : number;
    problem.mantissa = mantissa.data();
    problem.exponent = alone ? nullptr : exponent.data();
    launch("denominator_weights_float32", 2, 32, reduction_bytes, &problem, order, seed);
  }
};

Result run_cuda(const Batch& in, Order order, uint32_t seed) {
  const DenominatorLayout layout(in.block.data());
  const int64_t columns = layout.columns, width = layout.nodes() + 1;
  Result out(in, columns);
  if (layout.start_slot < 0) {
    out.status.assign(size(in.batch), status_no_path);
    return out;
  }
  const DenominatorTables tables(layout);
  const DenominatorSlices &incoming = tables.incoming, &outgoing = tables.outgoing;
  const std::vector<uint16_t> short_nodes(incoming.from.begin(), incoming.from.end());
  const std::vector<uint16_t> short_arrivals(outgoing.from.begin(), outgoing.from.end());
  const auto count = [](const DenominatorSlices& arcs) { return static_cast<int64_t>(arcs.arc.size()); };
  const auto largest_of = [](const std::vector<double>& all) { return *std::max_element(all.begin(), all.end()); };
  const double largest = largest_of(in.weights), largest_final = largest_of(in.final_weights);
  const Weights into(count(incoming), incoming.arc.data(), in.weights, true, largest, in.alone, order, seed);
  const Weights out_of(count(outgoing), outgoing.arc.data(), in.weights, true, largest, in.alone, order, seed);
  const Weights finals(in.num_finals(), nullptr, in.final_weights, true, largest_final, false, order, seed);
  const Weights leak(layout.nodes(), tables.node_state.data(), in.distribution, false, in.leak, false, order, seed);

  const std::vector<int64_t> labels(layout.column_label, layout.column_label + columns);
  RowPass pass(in, labels, columns, true, 1, out.value, out.status);

  const int64_t segments = (middle_of(in.frames) + in.segment - 1) / in.segment;
  std::vector<float> store = scratch<float>(2 * in.batch * in.segment * width),
                     checkpoint = scratch<float>(2 * in.batch * segments * width),
                     carry = scratch<float>(2 * in.batch * width);
  std::vector<int32_t> store_exponent = scratch<int32_t>(2 * in.batch * in.segment * width),
                       checkpoint_exponent = scratch<int32_t>(2 * in.batch * segments * width),
                       carry_exponent = scratch<int32_t>(2 * in.batch * width);
  std::vector<double> arc_sums(size(2 * in.batch * count(incoming)));
  DenominatorProblem sweep{};
  pass.hand_to(sweep);
  sweep.columns = columns;
  sweep.arrivals = layout.arrivals;
  sweep.aggregates = layout.aggregates;
  sweep.slots = layout.slots;
  sweep.start_node = layout.slot_node[layout.start_slot];
  sweep.column_begin = layout.column_begin;
  sweep.arrival_column = tables.arrival_column.data();
  sweep.arrival_slot = layout.arrival_slot;
  sweep.slot_node = layout.slot_node;
  sweep.aggregate_begin = layout.aggregate_begin;
  sweep.aggregate_arrival = layout.aggregate_arrival;
  sweep.narrow = in.narrow ? 1 : 0;
  sweep.incoming_slices = static_cast<int64_t>(incoming.row.size()) / warp;
  sweep.incoming_row = incoming.row.data();
  sweep.incoming_share = incoming.share.data();
  sweep.incoming_column = tables.incoming_column.data();
  sweep.incoming_begin = incoming.begin.data();
  sweep.incoming_node = in.narrow ? static_cast<const void*>(short_nodes.data()) : incoming.from.data();
  sweep.incoming_mantissa = into.mantissa.data();
  sweep.incoming_exponent = in.alone ? nullptr : into.exponent.data();
  sweep.outgoing_slices = static_cast<int64_t>(outgoing.row.size()) / warp;
  sweep.outgoing_row = outgoing.row.data();
  sweep.outgoing_share = outgoing.share.data();
  sweep.outgoing_begin = outgoing.begin.data();
  sweep.outgoing_arrival = in.narrow ? static_cast<const void*>(short_arrivals.data()) : outgoing.from.data();
  sweep.outgoing_mantissa = out_of.mantissa.data();
  sweep.outgoing_exponent = in.alone ? nullptr : out_of.exponent.data();
  sweep.finals = layout.finals;
  sweep.final_slot = layout.final_slot;
  sweep.final_begin = tables.final_begin.data();
  sweep.final_order = tables.final_order.data();
  sweep.final_mantissa = finals.mantissa.data();
  sweep.final_exponent = finals.exponent.data();
  sweep.largest_weight = largest;
  sweep.largest_final_weight = largest_final;
  sweep.leak_mantissa = in.leak > 0 ? leak.mantissa.data() : nullptr;
  sweep.leak_exponent = leak.exponent.data();
  sweep.segment = in.segment;
  sweep.segments = segments;
  sweep.store = store.data();
  sweep.store_exponent = store_exponent.data();
  sweep.checkpoint = checkpoint.data();
  sweep.checkpoint_exponent = checkpoint_exponent.data();
  sweep.carry = carry.data();
  sweep.carry_exponent = carry_exponent.data();
  sweep.with_gradient = 1;
  sweep.occupancies = out.occupancies.data();
  sweep.arc_occupancies = arc_sums.data();
  sweep.arc_places = count(incoming);
  sweep.final_occupancies = out.finals.data();

  std::vector<char> workspace = scratch<char>(in.in_shared_memory ? 0 : 2 * in.batch * 2 * state_bytes<float>(width));
  sweep.workspace = in.in_shared_memory ? nullptr : workspace.data();
  sweep.emissions_in_shared_memory = in.in_shared_memory && in.fetching ? 1 : 0;
  const int64_t shared = in.in_shared_memory ? 2 * state_bytes<float>(width) + (in.fetching ? 16 * columns : 0) : 0;
  constexpr int threads = 64;
  pass.emit(order, seed);
  for (sweep.phase = 0; sweep.phase < 2; sweep.phase++)
    launch("denominator_sweep_float32", 2 * in.batch * in.cluster, in.cluster > 1 ? 32 : threads,
           reduction_bytes + shared, &sweep, order, seed, in.cluster);
  launch("values", in.batch, threads, reduction_bytes, &pass.problem, order, seed);
  for (int64_t b = 0; b < in.batch; b++)
    for (int64_t place = 0; place < count(incoming); place++)
      if (incoming.arc[size(place)] >= 0)
        out.arcs[size(b * in.num_arcs() + incoming.arc[size(place)])] =
            arc_sums[size(2 * b * count(incoming) + place)] + arc_sums[size((2 * b + 1) * count(incoming) + place)];
  return out;
}

Result run_cpu(const Batch& in) {
  const DenominatorLayout layout(in.block.data());
  Result out(in, layout.columns);
  std::vector<float> scores = in.scores;
  const Tensor tensor{scores.data(), Dtype::float32, in.frames * in.labels, in.labels, 1, nullptr};
  denominator(
      Denominator<float>{{tensor, in.batch, in.frames, in.lengths.data(), in.graphs(), layout.columns, out.value.data(),
                          out.occupancies.data(), nullptr, out.arcs.data(), out.finals.data(), out.status.data(), 1},
                         in.block.data(),
                         in.leak,
                         in.distribution.data()});
  return out;
}

double largest_difference(const Batch& in, const Result& a, const Result& b) {
  double worst = 0;
  const int64_t columns = static_cast<int64_t>(a.occupancies.size()) / (in.batch * in.frames);
  // What stands past an utterance's end isn't defined, nor where there is no path.
  const auto compare = [&](const auto& x, const auto& y, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const auto p = static_cast<double>(x[size(i)]), q = static_cast<double>(y[size(i)]);
      const double difference = relative_difference(p, q);
      worst = difference <= worst ? worst : difference;
    }
  };
  for (int64_t u = 0; u < in.batch; u++) {
    if (a.status[size(u)] != b.status[size(u)]) return std::numeric_limits<double>::infinity();
    if (a.status[size(u)] != 0) continue;
    compare(a.value, b.value, u, u + 1);
    compare(a.occupancies, b.occupancies, u * in.frames * columns, (u * in.frames + in.lengths[size(u)]) * columns);
    compare(a.arcs, b.arcs, u * in.num_arcs(), (u + 1) * in.num_arcs());
    compare(a.finals, b.finals, u * in.num_finals(), (u + 1) * in.num_finals());
  }
  return worst;
}

class SharedDenominator : public Case {
 public:
  SharedDenominator(Random& random, int64_t cluster) : batch_(random, cluster), last_(batch_, 0) {}
  uint64_t run(Order order, uint32_t seed) override {
    last_ = run_cuda(batch_, order, seed);
    return last_.hash();
  }
  double difference() override {
    // Any number of blocks leaves the same bits, wherever states stand and however arcs are stored.
    Batch plain = batch_;
    plain.cluster = 1;
    plain.alone = false;
    plain.narrow = !plain.narrow;
    plain.in_shared_memory = !plain.in_shared_memory;
    plain.fetching = !plain.fetching;
    if (run_cuda(plain, Order::ascending, 0).hash() != last_.hash()) return std::numeric_limits<double>::infinity();
    return largest_difference(batch_, last_, run_cpu(batch_));
  }

 private:
  Batch batch_;
  Result last_;
};

const Kind block_alone("denominator", [](Random& random) -> std::unique_ptr<Case> {
  return std::make_unique<SharedDenominator>(random, 1);
});
const Kind clusters("denominator_cluster", [](Random& random) -> std::unique_ptr<Case> {
  return std::make_unique<SharedDenominator>(random, int64_t{2} << random.below(3));
});

}  // namespace
}  // namespace seqtrain
