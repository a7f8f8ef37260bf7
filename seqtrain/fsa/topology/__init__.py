"""Label topologies: which label sequences of frames a sequence of targets stands for."""
