"""The stage that tests what scores are worth, with retraining where a test needs it.

Begin with `stage.py`. It may import `attribute` and everything below it.
"""
