"""Rows that a run leaves: results.csv, the tables of both papers, published figures, a reader of run folders.

Begin with `results_csv.py` for rows and with `run_files.py` for a whole run.
It may import the stages and everything below them.
"""
