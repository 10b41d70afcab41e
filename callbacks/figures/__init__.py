"""Charts made of results: PNG files and pages with inline SVG.

Begin with `write.py`. It may import `results` and everything below it.
"""
