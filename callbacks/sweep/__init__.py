"""Several runs: jobs in their own processes, their outcomes, and the tables that compare them.

Begin with `sweep_table.py`. It may import everything else of `callbacks`.
"""
