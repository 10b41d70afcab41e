"""One run: its folder, its inputs, its stages in their order, its loggers and its exit code.

Begin with `pipeline.py`. It may import `report` and everything below it.
"""
