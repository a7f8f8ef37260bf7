"""Training: the loop with its checkpoints, the recipes' network and criteria, and recipes from end to end.

Import what you need from the modules; `seqtrain.training.run` needs the extra `recipes`.
"""
