"""report.html, one page made from a run's files alone.

Begin with `page.py`. It may import `figures` and everything below it.
"""
