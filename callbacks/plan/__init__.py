"""`plan=true`: what a run will take, from shapes, data and the store alone.

Begin with `planner.py`. It may import `run` and everything below it.
"""
