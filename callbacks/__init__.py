"""Lightning's side, in wings that import only downwards: ground, stages, what a run leaves, who drives.

Each wing says in its own `__init__.py` what lives there, where to begin and what it may import.
"""
