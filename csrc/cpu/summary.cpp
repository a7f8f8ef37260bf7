// What is known of a graph before any recursion: how many frames it accepts, and how many distinct labels it uses.

#include <algorithm>
#include <limits>

#include "graph_view.h"
#include "kernels.h"
#include "parallel.h"

namespace seqtrain {

void summarize(const Graphs& graphs, int64_t* fewest, int64_t* most, int64_t* labels, int threads) {
  std::vector<double> work(at(graphs.graphs));
  for (int64_t g = 0; g < graphs.graphs; g++)
    work[at(g)] = 4.0 * static_cast<double>(graphs.arc_offsets[g + 1] - graphs.arc_offsets[g]);
  for_each_utterance<UsefulArcs>(work, threads, [&](int64_t g, UsefulArcs& useful) {
    const GraphView graph = view(graphs, g);
    useful.build(graph);
    fewest[g] = -1;
    most[g] = -1;
    labels[g] = 0;
    if (!useful.state(graph.start)) return;

    std::vector<int32_t> seen;
    std::vector<int64_t> missing(at(graph.states), 0);  // useful arcs into a state that are not yet followed
    for (int64_t a = 0; a < graph.arcs; a++)
      if (useful.arc(graph, a)) {
        if (seen.empty() || seen.back() != graph.label(a)) seen.push_back(graph.label(a));
        missing[at(graph.destination(a))]++;
      }
    std::sort(seen.begin(), seen.end());
    labels[g] = std::unique(seen.begin(), seen.end()) - seen.begin();

    std::vector<char> is_final(at(graph.states), 0);
    for (int64_t f = 0; f < graph.finals; f++)
      if (graph.final_weight[f] > -std::numeric_limits<double>::infinity()) is_final[at(graph.final_state[f])] = 1;

    // Fewest frames: breadth first.
    std::vector<int64_t> distance(at(graph.states), -1);
    std::vector<int32_t> queue{graph.start};
    distance[at(graph.start)] = 0;
    for (std::size_t i = 0; i < queue.size() && fewest[g] < 0; i++) {
      const int32_t s = queue[i];
      if (is_final[at(s)] != 0) fewest[g] = distance[at(s)];
      for (int64_t k = useful.by_source.begin[at(s)]; k < useful.by_source.begin[at(s + 1)]; k++) {
        const int32_t a = useful.by_source.order[at(k)];
        if (!useful.arc(graph, a) || distance[at(graph.destination(a))] >= 0) continue;
        distance[at(graph.destination(a))] = distance[at(s)] + 1;
        queue.push_back(graph.destination(a));
      }
    }

    // Most frames: longest path in topological order; where a cycle is left over there is no bound.
    if (missing[at(graph.start)] > 0) return;
    std::vector<int64_t> longest(at(graph.states), 0);
    queue.assign(1, graph.start);
    int64_t useful_states = 0, best = -1;
    for (int64_t s = 0; s < graph.states; s++) useful_states += useful.state(s) ? 1 : 0;
    for (std::size_t i = 0; i < queue.size(); i++) {
      const int32_t s = queue[i];
      if (is_final[at(s)] != 0) best = std::max(best, longest[at(s)]);
      for (int64_t k = useful.by_source.begin[at(s)]; k < useful.by_source.begin[at(s + 1)]; k++) {
        const int32_t a = useful.by_source.order[at(k)];
        if (!useful.arc(graph, a)) continue;
        const int32_t d = graph.destination(a);
        longest[at(d)] = std::max(longest[at(d)], longest[at(s)] + 1);
        if (--missing[at(d)] == 0) queue.push_back(d);
      }
    }
    if (static_cast<int64_t>(queue.size()) == useful_states) most[g] = best;
  });
}

}  // namespace seqtrain
