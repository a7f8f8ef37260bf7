// How the blocks of a cluster share a direction of an utterance (sweep.h).
//
// Where a frame's states fit into a block's shared memory, each block has a copy of all of them: it computes its share
// and writes that into the copies of all, so that what the next frame gathers stands next to the one who gathers.
// Where they don't fit, one copy in global memory is that of all blocks.
//
// Results don't depend on the number of blocks: each state is one thread's sum in a fixed order, and sums over a frame
// are sums of integers.
#pragma once

#include "sweep.h"

namespace seqtrain {

constexpr int64_t largest_cluster = 8;
// Behind the places of a block's reduction: two sets, so that a set is written again only when all have read it.
constexpr int64_t cluster_slots = reduction_bytes / 2;
constexpr int64_t cluster_slots_bytes = largest_cluster * 8;
static_assert(largest_block / warp * 8 <= cluster_slots && cluster_slots + 2 * cluster_slots_bytes <= reduction_bytes);

class Cluster {
 public:
  const Team& team;
  const int size, rank;
  const bool in_shared_memory;

  SEQTRAIN_DEVICE Cluster(const Team& block, bool fits)
      : team(block), size(block.cluster_blocks()), rank(block.rank_in_cluster()), in_shared_memory(fits) {}

  // Items of a thread, of all that the cluster does: begin(), begin() + step(), …  Warps take turns over the blocks, as
  // neighbouring slices are about as long as each other.
  SEQTRAIN_DEVICE int begin() const { return (team.thread() / warp * size + rank) * warp + team.thread() % warp; }
  SEQTRAIN_DEVICE int step() const { return size * team.threads(); }
  // Likewise, of what its block alone does to its copy of the states, or the cluster to the only one.
  SEQTRAIN_DEVICE int own_begin() const { return in_shared_memory ? team.thread() : begin(); }
  SEQTRAIN_DEVICE int own_step() const { return in_shared_memory ? team.threads() : step(); }

  // One thread of all.
  SEQTRAIN_DEVICE bool leads() const { return rank == 0 && team.thread() == 0; }
  // One thread of those that write the same states alone.
  SEQTRAIN_DEVICE bool leads_own() const { return team.thread() == 0 && (in_shared_memory || rank == 0); }

  SEQTRAIN_DEVICE void sync() const {
    if (size > 1) {
      team.sync_cluster();
    } else {
      team.sync();
    }
  }
  // Of those that write the same states alone.
  SEQTRAIN_DEVICE void sync_own() const {
    if (in_shared_memory) {
      team.sync();
    } else {
      sync();
    }
  }
  // Until the frame that the next step reads is written everywhere.
  SEQTRAIN_DEVICE void end_of_frame() const {
// The test of the test leaves this barrier out, of a cluster's all but the block's.
#if !defined(SEQTRAIN_PLANT_BARRIER)
    sync();
#else
    if (size > 1) team.sync();
#endif
  }

  // Makes a state known to all blocks.
  template <class Real>
  SEQTRAIN_DEVICE void put(States<Real> states, int64_t s, Real mantissa, ExponentOf<Real> exponent) const {
    if (size == 1 || !in_shared_memory) {
      states.mantissa[s] = mantissa;
      states.exponent[s] = static_cast<int32_t>(exponent);
      return;
    }
    SEQTRAIN_ROLLED for (int r = 0; r < size; r++) {
      *team.peer(states.mantissa + s, r) = mantissa;
      *team.peer(states.exponent + s, r) = static_cast<int32_t>(exponent);
    }
  }

  // Every thread's value combined; all get the result.  A barrier of the cluster.
  template <class Operation, class T>
  SEQTRAIN_DEVICE T reduce(T value, Operation operation) {
    value = seqtrain::reduce(team, value, operation);
    if (size == 1) return value;
    T* slots = reinterpret_cast<T*>(team.shared(cluster_slots + turn_ * cluster_slots_bytes));
    turn_ = 1 - turn_;
    if (team.thread() < size) *team.peer(slots + rank, team.thread()) = value;
    sync();
    T all = slots[0];
    SEQTRAIN_ROLLED for (int r = 1; r < size; r++) all = operation(all, slots[r]);
    return all;
  }

  // The largest of every thread's `a`, and of every `b`; a barrier of the cluster.
  SEQTRAIN_DEVICE void largest_of_both(int32_t& a, int32_t& b) {
    a = team.largest_in_warp(a);
    b = team.largest_in_warp(b);
    const int warps = team.threads() / warp;
    auto* slot = reinterpret_cast<int32_t*>(team.shared(0));
    if (team.thread() % warp == 0) {
      slot[2 * (team.thread() / warp)] = a;
      slot[2 * (team.thread() / warp) + 1] = b;
    }
    team.sync();
    const int lane = team.thread() % warp;
    a = team.largest_in_warp(slot[lane < warps ? 2 * lane : 0]);
    b = team.largest_in_warp(slot[lane < warps ? 2 * lane + 1 : 1]);
    if (size == 1) return team.sync();  // the slots may be used again
    auto* slots = reinterpret_cast<int32_t*>(team.shared(cluster_slots + turn_ * cluster_slots_bytes));
    turn_ = 1 - turn_;
    if (team.thread() < size) {
      *team.peer(slots + 2 * rank, team.thread()) = a;
      *team.peer(slots + 2 * rank + 1, team.thread()) = b;
    }
    sync();
    SEQTRAIN_ROLLED for (int r = 0; r < size; r++) {
      a = slots[2 * r] > a ? slots[2 * r] : a;
      b = slots[2 * r + 1] > b ? slots[2 * r + 1] : b;
    }
  }

 private:
  int turn_ = 0;
};

// Σ of `count` numbers in [0, 4), all together below 4 · count, whatever the order: integers, in units that leave the
// sum room.  `wide`: a second integer has the digits below.
template <class Real, bool wide>
class OrderlessSum {
 public:
  SEQTRAIN_DEVICE explicit OrderlessSum(int64_t count) {
    for (int64_t n = 1; n < count; n *= 2) digits_--;
    unit_ = from_bits<Real>((digits_ + Format<Real>::bias) << Format<Real>::mantissa_bits);
  }
  SEQTRAIN_DEVICE void add(Real x) {
    const Real units = x * unit_;
    const int64_t whole = static_cast<int64_t>(units);
    high_ += whole;
    if constexpr (wide) low_ += static_cast<int64_t>((units - static_cast<Real>(whole)) * unit_);
  }
  SEQTRAIN_DEVICE double over(Cluster& cluster) const {
    const double unit = power_of_two<double>(-int64_t{digits_});
    double sum = static_cast<double>(cluster.reduce(high_, Sum{})) * unit;
    if constexpr (wide) sum += static_cast<double>(cluster.reduce(low_, Sum{})) * unit * unit;
    return sum;
  }

 private:
  ExponentOf<Real> digits_ = 60;
  Real unit_;
  int64_t high_ = 0, low_ = 0;
};

// The other `sum_of_products`, over the threads of a cluster.
template <class Real, class Product>
SEQTRAIN_DEVICE int64_t sum_of_products(Cluster& cluster, int64_t count, const Product& product, double& sum) {
  int64_t top = 2 * zero_exponent;
  for (int64_t i = cluster.begin(); i < count; i += cluster.step()) {
    double m;
    int64_t e;
    product(i, m, e);
    if (m > 0 && e > top) top = e;
  }
  top = cluster.reduce(top, Largest{});
  OrderlessSum<double, sizeof(Real) == sizeof(double)> all(count);
  for (int64_t i = cluster.begin(); i < count; i += cluster.step()) {
    double m;
    int64_t e;
    product(i, m, e);
    if (m > 0) all.add(m * power_of_two<double>(e - top));
  }
  sum = all.over(cluster);
  return normalized_sum(sum, top);
}

}  // namespace seqtrain
