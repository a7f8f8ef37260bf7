"""Training criteria: one file each, with its function and its thin module."""

from __future__ import annotations

from seqtrain.losses.as_is import AsIsLoss, as_is
from seqtrain.losses.binary_cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy
from seqtrain.losses.bleu import SentenceBleu, sentence_bleu
from seqtrain.losses.cross_entropy import CrossEntropyLoss, cross_entropy
from seqtrain.losses.ctc import CTCLoss, ctc_loss
from seqtrain.losses.ctc_soft_alignment import ctc_soft_alignment
from seqtrain.losses.deep_clustering import DeepClusteringLoss, deep_clustering
from seqtrain.losses.diagnostics import SequenceDiagnostics, sequence_diagnostics
from seqtrain.losses.edit_distance import EditDistance, edit_distance
from seqtrain.losses.error_signal import ErrorSignalLoss, error_signal_loss
from seqtrain.losses.expected_loss import ExpectedLoss, expected_loss
from seqtrain.losses.extern_sprint import ExternSprintLoss, extern_sprint_loss
from seqtrain.losses.fast_baum_welch import FastBaumWelchLoss, fast_baum_welch_loss
from seqtrain.losses.frame_errors import frame_errors
from seqtrain.losses.generic_cross_entropy import GenericCrossEntropyLoss, generic_cross_entropy
from seqtrain.losses.hypotheses import Hypotheses, sample_ctc_hypotheses
from seqtrain.losses.l1 import L1Loss, l1
from seqtrain.losses.lattice_risk import LatticeRiskLoss, lattice_risk_loss
from seqtrain.losses.lattice_search import LatticeSearch
from seqtrain.losses.loss_layer import LossLayer
from seqtrain.losses.mean_l1 import MeanL1Loss, mean_l1
from seqtrain.losses.mmi import LFMMILoss, MMILoss, MMITerms, lf_mmi_loss, mmi_loss, mmi_terms
from seqtrain.losses.mse import MSELoss, mse
from seqtrain.losses.mwer import MWERLoss, mwer_loss
from seqtrain.losses.noise_contrastive import NoiseContrastiveLoss, noise_contrastive
from seqtrain.losses.prior import PriorEstimator
from seqtrain.losses.sampled_softmax import SampledSoftmaxLoss, sampled_softmax
from seqtrain.losses.samplers import (
    FixedUnigramSampler,
    LearnedUnigramSampler,
    LogUniformSampler,
    ReplayedSampler,
    Sample,
    Sampler,
    UniformSampler,
)
from seqtrain.losses.sources import AutomatonSource, ErrorSignals, ErrorSignalSource, FullSumSignals
from seqtrain.losses.triplet import TripletLoss, triplet, triplet_loss
from seqtrain.losses.viterbi import ViterbiLoss, viterbi_loss

__all__ = [
    "AsIsLoss",
    "AutomatonSource",
    "BinaryCrossEntropyLoss",
    "CTCLoss",
    "CrossEntropyLoss",
    "DeepClusteringLoss",
    "EditDistance",
    "ErrorSignalLoss",
    "ErrorSignalSource",
    "ErrorSignals",
    "ExpectedLoss",
    "ExternSprintLoss",
    "FastBaumWelchLoss",
    "FixedUnigramSampler",
    "FullSumSignals",
    "GenericCrossEntropyLoss",
    "Hypotheses",
    "L1Loss",
    "LFMMILoss",
    "LatticeRiskLoss",
    "LatticeSearch",
    "LearnedUnigramSampler",
    "LogUniformSampler",
    "LossLayer",
    "MMILoss",
    "MMITerms",
    "MSELoss",
    "MWERLoss",
    "MeanL1Loss",
    "NoiseContrastiveLoss",
    "PriorEstimator",
    "ReplayedSampler",
    "Sample",
    "SampledSoftmaxLoss",
    "Sampler",
    "SentenceBleu",
    "SequenceDiagnostics",
    "TripletLoss",
    "UniformSampler",
    "ViterbiLoss",
    "as_is",
    "binary_cross_entropy",
    "cross_entropy",
    "ctc_loss",
    "ctc_soft_alignment",
    "deep_clustering",
    "edit_distance",
    "error_signal_loss",
    "expected_loss",
    "extern_sprint_loss",
    "fast_baum_welch_loss",
    "frame_errors",
    "generic_cross_entropy",
    "l1",
    "lattice_risk_loss",
    "lf_mmi_loss",
    "mean_l1",
    "mmi_loss",
    "mmi_terms",
    "mse",
    "mwer_loss",
    "noise_contrastive",
    "sample_ctc_hypotheses",
    "sampled_softmax",
    "sentence_bleu",
    "sequence_diagnostics",
    "triplet",
    "triplet_loss",
    "viterbi_loss",
]
