"""The stage that fine-tunes a model, or takes one as it is.

Begin with `stage.py`. It may import `processes`, `store` and `passes`.
"""
