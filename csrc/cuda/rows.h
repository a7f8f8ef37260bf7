// Row passes, shared by all recursions: scores → emissions of the columns that the recursion reads, the values of the
// utterances from what the passes left, and the dense gradient, written once.
//
// A column is a label that an utterance's recursion uses: blank and each target for CTC, the distinct labels of an
// automaton.  Rows of padded scores are b · max_frames + t; of packed ones, offsets[b] + t.
#pragma once

// clang-format off: the status needs the integers that the team brings
#include "arithmetic.h"
#include "../recursion/status.h"
// clang-format on

namespace seqtrain {

constexpr int64_t float16 = 0, bfloat16 = 1, float32 = 2, float64 = 3;  // of seqtrain/ops/arguments.py

struct RowsProblem {
  char* scores;
  int64_t dtype;
  int64_t stride_utterance;
  int64_t stride_frame;
  int64_t stride_label;
  const int64_t* offsets;
  char* gradient;
  int64_t gradient_stride_utterance;
  int64_t gradient_stride_frame;
  int64_t gradient_stride_label;
  int64_t batch;
  int64_t labels;
  int64_t max_frames;
  int64_t width;
  int64_t shared_columns;
  const int64_t* column_labels;
  const int64_t* order;
  const int64_t* lengths;
  int64_t normalize;
  void* normalizer;
  void* emission;
  int32_t* emission_exponent;
  double* row_log;
  int32_t* row_status;
  const double* log_likelihood;
  double value_sign;
  double* value;
  int64_t* status;
  const double* weight;
  double occupancy_sign;
  const void* occupancies;
  char* workspace;
};

// Of a row, in `row_status`.
constexpr int32_t usable = 0, not_finite = 1, without_path = 2;

SEQTRAIN_DEVICE void lose_row(int32_t* row_status, int64_t row, bool has_path) {
  if (!has_path && row_status[row] == usable) row_status[row] = without_path;
}

struct Half {};
struct BrainFloat {};
template <class Storage>
struct Stored;
template <>
struct Stored<Half> {
  using Bits = uint16_t;
  SEQTRAIN_DEVICE static float get(Bits bits) { return half_to_float(bits); }
  SEQTRAIN_DEVICE static Bits put(float value) { return float_to_half(value); }
};
template <>
struct Stored<BrainFloat> {
  using Bits = uint16_t;
  SEQTRAIN_DEVICE static float get(Bits bits) { return from_bits<float>(static_cast<int32_t>(bits) << 16); }
  SEQTRAIN_DEVICE static Bits put(float value) {  // to nearest, ties to even
    const uint32_t bits = static_cast<uint32_t>(to_bits(value));
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Bits>((bits >> 16) | 0x40u);
    return static_cast<Bits>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
};
template <>
struct Stored<float> {
  using Bits = float;
  SEQTRAIN_DEVICE static float get(Bits value) { return value; }
  SEQTRAIN_DEVICE static Bits put(float value) { return value; }
};
template <>
struct Stored<double> {
  using Bits = double;
  SEQTRAIN_DEVICE static double get(Bits value) { return value; }
  SEQTRAIN_DEVICE static Bits put(double value) { return value; }
};

// Calls with the storage type that `dtype` names; float64 goes with double arithmetic alone, the others with float.
template <class Real, class Function>
SEQTRAIN_DEVICE void with_storage(int64_t dtype, const Function& function) {
  if constexpr (sizeof(Real) == 8) {
    function(Stored<double>{});
  } else {
    if (dtype == float16) {
      function(Stored<Half>{});
    } else if (dtype == bfloat16) {
      function(Stored<BrainFloat>{});
    } else {
      function(Stored<float>{});
    }
  }
}

struct Place {
  int64_t utterance;
  int64_t frame;
  int64_t row;
};

SEQTRAIN_DEVICE int64_t first_row(const int64_t* offsets, int64_t utterance, int64_t max_frames) {
  return offsets != nullptr ? offsets[utterance] : utterance * max_frames;
}

SEQTRAIN_DEVICE Place place_of(const RowsProblem& problem, int64_t item) {
  const int64_t b = item / problem.max_frames, t = item % problem.max_frames;
  return {b, t, first_row(problem.offsets, b, problem.max_frames) + t};
}

SEQTRAIN_DEVICE int64_t row_offset(const RowsProblem& problem, const Place& place, int64_t of_utterance,
                                   int64_t of_frame) {
  return problem.offsets != nullptr ? place.row * of_frame : place.utterance * of_utterance + place.frame * of_frame;
}

SEQTRAIN_DEVICE const int64_t* columns_of(const RowsProblem& problem, int64_t utterance) {
  return problem.column_labels + (problem.shared_columns != 0 ? 0 : utterance * problem.width);
}

// One block a row at a time: log-softmax's normalizer where asked for, and the exponentials of the row's columns as
// mantissas and exponents relative to the largest, so that scores of any offset stay in range.  What was taken out goes
// to `row_log`.
template <class Real, class Storage>
SEQTRAIN_DEVICE void emit_row(const Team& team, const RowsProblem& problem, const Place& place) {
  const Real infinity = infinity_of<Real>();
  const int thread = team.thread(), threads = team.threads();
  const auto* row = reinterpret_cast<const typename Storage::Bits*>(problem.scores) +
                    row_offset(problem, place, problem.stride_utterance, problem.stride_frame);
  const int64_t step = problem.stride_label;
  int32_t bad = 0;
  Real top = -infinity;
  double taken = 0;
  if (problem.normalize != 0) {
    for (int64_t v = thread; v < problem.labels; v += threads) {
      const Real score = Storage::get(row[v * step]);
      bad |= score < infinity ? 0 : 1;
      top = score > top ? score : top;
    }
    top = reduce(team, top, Largest{});
    bad = reduce(team, bad, Largest{}) | (top > -infinity ? 0 : 1);
    Real sum = 0;
    if (bad == 0)
      for (int64_t v = thread; v < problem.labels; v += threads)
        sum += exponential_of_nonpositive<Real>(static_cast<Real>(Storage::get(row[v * step])) - top);
    sum = reduce(team, sum, Sum{});
    const Real inverse = bad == 0 ? Real{1} / sum : Real{0};
    if (thread == 0) {
      Real* normalizer = static_cast<Real*>(problem.normalizer) + 2 * place.row;
      normalizer[0] = bad == 0 ? top : Real{0};
      normalizer[1] = inverse;
    }
    if (bad == 0) taken = logarithm(static_cast<double>(inverse)) - static_cast<double>(top);
  }

  const int64_t* column = columns_of(problem, place.utterance);
  Real largest = -infinity;
  for (int64_t k = thread; k < problem.width; k += threads) {
    if (column[k] < 0) continue;
    const Real score = Storage::get(row[column[k] * step]);
    bad |= score < infinity ? 0 : 1;
    largest = score > largest ? score : largest;
  }
  largest = reduce(team, largest, Largest{});
  bad = reduce(team, bad, Largest{});
  // Far from zero, a score's difference to the largest is split in double: in float its exponent would have no digits.
  const double reference = bad == 0 && largest > -infinity ? static_cast<double>(largest) : 0.0;
  const int64_t first = place.row * problem.width;
  Real* mantissa = static_cast<Real*>(problem.emission) + first;
  int32_t* exponent = problem.emission_exponent + first;
  for (int64_t k = thread; k < problem.width; k += threads) {
    double m = 0;
    int64_t e = zero_exponent;
    if (column[k] >= 0 && bad == 0)
      split_exponential(static_cast<double>(static_cast<Real>(Storage::get(row[column[k] * step]))) - reference, m, e);
    mantissa[k] = static_cast<Real>(m);
    exponent[k] = static_cast<int32_t>(e);
  }
  if (thread == 0) {
    problem.row_log[place.row] = reference + taken;
    problem.row_status[place.row] = bad != 0 ? not_finite : usable;
  }
}

template <class Real>
SEQTRAIN_DEVICE void emissions(const Team& team, const RowsProblem& problem) {
  for (int64_t item = team.block(); item < problem.batch * problem.max_frames; item += team.blocks()) {
    const Place place = place_of(problem, item);
    if (place.frame >= problem.lengths[place.utterance] || problem.status[place.utterance] != 0) continue;
    with_storage<Real>(problem.dtype, [&](auto storage) { emit_row<Real, decltype(storage)>(team, problem, place); });
  }
}

// One block an utterance: its value, and the first frame that can't be used.
SEQTRAIN_DEVICE void values(const Team& team, const RowsProblem& problem) {
  const int64_t b = team.block();
  if (problem.status[b] != 0) return;  // known before the recursion
  const int64_t frames = problem.lengths[b], first = first_row(problem.offsets, b, problem.max_frames);
  double sum = 0;
  int64_t wrong = 0;  // the larger, the earlier the frame
  int32_t lost = 0;
  const int64_t beyond = frames + 1;
  for (int64_t t = team.thread(); t < frames; t += team.threads()) {
    sum += problem.row_log[first + t];
    const int32_t found = problem.row_status[first + t];
    const int64_t here = found == not_finite ? beyond - t : 0;
    wrong = here > wrong ? here : wrong;
    lost |= found == without_path ? 1 : 0;
  }
  lost = reduce(team, lost, Largest{});
  sum = reduce(team, sum, Sum{});
  wrong = reduce(team, wrong, Largest{});
  if (team.thread() != 0) return;
  const double likelihood = problem.log_likelihood[b];
  int64_t status = 0;
  if (wrong > 0) {
    status = 1 + (beyond - wrong);
  } else if (lost != 0 || !(likelihood > -infinity_of<double>())) {
    status = status_no_path;
  }
  problem.status[b] = status;
  problem.value[b] = status == 0 ? problem.value_sign * (likelihood + sum) : 0.0;
}

// One block a row at a time.  The values at the columns are made first: in place, the scores there are overwritten.
// `order` sorts the columns so that those with one label are neighbours; null where labels are distinct.
template <class Real, class Storage>
SEQTRAIN_DEVICE void gradient_row(const Team& team, const RowsProblem& problem, const Place& place) {
  using Bits = typename Storage::Bits;
  const int thread = team.thread(), threads = team.threads();
  Bits* out = reinterpret_cast<Bits*>(problem.gradient) +
              row_offset(problem, place, problem.gradient_stride_utterance, problem.gradient_stride_frame);
  const int64_t out_step = problem.gradient_stride_label, step = problem.stride_label;
  const int64_t b = place.utterance;
  if (place.frame >= problem.lengths[b] || problem.status[b] != 0) {
    for (int64_t v = thread; v < problem.labels; v += threads) out[v * out_step] = Storage::put(Real{0});
    return;
  }
  const Bits* row = reinterpret_cast<const Bits*>(problem.scores) +
                    row_offset(problem, place, problem.stride_utterance, problem.stride_frame);
  const auto weight = static_cast<Real>(problem.weight[b]);
  const Real to_occupancy = static_cast<Real>(problem.occupancy_sign) * weight;
  Real largest = 0, factor = 0;
  if (problem.normalize != 0) {
    const Real* normalizer = static_cast<const Real*>(problem.normalizer) + 2 * place.row;
    largest = normalizer[0];
    factor = normalizer[1] * weight;
  }
  const auto softmax = [&](int64_t v) {
    return problem.normalize != 0
               ? factor * exponential_of_nonpositive<Real>(static_cast<Real>(Storage::get(row[v * step])) - largest)
               : Real{0};
  };
  const int64_t* column = columns_of(problem, b);
  const int64_t* order = problem.order != nullptr ? problem.order + b * problem.width : nullptr;
  const Real* occupancy = static_cast<const Real*>(problem.occupancies) + place.row * problem.width;
  Real* made = problem.workspace != nullptr ? reinterpret_cast<Real*>(problem.workspace) + team.block() * problem.width
                                            : reinterpret_cast<Real*>(team.shared(reduction_bytes));
  const auto at = [&](int64_t i) { return order != nullptr ? order[i] : i; };
  const auto leads = [&](int64_t i) {
    const int64_t label = column[at(i)];
    return label >= 0 && (i == 0 || column[at(i - 1)] != label);
  };
  for (int64_t i = thread; i < problem.width; i += threads) {
    if (!leads(i)) continue;
    const int64_t label = column[at(i)];
    Real sum = occupancy[at(i)];
    for (int64_t j = i + 1; j < problem.width && column[at(j)] == label; j++) sum += occupancy[at(j)];
    made[i] = fused(to_occupancy, sum, softmax(label));
  }
  team.sync();
  for (int64_t v = thread; v < problem.labels; v += threads) out[v * out_step] = Storage::put(softmax(v));
  team.sync();
  for (int64_t i = thread; i < problem.width; i += threads)
    if (leads(i)) out[column[at(i)] * out_step] = Storage::put(made[i]);
  team.sync();
}

template <class Real>
SEQTRAIN_DEVICE void gradient(const Team& team, const RowsProblem& problem) {
  for (int64_t item = team.block(); item < problem.batch * problem.max_frames; item += team.blocks()) {
    const Place place = place_of(problem, item);
    if (problem.offsets != nullptr && place.frame >= problem.lengths[place.utterance]) continue;  // no such row
    with_storage<Real>(problem.dtype,
                       [&](auto storage) { gradient_row<Real, decltype(storage)>(team, problem, place); });
  }
}

}  // namespace seqtrain
