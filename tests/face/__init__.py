"""Tests of the package's face in Python."""
