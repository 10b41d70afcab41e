"""Speed of twinlens beside its peers, as ratios within one run; `python -m benchmarks.run`."""
