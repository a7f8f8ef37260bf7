"""Corpora: utterances and manifests, audio, features, augmentation, batches."""

from seqtrain.data.audio import Audio, audio_duration, read_audio, write_audio
from seqtrain.data.augmentation import Augmentation, spec_augment, time_warp
from seqtrain.data.batches import DurationBatches
from seqtrain.data.corpus import Corpus, read_corpus, write_corpus
from seqtrain.data.dataset import Batch, Dataset
from seqtrain.data.feature_cache import FeatureCache, FeatureExtractor
from seqtrain.data.features import LogMel
from seqtrain.data.manifest import read_manifest, write_manifest
from seqtrain.data.seeds import generator
from seqtrain.data.utterance import Utterance

__all__ = [
    "Audio",
    "Augmentation",
    "Batch",
    "Corpus",
    "Dataset",
    "DurationBatches",
    "FeatureCache",
    "FeatureExtractor",
    "LogMel",
    "Utterance",
    "audio_duration",
    "generator",
    "read_audio",
    "read_corpus",
    "read_manifest",
    "spec_augment",
    "time_warp",
    "write_audio",
    "write_corpus",
    "write_manifest",
]
