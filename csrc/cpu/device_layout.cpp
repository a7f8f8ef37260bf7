// The layouts of a batch of automata in flat arrays, for kernels that run on a device (csrc/cuda/graph_table.h).

#include <limits>

#include "../cuda/graph_table.h"
#include "device_arrays.h"
#include "graph_view.h"
#include "kernels.h"
#include "parallel.h"

namespace seqtrain {
namespace {

static_assert(slice_lanes == lanes && without_base == scattered);

template <class Real>
struct Workspace {
  GraphLayout<Real> layout;
  Grouping by_column;
};

template <class Real>
struct FlatGraph {
  GraphTable table{};
  std::vector<int32_t> integers;
  std::vector<Real> reals;
  std::vector<int32_t> labels;

  // Log weights; -inf for none.
  template <class Weight>
  void put_weights(int64_t count, const Weight& weight, int64_t& exponent_place, int64_t& mantissa_place) {
    exponent_place = static_cast<int64_t>(integers.size());
    mantissa_place = static_cast<int64_t>(reals.size());
    integers.resize(integers.size() + at(count));
    reals.resize(reals.size() + at(count));
    for (int64_t i = 0; i < count; i++) {
      const SplitWeight<Real> split(weight(i));
      reals[at(mantissa_place + i)] = split.mantissa;
      integers[at(exponent_place + i)] = static_cast<int32_t>(split.exponent);
    }
  }

  SliceTable put_slices(const Slices<Real>& slices) {
    SliceTable place{};
    place.begin = put(integers, slices.begin);
    place.base = put(integers, slices.base);
    place.input = put(integers, slices.input);
    place.exponent = put(integers, slices.exponent);
    place.mantissa = put(reals, slices.mantissa);
    return place;
  }

  void build(const GraphView& graph, bool with_weights, Workspace<Real>& work) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    GraphLayout<Real>& layout = work.layout;
    layout.build(graph);
    const std::size_t slices = layout.incoming.input.size() + layout.outgoing.input.size();
    integers.reserve(3 * slices + 8 * at(layout.nodes() + graph.arcs + graph.finals + 16));
    reals.reserve(slices + at(layout.nodes() + graph.arcs + graph.finals));
    table.single = layout.single;
    table.arrivals = layout.arrivals;
    table.aggregates = layout.aggregates;
    table.columns = static_cast<int64_t>(layout.column_label.size());
    table.arcs = graph.arcs;
    table.finals = graph.finals;
    table.start_node = layout.start_node;
    table.largest_weight = layout.largest_weight;
    table.largest_final_weight = layout.largest_final_weight;
    table.empty = layout.start_slot >= 0 ? layout.final_weight[at(layout.start_slot)] : -infinity;
    table.incoming = put_slices(layout.incoming);
    table.outgoing = put_slices(layout.outgoing);
    table.column = put(integers, layout.column);
    table.slot_of_arrival = put(integers, layout.slot_of_arrival);
    table.aggregate_begin = put(integers, layout.aggregate_begin);
    Grouping& by_column = work.by_column;
    by_column.build(table.columns, layout.arrivals, [&](int64_t m) { return int64_t{layout.column[at(m)]}; });
    table.column_begin = put(integers, by_column.begin);
    table.column_arrival = put(integers, by_column.order);
    labels = layout.column_label;
    put_weights(
        layout.slots(), [&](int64_t s) { return layout.final_weight[at(s)] - layout.largest_final_weight; },
        table.slot_exponent, table.slot_mantissa);
    if (!with_weights) return;
    table.arc_source = put(integers, layout.arc_source);
    table.arc_arrival = put(integers, layout.arc_arrival);
    put_weights(
        graph.arcs, [&](int64_t a) { return graph.weight[a] - layout.largest_weight; }, table.arc_exponent,
        table.arc_mantissa);
    table.final_slot = put(integers, layout.final_slot);
    put_weights(
        graph.finals, [&](int64_t f) { return graph.final_weight[f] - layout.largest_final_weight; },
        table.final_exponent, table.final_mantissa);
  }

  // Moves the places behind those of the graphs before.
  void shift(int64_t to_integers, int64_t to_reals) {
    for (int64_t* place : {&table.incoming.begin, &table.incoming.base, &table.incoming.input, &table.incoming.exponent,
                           &table.outgoing.begin, &table.outgoing.base, &table.outgoing.input, &table.outgoing.exponent,
                           &table.column, &table.slot_of_arrival, &table.aggregate_begin, &table.column_begin,
                           &table.column_arrival, &table.slot_exponent, &table.arc_source, &table.arc_arrival,
                           &table.arc_exponent, &table.final_slot, &table.final_exponent})
      *place += to_integers;
    for (int64_t* place : {&table.incoming.mantissa, &table.outgoing.mantissa, &table.slot_mantissa,
                           &table.arc_mantissa, &table.final_mantissa})
      *place += to_reals;
  }
};

}  // namespace

template <class Real>
DeviceLayout lay_out_for_device(const Graphs& graphs, bool with_weights, int64_t width, int64_t* column_labels,
                                int threads) {
  std::vector<FlatGraph<Real>> flat(at(graphs.graphs));
  std::vector<double> work(at(graphs.graphs));
  for (int64_t g = 0; g < graphs.graphs; g++)
    work[at(g)] = 16.0 * static_cast<double>(graphs.arc_offsets[g + 1] - graphs.arc_offsets[g] + 16);
  for_each_utterance<Workspace<Real>>(work, threads, [&](int64_t g, Workspace<Real>& workspace) {
    flat[at(g)].build(view(graphs, g), with_weights, workspace);
  });
  DeviceLayout out{};
  std::vector<GraphTable> tables;
  int64_t integers = 0, reals = 0;
  for (int64_t g = 0; g < graphs.graphs; g++) {
    FlatGraph<Real>& one = flat[at(g)];
    one.shift(integers, reals);
    integers += static_cast<int64_t>(one.integers.size());
    reals += static_cast<int64_t>(one.reals.size());
    one.table.first_arc = graphs.arc_offsets[g];
    one.table.first_final = graphs.final_offsets[g];
    tables.push_back(one.table);
    out.nodes = std::max(out.nodes, one.table.arrivals + one.table.aggregates);
    for (int64_t k = 0; k < width; k++) column_labels[g * width + k] = k < one.table.columns ? one.labels[at(k)] : -1;
  }
  out.bytes.reserve(tables.size() * sizeof(GraphTable) + at(reals) * sizeof(Real) + at(integers) * 4 + 64);
  append(out.bytes, tables);
  out.reals = append(out.bytes, std::vector<Real>{});
  for (const FlatGraph<Real>& one : flat) extend(out.bytes, one.reals);
  out.integers = append(out.bytes, std::vector<int32_t>{});
  for (const FlatGraph<Real>& one : flat) extend(out.bytes, one.integers);
  return out;
}

template DeviceLayout lay_out_for_device<float>(const Graphs&, bool, int64_t, int64_t*, int);
template DeviceLayout lay_out_for_device<double>(const Graphs&, bool, int64_t, int64_t*, int);

}  // namespace seqtrain
