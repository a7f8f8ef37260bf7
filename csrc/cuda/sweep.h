// How the sweeps of an utterance are divided: two launches of two blocks an utterance, one forward and one backward.
//
// In the first launch the forward block goes over frames [0, middle), the backward block over [middle, frames), and
// both store what they find.  In the second each goes on over the other's half and multiplies its values with what is
// stored there.  So the chain is `frames` steps, not twice as many, and the only synchronization between blocks is the
// end of a launch: nothing spins, and nothing depends on which blocks run at once.
#pragma once

#include "arithmetic.h"

namespace seqtrain {

SEQTRAIN_DEVICE int64_t middle_of(int64_t frames) { return (frames + 1) / 2; }

// A frame's states, mantissas and exponents, in shared memory or, where they don't fit, in the block's workspace.
template <class Real>
struct States {
  Real* mantissa;
  int32_t* exponent;
};

constexpr int64_t state_padding = 2;  // zero states on both sides

template <class Real>
SEQTRAIN_DEVICE int64_t state_bytes(int64_t states) {
  return (states + 2 * state_padding) * static_cast<int64_t>(sizeof(Real) + sizeof(int32_t));
}

// Array number `index` of worker number `worker`, each of which has `arrays`; its state 0 stands behind the padding.
template <class Real>
SEQTRAIN_DEVICE States<Real> states_of(const Team& team, char* workspace, int64_t worker, int64_t states,
                                       int64_t arrays, int64_t index) {
  char* memory =
      workspace != nullptr ? workspace + worker * arrays * state_bytes<Real>(states) : team.shared(reduction_bytes);
  const int64_t width = states + 2 * state_padding;
  Real* mantissa = reinterpret_cast<Real*>(memory) + index * width;
  int32_t* exponent = reinterpret_cast<int32_t*>(reinterpret_cast<Real*>(memory) + arrays * width) + index * width;
  return {mantissa + state_padding, exponent + state_padding};
}

template <class Real>
SEQTRAIN_DEVICE States<Real> states_of(const Team& team, char* workspace, int64_t states, int64_t arrays,
                                       int64_t index) {
  return states_of<Real>(team, workspace, team.block(), states, arrays, index);
}

template <class Real>
SEQTRAIN_DEVICE void clear_states(const Team& team, States<Real> all, int64_t states) {
  for (int64_t s = team.thread() - state_padding; s < states + state_padding; s += team.threads()) {
    all.mantissa[s] = 0;
    all.exponent[s] = zero_exponent;
  }
}

template <class Real>
SEQTRAIN_DEVICE void put_state(States<Real> states, int64_t s, Real mantissa, ExponentOf<Real> exponent) {
  normalize(mantissa, exponent);
  states.mantissa[s] = mantissa;
  states.exponent[s] = static_cast<int32_t>(exponent);
}

// Waits until the block's threads have written the frame that the next step reads.
SEQTRAIN_DEVICE void end_of_frame(const Team& team) {
#if !defined(SEQTRAIN_PLANT_BARRIER)  // the test of the test leaves this barrier out
  team.sync();
#else
  static_cast<void>(team);
#endif
}

// The product of two states relative to 2^top; a probability, so that it can't exceed 2^2 but for rounding.
template <class Real>
SEQTRAIN_DEVICE Real product_below(Real a, int32_t a_exponent, Real b, int32_t b_exponent, int64_t top) {
  ExponentOf<Real> e = static_cast<ExponentOf<Real>>(a_exponent + b_exponent - top);
  e = e > 2 ? 2 : e;
  return a * b * power_of_two<Real>(e);
}

// sum · 2^top with a sum in [1, 2), or 0; returns the new top.
SEQTRAIN_DEVICE int64_t normalized_sum(double& sum, int64_t top) {
  if (!(sum > 0)) return top;
  const int64_t above = (to_bits(sum) >> Format<double>::mantissa_bits) - Format<double>::bias;
  sum *= power_of_two<double>(-above);
  return top + above;
}

// Σ of products as sum · 2^top with a sum in [1, 2), or 0: both the same for all threads.  `each(visit)` calls
// visit(mantissa, exponent) for those of the thread.
template <class Each>
SEQTRAIN_DEVICE int64_t total_of(const Team& team, const Each& each, double& sum) {
  int64_t top = 2 * zero_exponent;
  each([&](double m, int64_t e) {
    if (m > 0 && e > top) top = e;
  });
  top = reduce(team, top, Largest{});
  sum = 0;
  each([&](double m, int64_t e) {
    if (m > 0) sum += m * power_of_two<double>(e - top);
  });
  sum = reduce(team, sum, Sum{});
  return normalized_sum(sum, top);
}

// Likewise, where `product(i)` gives mantissa and exponent.
template <class Real, class Product>
SEQTRAIN_DEVICE int64_t sum_of_products(const Team& team, int64_t count, const Product& product, double& sum) {
  return total_of(
      team,
      [&](const auto& visit) {
        for (int64_t i = team.thread(); i < count; i += team.threads()) {
          double m;
          int64_t e;
          product(i, m, e);
          visit(m, e);
        }
      },
      sum);
}

// log(sum · 2^top), -inf where nothing is there.
SEQTRAIN_DEVICE double log_of(double sum, int64_t top) {
  return sum > 0 ? fused(static_cast<double>(top), 0.69314718055994530942, logarithm(sum)) : -infinity_of<double>();
}

}  // namespace seqtrain
