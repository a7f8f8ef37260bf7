"""Recipes: a configuration and the preparation of a corpus each, run by `seqtrain.training.run`."""

import os

# OpenMP's threads spin while they wait for each other. As soon as anything else runs on the machine, that makes two
# threads ten times slower than one; asleep they lose little. OpenMP reads this when torch is loaded, which is later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
