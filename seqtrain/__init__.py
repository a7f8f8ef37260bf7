"""seqtrain: sequence training for speech recognition."""
