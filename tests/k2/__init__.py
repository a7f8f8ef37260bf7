"""Against k2 itself, in an environment of its own: see `run`."""
