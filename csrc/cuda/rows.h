// Row passes, shared by all recursions: scores → emissions of the columns that the recursion reads, the values of the
// utterances from what the passes left, and the dense gradient, written once.
//
// A column is a label that an utterance's recursion uses: blank and each target for CTC, the distinct labels of an
// automaton.  Rows of padded scores are b · max_frames + t; of packed ones, offsets[b] + t.
#pragma once

// clang-format off: the status needs the integers that the team brings
#include "crew.h"
#include "storage.h"
#include "../recursion/status.h"
// clang-format on

namespace seqtrain {

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
  const int32_t* following;  // of a column the next one with its label, or `width`; ~ that where it isn't the first
  const int64_t* lengths;
  int64_t normalize;
  int64_t warp_a_row;
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

struct Place {
  int64_t utterance;
  int64_t frame;
  int64_t row;
};

SEQTRAIN_DEVICE int64_t first_row(const int64_t* offsets, int64_t utterance, int64_t max_frames) {
  return offsets != nullptr ? offsets[utterance] : utterance * max_frames;
}

SEQTRAIN_DEVICE Place place_of(const RowsProblem& problem, int64_t item) {
  int64_t b;
  if (problem.batch * problem.max_frames <= 0xffffffff) {  // by far the faster division
    b = static_cast<uint32_t>(item) / static_cast<uint32_t>(problem.max_frames);
  } else {
    b = item / problem.max_frames;
  }
  const int64_t t = item - b * problem.max_frames;
  return {b, t, first_row(problem.offsets, b, problem.max_frames) + t};
}

SEQTRAIN_DEVICE int64_t row_offset(const RowsProblem& problem, const Place& place, int64_t of_utterance,
                                   int64_t of_frame) {
  return problem.offsets != nullptr ? place.row * of_frame : place.utterance * of_utterance + place.frame * of_frame;
}

SEQTRAIN_DEVICE const int64_t* columns_of(const RowsProblem& problem, int64_t utterance) {
  return problem.column_labels + (problem.shared_columns != 0 ? 0 : utterance * problem.width);
}

constexpr int at_once = 4;  // pieces or columns of a row that a thread reads before it uses the first

// What threads have found of a row: of all scores a `top` and Σ exp(score - top), and the largest of the columns. Where
// a score is NaN or +inf, so is the one or the other.
template <class Real>
struct RowSummary {
  Real top = lowest_of<Real>();
  Real sum = 0;
  Real largest = -infinity_of<Real>();

  template <class Storage>
  SEQTRAIN_DEVICE static Real largest_of(Real next, const Words& words) {
    Real scores[numbers_of<Storage>];
    Storage::unpack(words, scores);
    SEQTRAIN_UNROLLED
    for (int i = 0; i < numbers_of<Storage>; i++) next = larger_or_nan(next, scores[i]);
    return next;
  }
  SEQTRAIN_DEVICE void raise(Real next) {
    if (next != top && sum > 0) sum *= exponential(top - next);
    top = next;
  }
  // Of scores up to the top.
  template <class Storage>
  SEQTRAIN_DEVICE void add(const Words& words) {
    Real scores[numbers_of<Storage>];
    Storage::unpack(words, scores);
    SEQTRAIN_UNROLLED
    for (int i = 0; i < numbers_of<Storage>; i++) {
      Real mantissa, power;
      exponential(scores[i] - top, mantissa, power);
      sum = fused(mantissa, power, sum);
    }
  }

  // All of `lanes` threads get what they have found together.
  SEQTRAIN_DEVICE void join(const Team& team, int lanes, bool with_sum) {
    if (with_sum) {
      Real next = top;
      for (int mask = lanes / 2; mask > 0; mask /= 2) next = larger_or_nan(next, team.exchange(next, mask));
      raise(next);
      for (int mask = lanes / 2; mask > 0; mask /= 2) sum += team.exchange(sum, mask);
    }
    for (int mask = lanes / 2; mask > 0; mask /= 2) largest = larger_or_nan(largest, team.exchange(largest, mask));
  }
};

constexpr int most_warps = largest_block / warp;
constexpr int64_t summary_bytes = 3 * 8 * most_warps;  // of shared memory, behind that for reductions

// All threads of the crew get what they have found together.
template <class Real>
SEQTRAIN_DEVICE void join(const Crew& crew, RowSummary<Real>& summary, bool with_sum) {
  summary.join(crew.team, warp, with_sum);
  if (crew.alone) return;
  Real* slots = reinterpret_cast<Real*>(crew.team.shared(reduction_bytes));
  const int lane = crew.thread % warp, own = crew.thread / warp, other = lane % most_warps;
  if (lane == 0) {
    slots[own] = summary.top;
    slots[most_warps + own] = summary.sum;
    slots[2 * most_warps + own] = summary.largest;
  }
  crew.sync();
  summary = {};
  if (other < crew.threads / warp) {
    summary.top = slots[other];
    summary.sum = slots[most_warps + other];
    summary.largest = slots[2 * most_warps + other];
  }
  summary.join(crew.team, most_warps, with_sum);
}

// Four pieces of a thread; -inf past the end.
template <class Real, class Storage>
SEQTRAIN_DEVICE void load_four(const Pieces<Real, Storage, true>& row, int first, int pieces, Words (&words)[at_once]) {
  if (first + 3 * warp < pieces) {
    SEQTRAIN_UNROLLED
    for (int j = 0; j < at_once; j++) words[j] = row.load(first + j * warp);
  } else {
    SEQTRAIN_UNROLLED
    for (int j = 0; j < at_once; j++) words[j] = first + j * warp < pieces ? row.load(first + j * warp) : row.nothing();
  }
}

// The scores of a thread's pieces, four pieces at a time.
template <class Real, class Storage, bool whole>
SEQTRAIN_DEVICE void add_row(const Crew& crew, const Pieces<Real, Storage, whole>& row, RowSummary<Real>& found) {
  const int pieces = row.count();
  SEQTRAIN_ROLLED
  for (int first = crew.first_of_four(); first < pieces; first += at_once * crew.threads) {
    Real next = found.top;
    if constexpr (whole) {
      Words words[at_once];
      load_four(row, first, pieces, words);
      SEQTRAIN_UNROLLED
      for (int j = 0; j < at_once; j++) next = found.template largest_of<Storage>(next, words[j]);
      found.raise(next);
      SEQTRAIN_UNROLLED
      for (int j = 0; j < at_once; j++) found.template add<Storage>(words[j]);
    } else {  // such pieces take many instructions: none is kept
      SEQTRAIN_ROLLED
      for (int j = 0; j < at_once; j++)
        if (first + j * warp < pieces) next = found.template largest_of<Storage>(next, row.load(first + j * warp));
      found.raise(next);
      SEQTRAIN_ROLLED
      for (int j = 0; j < at_once; j++)
        if (first + j * warp < pieces) found.template add<Storage>(row.load(first + j * warp));
    }
  }
}

// Log-softmax's normalizer where asked for, and the exponentials of the row's columns as mantissas and exponents
// relative to the largest, so that scores of any offset stay in range.  What was taken out goes to `row_log`.
template <class Real>
SEQTRAIN_DEVICE void emit_row(const Crew& crew, const RowsProblem& problem, const Place& place) {
  const Real infinity = infinity_of<Real>();
  const Row<Real> row(problem.dtype, problem.scores,
                      row_offset(problem, place, problem.stride_utterance, problem.stride_frame), problem.stride_label,
                      problem.labels);
  const bool normalize = problem.normalize != 0;
  RowSummary<Real> found;
  if (normalize)
    with_storage<Real>(problem.dtype, [&](auto storage) {
      using Storage = decltype(storage);
      if (in_whole_pieces<Real, Storage>(row)) {
        add_row(crew, Pieces<Real, Storage, true>(row), found);
      } else {
        add_row(crew, Pieces<Real, Storage, false>(row), found);
      }
    });

  const int64_t* column = columns_of(problem, place.utterance);
  const int width = static_cast<int>(problem.width), stride = at_once * crew.threads;
  Real scores[at_once];
  const auto load = [&](int first) {
    int64_t label[at_once];
    SEQTRAIN_UNROLLED
    for (int j = 0; j < at_once; j++) label[j] = first + j * warp < width ? column[first + j * warp] : -1;
    with_storage<Real>(problem.dtype, [&](auto storage) {
      SEQTRAIN_UNROLLED
      for (int j = 0; j < at_once; j++)
        scores[j] = label[j] >= 0 ? storage.get(*row.typed(storage, label[j] * row.step)) : -infinity;
    });
  };
  int last = -1;
  SEQTRAIN_ROLLED
  for (int first = crew.first_of_four(); first < width; first += stride) {
    load(first);
    SEQTRAIN_UNROLLED
    for (int j = 0; j < at_once; j++) found.largest = larger_or_nan(found.largest, scores[j]);
    last = first;
  }
  join(crew, found, normalize);
  const bool bad = !(found.largest < infinity) || (normalize && !(found.top < infinity && found.sum > 0));
  // Far from zero, a score's difference to the largest is split in double: in float its exponent would have no digits.
  const double reference = !bad && found.largest > -infinity ? static_cast<double>(found.largest) : 0.0;
  const double of_bad = bad ? static_cast<double>(infinity) : reference;
  const int64_t begin = place.row * problem.width;
  Real* mantissa = static_cast<Real*>(problem.emission) + begin;
  int32_t* exponent = problem.emission_exponent + begin;
  SEQTRAIN_ROLLED
  for (int first = last; first >= 0; first -= stride) {  // backward: the last scores are at hand
    if (first != last) load(first);
    SEQTRAIN_UNROLLED
    for (int j = 0; j < at_once; j++) {
      if (first + j * warp >= width) break;
      split_exponential_of_nonpositive(static_cast<double>(scores[j]) - of_bad, mantissa[first + j * warp],
                                       exponent[first + j * warp]);
    }
  }

  if (crew.thread != 0) return;
  double taken = 0;
  if (normalize) {
    const Real inverse = bad ? Real{0} : Real{1} / found.sum, top = bad ? Real{0} : found.top;
    Real* normalizer = static_cast<Real*>(problem.normalizer) + 2 * place.row;
    normalizer[0] = top;
    normalizer[1] = inverse;
    if (!bad) taken = logarithm(static_cast<double>(inverse)) - static_cast<double>(top);
  }
  problem.row_log[place.row] = reference + taken;
  problem.row_status[place.row] = bad ? not_finite : usable;
}

template <class Real>
SEQTRAIN_DEVICE void emissions(const Team& team, const RowsProblem& problem) {
  const Crew crew(team, problem.warp_a_row != 0);
  for (int64_t item = crew.index; item < problem.batch * problem.max_frames; item += crew.count) {
    if (item != crew.index) crew.sync();  // the row before is done with shared memory
    const Place place = place_of(problem, item);
    if (place.frame >= problem.lengths[place.utterance] || problem.status[place.utterance] != 0) continue;
    emit_row<Real>(crew, problem, place);
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

// softmax(score) · weight, where the row was normalized.
template <class Real>
struct WeightedSoftmax {
  Real top = 0, factor = 0;
  SEQTRAIN_DEVICE Real operator()(Real score) const { return factor * exponential(score - top); }
};

// Writes it for all scores.  `before_writing` is called once the scores of the first pieces are under way.
template <class Real, class Storage, bool whole, class Function>
SEQTRAIN_DEVICE void write_softmax(const Crew& crew, const Pieces<Real, Storage, whole>& row,
                                   const Pieces<Real, Storage, whole>& out, const WeightedSoftmax<Real>& softmax,
                                   const Function& before_writing) {
  const int pieces = row.count();
  const auto write = [&](int piece, const Words& scores) {
    Real values[numbers_of<Storage>];
    Storage::unpack(scores, values);
    SEQTRAIN_UNROLLED
    for (int i = 0; i < numbers_of<Storage>; i++) values[i] = softmax(values[i]);
    out.store(piece, values);
  };
  if constexpr (whole) {
    Words words[at_once];
    const int begin = crew.first_of_four();
    load_four(row, begin, pieces, words);
    before_writing();
    SEQTRAIN_ROLLED
    for (int first = begin; first < pieces; first += at_once * crew.threads) {
      if (first != begin) load_four(row, first, pieces, words);
      SEQTRAIN_UNROLLED
      for (int j = 0; j < at_once; j++)
        if (first + j * warp < pieces) write(first + j * warp, words[j]);
    }
  } else {
    before_writing();
    SEQTRAIN_ROLLED
    for (int piece = crew.thread; piece < pieces; piece += crew.threads) write(piece, row.load(piece));
  }
}

template <class Real, class Storage, bool whole>
SEQTRAIN_DEVICE void write_zeros(const Crew& crew, const Pieces<Real, Storage, whole>& out) {
  const Real zeros[numbers_of<Storage>] = {};
  for (int piece = crew.thread; piece < out.count(); piece += crew.threads) out.store(piece, zeros);
}

// The values at the columns are made first: in place, the scores there are overwritten.  No `following` where labels
// are distinct.
template <class Real>
SEQTRAIN_DEVICE void gradient_row(const Crew& crew, const RowsProblem& problem, const Place& place) {
  const int64_t b = place.utterance;
  const bool used = place.frame < problem.lengths[b] && problem.status[b] == 0;
  const bool normalize = used && problem.normalize != 0;
  const Row<Real> out(problem.dtype, problem.gradient,
                      row_offset(problem, place, problem.gradient_stride_utterance, problem.gradient_stride_frame),
                      problem.gradient_stride_label, problem.labels);
  // Where nothing is read, there may be no scores.
  const Row<Real> row(problem.dtype, normalize ? problem.scores : nullptr,
                      normalize ? row_offset(problem, place, problem.stride_utterance, problem.stride_frame) : 0,
                      problem.stride_label, problem.labels);
  const Real weight = used ? static_cast<Real>(problem.weight[b]) : Real{0};
  WeightedSoftmax<Real> softmax;
  if (normalize) {
    const Real* normalizer = static_cast<const Real*>(problem.normalizer) + 2 * place.row;
    softmax = {normalizer[0], normalizer[1] * weight};
  }

  const int width = used ? static_cast<int>(problem.width) : 0;
  const int64_t* column = columns_of(problem, b);
  const int32_t* following = problem.following != nullptr ? problem.following + b * problem.width : nullptr;
  const Real* occupancy = static_cast<const Real*>(problem.occupancies) + place.row * problem.width;
  const Real to_occupancy = static_cast<Real>(problem.occupancy_sign) * weight;
  Real* made = problem.workspace != nullptr
                   ? reinterpret_cast<Real*>(problem.workspace) + crew.index * problem.width
                   : reinterpret_cast<Real*>(crew.team.shared(reduction_bytes)) + crew.rank() * problem.width;
  const auto make_columns = [&] {
    for (int k = crew.thread; k < width; k += crew.threads) {
      const int64_t label = column[k];
      int next = following != nullptr ? following[k] : width;
      if (label < 0 || next < 0) continue;
      Real sum = occupancy[k];
      for (; next < width; next = ~following[next]) sum += occupancy[next];
      made[k] = fused(to_occupancy, sum, normalize ? softmax(row[label]) : Real{0});
    }
    if (normalize && row.data == out.data) crew.sync();
  };
  if (!normalize) make_columns();
  with_storage<Real>(problem.dtype, [&](auto storage) {
    using Storage = decltype(storage);
    using Whole = Pieces<Real, Storage, true>;
    using Any = Pieces<Real, Storage, false>;
    const bool whole = in_whole_pieces<Real, Storage>(out) && (!normalize || in_whole_pieces<Real, Storage>(row));
    if (normalize && whole) {
      write_softmax(crew, Whole(row), Whole(out), softmax, make_columns);
    } else if (normalize) {
      write_softmax(crew, Any(row), Any(out), softmax, make_columns);
    } else if (whole) {
      write_zeros(crew, Whole(out));
    } else {
      write_zeros(crew, Any(out));
    }
  });
  if (used) crew.sync();
  for (int k = crew.thread; k < width; k += crew.threads) {
    const int64_t label = column[k];
    if (label >= 0 && (following == nullptr || following[k] >= 0)) out.put(label, made[k]);
  }
}

template <class Real>
SEQTRAIN_DEVICE void gradient(const Team& team, const RowsProblem& problem) {
  const Crew crew(team, problem.warp_a_row != 0);
  for (int64_t item = crew.index; item < problem.batch * problem.max_frames; item += crew.count) {
    const Place place = place_of(problem, item);
    if (problem.offsets != nullptr && place.frame >= problem.lengths[place.utterance]) continue;  // no such row
    gradient_row<Real>(crew, problem, place);
  }
}

}  // namespace seqtrain
