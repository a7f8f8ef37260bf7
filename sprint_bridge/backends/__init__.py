"""What stands behind the service: engines that make automata and alignments."""
