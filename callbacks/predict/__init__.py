"""The stage that predicts a split: probabilities, head inputs, next tokens, the size of its batches.

Begin with `stage.py`. It may import `fit` and everything below it.
"""
