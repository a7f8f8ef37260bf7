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

// What a thread with `pairs` pairs reads of a frame.
template <class Real, int pairs>
struct CtcFrame {
  Cell<Real> blank;
  Cell<Real> label[pairs];
  CtcPair<Real> stored[pairs];
};

// Memory of a block: labels of two frames with a zero before the first, and blanks.
template <class Real>
SEQTRAIN_DEVICE int64_t ctc_state_bytes(int64_t max_targets) {
  return (3 * (max_targets + 1) + 2) * static_cast<int64_t>(sizeof(Cell<Real>));
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
    const bool in_shared = problem_.workspace == nullptr;
    if (in_shared && pairs_ <= threads_) {
      in_registers<combine, 1>();
    } else if (in_shared && pairs_ <= 2 * threads_) {
      in_registers<combine, 2>();
    } else {
      in_memory<combine>(in_shared ? team_.shared(reduction_bytes)
                                   : problem_.workspace + team_.block() * ctc_state_bytes<Real>(problem_.max_targets));
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

  SEQTRAIN_DEVICE static Pair stored(const CtcRow<Real>& row, const CtcPlace& place) {
    return {row.store[place.blank], row.store[place.label]};
  }

  SEQTRAIN_DEVICE static Pair sums(const Pair& kept, Cell<Real> before, bool skips) {
    const Cell<Real> blank = sum(kept.blank, before);
    if (!skips) before.exponent = no_exponent;
    return {blank, sum(kept.label, kept.blank, before)};
  }
  SEQTRAIN_DEVICE static Pair emitted(const Pair& sums, const Cell<Real>& blank, const Cell<Real>& label) {
    return {product(sums.blank, blank), product(sums.label, label)};
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

  // With `per` pairs a thread, which stay in registers like all that doesn't depend on the frame; what comes from
  // global memory is read some frames ahead.
  template <bool combine, int per>
  SEQTRAIN_DEVICE void in_registers() {
    constexpr int registers_of_cell = sizeof(Real) / 4 + 1, registers_ahead = 48;
    constexpr int slots = registers_ahead / (registers_of_cell * (1 + 3 * per)), ahead = slots - 1;
    const int32_t columns = step();
    Labels labels(team_.shared(reduction_bytes), columns_);
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
    team_.sync();

    CtcRow<Real> next = first_row_of_half(), row = next;
    CtcFrame<Real, per> read[slots]{};  // of frame t in number t % slots
    const auto read_into = [&](CtcFrame<Real, per>& frame) {
      frame.blank = next.emission(0);
      SEQTRAIN_UNROLLED
      for (int k = 0; k < per; k++) {
        frame.label[k] = next.emission(place[k].column);
        if constexpr (combine) frame.stored[k] = stored(next, place[k]);
      }
      next.advance(columns);
    };
    SEQTRAIN_UNROLLED
    for (int a = 0; a < ahead; a++)
      if (a < count_) read_into(read[a]);

    int32_t top = 0;
    if constexpr (combine)
      top = top_of([&](const auto& visit) {
        SEQTRAIN_UNROLLED
        for (int k = 0; k < per; k++) {
          const Pair found = sums(kept[k], labels.before[own[k] - 1], place[k].skips);
          visit_products(place[k], emitted(found, read[0].blank, read[0].label[k]), read[0].stored[k], visit);
        }
      });

    for (int32_t t = 0; t < count_;) {
      SEQTRAIN_UNROLLED
      for (int a = 0; a < slots; a++) {
        if (t == count_) break;
        const CtcFrame<Real, per>& frame = read[a];
        Cell<Real> before[per];
        SEQTRAIN_UNROLLED
        for (int k = 0; k < per; k++) before[k] = labels.before[own[k] - 1];
        if (t + ahead < count_) read_into(read[(a + ahead) % slots]);
        SEQTRAIN_UNROLLED
        for (int k = 0; k < per; k++) {
          const Pair found = sums(kept[k], before[k], place[k].skips);
          kept[k] = emitted(found, frame.blank, frame.label[k]);
          if (place[k].exists) labels.now[own[k]] = kept[k].label;
          if constexpr (combine) {
            put_products(row, place[k], kept[k], frame.stored[k], top);
          } else {
            put_sums(row, place[k], found);
          }
        }
        row.advance(columns);
        labels.swap();
        t++;
        end_of_frame(team_);
      }
    }
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
          const Pair kept = emitted(sums_of(i, place), row.emission(0), row.emission(place.column));
          visit_products(place, kept, stored(row, place), visit);
        }
      });
    for (int32_t t = 0; t < count_; t++) {
      const Cell<Real> blank = row.emission(0);
      for (int32_t i = thread_; i < pairs_; i += threads_) {
        const CtcPlace place = place_of(i);
        const Pair found = sums_of(i, place), kept = emitted(found, blank, row.emission(place.column));
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
