"""The stage that scores: every method of both lenses and the bridges between them.

Begin with `stage.py`. It may import `predict` and everything below it.
"""
