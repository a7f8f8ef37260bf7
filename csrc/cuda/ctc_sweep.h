// One direction of CTC's recursion over half of the frames (equations: seqtrain/reference.py, `ctc_loss`; division of
// the work: sweep.h).
//
// The way back is the way forth over the mirror image of the targets, so that both are one recursion.  In the order of
// the direction, blank i and the label behind it are a pair, which a thread owns for all frames:
//
//     sum(blank i) = kept(blank i) + kept(label i-1)
//     sum(label i) = kept(label i) + kept(blank i) + kept(label i-1), the last one unless the two labels are the same
//     kept         = sum · emission, normalized
//
// So of other threads a pair needs the label before it alone, which goes through shared memory with one barrier a
// frame.  The first half of a direction stores the sums, which leave the emission of their frame out; the second
// multiplies what it keeps with the other's sums.
#pragma once

#include "cell.h"
#include "read_ahead.h"
#include "rows.h"
#include "sweep.h"

namespace seqtrain {

struct CtcProblem {
  int64_t batch;
  int64_t max_frames;
  int64_t max_targets;
  const int64_t* offsets;
  const int64_t* lengths;
  const int64_t* targets;
  const int64_t* target_lengths;
  const void* emission;
  const int32_t* emission_exponent;
  void* store;
  void* carry;
  double* log_likelihood;
  int32_t* row_status;
  const int64_t* status;
  int64_t phase;
  int64_t with_gradient;
  int64_t pairs_of_thread;
  char* workspace;
  void* occupancies;
};

template <class Real>
struct CtcPair {
  Cell<Real> blank, label;
};

// What the second half leaves of a pair in the place of the stored blank.
template <class Real>
struct alignas(2 * sizeof(Real)) CtcProducts {
  Real blank, label;
};
static_assert(sizeof(CtcProducts<float>) == sizeof(Cell<float>) && sizeof(CtcProducts<double>) == sizeof(Cell<double>));

// A frame's emissions of the columns, and its row of the store: blanks, then labels.
template <class Real>
struct CtcRow {
  const Real* mantissa;
  const int32_t* exponent;
  Cell<Real>* store;

  SEQTRAIN_DEVICE void advance(int32_t columns) {
    mantissa += columns;
    exponent += columns;
    store += 2 * columns;
  }
  SEQTRAIN_DEVICE Cell<Real> emission(int32_t column) const { return {mantissa[column], exponent[column]}; }
};

// Where a pair's blank and label stand in a row.  There is no label behind the last blank: what is made of one there
// is made of the blank's column and cell, and goes nowhere.  Threads without a pair double the last one.
struct CtcPlace {
  int32_t column, blank, label;
  bool exists, has_label;
  bool skips;  // may the label follow the one before at once?
};

// What's read ahead of a frame, in a slot of shared memory: the other direction's row of the store, and emissions.
template <class Real>
struct CtcSlot {
  Cell<Real>*store, *emissions;

  SEQTRAIN_DEVICE CtcSlot(char* slot, int32_t columns)
      : store(reinterpret_cast<Cell<Real>*>(slot)), emissions(store + 2 * columns) {}
  SEQTRAIN_DEVICE static int64_t bytes(int64_t columns) {
    return (3 * columns * static_cast<int64_t>(sizeof(Cell<Real>)) + 15) / 16 * 16;
  }
  SEQTRAIN_DEVICE Cell<Real> emission(int32_t column) const { return emissions[column]; }
};

constexpr int64_t most_pairs_of_thread = 2;  // that stay in registers

// Memory of a block: labels of two frames with a zero before the first, and what's read ahead or, where pairs don't
// stay in registers, `pairs_of_thread` being 0, blanks.
template <class Real>
SEQTRAIN_DEVICE int64_t ctc_state_bytes(int64_t max_targets, int64_t pairs_of_thread) {
  const int64_t pairs = max_targets + 1, cell = static_cast<int64_t>(sizeof(Cell<Real>));
  return 2 * (pairs + 1) * cell + (pairs_of_thread > 0 ? slots_ahead * CtcSlot<Real>::bytes(pairs) : pairs * cell);
}

template <class Real>
class CtcSweep {
 public:
  SEQTRAIN_DEVICE CtcSweep(const Team& team, const CtcProblem& problem, int64_t utterance, bool forward)
      : team_(team),
        problem_(problem),
        utterance_(utterance),
        forward_(forward),
        frames_(static_cast<int32_t>(problem.lengths[utterance])),
        pairs_(static_cast<int32_t>(problem.target_lengths[utterance]) + 1),
        columns_(static_cast<int32_t>(problem.max_targets) + 1),
        thread_(team.thread()),
        threads_(team.threads()) {}

  // One half of the direction's frames.
  template <bool combine>
  SEQTRAIN_DEVICE void run() {
    const int32_t middle = static_cast<int32_t>(middle_of(frames_));
    if constexpr (combine) {
      begin_ = forward_ ? middle : middle - 1;
      if (forward_) {
        count_ = problem_.with_gradient != 0 ? frames_ - middle : 0;
      } else {
        count_ = problem_.with_gradient != 0 ? middle : 1;
      }
      if (count_ == 0) return;
    } else {
      begin_ = forward_ ? 0 : frames_ - 1;
      count_ = forward_ ? middle : frames_ - middle;
    }
    if (problem_.pairs_of_thread == 1) {
      in_registers<combine, 1>();
    } else if (problem_.pairs_of_thread == most_pairs_of_thread) {
      in_registers<combine, most_pairs_of_thread>();
    } else {
      in_memory<combine>(problem_.workspace != nullptr
                             ? problem_.workspace + team_.block() * ctc_state_bytes<Real>(problem_.max_targets, 0)
                             : team_.shared(reduction_bytes));
    }
  }

 private:
  using Pair = CtcPair<Real>;

  SEQTRAIN_DEVICE CtcPlace place_of(int32_t number) const {
    const int32_t i = number < pairs_ ? number : pairs_ - 1;
    const auto label_of = [&](int32_t j) { return forward_ ? j : pairs_ - 2 - j; };  // as the targets count
    CtcPlace place;
    place.exists = number < pairs_;
    place.has_label = i < pairs_ - 1;
    place.column = place.has_label ? 1 + label_of(i) : 0;
    place.blank = forward_ ? i : pairs_ - 1 - i;
    place.label = place.has_label ? columns_ + label_of(i) : place.blank;
    const int64_t* target = problem_.targets + utterance_ * problem_.max_targets;
    place.skips = place.has_label && i > 0 && target[label_of(i)] != target[label_of(i - 1)];
    return place;
  }

  SEQTRAIN_DEVICE CtcRow<Real> first_row_of_half() const {
    const int64_t row = first_row(problem_.offsets, utterance_, problem_.max_frames) + begin_;
    return {static_cast<const Real*>(problem_.emission) + row * columns_, problem_.emission_exponent + row * columns_,
            static_cast<Cell<Real>*>(problem_.store) + 2 * row * columns_};
  }
  SEQTRAIN_DEVICE int32_t step() const { return forward_ ? columns_ : -columns_; }
  SEQTRAIN_DEVICE Pair* carry() const { return static_cast<Pair*>(problem_.carry) + team_.block() * columns_; }

  // Before the direction's first frame all is in the first blank, whence a path goes there or to the label behind it.
  template <bool combine>
  SEQTRAIN_DEVICE Pair start(int32_t i) const {
    if constexpr (combine) return carry()[i];
    return {i == 0 ? Cell<Real>{Real{1}, 0} : zero_cell<Real>(), zero_cell<Real>()};
  }

  // Of a row, or of the slot that it has been copied to.
  template <class Row>
  SEQTRAIN_DEVICE static Pair stored(const Row& row, const CtcPlace& place) {
    return {row.store[place.blank], row.store[place.label]};
  }
  template <class Row>
  SEQTRAIN_DEVICE static Pair emissions(const Row& row, const CtcPlace& place) {
    return {row.emission(0), row.emission(place.column)};
  }

  SEQTRAIN_DEVICE static Pair sums(const Pair& kept, Cell<Real> before, bool skips) {
    const Cell<Real> blank = sum(kept.blank, before);
    if (!skips) before.exponent = no_exponent;
    return {blank, sum(kept.label, kept.blank, before)};
  }
  SEQTRAIN_DEVICE static Pair emitted(const Pair& sums, const Pair& emissions) {
    return {product(sums.blank, emissions.blank), product(sums.label, emissions.label)};
  }

  SEQTRAIN_DEVICE static void put_sums(const CtcRow<Real>& row, const CtcPlace& place, const Pair& sums) {
    if (place.exists) row.store[place.blank] = sums.blank;
    if (place.exists && place.has_label) row.store[place.label] = sums.label;
  }
  SEQTRAIN_DEVICE static void put_products(const CtcRow<Real>& row, const CtcPlace& place, const Pair& kept,
                                           const Pair& stored, int32_t top) {
    const CtcProducts<Real> products{product_below(kept.blank, stored.blank, top),
                                     product_below(kept.label, stored.label, top)};
    if (place.exists) reinterpret_cast<CtcProducts<Real>*>(row.store)[place.blank] = products;
  }

  // The exponent that products are relative to, the same in all frames; leaves the utterance's likelihood.
  template <class Each>
  SEQTRAIN_DEVICE int32_t top_of(const Each& each) const {
    double sum;
    const int64_t top = total_of(team_, each, sum);
    if (!forward_ && thread_ == 0) problem_.log_likelihood[utterance_] = log_of(sum, top);
    return static_cast<int32_t>(top);
  }
  template <class Visit>
  SEQTRAIN_DEVICE static void visit_products(const CtcPlace& place, const Pair& kept, const Pair& stored,
                                             const Visit& visit) {
    if (!place.exists) return;
    visit(static_cast<double>(kept.blank.mantissa) * static_cast<double>(stored.blank.mantissa),
          kept.blank.exponent + stored.blank.exponent);
    if (!place.has_label) return;
    visit(static_cast<double>(kept.label.mantissa) * static_cast<double>(stored.label.mantissa),
          kept.label.exponent + stored.label.exponent);
  }

  // Of two frames, each with a zero before the first.
  struct Labels {
    Cell<Real>*now, *before;

    SEQTRAIN_DEVICE Labels(char* memory, int32_t columns)
        : now(reinterpret_cast<Cell<Real>*>(memory) + 1), before(now + columns + 1) {}
    SEQTRAIN_DEVICE void swap() {
      Cell<Real>* const other = before;
      before = now;
      now = other;
    }
  };

  // With `per` pairs a thread, which stay in registers like all that doesn't depend on the frame.
  template <bool combine, int per>
  SEQTRAIN_DEVICE void in_registers() {
    char* const memory = team_.shared(reduction_bytes);
    const auto bytes = static_cast<int32_t>(CtcSlot<Real>::bytes(columns_));
    const ReadAhead ahead{team_, memory, bytes, count_};
    Labels labels(memory + slots_ahead * bytes, columns_);
    CtcPlace place[per];
    int32_t own[per];
    Pair kept[per];
    SEQTRAIN_UNROLLED
    for (int k = 0; k < per; k++) {
      place[k] = place_of(thread_ + k * threads_);
      own[k] = place[k].exists ? thread_ + k * threads_ : pairs_ - 1;
      kept[k] = start<combine>(own[k]);
      if (place[k].exists) labels.before[own[k]] = kept[k].label;
    }
    if (thread_ == 0) labels.now[-1] = labels.before[-1] = zero_cell<Real>();

    CtcRow<Real> next = first_row_of_half(), row = next;
    const auto copy = [&](char* memory_of_slot) {
      constexpr int words_of_pair = 2 * sizeof(Cell<Real>) / sizeof(Words);
      const CtcSlot<Real> slot(memory_of_slot, columns_);
      copy_emissions<per>(team_, slot.emissions, next.mantissa, next.exponent, columns_);
      if constexpr (combine)
        copy_row<per * words_of_pair>(team_, reinterpret_cast<Words*>(slot.store),
                                      reinterpret_cast<const Words*>(next.store), words_of_pair * columns_);
      next.advance(step());
    };
    ahead.begin(copy);

    int32_t top = 0;
    if constexpr (combine)
      top = top_of([&](const auto& visit) {
        SEQTRAIN_UNROLLED
        for (int k = 0; k < per; k++) {
          const CtcSlot<Real> slot(memory, columns_);
          const Pair found = sums(kept[k], labels.before[own[k] - 1], place[k].skips);
          visit_products(place[k], emitted(found, emissions(slot, place[k])), stored(slot, place[k]), visit);
        }
      });

    const auto pass = [&](char* memory_of_slot, const auto& go_on) {
      const CtcSlot<Real> slot(memory_of_slot, columns_);
      Cell<Real> before[per];
      Pair emission[per], other[per];
      SEQTRAIN_UNROLLED
      for (int k = 0; k < per; k++) {
        before[k] = labels.before[own[k] - 1];
        emission[k] = emissions(slot, place[k]);
        if constexpr (combine) other[k] = stored(slot, place[k]);
      }
      go_on();
      SEQTRAIN_UNROLLED
      for (int k = 0; k < per; k++) {
        const Pair found = sums(kept[k], before[k], place[k].skips);
        kept[k] = emitted(found, emission[k]);
        if (place[k].exists) labels.now[own[k]] = kept[k].label;
        if constexpr (combine) {
          put_products(row, place[k], kept[k], other[k], top);
        } else {
          put_sums(row, place[k], found);
        }
      }
      row.advance(step());
      labels.swap();
    };
    ahead.for_each(copy, pass, [&] { end_of_frame(team_); });
    if constexpr (!combine) {
      SEQTRAIN_UNROLLED
      for (int k = 0; k < per; k++)
        if (place[k].exists) carry()[own[k]] = kept[k];
    }
  }

  // With more pairs than that, which are read and written each frame.
  template <bool combine>
  SEQTRAIN_DEVICE void in_memory(char* memory) {
    Labels labels(memory, columns_);
    Cell<Real>* const blanks = labels.before + columns_;
    for (int32_t i = thread_; i < pairs_; i += threads_) {
      const Pair kept = start<combine>(i);
      blanks[i] = kept.blank;
      labels.before[i] = kept.label;
    }
    if (thread_ == 0) labels.now[-1] = labels.before[-1] = zero_cell<Real>();
    team_.sync();
    CtcRow<Real> row = first_row_of_half();
    const auto sums_of = [&](int32_t i, const CtcPlace& place) {
      return sums({blanks[i], labels.before[i]}, labels.before[i - 1], place.skips);
    };
    int32_t top = 0;
    if constexpr (combine)
      top = top_of([&](const auto& visit) {
        for (int32_t i = thread_; i < pairs_; i += threads_) {
          const CtcPlace place = place_of(i);
          const Pair kept = emitted(sums_of(i, place), emissions(row, place));
          visit_products(place, kept, stored(row, place), visit);
        }
      });
    for (int32_t t = 0; t < count_; t++) {
      for (int32_t i = thread_; i < pairs_; i += threads_) {
        const CtcPlace place = place_of(i);
        const Pair found = sums_of(i, place), kept = emitted(found, emissions(row, place));
        blanks[i] = kept.blank;
        labels.now[i] = kept.label;
        if constexpr (combine) {
          put_products(row, place, kept, stored(row, place), top);
        } else {
          put_sums(row, place, found);
        }
      }
      row.advance(step());
      labels.swap();
      end_of_frame(team_);
    }
    if constexpr (!combine)
      for (int32_t i = thread_; i < pairs_; i += threads_) carry()[i] = {blanks[i], labels.before[i]};
  }

  const Team& team_;
  const CtcProblem& problem_;
  int64_t utterance_;
  bool forward_;
  int32_t frames_, pairs_, columns_, thread_, threads_;
  int32_t begin_ = 0, count_ = 0;
};

}  // namespace seqtrain
