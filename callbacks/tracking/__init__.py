"""Trackers of experiments: what a run or a sweep hands to Weights & Biases, MLflow, TensorBoard and other loggers.

They are written to and never read back. `gather.py` makes one `Findings` of a run's files, `names.py` names its
numbers, and each tracker takes of it what it can show.
"""
