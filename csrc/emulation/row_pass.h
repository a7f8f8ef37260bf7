// The row pass of padded float scores, and the memory that it and a recursion share, for the checks.
#pragma once

#include <limits>
#include <vector>

#include "../cuda/rows.h"
#include "check.h"

namespace seqtrain {

struct RowPass {
  std::vector<float> emission;
  std::vector<int32_t> emission_exponent, row_status;
  std::vector<double> row_log, likelihood;
  RowsProblem problem{};

  // `in` has batch, frames, labels, scores and lengths; `columns` are (B or 1, width) labels. `value` and `status` are
  // what the pass leaves of each utterance.
  template <class Batch>
  RowPass(const Batch& in, const std::vector<int64_t>& columns, int64_t width, bool shared_columns, double sign,
          std::vector<double>& value, std::vector<int64_t>& status)
      : emission(scratch<float>(in.batch * in.frames * width)),
        emission_exponent(scratch<int32_t>(in.batch * in.frames * width)),
        row_status(scratch<int32_t>(in.batch * in.frames)),
        row_log(scratch<double>(in.batch * in.frames)),
        likelihood(size(in.batch), -std::numeric_limits<double>::infinity()) {
    problem.scores = reinterpret_cast<char*>(const_cast<float*>(in.scores.data()));  // read alone
    problem.dtype = float32;
    problem.stride_utterance = in.frames * in.labels;
    problem.stride_frame = in.labels;
    problem.stride_label = 1;
    problem.batch = in.batch;
    problem.labels = in.labels;
    problem.max_frames = in.frames;
    problem.width = width;
    problem.shared_columns = shared_columns ? 1 : 0;
    problem.column_labels = columns.data();
    problem.lengths = in.lengths.data();
    problem.emission = emission.data();
    problem.emission_exponent = emission_exponent.data();
    problem.row_log = row_log.data();
    problem.row_status = row_status.data();
    problem.log_likelihood = likelihood.data();
    problem.value_sign = problem.occupancy_sign = sign;
    problem.value = value.data();
    problem.status = status.data();
  }
  RowPass(const RowPass&) = delete;
  RowPass& operator=(const RowPass&) = delete;

  // Where the dense gradient goes, whose memory has the scores' layout.
  void differentiate(std::vector<float>& gradient, const std::vector<double>& weight,
                     const std::vector<float>& occupancies) {
    problem.gradient = reinterpret_cast<char*>(gradient.data());
    problem.gradient_stride_utterance = problem.stride_utterance;
    problem.gradient_stride_frame = problem.stride_frame;
    problem.gradient_stride_label = problem.stride_label;
    problem.weight = weight.data();
    problem.occupancies = occupancies.data();
  }

  // The launches, in either way: a block a row, of which some take several, or a warp a row.
  void emit(Order order, uint32_t seed) {
    const int64_t rows = problem.batch * problem.max_frames;
    problem.warp_a_row = rows % 2;
    launch("emissions_float32", blocks(), threads, reduction_bytes + (problem.warp_a_row != 0 ? 0 : summary_bytes),
           &problem, order, seed);
  }
  void write_gradient(Order order, uint32_t seed) {
    const int64_t crews = problem.warp_a_row != 0 ? threads / warp : 1;
    launch("gradient_float32", blocks(), threads,
           reduction_bytes + crews * problem.width * static_cast<int64_t>(sizeof(float)), &problem, order, seed);
  }

  // What a sweep reads of the pass, and what it leaves to it.
  template <class Sweep>
  void hand_to(Sweep& sweep) {
    sweep.batch = problem.batch;
    sweep.max_frames = problem.max_frames;
    sweep.lengths = problem.lengths;
    sweep.emission = emission.data();
    sweep.emission_exponent = emission_exponent.data();
    sweep.row_status = row_status.data();
    sweep.log_likelihood = likelihood.data();
    sweep.status = problem.status;
  }

 private:
  static constexpr int threads = 64;
  int64_t blocks() const { return (problem.batch * problem.max_frames + 1) * 2 / 3; }
};

}  // namespace seqtrain
