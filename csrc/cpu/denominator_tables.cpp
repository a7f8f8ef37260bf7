// A denominator's layout in flat arrays by name, as csrc/cuda/denominator.h reads them.

#include "../recursion/denominator_slices.h"
#include "device_arrays.h"
#include "kernels.h"

namespace seqtrain {

NamedArrays lay_out_denominator_for_device(const int32_t* block) {
  const DenominatorLayout layout(block);
  const DenominatorTables tables(layout);
  NamedArrays out{};
  const auto put_array = [&](const char* name, const auto& items) {
    out.arrays.push_back({name, append(out.bytes, items), static_cast<int64_t>(items.size())});
  };
  const auto put_copy = [&](const char* name, const int32_t* items, int64_t count) {
    put_array(name, Index32(items, items + count));
  };
  const auto put_sources = [&](const char* name, const Index32& items) {
    if (tables.narrow) {
      put_array(name, std::vector<uint16_t>(items.begin(), items.end()));
    } else {
      put_array(name, items);
    }
  };
  const auto slices = [](const DenominatorSlices& arcs) {
    return static_cast<int64_t>(arcs.row.size()) / DenominatorSlices::lanes;
  };
  put_copy("column_label", layout.column_label, layout.columns);
  put_copy("column_begin", layout.column_begin, layout.columns + 1);
  put_array("arrival_column", tables.arrival_column);
  put_copy("arrival_slot", layout.arrival_slot, layout.arrivals);
  put_copy("slot_node", layout.slot_node, layout.slots);
  put_copy("aggregate_begin", layout.aggregate_begin, layout.aggregates + 1);
  put_copy("aggregate_arrival", layout.aggregate_arrival, layout.aggregate_begin[layout.aggregates]);
  put_array("incoming_row", tables.incoming.row);
  put_array("incoming_share", tables.incoming.share);
  put_array("incoming_column", tables.incoming_column);
  put_array("incoming_begin", tables.incoming.begin);
  put_sources("incoming_node", tables.incoming.from);
  put_array("incoming_arc", tables.incoming.arc);
  put_array("outgoing_row", tables.outgoing.row);
  put_array("outgoing_share", tables.outgoing.share);
  put_array("outgoing_begin", tables.outgoing.begin);
  put_sources("outgoing_arrival", tables.outgoing.from);
  put_array("outgoing_arc", tables.outgoing.arc);
  put_copy("final_slot", layout.final_slot, layout.finals);
  put_array("final_begin", tables.final_begin);
  put_array("final_order", tables.final_order);
  put_array("node_state", tables.node_state);
  out.counts = {{"columns", layout.columns},
                {"arrivals", layout.arrivals},
                {"aggregates", layout.aggregates},
                {"slots", layout.slots},
                {"start_node", layout.start_slot < 0 ? -1 : layout.slot_node[layout.start_slot]},
                {"incoming_slices", slices(tables.incoming)},
                {"outgoing_slices", slices(tables.outgoing)},
                {"finals", layout.finals},
                {"narrow", tables.narrow}};
  return out;
}

}  // namespace seqtrain
