// CTC's forward-backward recursion for one utterance (equations: seqtrain/reference.py, `ctc_loss`).
//
// The 2U+1 states are kept as two arrays, the U+1 blanks and the U labels, so that every transition is a vector
// operation on neighbours without a gather:
//   blank[u] follows blank[u], label[u-1];    label[u] follows label[u], blank[u], and label[u-1] where it may skip.
// Arrays are padded by `ctc_padding` on the left and to a multiple of it on the right; what lies there is zero, so that
// loops run over whole vectors: a zero state and a zero emission give a zero state.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "number.h"

namespace seqtrain {

constexpr int64_t ctc_padding = 16;

// U+1 states, rounded up to whole vectors.
inline int64_t ctc_states(int64_t targets) { return (targets + ctc_padding) / ctc_padding * ctc_padding; }

// Width of one padded array.
inline int64_t ctc_width(int64_t targets) { return ctc_padding + ctc_states(targets); }

// Mantissas and exponents of the blank states and of the label states of one frame; index 0 is the first state.
template <class Real>
struct CtcFrame {
  using Exponent = ExponentOf<Real>;
  Real* blank;
  Real* label;
  Exponent* blank_exponent;
  Exponent* label_exponent;

  CtcFrame(Real* mantissas, Exponent* exponents, int64_t width)
      : blank(mantissas + ctc_padding),
        label(mantissas + width + ctc_padding),
        blank_exponent(exponents + ctc_padding),
        label_exponent(exponents + width + ctc_padding) {}

  void clear(int64_t width) {
    for (int64_t u = -ctc_padding; u < width - ctc_padding; u++) {
      blank[u] = label[u] = 0;
      blank_exponent[u] = label_exponent[u] = zero_exponent;
    }
  }
};

// exp(score) of the frame's targets and of blank, as mantissa and exponent.
template <class Real>
struct CtcEmission {
  using Exponent = ExponentOf<Real>;
  const Real* label;
  const Exponent* label_exponent;
  Real blank;
  Exponent blank_exponent;
};

// First frame: only the first blank and the first label are reached.
template <class Real>
inline void ctc_start(const CtcEmission<Real>& emission, CtcFrame<Real> now, int64_t targets, int64_t width) {
  now.clear(width);
  now.blank[0] = emission.blank;
  now.blank_exponent[0] = emission.blank_exponent;
  normalize(now.blank[0], now.blank_exponent[0]);
  if (targets > 0) {
    now.label[0] = emission.label[0];
    now.label_exponent[0] = emission.label_exponent[0];
    normalize(now.label[0], now.label_exponent[0]);
  }
}

// `skip[u]` is 0 where label u may follow label u-1 directly, `zero_exponent` where it may not.
template <class Real>
inline void ctc_forward(const CtcEmission<Real>& emission, const CtcFrame<Real>& before, CtcFrame<Real> now,
                        const ExponentOf<Real>* __restrict skip, int64_t states) {
  using Exponent = ExponentOf<Real>;
  const Real* __restrict blank_before = before.blank;
  const Real* __restrict label_before = before.label;
  const Exponent* __restrict blank_exponent_before = before.blank_exponent;
  const Exponent* __restrict label_exponent_before = before.label_exponent;
  const Real* __restrict label_emission = emission.label;
  const Exponent* __restrict label_emission_exponent = emission.label_exponent;
  const Real blank_emission = emission.blank;
  const Exponent blank_emission_exponent = emission.blank_exponent;
  Real* __restrict blank = now.blank;
  Real* __restrict label = now.label;
  Exponent* __restrict blank_exponent = now.blank_exponent;
  Exponent* __restrict label_exponent = now.label_exponent;
  for (int64_t u = -ctc_padding; u < 0; u++) {
    blank[u] = label[u] = 0;
    blank_exponent[u] = label_exponent[u] = zero_exponent;
  }
#pragma omp simd
  for (int64_t u = 0; u < states; u++) {
    const Real from_blank = blank_before[u], from_previous = label_before[u - 1], from_self = label_before[u];
    const Exponent e_blank = blank_exponent_before[u], e_previous = label_exponent_before[u - 1],
                   e_self = label_exponent_before[u];
    Exponent top = e_blank > e_previous ? e_blank : e_previous;
    Real m = (from_blank * power_of_two<Real>(e_blank - top) + from_previous * power_of_two<Real>(e_previous - top)) *
             blank_emission;
    Exponent e = top + blank_emission_exponent;
    normalize(m, e);
    blank[u] = m;
    blank_exponent[u] = e;

    // The largest exponent leaves a forbidden skip out: it would flush what is allowed.
    const Exponent e_skip = e_previous + skip[u];
    top = e_blank > e_self ? e_blank : e_self;
    top = e_skip > top ? e_skip : top;
    m = (from_blank * power_of_two<Real>(e_blank - top) + from_self * power_of_two<Real>(e_self - top) +
         from_previous * power_of_two<Real>(e_skip - top)) *
        label_emission[u];
    e = top + label_emission_exponent[u];
    normalize(m, e);
    label[u] = m;
    label_exponent[u] = e;
  }
}

// What lies behind the last frame: paths end in the last blank or the last label.
template <class Real>
inline void ctc_finish(CtcFrame<Real> behind, int64_t targets, int64_t width) {
  behind.clear(width);
  behind.blank[targets] = 1;
  behind.blank_exponent[targets] = 0;
  if (targets > 0) {
    behind.label[targets - 1] = 1;
    behind.label_exponent[targets - 1] = 0;
  }
}

// From beta of frame t+1 to beta of frame t, in place; `emission` is frame t+1's.  `product` is scratch, zero where no
// state is, and has one more zero behind its last label.
template <class Real>
inline void ctc_backward(const CtcEmission<Real>& emission, CtcFrame<Real> product, CtcFrame<Real> beta,
                         const ExponentOf<Real>* __restrict skip, int64_t states) {
  using Exponent = ExponentOf<Real>;
  const Real* __restrict label_emission = emission.label;
  const Exponent* __restrict label_emission_exponent = emission.label_exponent;
  const Real blank_emission = emission.blank;
  const Exponent blank_emission_exponent = emission.blank_exponent;
  Real* __restrict blank = beta.blank;
  Real* __restrict label = beta.label;
  Exponent* __restrict blank_exponent = beta.blank_exponent;
  Exponent* __restrict label_exponent = beta.label_exponent;
  Real* __restrict to_blank = product.blank;
  Real* __restrict to_label = product.label;
  Exponent* __restrict to_blank_exponent = product.blank_exponent;
  Exponent* __restrict to_label_exponent = product.label_exponent;
#pragma omp simd
  for (int64_t u = 0; u < states; u++) {
    to_blank[u] = blank[u] * blank_emission;
    to_blank_exponent[u] = blank_exponent[u] + blank_emission_exponent;
    to_label[u] = label[u] * label_emission[u];
    to_label_exponent[u] = label_exponent[u] + label_emission_exponent[u];
  }
#pragma omp simd
  for (int64_t u = 0; u < states; u++) {
    const Real into_blank = to_blank[u], into_label = to_label[u], into_next_blank = to_blank[u + 1],
               into_next_label = to_label[u + 1];
    const Exponent e_blank = to_blank_exponent[u], e_label = to_label_exponent[u],
                   e_next_blank = to_blank_exponent[u + 1], e_next_label = to_label_exponent[u + 1] + skip[u + 1];
    Exponent top = e_blank > e_label ? e_blank : e_label;
    Real m = into_blank * power_of_two<Real>(e_blank - top) + into_label * power_of_two<Real>(e_label - top);
    Exponent e = top;
    normalize(m, e);
    blank[u] = m;
    blank_exponent[u] = e;

    top = e_label > e_next_blank ? e_label : e_next_blank;
    top = e_next_label > top ? e_next_label : top;
    m = into_label * power_of_two<Real>(e_label - top) + into_next_blank * power_of_two<Real>(e_next_blank - top) +
        into_next_label * power_of_two<Real>(e_next_label - top);
    e = top;
    normalize(m, e);
    label[u] = m;
    label_exponent[u] = e;
  }
}

// Occupancies of one frame: out[0] of blank, out[1 + u] of target u.  They are divided by their own sum: in exact
// arithmetic that is the likelihood, the same for every frame; here it takes the error that the sweeps share with it.
// `scratch` holds one number a state.  Returns false where the sum is zero.
template <class Real>
inline bool ctc_occupancies(const CtcFrame<Real>& alpha, const CtcFrame<Real>& beta,
                            ExponentOf<Real> likelihood_exponent, int64_t targets, Real* __restrict scratch,
                            Real* __restrict out) {
  using Exponent = ExponentOf<Real>;
  const Real* __restrict alpha_blank = alpha.blank;
  const Real* __restrict alpha_label = alpha.label;
  const Exponent* __restrict alpha_blank_exponent = alpha.blank_exponent;
  const Exponent* __restrict alpha_label_exponent = alpha.label_exponent;
  const Real* __restrict beta_blank = beta.blank;
  const Real* __restrict beta_label = beta.label;
  const Exponent* __restrict beta_blank_exponent = beta.blank_exponent;
  const Exponent* __restrict beta_label_exponent = beta.label_exponent;
  constexpr Exponent largest = 2;  // a posterior is at most 1: mantissas below 4, exponent at most 1 from rounding
  Real blanks = 0, labels = 0;
  const int64_t states = ctc_states(targets);
#pragma omp simd reduction(+ : blanks, labels)
  for (int64_t u = 0; u < states; u++) {
    Exponent e = alpha_blank_exponent[u] + beta_blank_exponent[u] - likelihood_exponent;
    e = e > largest ? largest : e;
    blanks += alpha_blank[u] * beta_blank[u] * power_of_two<Real>(e);
    e = alpha_label_exponent[u] + beta_label_exponent[u] - likelihood_exponent;
    e = e > largest ? largest : e;
    const Real occupancy = alpha_label[u] * beta_label[u] * power_of_two<Real>(e);
    labels += occupancy;
    scratch[u] = occupancy;
  }
  const Real sum = blanks + labels;
  if (!(sum > 0)) return false;
  const Real inverse = Real{1} / sum;
  out[0] = blanks * inverse;
#pragma omp simd
  for (int64_t u = 0; u < targets; u++) out[1 + u] = scratch[u] * inverse;
  return true;
}

}  // namespace seqtrain
