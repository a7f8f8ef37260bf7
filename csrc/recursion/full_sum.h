// Steps of the forward-backward recursion over a laid-out automaton (equations: seqtrain/reference.py, `full_sum`).
// Arrays of nodes, arrivals and slots have `lanes` elements of padding on both sides, all zero.
#pragma once

#include <cstdint>

#include "graph.h"
#include "number.h"
#include "vector.h"

namespace seqtrain {

// Size of a padded array for `count` items; item 0 stands at index `lanes`.
inline int64_t padded(int64_t count) { return 3 * lanes + (count + lanes - 1) / lanes * lanes; }

// One frame's values; pointers stand at item 0.
template <class Real>
struct Values {
  Real* mantissa;
  ExponentOf<Real>* exponent;
};

// The same, to be read.
template <class Real>
struct Values<const Real> {
  const Real* mantissa;
  const ExponentOf<Real>* exponent;

  Values(const Real* m, const ExponentOf<Real>* e) : mantissa(m), exponent(e) {}
  Values(const Values<Real>& values) : mantissa(values.mantissa), exponent(values.exponent) {}
};

template <class Real>
inline void clear(Values<Real> values, int64_t count) {
  for (int64_t i = -lanes; i < padded(count) - lanes; i++) {
    values.mantissa[i] = 0;
    values.exponent[i] = zero_exponent;
  }
}

// sum · 2^top = Σ over rows of product · 2^exponent, element by element, and what sum · 2^top was where it `carries`.
template <class Real, int rows, bool carries>
inline void add_products(const Vector<Real> (&product)[rows], const BitVector<Real> (&exponent)[rows],
                         Vector<Real>& sum, BitVector<Real>& top) {
  BitVector<Real> largest = carries ? top : exponent[0];
  for (int r = carries ? 0 : 1; r < rows; r++) largest = exponent[r] > largest ? exponent[r] : largest;
  if constexpr (carries) {
    sum *= power_of_two_of_vector<Real>(top - largest);
  } else if constexpr (rows == 1) {
    sum = product[0];
  } else {
    sum = product[0] * power_of_two_of_vector<Real>(exponent[0] - largest);
  }
  for (int r = carries ? 0 : 1; r < rows; r++) sum += product[r] * power_of_two_of_vector<Real>(exponent[r] - largest);
  top = largest;
}

enum class Emits { nothing, plain, with_exponents };

// What `apply` reads and writes.
template <class Real, class Meanwhile>
struct Application {
  using Exponent = ExponentOf<Real>;
  const Slices<Real>& slices;
  const Real* __restrict input;
  const Exponent* __restrict input_exponent;
  const Real* __restrict emission;
  const Exponent* __restrict emission_exponent;
  Values<Real> output;
  const Meanwhile& meanwhile;

  template <Emits emits>
  void write(int64_t place, Vector<Real> sum, BitVector<Real> top) const {
    meanwhile(place);
    if constexpr (emits != Emits::nothing) sum *= load_vector(emission + place);
    if constexpr (emits == Emits::with_exponents) top += load_bits<Real>(emission_exponent + place);
    normalize_vector<Real>(sum, top);
    store_vector(output.mantissa + place, sum);
    store_bits<Real>(output.exponent + place, top);
  }

  // All in registers: slices of few rows, each with neighbours for sources.
  template <Emits emits, int rows>
  void neighbours(int64_t slice, int64_t end) const {
    const int64_t first = slices.begin[at(slice)];
    const int32_t* __restrict base = slices.base.data() + first;
    const Real* __restrict weight = slices.mantissa.data() + first * lanes;
    const Exponent* __restrict weight_exponent = slices.exponent.data() + first * lanes;
    for (; slice < end; slice++) {
      for (int64_t place = 0; place < lanes; place += vector_size<Real>) {
        Vector<Real> product[rows], sum;
        BitVector<Real> exponent[rows], top;
        for (int r = 0; r < rows; r++) {
          product[r] = load_vector(input + base[r] + place) * load_vector(weight + r * lanes + place);
          exponent[r] =
              load_bits<Real>(input_exponent + base[r] + place) + load_bits<Real>(weight_exponent + r * lanes + place);
        }
        add_products<Real, rows, false>(product, exponent, sum, top);
        write<emits>(slice * lanes + place, sum, top);
      }
      base += rows;
      weight += rows * lanes;
      weight_exponent += rows * lanes;
    }
  }

  template <Emits emits>
  void any(int64_t slice) const {
    constexpr int64_t vectors = lanes / vector_size<Real>;
    Vector<Real> sum[vectors];
    BitVector<Real> top[vectors];
    for (int64_t p = 0; p < vectors; p++) {
      sum[p] = Vector<Real>{};
      top[p] = BitVector<Real>{} + Exponent{zero_exponent};
    }
    for (int64_t row = slices.begin[at(slice)]; row < slices.begin[at(slice + 1)]; row++) {
      const int32_t base = slices.base[at(row)];
      const Real* m = input + base;
      const Exponent* e = input_exponent + base;
      alignas(64) Real gathered[lanes];
      alignas(64) Exponent gathered_exponent[lanes];
      if (base == scattered) {
        const int32_t* __restrict index = slices.input.data() + row * lanes;
        for (int64_t i = 0; i < lanes; i++) {
          gathered[i] = input[index[i]];
          gathered_exponent[i] = input_exponent[index[i]];
        }
        m = gathered;
        e = gathered_exponent;
      }
      for (int64_t p = 0; p < vectors; p++) {
        const int64_t place = p * vector_size<Real>;
        const Vector<Real> product[1] = {load_vector(m + place) *
                                         load_vector(slices.mantissa.data() + row * lanes + place)};
        const BitVector<Real> exponent[1] = {load_bits<Real>(e + place) +
                                             load_bits<Real>(slices.exponent.data() + row * lanes + place)};
        add_products<Real, 1, true>(product, exponent, sum[p], top[p]);
      }
    }
    for (int64_t p = 0; p < vectors; p++) write<emits>(slice * lanes + p * vector_size<Real>, sum[p], top[p]);
  }

  template <Emits emits>
  void run() const {
    for (int64_t slice = 0, end; slice < slices.count; slice = end) {
      const int32_t rows = slices.neighbours[at(slice)];
      end = slice + 1;
      while (rows > 0 && end < slices.count && slices.neighbours[at(end)] == rows) end++;
      switch (rows) {
        case 1:
          neighbours<emits, 1>(slice, end);
          break;
        case 2:
          neighbours<emits, 2>(slice, end);
          break;
        case 3:
          neighbours<emits, 3>(slice, end);
          break;
        case 4:
          neighbours<emits, 4>(slice, end);
          break;
        default:
          any<emits>(slice);
      }
    }
  }
};

// output[i] = (Σ over arcs into i of weight · input) · emission[i]; `emission` may be null, its exponents are where the
// frame is plain (emission.h).  Writes whole slices: up to lanes - 1 items past the last are set to zero.  Calls
// meanwhile(i) for each vector, with its first item.
template <class Real, class Meanwhile>
inline void apply(const Slices<Real>& slices, const Real* input, const ExponentOf<Real>* input_exponent,
                  const Real* emission, const ExponentOf<Real>* emission_exponent, Values<Real> output,
                  const Meanwhile& meanwhile) {
  const Application<Real, Meanwhile> application{slices, input,    input_exponent, emission, emission_exponent,
                                                 output, meanwhile};
  if (emission == nullptr) {
    application.template run<Emits::nothing>();
  } else if (emission_exponent == nullptr) {
    application.template run<Emits::plain>();
  } else {
    application.template run<Emits::with_exponents>();
  }
}

// The same without emissions.
template <class Real, class Meanwhile>
inline void apply(const Slices<Real>& slices, Values<Real> input, Values<Real> output, const Meanwhile& meanwhile) {
  apply(slices, input.mantissa, input.exponent, static_cast<const Real*>(nullptr),
        static_cast<const ExponentOf<Real>*>(nullptr), output, meanwhile);
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
    const SplitWeight<Real> weight(graph.final_weight[at(s)] - graph.largest_final_weight);
    slots.mantissa[s] = weight.mantissa;
    slots.exponent[s] = weight.exponent;
  }
}

// One frame on the way back: occupancy[m] = alpha[m] · beta[slot of m] / 2^likelihood_exponent and product[m] =
// beta[slot of m] · emission[m].
template <class Real>
struct BackwardFrame {
  using Exponent = ExponentOf<Real>;
  Values<const Real> alpha, beta;
  const Real* __restrict emission;
  const Exponent* __restrict emission_exponent;  // null where the frame is plain
  Real* __restrict occupancy;
  Values<Real> product;
  // What the next frame reads, and where its occupancies go.  It's asked for line by line beside this frame's loads:
  // the way back runs against what the processor foresees.
  Values<const Real> next_alpha;
  const Real* next_emission;
  const Real* next_output;

  // Returns the sum of the occupancies.  Calls meanwhile(m) for each vector of them, with its first arrival.
  template <class Meanwhile>
  Real run(const GraphLayout<Real>& graph, Exponent likelihood_exponent, const Meanwhile& meanwhile) const {
    return emission_exponent == nullptr ? run<true>(graph, likelihood_exponent, meanwhile)
                                        : run<false>(graph, likelihood_exponent, meanwhile);
  }

 private:
  static constexpr Exponent largest = 2;

  // Of the single arrivals from `m` on, a vector of which the first `count` are some.
  template <bool plain, bool whole>
  Vector<Real> step(int64_t m, Exponent likelihood_exponent, [[maybe_unused]] int64_t count) const {
    Vector<Real> b = load_vector(beta.mantissa + m);
    BitVector<Real> b_exponent = load_bits<Real>(beta.exponent + m);
    if constexpr (!whole) {
      const BitVector<Real> there = first_elements<Real>(count);
      b = (Vector<Real>)((BitVector<Real>)b & there);
      b_exponent = there ? b_exponent : BitVector<Real>{} + Exponent{zero_exponent};
    }
    BitVector<Real> e = load_bits<Real>(alpha.exponent + m) + b_exponent - likelihood_exponent;
    e = e > BitVector<Real>{} + largest ? BitVector<Real>{} + largest : e;
    const Vector<Real> value = load_vector(alpha.mantissa + m) * b * power_of_two_of_vector<Real>(e);
    store_vector(occupancy + m, value);
    store_vector(product.mantissa + m, b * load_vector(emission + m));
    store_bits<Real>(product.exponent + m, plain ? b_exponent : b_exponent + load_bits<Real>(emission_exponent + m));
    return value;
  }

  template <bool plain, class Meanwhile>
  Real run(const GraphLayout<Real>& graph, Exponent likelihood_exponent, const Meanwhile& meanwhile) const {
    const int64_t whole = graph.single / vector_size<Real> * vector_size<Real>;
    Vector<Real> sums{};
    for (int64_t m = 0; m < whole; m += vector_size<Real>) {
      __builtin_prefetch(next_alpha.mantissa + m);
      __builtin_prefetch(next_alpha.exponent + m);
      __builtin_prefetch(next_emission + m);
      __builtin_prefetch(next_output + m, 1);
      meanwhile(m);
      sums += step<plain, true>(m, likelihood_exponent, vector_size<Real>);
    }
    if (whole < graph.single) sums += step<plain, false>(whole, likelihood_exponent, graph.single - whole);
    Real sum = sum_of<Real>(sums);
    for (int64_t m = graph.single; m < graph.arrivals; m++) {
      const int32_t s = graph.slot_of_arrival[at(m)];
      Exponent e = alpha.exponent[m] + beta.exponent[s] - likelihood_exponent;
      e = e > largest ? largest : e;
      occupancy[m] = alpha.mantissa[m] * beta.mantissa[s] * power_of_two<Real>(e);
      sum += occupancy[m];
      product.mantissa[m] = beta.mantissa[s] * emission[m];
      product.exponent[m] = beta.exponent[s] + (plain ? 0 : emission_exponent[m]);
    }
    return sum;
  }
};

}  // namespace seqtrain
