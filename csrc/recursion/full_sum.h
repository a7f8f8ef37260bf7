// Steps of the forward-backward recursion over a laid-out automaton (equations: seqtrain/reference.py, `full_sum`).
// Arrays of nodes, arrivals and slots have `lanes` elements of padding on both sides, all zero.
#pragma once

#include <cstdint>

#include "graph.h"
#include "number.h"

namespace seqtrain {

// Size of a padded array for `count` items; item 0 stands at index `lanes`.
inline int64_t padded(int64_t count) { return 3 * lanes + (count + lanes - 1) / lanes * lanes; }

// One frame's values; pointers stand at item 0.
template <class Real>
struct Values {
  Real* mantissa;
  ExponentOf<Real>* exponent;
};

template <class Real>
inline void clear(Values<Real> values, int64_t count) {
  for (int64_t i = -lanes; i < padded(count) - lanes; i++) {
    values.mantissa[i] = 0;
    values.exponent[i] = zero_exponent;
  }
}

// output[i] = (Σ over arcs into i of weight · input) · emission[i]; `emission` may be null.
// Writes whole slices: up to lanes - 1 items past the last are set to zero.
template <class Real>
inline void apply(const Slices<Real>& slices, const Real* input, const ExponentOf<Real>* input_exponent,
                  const Real* emission, const ExponentOf<Real>* emission_exponent, Values<Real> output) {
  using Exponent = ExponentOf<Real>;
  constexpr int64_t rows_at_once = 8;
  for (int64_t slice = 0; slice < slices.count; slice++) {
    alignas(64) Real sum[lanes];
    alignas(64) Exponent top[lanes];
    for (int64_t i = 0; i < lanes; i++) {
      sum[i] = 0;
      top[i] = zero_exponent;
    }
    const int64_t end = slices.begin[at(slice + 1)];
    for (int64_t first = slices.begin[at(slice)]; first < end; first += rows_at_once) {
      alignas(64) Real product[rows_at_once][lanes];
      alignas(64) Exponent exponent[rows_at_once][lanes];
      alignas(64) Exponent before[lanes];
      const int64_t rows = end - first < rows_at_once ? end - first : rows_at_once;
      for (int64_t i = 0; i < lanes; i++) before[i] = top[i];
      for (int64_t r = 0; r < rows; r++) {
        const int64_t row = first + r;
        const Real* __restrict weight = slices.mantissa.data() + row * lanes;
        const Exponent* __restrict weight_exponent = slices.exponent.data() + row * lanes;
        if (slices.base[at(row)] != scattered) {
          const Real* __restrict m = input + slices.base[at(row)];
          const Exponent* __restrict e = input_exponent + slices.base[at(row)];
#pragma omp simd
          for (int64_t i = 0; i < lanes; i++) {
            product[r][i] = m[i] * weight[i];
            const Exponent k = e[i] + weight_exponent[i];
            exponent[r][i] = k;
            top[i] = k > top[i] ? k : top[i];
          }
        } else {
          const int32_t* __restrict index = slices.input.data() + row * lanes;
          alignas(64) Real m[lanes];
          alignas(64) Exponent e[lanes];
          for (int64_t i = 0; i < lanes; i++) {
            m[i] = input[index[i]];
            e[i] = input_exponent[index[i]];
          }
#pragma omp simd
          for (int64_t i = 0; i < lanes; i++) {
            product[r][i] = m[i] * weight[i];
            const Exponent k = e[i] + weight_exponent[i];
            exponent[r][i] = k;
            top[i] = k > top[i] ? k : top[i];
          }
        }
      }
#pragma omp simd
      for (int64_t i = 0; i < lanes; i++) sum[i] *= power_of_two<Real>(before[i] - top[i]);
      for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
        for (int64_t i = 0; i < lanes; i++) sum[i] += product[r][i] * power_of_two<Real>(exponent[r][i] - top[i]);
      }
    }
    Real* __restrict mantissa = output.mantissa + slice * lanes;
    Exponent* __restrict exponent = output.exponent + slice * lanes;
    if (emission != nullptr) {
      const Real* __restrict y = emission + slice * lanes;
      const Exponent* __restrict y_exponent = emission_exponent + slice * lanes;
#pragma omp simd
      for (int64_t i = 0; i < lanes; i++) {
        Real m = sum[i] * y[i];
        Exponent e = top[i] + y_exponent[i];
        normalize(m, e);
        mantissa[i] = m;
        exponent[i] = e;
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < lanes; i++) {
        Real m = sum[i];
        Exponent e = top[i];
        normalize(m, e);
        mantissa[i] = m;
        exponent[i] = e;
      }
    }
  }
}

// Sums the arrivals of each state that has several.
template <class Real>
inline void aggregate(const GraphLayout<Real>& graph, Values<Real> nodes) {
  using Exponent = ExponentOf<Real>;
  for (int64_t q = 0; q < graph.aggregates; q++) {
    const int64_t begin = graph.aggregate_begin[at(q)], end = graph.aggregate_begin[at(q + 1)];
    Exponent top = zero_exponent;
    for (int64_t m = begin; m < end; m++) top = nodes.exponent[m] > top ? nodes.exponent[m] : top;
    Real sum = 0;
    for (int64_t m = begin; m < end; m++) sum += nodes.mantissa[m] * power_of_two<Real>(nodes.exponent[m] - top);
    normalize(sum, top);
    nodes.mantissa[graph.arrivals + q] = sum;
    nodes.exponent[graph.arrivals + q] = top;
  }
}

// Before the first frame: probability one at the start.
template <class Real>
inline void start(const GraphLayout<Real>& graph, Values<Real> nodes) {
  clear(nodes, graph.nodes());
  nodes.mantissa[graph.start_node] = 1;
  nodes.exponent[graph.start_node] = 0;
}

// Behind the last frame: the final weights, relative to the largest.
template <class Real>
inline void finish(const GraphLayout<Real>& graph, Values<Real> slots) {
  clear(slots, graph.slots());
  for (int64_t s = 0; s < graph.slots(); s++) {
    const double scaled = (graph.final_weight[at(s)] - graph.largest_final_weight) * 1.4426950408889634;
    if (!(scaled > -double(largest_input_exponent))) continue;
    const double n = std::floor(scaled);
    slots.mantissa[s] = static_cast<Real>(std::exp2(scaled - n));
    slots.exponent[s] = static_cast<ExponentOf<Real>>(n);
  }
}

// product[m] = beta[slot of m] · emission[m]
template <class Real>
inline void emit_backward(const GraphLayout<Real>& graph, Values<Real> beta, const Real* __restrict emission,
                          const ExponentOf<Real>* __restrict emission_exponent, Values<Real> product) {
  const Real* __restrict b = beta.mantissa;
  const ExponentOf<Real>* __restrict b_exponent = beta.exponent;
  Real* __restrict p = product.mantissa;
  ExponentOf<Real>* __restrict p_exponent = product.exponent;
#pragma omp simd
  for (int64_t m = 0; m < graph.single; m++) {
    p[m] = b[m] * emission[m];
    p_exponent[m] = b_exponent[m] + emission_exponent[m];
  }
  for (int64_t m = graph.single; m < graph.arrivals; m++) {
    const int32_t s = graph.slot_of_arrival[at(m)];
    p[m] = b[s] * emission[m];
    p_exponent[m] = b_exponent[s] + emission_exponent[m];
  }
}

// occupancy[m] = alpha[m] · beta[slot of m] / 2^likelihood_exponent; returns their sum.
template <class Real>
inline Real occupancies(const GraphLayout<Real>& graph, Values<Real> alpha, Values<Real> beta,
                        ExponentOf<Real> likelihood_exponent, Real* __restrict occupancy) {
  using Exponent = ExponentOf<Real>;
  constexpr Exponent largest = 2;
  const Real* __restrict a = alpha.mantissa;
  const Exponent* __restrict a_exponent = alpha.exponent;
  const Real* __restrict b = beta.mantissa;
  const Exponent* __restrict b_exponent = beta.exponent;
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t m = 0; m < graph.single; m++) {
    Exponent e = a_exponent[m] + b_exponent[m] - likelihood_exponent;
    e = e > largest ? largest : e;
    occupancy[m] = a[m] * b[m] * power_of_two<Real>(e);
    sum += occupancy[m];
  }
  for (int64_t m = graph.single; m < graph.arrivals; m++) {
    const int32_t s = graph.slot_of_arrival[at(m)];
    Exponent e = a_exponent[m] + b_exponent[s] - likelihood_exponent;
    e = e > largest ? largest : e;
    occupancy[m] = a[m] * b[s] * power_of_two<Real>(e);
    sum += occupancy[m];
  }
  return sum;
}

}  // namespace seqtrain
