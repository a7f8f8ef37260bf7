// Expected risk over the paths of a lattice (equations: seqtrain/reference.py, `expected_risk`).
//
// The backward sweep pulls (probability, risk) pairs over the arcs that leave a state, and keeps the probability of
// each arc given its source.  The forward sweep needs these alone: it is a walk over a Markov chain, free of exponents.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "exponential.h"
#include "number.h"

namespace seqtrain {

// The exponents of a lattice are not relative to a frame's best, so there is no floor: a sum over 2^31 arcs fits.
constexpr int64_t dead_exponent = -(int64_t{1} << 62);
// Above, `split_exponential` would clamp.
constexpr double largest_weight = 4e7;

// What leaves a state: Σ over the paths to the end of their probability, as mantissa and exponent, and the risk that is
// expected along them.
struct Ahead {
  double mantissa;
  int64_t exponent;
  double risk;
};

// What comes into a state: the probability that a path passes it, and that times the risk expected up to it.
struct Behind {
  double occupancy;
  double risk;
};

// The way out of one state: its arcs and its final weights.
class Leaving {
 public:
  // First all ways out, with what lies ahead of each …
  void look(double weight_mantissa, int64_t weight_exponent, const Ahead& ahead, double& product, int64_t& exponent) {
    product = weight_mantissa * ahead.mantissa;
    exponent = product > 0 ? weight_exponent + ahead.exponent : dead_exponent;
    top_ = exponent > top_ ? exponent : top_;
  }

  bool alive() const { return top_ > dead_exponent; }

  // … then each once more: `product` becomes its share, relative to the largest exponent.
  void add(double& product, int64_t exponent, double risk) {
    product *= power_of_two<double>(exponent - top_);
    sum_ += product;
    risk_ += product * risk;
  }

  // The pair of the state; `scale` turns shares into probabilities.
  Ahead total(double& scale) const {
    scale = 1 / sum_;
    int shift = 0;
    const double mantissa = std::frexp(sum_, &shift);
    return {2 * mantissa, top_ + shift - 1, risk_ * scale};
  }

 private:
  int64_t top_ = dead_exponent;
  double sum_ = 0, risk_ = 0;
};

}  // namespace seqtrain
