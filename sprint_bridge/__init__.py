"""The aligner service: a process that serves automata and alignments over gRPC."""
