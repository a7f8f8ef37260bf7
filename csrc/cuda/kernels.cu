// Entry points, the one translation unit that is compiled at run time.  Names end in the type of arithmetic.

#include "best_path.h"
#include "ctc.h"
#include "ctc_columns.h"
#include "denominator.h"
#include "full_sum.h"
#include "lattice.h"
#include "rows.h"

SEQTRAIN_STREAMING_KERNEL(emissions_float32, RowsProblem, emissions<float>)
SEQTRAIN_KERNEL(emissions_float64, RowsProblem, emissions<double>)
SEQTRAIN_STREAMING_KERNEL(gradient_float32, RowsProblem, gradient<float>)
SEQTRAIN_KERNEL(gradient_float64, RowsProblem, gradient<double>)
SEQTRAIN_KERNEL(values, RowsProblem, values)
SEQTRAIN_KERNEL(ctc_columns, CtcColumnsProblem, ctc_columns)
SEQTRAIN_KERNEL(ctc_targets, CtcTargetsProblem, ctc_targets)
SEQTRAIN_KERNEL(ctc_sweep_float32, CtcProblem, ctc_sweep<float>)
SEQTRAIN_KERNEL(ctc_sweep_float64, CtcProblem, ctc_sweep<double>)
SEQTRAIN_KERNEL(ctc_occupancies_float32, CtcProblem, ctc_occupancies<float>)
SEQTRAIN_KERNEL(ctc_occupancies_float64, CtcProblem, ctc_occupancies<double>)
SEQTRAIN_KERNEL(full_sum_sweep_float32, FullSumProblem, full_sum_sweep<float>)
SEQTRAIN_KERNEL(full_sum_sweep_float64, FullSumProblem, full_sum_sweep<double>)
SEQTRAIN_KERNEL(full_sum_occupancies_float32, FullSumProblem, full_sum_occupancies<float>)
SEQTRAIN_KERNEL(full_sum_occupancies_float64, FullSumProblem, full_sum_occupancies<double>)
SEQTRAIN_KERNEL(best_path_float32, BestPathProblem, best_path<float>)
SEQTRAIN_KERNEL(best_path_float64, BestPathProblem, best_path<double>)
SEQTRAIN_KERNEL(denominator_weights_float32, DenominatorWeightsProblem, denominator_weights<float>)
SEQTRAIN_KERNEL(denominator_weights_float64, DenominatorWeightsProblem, denominator_weights<double>)
SEQTRAIN_LARGE_KERNEL(denominator_sweep_float32, DenominatorProblem, denominator_sweep<float>)
SEQTRAIN_LARGE_KERNEL(denominator_sweep_float64, DenominatorProblem, denominator_sweep<double>)
SEQTRAIN_KERNEL(lattice_risk_weights, LatticeProblem, lattice_weights<true>)
SEQTRAIN_KERNEL(lattice_risk_sweep, LatticeProblem, lattice_sweep<true>)
SEQTRAIN_KERNEL(lattice_risk_posteriors, LatticeProblem, lattice_posteriors<true>)
SEQTRAIN_KERNEL(lattice_total_weights, LatticeProblem, lattice_weights<false>)
SEQTRAIN_KERNEL(lattice_total_sweep, LatticeProblem, lattice_sweep<false>)
SEQTRAIN_KERNEL(lattice_total_posteriors, LatticeProblem, lattice_posteriors<false>)
