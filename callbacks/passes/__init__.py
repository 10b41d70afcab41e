"""Predict passes over a split: shards, memory, progress, costs, and the session that all stages share.

Begin with `predict_pass.py`. It may import `processes` and `store`.
"""
